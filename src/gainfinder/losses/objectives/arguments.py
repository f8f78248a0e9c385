"""What all objectives do with their arguments: check logits, labels and numbers, choose a precision, reduce."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def check_logits(name: str, logits: Tensor) -> None:
    """Raises ValueError unless floating point (..., C), C ≥ 1."""
    if not logits.is_floating_point() or logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(
            f"{name}: expected floating point (..., classes) with at least one class, "
            f"got {logits.dtype} {tuple(logits.shape)}"
        )


def check_pair(student_logits: Tensor, target_logits: Tensor, *, dimensions: int | None = None) -> None:
    """Raises ValueError unless both are logits of one shape, (N, C) where `dimensions` is 2."""
    check_logits("student_logits", student_logits)
    check_logits("target_logits", target_logits)
    if student_logits.shape != target_logits.shape or dimensions not in (None, student_logits.ndim):
        expected = "(..., classes)" if dimensions is None else "(N, classes)"
        raise ValueError(
            f"expected student and target logits of one shape {expected}, "
            f"got {tuple(student_logits.shape)} and {tuple(target_logits.shape)}"
        )


def check_labels(name: str, target: Tensor, logits: Tensor) -> None:
    """Raises ValueError unless int64, of the shape of the logits' leading dimensions."""
    if target.shape != logits.shape[:-1] or target.dtype != torch.int64:
        raise ValueError(
            f"{name}: expected torch.int64 {tuple(logits.shape[:-1])} for logits "
            f"{tuple(logits.shape)}, got {target.dtype} {tuple(target.shape)}"
        )


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless T > 0."""
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")


def check_weight(name: str, weight: float) -> None:
    """Raises ValueError unless a term's weight ≥ 0."""
    if not weight >= 0:
        raise ValueError(f"{name}: expected a number of at least 0, got {weight}")


def wide(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: the widest of the tensors', at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Mean over all positions, sum, or the values themselves."""
    if reduction == "mean":
        # Not Tensor.mean, which is NaN for a batch without positions.
        return values.sum() / max(values.numel(), 1)
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
