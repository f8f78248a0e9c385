"""Sections `profile` and `frozen`: what a step is made of, and what a frozen model's answer could cost."""

import contextlib
import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.speed import kinds, traces
from benchmarks.speed.bench import Bench, Model
from benchmarks.speed.kinds import Step
from benchmarks.speed.sections import Sheet
from gainfinder.models import Classifier, reestimate
from gainfinder.views import ViewBatch, Views

PROFILED = 5
"""Steps that are profiled; as many before them are not."""
NAME = 160
"""Characters of a kernel's name that are kept."""
CALLS = 20
"""Forward passes that are waited for together."""
COMPILE_S = 20.0
"""What compiling a forward pass may take; with less time left it is not begun."""


def measure_profile(sheet: Sheet, bench: Bench) -> None:
    """torch's profiler over some steps of fine-tuning and of a transfer, on views that are ready."""
    model = bench.scale.models[0]
    tuning, live = (
        bench.fine_tuning(model, augment="crop-flip"),
        bench.prepared(model, augment="crop-flip"),
    )
    live.views.load()
    ready = itertools.cycle(bench.ready(live, count=2))
    for kind, of in (("trainer", tuning), ("live", live)):
        step = kinds.of_trainer(of)
        sheet.add(
            "step_ms", bench.step_ms(step, ready, steps=CALLS if _fast(bench) else 2), model=model.name, kind=kind
        )
        trace = _trace(bench, step, ready, kind)
        for measure, value in traces.summarise(trace).items():
            sheet.add(measure, value, model=model.name, kind=kind, note="a step")
        for name, ms in traces.longest_kernels(trace):
            sheet.add("kernel_ms", ms, model=model.name, kind=kind, note=name[:NAME])


def _trace(bench: Bench, step: Step, batches: Iterator[ViewBatch], kind: str) -> dict[str, object]:
    """The trace of some steps; it stays in the folder of work."""
    for _ in range(PROFILED):
        step(next(batches))
    bench.wait()
    activities = [ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        for _ in range(PROFILED):
            with record_function(traces.STEP):
                step(next(batches))
        bench.wait()
    bench.work.mkdir(parents=True, exist_ok=True)
    path = bench.work / f"trace-{kind}.json.gz"
    profiled.export_chrome_trace(str(path))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found: dict[str, object] = json.load(file)
    return found


@dataclass(frozen=True, kw_only=True)
class Answering:
    """One way in which a frozen model answers.

    Attributes:
        kind: its name.
        answer: logits of the inputs that it was made for.
        batches: how many batches these inputs are.
    """

    kind: str
    answer: Callable[[], Tensor]
    batches: int = 1


def measure_frozen(sheet: Sheet, bench: Bench) -> None:
    """One change at a time to a frozen model's forward pass: milliseconds a batch, and what it changes in logits."""
    for number, model in enumerate(bench.scale.models):
        until_s = time.monotonic() + sheet.left_s() / (len(bench.scale.models) - number)
        _answers(sheet, bench, model, until_s=until_s)
        bench.free()


def _answers(sheet: Sheet, bench: Bench, model: Model, *, until_s: float) -> None:
    classifier = bench.classifier(model).copied()
    classifier.to(bench.device).eval()
    views = bench.random_views(classifier, batch_size=bench.scale.batch_size)
    x = Views(renderings=(views,)).inputs(classifier.preprocessing)
    reestimate(classifier.module, [x], classifier.module)  # as if it had been trained: no layer's outputs explode
    exact = _exact(classifier.module, x)
    sheet.add("logits_std", float(exact.std(dim=0).mean()), model=model.name, note="fp32, a class, over the images")
    prepare_ms = bench.call_ms(
        lambda: Views(renderings=(views,)).inputs(classifier.preprocessing), calls=CALLS if _fast(bench) else 2
    )
    sheet.add("normalise_ms", prepare_ms, model=model.name, note="from uint8 on the device")
    for kind, make in _ways(bench, classifier, x).items():
        left_s = until_s - time.monotonic()
        if _fast(bench) and kind.startswith("compiled") and left_s < COMPILE_S:
            sheet.add("batch_ms", "not tried", model=model.name, kind=kind, note=f"only {left_s:.0f} s left")
            continue
        try:
            _time(sheet, bench, model, make(), exact)
        except Exception as error:  # one way may not work here; the others say something all the same
            note = f"{type(error).__name__}: {error}"[:300]
            sheet.add("batch_ms", "failed", model=model.name, kind=kind, note=note)
        bench.free()


def _fast(bench: Bench) -> bool:
    return bench.device.type == "cuda"


def _exact(module: nn.Module, x: Tensor) -> Tensor:
    """Logits in float32, without TF32."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits: Tensor = module(x).float().clone()
    return logits


def _time(sheet: Sheet, bench: Bench, model: Model, way: Answering, exact: Tensor) -> None:
    def answer() -> Tensor:
        return way.answer()

    began_s = time.perf_counter()
    for _ in range(3):  # compiled ones are compiled by it
        answer()
    bench.wait()
    about = {"model": model.name, "kind": way.kind}
    sheet.add("warm_up_s", time.perf_counter() - began_s, **about)
    bench.forget_peak()
    before_mb = bench.allocated_mb()
    calls = max(2, (CALLS if _fast(bench) else 2) // way.batches)
    ms = [bench.call_ms(answer, calls=calls) / way.batches for _ in range(3)]
    sheet.add("batch_ms", sorted(ms)[1], **about, note=f"{len(exact)} images")
    if _fast(bench):
        sheet.add("peak_mb", bench.peak_mb() - before_mb, **about, note="besides weights and inputs")
    logits = answer().float()[: len(exact)]
    sheet.add("largest_difference", float((logits - exact).abs().max()), **about, note="to fp32")
    sheet.add("same_top1", float((logits.argmax(1) == exact.argmax(1)).float().mean()), **about, note="as fp32")


def _ways(bench: Bench, classifier: Classifier, x: Tensor) -> dict[str, Callable[[], Answering]]:
    """Ways to answer, as functions that make them; all but the first two change one thing of `as now`."""
    now = torch.channels_last if classifier.channels_last and _fast(bench) else torch.contiguous_format

    def copy(layout: torch.memory_format = now, dtype: torch.dtype | None = None) -> nn.Module:
        module = classifier.copied().module.eval()
        return module.to(device=bench.device, dtype=dtype, memory_format=layout)  # type: ignore[no-any-return, call-overload]

    def way(kind: str, called: Callable[[Tensor], Tensor], inputs: Tensor, *, mixed: bool = True) -> Answering:
        def answer() -> Tensor:
            with torch.inference_mode(), bench.autocast() if mixed else contextlib.nullcontext():
                return called(inputs)

        return Answering(kind=kind, answer=answer, batches=len(inputs) // len(x))

    half = bench.dtype or torch.bfloat16
    ways: dict[str, Callable[[str], Answering]] = {
        "fp32, as torch sets TF32": lambda kind: way(kind, copy(), x, mixed=False),
        "contiguous": lambda kind: way(kind, copy(torch.contiguous_format), x),
        "as now": lambda kind: way(kind, copy(), x),
        "channels last": lambda kind: way(kind, copy(torch.channels_last), x),
        "inputs channels last too": lambda kind: way(
            kind, copy(torch.channels_last), x.to(memory_format=torch.channels_last)
        ),
        "weights in half precision": lambda kind: way(kind, copy(dtype=half), x.to(half), mixed=False),
        "2 batches at once": lambda kind: way(kind, copy(), torch.cat([x] * 2)),
        "4 batches at once": lambda kind: way(kind, copy(), torch.cat([x] * 4)),
        "graph": lambda kind: _graphed(bench, kind, copy(), x, mixed=True),
        "graph, weights in half precision": lambda kind: _graphed(
            bench, kind, copy(dtype=half), x.to(half), mixed=False
        ),
        "compiled": lambda kind: way(kind, torch.compile(copy()), x),
        "compiled, weights in half precision": lambda kind: way(
            kind, torch.compile(copy(dtype=half)), x.to(half), mixed=False
        ),
        "compiled, reduce-overhead": lambda kind: way(kind, torch.compile(copy(), mode="reduce-overhead"), x),
    }
    return {kind: _bound(make, kind) for kind, make in ways.items()}


def _bound(make: Callable[[str], Answering], kind: str) -> Callable[[], Answering]:
    return lambda: make(kind)


def _graphed(bench: Bench, kind: str, module: nn.Module, x: Tensor, *, mixed: bool) -> Answering:
    """A CUDA graph, captured once and replayed; the copy of the inputs into its own is part of an answer."""
    if bench.device.type != "cuda":
        raise RuntimeError("CUDA graphs need a GPU")
    own_x = x.clone(memory_format=torch.preserve_format)

    def forward() -> Tensor:
        # casts of weights that autocast keeps would be freed with the context that it was captured in
        with torch.no_grad(), bench.autocast(cached=False) if mixed else contextlib.nullcontext():
            logits: Tensor = module(own_x)
        return logits

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is made lazily must be there before the capture
        for _ in range(3):
            forward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward()

    def answer() -> Tensor:
        own_x.copy_(x)
        graph.replay()
        return logits

    return Answering(kind=kind, answer=answer)
