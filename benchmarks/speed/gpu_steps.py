"""Sections `steps` and `bare`: what a training step costs beside others, and beside a loop of bare PyTorch."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed import kinds
from benchmarks.speed.bench import Bench, Model
from benchmarks.speed.kinds import Step
from benchmarks.speed.sections import Sheet
from gainfinder.runs import PreparedTransfer
from gainfinder.views import ViewBatch

AUGMENTS = ("crop-flip", "rrc")
BASE = "fine-tuning"
READY = "ready"
VIEWS = "views alone"
SHARED = (READY, VIEWS)
"""Kinds that have no memory of their own."""
MEDIAN = "median"
LR = 1e-4
COMPILE_S = 25.0
"""What compiling a step of training may take; with less time left it is not begun."""
ROUNDS_S = 7.0
"""What the rounds of a model beside bare loops may take."""
SET_UP_S = 5.0
"""What comes before them, but for compiling."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A kind of step that is timed.

    Attributes:
        step: learns from a batch.
        batches: the batches of a round of that number.
        ms: what its rounds took, milliseconds a step.
    """

    step: Step
    batches: Callable[[int], Iterator[ViewBatch]]
    ms: list[float]


def measure_steps(sheet: Sheet, bench: Bench) -> None:
    """Kinds of step in turn, for each model and augmentation; the time is shared out between these."""
    cases = list(itertools.product(AUGMENTS, bench.scale.models))
    for number, (augment, model) in enumerate(cases):
        until_s = time.monotonic() + sheet.left_s() / (len(cases) - number)
        _case(sheet, bench, model, augment, until_s=until_s)
        bench.free()


def _case(sheet: Sheet, bench: Bench, model: Model, augment: str, *, until_s: float) -> None:
    plans = _plans(bench, model, augment)
    found: dict[str, Timed] = {}
    for kind in (VIEWS, BASE, READY, *plans, "timm", "naive"):
        before_mb = bench.allocated_mb()
        found[kind] = _make(bench, kind, plans, found)
        bench.forget_peak()
        bench.step_ms(found[kind].step, found[kind].batches(0), steps=1)  # warms up, too
        if bench.device.type == "cuda" and kind not in SHARED:
            peak_mb = bench.peak_mb() - before_mb
            sheet.add("peak_mb", peak_mb, model=model.name, setting=augment, kind=kind, note="of this kind alone")
    began_s = time.monotonic()
    for number in range(1, bench.scale.rounds + 1):
        for kind, timed in found.items():
            ms = bench.step_ms(timed.step, timed.batches(number), steps=bench.scale.steps)
            timed.ms.append(ms)
            sheet.add("step_ms", ms, model=model.name, setting=augment, kind=kind, number=number)
        round_s = (time.monotonic() - began_s) / number
        if number > 1 and time.monotonic() + round_s > until_s:
            break
    all_ms = {kind: timed.ms for kind, timed in found.items()}
    add_medians(sheet, all_ms, base=BASE, model=model.name, setting=augment)
    in_effect = statistics.median(a / b for a, b in zip(all_ms[BASE], all_ms[READY], strict=True))
    sheet.add("views_in_effect", in_effect, model=model.name, setting=augment, note=f"{BASE} / {READY}")


def _plans(bench: Bench, model: Model, augment: str) -> dict[str, PreparedTransfer]:
    """The transfers whose steps are timed; they share one source of views."""
    live = bench.prepared(model, augment=augment)
    live.views.load()
    others = {
        "decided": bench.prepared(model, augment=augment, decide_on="image"),
        "trainer": bench.fine_tuning(model, augment=augment),
        "kl-prod-cal-u": bench.prepared(model, augment=augment, method="kl-prod-cal-u"),
        "defaults": bench.prepared(model, augment=augment, method="kl-prod-cal-u", preset=None),
        "replayed": bench.prepared(model, augment=augment, bank=bench.work / "bank"),
    }
    return {"live": live, **{name: replace(one, views=live.views) for name, one in others.items()}}


def _make(bench: Bench, kind: str, plans: dict[str, PreparedTransfer], found: dict[str, Timed]) -> Timed:
    # One step does not count, and a GPU's views are made a batch ahead: with one more each timed step makes one.
    live, steps = plans["live"], bench.scale.steps + 2

    def views(number: int) -> Iterator[ViewBatch]:
        return kinds.batches(live, number, steps=steps)

    if kind == READY:
        ready = bench.ready(live, count=2)
        return Timed(step=found[BASE].step, batches=lambda _: itertools.cycle(ready), ms=[])
    steps_of: dict[str, Callable[[PreparedTransfer], Step]] = {
        VIEWS: lambda _: kinds.views_alone,
        BASE: kinds.fine_tuning,
        "timm": kinds.of_timm,
        "naive": kinds.naive,
    }
    step = steps_of[kind](live) if kind in steps_of else kinds.of_trainer(plans[kind])
    return Timed(step=step, batches=views, ms=[])


def add_medians(sheet: Sheet, ms: dict[str, list[float]], *, base: str, model: str, setting: str) -> None:
    """Rows of the medians over all rounds, and of the medians of the ratios to a base of the same round."""
    for kind, mine in ms.items():
        about = {"model": model, "setting": setting, "kind": kind, "number": MEDIAN}
        sheet.add("step_ms", statistics.median(mine), **about)
        ratios = [one / other for one, other in zip(mine, ms[base], strict=False)]
        sheet.add("ratio", statistics.median(ratios), **about, note=f"to {base}")


def measure_bare(sheet: Sheet, bench: Bench) -> None:
    """The project's fine-tuning on views that are ready, beside loops of bare PyTorch on inputs that are."""
    for number, model in enumerate(bench.scale.models):
        others = len(bench.scale.models) - 1 - number
        compile_s = sheet.left_s() - (1 + others) * (SET_UP_S + ROUNDS_S)
        _beside_bare(sheet, bench, model, compile_s=compile_s)
        bench.free()


def _beside_bare(sheet: Sheet, bench: Bench, model: Model, *, compile_s: float) -> None:
    tuning = bench.fine_tuning(model, augment="crop-flip")
    tuning.views.load()
    ready = itertools.cycle(bench.ready(tuning, count=2))
    trainer, written_out = kinds.of_trainer(tuning), kinds.fine_tuning(tuning)
    calls: dict[str, Callable[[], object]] = {
        "trainer": lambda: trainer(next(ready)),
        BASE: lambda: written_out(next(ready)),
        "bare, contiguous": _bare(bench, tuning, model),
        "bare, channels last": _bare(bench, tuning, model, channels_last=True),
    }
    for kind, call in calls.items():
        sheet.add("first_ms", bench.call_ms(call, calls=1), model=model.name, kind=kind)
    kind = "bare, compiled"
    if compile_s < COMPILE_S:
        sheet.add("first_ms", "not tried", model=model.name, kind=kind, note=f"only {compile_s:.0f} s left")
    else:
        compiled = _bare(bench, tuning, model, channels_last=tuning.student.channels_last, compiled=True)
        try:
            sheet.add("first_ms", bench.call_ms(compiled, calls=1), model=model.name, kind=kind, note="compiling")
            bench.call_ms(compiled, calls=2)  # a second call may compile once more
            calls[kind] = compiled
        except Exception as error:  # there may be no compiler
            sheet.add("first_ms", "failed", model=model.name, kind=kind, note=f"{type(error).__name__}: {error}"[:300])
    _rounds_beside(sheet, bench, model, calls)


def _rounds_beside(sheet: Sheet, bench: Bench, model: Model, calls: dict[str, Callable[[], object]]) -> None:
    until_s = time.monotonic() + ROUNDS_S
    ms: dict[str, list[float]] = {kind: [] for kind in calls}
    for number in range(1, bench.scale.rounds + 1):
        for kind, call in calls.items():
            ms[kind].append(bench.call_ms(call, calls=bench.scale.steps))
            sheet.add("step_ms", ms[kind][-1], model=model.name, kind=kind, number=number)
        if number > 1 and time.monotonic() > until_s:
            break
    for base in calls:
        ratios = [mine / other for mine, other in zip(ms["trainer"], ms[base], strict=True)]
        sheet.add("step_ms", statistics.median(ms[base]), model=model.name, kind=base, number=MEDIAN)
        sheet.add("trainer_ratio", statistics.median(ratios), model=model.name, kind=base, note=f"trainer / {base}")


def _bare(
    bench: Bench, of: PreparedTransfer, model: Model, *, channels_last: bool = False, compiled: bool = False
) -> Callable[[], Tensor]:
    """A step as in PyTorch's tutorials, with the same model, optimiser and precision, on inputs that stay the same."""
    classifier, size = bench.classifier(model).copied(), bench.scale.batch_size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = classifier.module.to(device=bench.device, memory_format=layout).train()  # type: ignore[call-overload]
    x = torch.randn(size, *classifier.image_preprocessing.input_size, device=bench.device).to(memory_format=layout)
    y = torch.randint(0, classifier.num_classes, (size,), device=bench.device)
    settings = of.settings
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=LR,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    called = torch.compile(module) if compiled else module

    def step() -> Tensor:
        with bench.autocast():
            loss = F.cross_entropy(called(x).float(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
