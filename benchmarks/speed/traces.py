"""What a trace of torch's profiler says of training steps: where the device's time went, and what the CPU waited for.

Read is the Chrome trace that `export_chrome_trace` writes, times in microseconds. Kernels have categories of their own;
the call that launched one has its `correlation`.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

STEP = "benchmark step"
"""What each step is annotated with."""
DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
RUNTIME = {"cuda_runtime", "cuda_driver"}
SYNCHRONISING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
"""Calls that wait for the device; each `item()` is one of the last."""
OPTIMIZER_STEP, ZERO_GRAD, BUFFERS = "Optimizer.step#", "Optimizer.zero_grad#", "aten::_foreach_copy_"
GROUPS = ("convolution and matmul", "normalisation", "elementwise", "copies and casts", "optimizer", "other")
_PATTERNS = (
    ("normalisation", r"batch_?norm|bn_fw|bn_bw|layer_?norm|GammaBeta|group_?norm|RowwiseMoments"),
    ("copies and casts", r"memcpy|memset|copy|nchwToNhwc|nhwcToNchw|CatArray|FillFunctor|convert_tensor|transpose"),
    ("convolution and matmul", r"conv|gemm|gemv|cutlass|xmma|nvjet|wgrad|dgrad|fprop|winograd|flash|fmha|sdpa|splitK"),
    ("elementwise", r"elementwise|triton_poi|pool|reduce|softmax|triton_red|triton_per|nll_loss|index"),
)
"""By a kernel's name, the first that is found in it."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """An event with a duration.

    Attributes:
        category: of the trace.
        name: what ran.
        start_us: when it began.
        end_us: when it ended.
        correlation: number that a launch and its kernel share; None for others.
    """

    category: str
    name: str
    start_us: float
    end_us: float
    correlation: int | None

    @property
    def us(self) -> float:
        """How long it took."""
        return self.end_us - self.start_us


def summarise(trace: dict[str, Any]) -> dict[str, float]:
    """Measures of one step, averaged over the annotated steps of a trace.

    Args:
        trace: the Chrome trace; the device was idle when it began, and is waited for before it ended.

    Returns:
        Values by names that hold their unit: `device_ms` of each group and of all, `idle_ms` (gaps between the first
        and the last kernel), `kernels`, counts of what waits, `cpu_ms` of the steps, the optimiser's step, the copies
        of buffers and of setting gradients to None.
    """
    spans = spans_of(trace)
    steps = steps_of(spans)
    on_device = [span for span in spans if span.category in DEVICE]
    on_cpu = [span for span in spans if span.category not in DEVICE | {"gpu_user_annotation"}]
    inside = within(on_cpu, steps)
    found: dict[str, float] = {}
    groups = _device_us(on_device, _launched_by(on_cpu, OPTIMIZER_STEP))
    for group in GROUPS:
        found[f"device_ms, {group}"] = groups[group] / 1000
    found["device_ms, all"] = sum(groups.values()) / 1000
    found["idle_ms"] = idle_us(on_device) / 1000
    found["kernels"] = sum(span.category == "kernel" for span in on_device)
    found["copies"] = sum(span.category != "kernel" for span in on_device)
    names = Counter(span.name for span in inside)
    for name in SYNCHRONISING:
        found[f"calls, {name}"] = names[name]
    found["cpu_ms, step"] = sum(span.us for span in steps) / 1000
    for title, start in (("optimizer", OPTIMIZER_STEP), ("zero_grad", ZERO_GRAD), ("buffers", BUFFERS)):
        found[f"cpu_ms, {title}"] = sum(span.us for span in inside if span.name.startswith(start)) / 1000
    return {name: value / len(steps) for name, value in found.items()}


def longest_kernels(trace: dict[str, Any], *, count: int = 15) -> list[tuple[str, float]]:
    """The kernels that take the device longest, by name, and their milliseconds a step."""
    spans = spans_of(trace)
    found: dict[str, float] = {}
    for span in spans:
        if span.category == "kernel":
            found[span.name] = found.get(span.name, 0.0) + span.us
    steps = len(steps_of(spans))
    return [(name, us / 1000 / steps) for name, us in sorted(found.items(), key=lambda one: -one[1])[:count]]


def steps_of(spans: Iterable[Span]) -> list[Span]:
    """The annotations of the steps.

    Raises:
        ValueError: there are none.
    """
    steps = [span for span in spans if span.category == "user_annotation" and span.name == STEP]
    if not steps:
        raise ValueError(f"no step of the trace is annotated with {STEP!r}")
    return steps


def spans_of(trace: dict[str, Any]) -> list[Span]:
    """The events of a trace that have a duration."""
    return [
        Span(
            category=str(event.get("cat", "")),
            name=str(event["name"]),
            start_us=float(event["ts"]),
            end_us=float(event["ts"]) + float(event["dur"]),
            correlation=event.get("args", {}).get("correlation"),
        )
        for event in trace["traceEvents"]
        if event.get("ph") == "X"
    ]


def group_of(name: str) -> str:
    """The group of a kernel that the optimiser did not launch."""
    for group, pattern in _PATTERNS:
        if re.search(pattern, name, re.IGNORECASE):
            return group
    return "other"


def idle_us(spans: Iterable[Span]) -> float:
    """Time between the first start and the last end in which none of the spans is."""
    idle, end_us = 0.0, None
    for span in sorted(spans, key=lambda one: one.start_us):
        if end_us is not None:
            idle += max(0.0, span.start_us - end_us)
        end_us = span.end_us if end_us is None else max(end_us, span.end_us)
    return idle


def within(spans: Iterable[Span], windows: Sequence[Span]) -> list[Span]:
    """The spans that begin within one of the windows, which do not overlap; the windows themselves not."""
    ordered = sorted(windows, key=lambda one: one.start_us)
    starts = [window.start_us for window in ordered]
    found = []
    for span in spans:
        at = bisect_right(starts, span.start_us) - 1
        if at >= 0 and span.start_us <= ordered[at].end_us and span is not ordered[at]:
            found.append(span)
    return found


def _launched_by(on_cpu: Sequence[Span], name: str) -> set[int]:
    """Correlations of what was launched within annotations that begin with a name."""
    windows = [span for span in on_cpu if span.category == "user_annotation" and span.name.startswith(name)]
    launches = [span for span in on_cpu if span.category in RUNTIME and span.correlation is not None]
    return {span.correlation for span in within(launches, windows) if span.correlation is not None}


def _device_us(on_device: Sequence[Span], of_optimizer: set[int]) -> dict[str, float]:
    found = dict.fromkeys(GROUPS, 0.0)
    for span in on_device:
        if span.correlation in of_optimizer:
            group = "optimizer"
        else:
            group = group_of(span.name) if span.category == "kernel" else "copies and casts"
        found[group] += span.us
    return found
