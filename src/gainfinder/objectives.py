"""Losses on logits (..., C): the leading dimensions are positions (images today), n is their number.

Source: sections 4.1 and 4.2 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653).
Shapes: N samples, M models, C classes. All take logits, never probabilities: a softmax before the call would be a
second one. Half precision is computed in float32 inside; the result has the dtype of the student's logits.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def kl_divergence(
    student_logits: Tensor, target_logits: Tensor, temperature: float = 1.0, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL divergence of the student from the target at a temperature T (Eq. 1).

        T²/n · Σ_i Σ_j p_ij · (log p_ij − log q_ij),  p = σ(target_logits / T),  q = σ(student_logits / T)

    Departure from the paper's notation, which writes the student first: this is KL(target ‖ student), as in Hinton's
    distillation and in the authors' published code.

    Args:
        student_logits: floating point (..., C), C ≥ 1.
        target_logits: floating point, the same shape. Nothing is detached here: where they require a gradient, they
            get one, so compute a teacher's logits without. A logit of −inf masks its class, which then contributes 0.
        temperature: T > 0.
        reduction: "mean" over the n positions, "sum" over them, or "none".

    Returns:
        A scalar, or one value a position (...) for "none"; T² is included in each. With n = 0 the mean is 0, with a
        gradient of the student's (empty) shape.

    Raises:
        ValueError: shapes that differ, logits that are not floating point, T ≤ 0, or an unknown reduction.

    With p = (3/4, 1/4) and q = (1/2, 1/2): 3/4 · ln(3/2) + 1/4 · ln(1/2) = 0.3041 − 0.1733.

    >>> target = torch.tensor([[3.0, 1.0]]).log()
    >>> round(kl_divergence(torch.zeros(1, 2), target).item(), 4)
    0.1308
    """
    _check_logits("student_logits", student_logits)
    _check_logits("target_logits", target_logits)
    if student_logits.shape != target_logits.shape:
        raise ValueError(
            f"expected student and target logits of one shape (..., classes), "
            f"got {tuple(student_logits.shape)} and {tuple(target_logits.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    dtype = torch.promote_types(torch.promote_types(student_logits.dtype, target_logits.dtype), torch.float32)
    log_q = torch.log_softmax(student_logits.to(dtype) / temperature, dim=-1)
    log_p = torch.log_softmax(target_logits.to(dtype) / temperature, dim=-1)
    # 0 · (−inf) is NaN, in the value and in the gradient: a masked class is taken out before the product.
    log_ratio = (log_p - log_q).masked_fill(log_p == -torch.inf, 0.0)
    values = (log_p.exp() * log_ratio).sum(dim=-1) * temperature**2
    return _reduce(values, reduction).to(student_logits.dtype)


def cross_entropy(student_logits: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of the student's logits with labels (L_XE of Eq. 2).

        −1/n · Σ_i log σ_{y_i}(student_logits_i)

    Args:
        student_logits: floating point (..., C), C ≥ 1. Logits: the softmax is taken here, and only here.
        target: labels, int64 (...), from 0 to C − 1. No label is ignored.
        reduction: "mean" over the n positions, "sum" over them, or "none".

    Returns:
        A scalar, or one value a position (...) for "none". With n = 0 the mean is 0.

    Raises:
        ValueError: a wrong shape or dtype, or an unknown reduction.

    Two equal logits give ln 2; q = (3/4, 1/4) with label 0 gives ln(4/3):

    >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
    0.6931
    >>> round(cross_entropy(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0])).item(), 4)
    0.2877
    """
    _check_logits("student_logits", student_logits)
    if target.shape != student_logits.shape[:-1] or target.dtype != torch.int64:
        raise ValueError(
            f"target: expected torch.int64 {tuple(student_logits.shape[:-1])} for logits "
            f"{tuple(student_logits.shape)}, got {target.dtype} {tuple(target.shape)}"
        )
    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    log_q = torch.log_softmax(student_logits.to(dtype), dim=-1)
    values = -log_q.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return _reduce(values, reduction).to(student_logits.dtype)


def partitioned_kl(
    student_logits_NC: Tensor,
    target_logits_NMC: Tensor,
    choice_N: Tensor,
    temperature: float = 1.0,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL divergence of the student from the model chosen for each sample (Eq. 5, over M models).

        T²/n · Σ_i KL(σ(z_{choice_i, i} / T) ‖ σ(z_s,i / T))

    With M = 2, the initial student and one teacher, the sum is that of Eq. 5: m_st · KL(st, s) + m_t · KL(t, s). n
    counts all samples, whichever model teaches them.

    Args:
        student_logits_NC: floating point (N, C), of the student under training.
        target_logits_NMC: floating point (N, M, C), of the models to learn from; model 0 is the initial student.
            Not detached here, as in `kl_divergence`.
        choice_N: int64 (N,), from 0 to M − 1, as `partition.most_confident` gives it.
        temperature: T > 0.
        reduction: "mean", "sum" or "none".

    Returns:
        As `kl_divergence`.

    Raises:
        ValueError: a wrong shape or dtype, T ≤ 0, or an unknown reduction.

    The first sample is kept at the initial student's even odds; the second learns the teacher's three to one, which
    from even odds costs 0.1308 (see `kl_divergence`), a mean of 0.0654:

    >>> targets = torch.tensor([[[1.0, 1.0], [3.0, 1.0]], [[1.0, 1.0], [3.0, 1.0]]]).log()
    >>> round(partitioned_kl(torch.zeros(2, 2), targets, torch.tensor([0, 1])).item(), 4)
    0.0654
    """
    N, C = student_logits_NC.shape if student_logits_NC.ndim == 2 else (-1, -1)
    M = target_logits_NMC.shape[1] if target_logits_NMC.ndim == 3 else -1
    if N < 0 or M < 1 or target_logits_NMC.shape != (N, M, C):
        raise ValueError(
            f"expected student logits (N, classes) and target logits (N, models, classes), "
            f"got {tuple(student_logits_NC.shape)} and {tuple(target_logits_NMC.shape)}"
        )
    if choice_N.shape != (N,) or choice_N.dtype != torch.int64:
        raise ValueError(f"choice_N: expected torch.int64 ({N},), got {choice_N.dtype} {tuple(choice_N.shape)}")
    chosen_NC = target_logits_NMC.gather(1, choice_N[:, None, None].expand(N, 1, C)).squeeze(1)
    return kl_divergence(student_logits_NC, chosen_NC, temperature, reduction=reduction)


def _check_logits(name: str, logits: Tensor) -> None:
    if not logits.is_floating_point() or logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(
            f"{name}: expected floating point (..., classes) with at least one class, "
            f"got {logits.dtype} {tuple(logits.shape)}"
        )


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "mean":
        # Not Tensor.mean, which is NaN for a batch without positions.
        return values.sum() / max(values.numel(), 1)
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
