"""Sections `profile` and `frozen`: what a step is made of, and what a frozen model's answer could cost."""

import contextlib
import gzip
import itertools
import json
import statistics
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
from gainfinder.models import Classifier, FusedConvolution, answering_copy, reestimate
from gainfinder.views import ViewBatch, Views

PROFILED = 5
"""Steps that are profiled; as many before them are not."""
NAME = 160
"""Characters of a kernel's name that are kept."""
CALLS = 20
"""Forward passes that are waited for together."""


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
        sheet.add("step_ms", bench.step_ms(step, ready, steps=_calls(bench)), model=model.name, kind=kind)
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


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A frozen model that is asked.

    Attributes:
        model: its name and arguments.
        classifier: on the device, in evaluation mode.
        x: a batch of normalised inputs.
        exact: its logits, worked out in float64.
    """

    model: Model
    classifier: Classifier
    x: Tensor
    exact: Tensor


def measure_frozen(sheet: Sheet, bench: Bench) -> None:
    """One change at a time to a frozen model's forward pass: milliseconds a batch, and what it changes in logits."""
    for model in bench.scale.models:
        asked = _asked(sheet, bench, model)
        for kind, make in _ways(bench, asked.classifier, asked.x).items():
            if sheet.left_s() < 0:
                sheet.add("batch_ms", "no time", model=model.name, kind=kind)
                continue
            _try(sheet, bench, asked, kind, make)
            bench.free()


def _asked(sheet: Sheet, bench: Bench, model: Model) -> Asked:
    classifier = bench.classifier(model).copied()
    classifier.to(bench.device).eval()
    views = Views(renderings=(bench.random_views(classifier, batch_size=bench.scale.batch_size),))
    x = views.inputs(classifier.preprocessing)
    reestimate(classifier.module, [x], classifier.module)  # as if it had been trained: no layer's outputs explode
    exact = _exact(classifier, x)
    sheet.add("logits_std", float(exact.std(dim=0).mean()), model=model.name, note="of a class, over the images")
    normalise_ms = bench.call_ms(lambda: views.inputs(classifier.preprocessing), calls=_calls(bench))
    sheet.add("normalise_ms", normalise_ms, model=model.name, note="from uint8 on the device")
    return Asked(model=model, classifier=classifier, x=x, exact=exact)


def _try(sheet: Sheet, bench: Bench, asked: Asked, kind: str, make: Callable[[], Answering]) -> None:
    try:
        _time(sheet, bench, asked, make())
    except Exception as error:  # one way may not work here; the others say something all the same
        said = f"{type(error).__name__}: {error}"[:300]
        sheet.add("batch_ms", "failed", model=asked.model.name, kind=kind, note=said)


def _calls(bench: Bench) -> int:
    return CALLS if _fast(bench) else 2


def _fast(bench: Bench) -> bool:
    return bench.device.type == "cuda"


def _exact(classifier: Classifier, x: Tensor) -> Tensor:
    """Logits worked out in float64, which no setting of TF32 changes."""
    with torch.inference_mode():
        logits: Tensor = classifier.copied().module.double()(x.double()).float()
    return logits


def _time(sheet: Sheet, bench: Bench, asked: Asked, way: Answering) -> None:
    exact, about = asked.exact, {"model": asked.model.name, "kind": way.kind}
    began_s = time.perf_counter()
    for _ in range(3):
        way.answer()
    bench.wait()
    sheet.add("warm_up_s", time.perf_counter() - began_s, **about)
    bench.forget_peak()
    before_mb = bench.allocated_mb()
    calls = max(2, _calls(bench) // way.batches)
    ms = [bench.call_ms(way.answer, calls=calls) / way.batches for _ in range(3)]
    sheet.add("batch_ms", statistics.median(ms), **about, note=f"{len(exact)} images")
    if _fast(bench):
        sheet.add("peak_mb", bench.peak_mb() - before_mb, **about, note="besides weights and inputs")
    logits = way.answer().float()[: len(exact)]
    sheet.add("largest_difference", float((logits - exact).abs().max()), **about, note="to float64")
    sheet.add("same_top1", float((logits.argmax(1) == exact.argmax(1)).float().mean()), **about, note="as in float64")


def _ways(bench: Bench, classifier: Classifier, x: Tensor) -> dict[str, Callable[[], Answering]]:
    """Ways to answer, as functions that make them; each changes one thing of `as it is`."""
    now = torch.channels_last if classifier.channels_last and _fast(bench) else torch.contiguous_format

    def copy(layout: torch.memory_format = now, dtype: torch.dtype | None = None) -> nn.Module:
        module = classifier.copied().module.eval()
        return module.to(device=bench.device, dtype=dtype, memory_format=layout)  # type: ignore[no-any-return, call-overload]

    def answering() -> nn.Module:
        module = answering_copy(classifier, half)
        return module.to(device=bench.device, memory_format=now)  # type: ignore[no-any-return, call-overload]

    def way(kind: str, called: Callable[[Tensor], Tensor], inputs: Tensor, *, mixed: bool = True) -> Answering:
        def answer() -> Tensor:
            with torch.inference_mode(), bench.autocast() if mixed else contextlib.nullcontext():
                return called(inputs)

        return Answering(kind=kind, answer=answer, batches=len(inputs) // len(x))

    half = bench.dtype or torch.bfloat16
    ways: dict[str, Callable[[str], Answering]] = {
        "as it is": lambda kind: way(kind, copy(), x),
        "answering copy": lambda kind: way(kind, answering(), x),
        "answering copy, in parts": lambda kind: way(kind, _in_parts(answering()), x),
        "answering copy, graph": lambda kind: _graphed(bench, kind, answering(), x, mixed=True),
        "fp32, as torch sets TF32": lambda kind: way(kind, copy(), x, mixed=False),
        "contiguous": lambda kind: way(kind, copy(torch.contiguous_format), x),
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
    }
    return {kind: _bound(make, kind) for kind, make in ways.items()}


def _bound(make: Callable[[str], Answering], kind: str) -> Callable[[], Answering]:
    return lambda: make(kind)


def _in_parts(module: nn.Module) -> nn.Module:
    """The module with none of cuDNN's kernels that compute what follows a convolution, too."""
    for layer in module.modules():
        if isinstance(layer, FusedConvolution):
            layer.fuses = False
    return module


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
