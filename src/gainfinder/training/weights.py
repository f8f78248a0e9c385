"""Points between and around trained weights: straight lines, averages and the slow weights of Eq. 3.

All on state dicts. Floating-point tensors are interpolated, but for infinite values that both have (masks), which stay;
integer buffers (batch-norm's count of batches, say) have no between and are copied. Statistics of batch-norm at a point
between two networks are not those between their statistics: re-estimate them (`models.reestimate`) where the networks'
own differ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .tensors import copy_all

State = Mapping[str, Any]


def between(start: State, end: State, alpha: float) -> dict[str, Any]:
    """The point at α on the straight line from one state to another: start + α · (end − start).

    Args:
        start: state dict.
        end: state dict with the same names and shapes.
        alpha: 0 gives `start`, 1 gives `end`, both exactly; integer buffers are `start`'s at 0, else `end`'s.

    Returns:
        New tensors, on the devices of `start`.

    >>> between({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, 0.25)["w"].item()
    1.5
    """
    _check_names(start, end)
    if alpha in (0, 1):
        return copied(end if alpha else start)
    return {
        name: _lerp(value, end[name].to(value.device), alpha) if _is_floating(value) else _copy(end[name])
        for name, value in start.items()
    }


def copied(state: State, *, device: torch.device | None = None) -> dict[str, Any]:
    """A copy of a state dict that no later step changes, on its own devices or on a given one."""
    copies = {name: _copy(value) for name, value in state.items()}
    if device is None:
        return copies
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in copies.items()}


def average(states: Sequence[State]) -> dict[str, Any]:
    """The mean of several states (a soup); integer buffers are those of the first.

    Raises:
        ValueError: no state, or names that differ.

    >>> average([{"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}])["w"].item()
    2.5
    """
    if not states:
        raise ValueError("expected at least one state to average")
    for other in states[1:]:
        _check_names(states[0], other)
    mean: dict[str, Any] = {}
    for name, value in states[0].items():
        if _is_floating(value):
            # summed in float64: the order of the states would otherwise show in the last digit
            total = sum(state[name].to("cpu", torch.float64) for state in states)
            mean[name] = (total / len(states)).to(value.dtype)
        else:
            mean[name] = _copy(value)
    return mean


# Neither torch.optim.swa_utils.AveragedModel, whose first update copies the fast weights instead of interpolating (in
# torch 2.15), which is not Eq. 3, nor timm's ModelEmaV3, which copies a module with its hooks and wrappers.
class SlowWeights:
    """A moving average of the weights: after each N-th step, θ_slow ← τ·θ_slow + (1 − τ)·θ_fast (Eq. 3).

    The slow weights start as a copy of the initial student's and share no memory with the fast ones, so that measuring
    or loading them leaves training as it is. They are kept in float64: in float32 a weight that differs from the fast
    one by 1e-4 of its size would not move at τ = 0.9999. (In float32 on MPS, which has no float64.)

    Args:
        initial: state dict of the student before its first step.
        momentum: τ, from 0 to 1.
        every: N, 1 or more.
        warmup: whether the t-th interpolation takes (1 + t) / (10 + t) where that is less than τ, so that the first
            students are soon forgotten.

    >>> slow = SlowWeights({"w": torch.tensor([0.0])}, momentum=0.75, every=2)
    >>> for _ in range(3):
    ...     slow.after_step(lambda: {"w": torch.tensor([1.0])})
    >>> slow.weights["w"].item()
    0.25
    """

    def __init__(self, initial: State, *, momentum: float, every: int = 1, warmup: bool = False) -> None:
        # Infinite values are masks, which have no between: such a buffer is copied.
        self._dtypes = {
            name: value.dtype
            for name, value in initial.items()
            if _is_floating(value) and not bool(value.isinf().any())
        }
        self._wide = {name: _wide(value) if name in self._dtypes else _copy(value) for name, value in initial.items()}
        self.momentum = momentum
        self.every = every
        self.warmup = warmup
        self.steps = 0
        self._fast_wide: list[Tensor] = []

    @property
    def weights(self) -> dict[str, Any]:
        """State dict in the student's own dtypes; a copy."""
        return {
            name: value.to(self._dtypes[name], copy=True) if name in self._dtypes else _copy(value)
            for name, value in self._wide.items()
        }

    def after_step(self, fast: Callable[[], State]) -> None:
        """Count a step, and interpolate after every N-th; `fast` is called only then."""
        self.steps += 1
        if self.steps % self.every:
            return
        state = fast()
        momentum, done = self.momentum, self.steps // self.every
        if self.warmup:
            momentum = min(momentum, (1 + done) / (10 + done))
        slow = [self._wide[name] for name in self._dtypes]
        if not self._fast_wide:
            self._fast_wide = [torch.empty_like(value) for value in slow]
        if slow:  # a few kernels for all weights, where a copy and a step for each would be hundreds
            copy_all(self._fast_wide, [state[name] for name in self._dtypes])
            torch._foreach_lerp_(slow, self._fast_wide, 1 - momentum)
        others = {name: value for name, value in state.items() if name not in self._dtypes}
        tensors = {name: value for name, value in others.items() if isinstance(value, Tensor)}
        copy_all([self._wide[name] for name in tensors], list(tensors.values()))
        self._wide |= {name: value for name, value in others.items() if name not in tensors}

    def state(self) -> dict[str, Any]:
        """Weights and count of steps, as `load_state` takes them."""
        return {"weights": self._wide, "steps": self.steps}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        for name, value in state["weights"].items():
            current = self._wide[name]
            self._wide[name] = _copy(value).to(current) if isinstance(current, Tensor) else value
        self.steps = state["steps"]


def _check_names(one: State, other: State) -> None:
    if set(one) != set(other):
        raise ValueError(f"expected states of one architecture; {sorted(set(one) ^ set(other))[:3]} are in one only")


def _lerp(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    """∞ − ∞ is NaN: what both have, as a mask, is kept."""
    return torch.where(start == end, start, torch.lerp(start, end, alpha))


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _wide(value: Tensor) -> Tensor:
    """A copy in float64 where the device has it."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64, copy=True)
