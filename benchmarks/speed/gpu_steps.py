"""Sections `steps` and `bare`: what a training step costs beside others, and beside a loop of bare PyTorch."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed import kinds
from benchmarks.speed.bench import Bench, Model
from benchmarks.speed.kinds import Step
from benchmarks.speed.sections import Sheet
from gainfinder.runs import PreparedTransfer
from gainfinder.views import ViewBatch

AUGMENT = "crop-flip"
BASE = "fine-tuning"
READY = "ready"
VIEWS = "views alone"
THEMSELVES = "live, models themselves"
"""A transfer whose frozen models answer themselves, not by copies that do so faster."""
SHARED = (READY, VIEWS)
"""Kinds that have no memory of their own."""
MEDIAN = "median"
LR = 1e-4
ROUNDS_S = 7.0
"""What the rounds of a model beside bare loops may take."""


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
    """Kinds of step in turn, for each model; the time is shared out between these."""
    models = bench.scale.models
    for number, model in enumerate(models):
        _case(sheet, bench, model, until_s=time.monotonic() + sheet.left_s() / (len(models) - number))
        bench.free()


def _case(sheet: Sheet, bench: Bench, model: Model, *, until_s: float) -> None:
    plans = _plans(bench, model)
    found: dict[str, Timed] = {}
    for kind in (VIEWS, BASE, READY, *plans, "timm", "naive"):
        before_mb = bench.allocated_mb()
        found[kind] = _make(bench, kind, plans, found)
        bench.forget_peak()
        bench.step_ms(found[kind].step, found[kind].batches(0), steps=1)  # warms up, too
        if bench.device.type == "cuda" and kind not in SHARED:
            peak_mb = bench.peak_mb() - before_mb
            sheet.add("peak_mb", peak_mb, model=model.name, setting=AUGMENT, kind=kind, note="of this kind alone")
    began_s = time.monotonic()
    for number in range(1, bench.scale.rounds + 1):
        for kind, timed in found.items():
            ms = bench.step_ms(timed.step, timed.batches(number), steps=bench.scale.steps)
            timed.ms.append(ms)
            sheet.add("step_ms", ms, model=model.name, setting=AUGMENT, kind=kind, number=number)
        round_s = (time.monotonic() - began_s) / number
        if number > 1 and time.monotonic() + round_s > until_s:
            break
    all_ms = {kind: timed.ms for kind, timed in found.items()}
    add_medians(sheet, all_ms, base=BASE, model=model.name, setting=AUGMENT)
    in_effect = statistics.median(a / b for a, b in zip(all_ms[BASE], all_ms[READY], strict=True))
    sheet.add("views_in_effect", in_effect, model=model.name, setting=AUGMENT, note=f"{BASE} / {READY}")


def _plans(bench: Bench, model: Model) -> dict[str, PreparedTransfer]:
    """The transfers whose steps are timed; they share one source of views."""
    live = bench.prepared(model, augment=AUGMENT)
    live.views.load()
    others = {
        THEMSELVES: live,
        "decided": bench.prepared(model, augment=AUGMENT, decide_on="image"),
        "trainer": bench.fine_tuning(model, augment=AUGMENT),
        "defaults": bench.prepared(model, augment=AUGMENT, method="kl-prod-cal-u", preset=None),
        "replayed": bench.prepared(model, augment=AUGMENT, bank=bench.work / "bank"),
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
    step = steps_of[kind](live) if kind in steps_of else kinds.of_trainer(plans[kind], copies=kind != THEMSELVES)
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
    for model in bench.scale.models:
        _beside_bare(sheet, bench, model)
        bench.free()


def _beside_bare(sheet: Sheet, bench: Bench, model: Model) -> None:
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


def _bare(bench: Bench, of: PreparedTransfer, model: Model, *, channels_last: bool = False) -> Callable[[], Tensor]:
    """A step as in PyTorch's tutorials, with the same model, optimiser and precision, on inputs that stay the same."""
    classifier, size = bench.classifier(model).copied(), bench.scale.batch_size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = classifier.module.to(device=bench.device, memory_format=layout).train()  # type: ignore[call-overload]
    x = torch.randn(size, *classifier.image_preprocessing.input_size, device=bench.device).to(memory_format=layout)
    y = torch.randint(0, classifier.num_classes, (size,), device=bench.device)
    settings = of.settings
    return bare_step(bench, module, module, x, y, momentum=settings.momentum, weight_decay=settings.weight_decay)


def bare_step(
    bench: Bench,
    module: nn.Module,
    called: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    momentum: float,
    weight_decay: float = 0.0,
) -> Callable[[], Tensor]:
    """A step of a module by SGD and cross-entropy, in the bench's precision, on inputs that stay the same.

    Args:
        bench: gives the precision.
        module: the module, in training mode and on the device.
        called: what is called for it: itself, or itself compiled.
        x: inputs, on the device.
        y: their labels.
        momentum: of SGD.
        weight_decay: of SGD.
    """
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=momentum, weight_decay=weight_decay, fused=True)

    def step() -> Tensor:
        with bench.autocast():
            loss = F.cross_entropy(called(x).float(), y)
        return kinds.descend(loss, optimizer)

    return step
