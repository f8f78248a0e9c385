"""The loss on labels (L_XE of Eq. 2)."""

import torch
from torch import Tensor

from .arguments import Reduction, check_labels, check_logits, reduce, wide


def cross_entropy(
    student_logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy of the student's logits with labels (L_XE of Eq. 2), with optional label smoothing.

        −1/n · Σ_i Σ_j t_ij · log q_ij,  q = σ(student_logits),  t_ij = (1 − ε) · [j = y_i] + ε/C

    With ε = 0, −1/n · Σ_i log q_{i, y_i}. Smoothing is of the targets (Yuan et al. 2020, section 4.1): the loss is
    smallest at q = t. The published code smooths the predictions instead, which is another loss.

    Args:
        student_logits: floating point (..., C), C ≥ 1. Logits: the softmax is taken here, and only here.
        target: labels, int64 (...), from 0 to C − 1. No label is ignored.
        label_smoothing: ε, from 0 to below 1; the paper's is 0.1.
        reduction: "mean" over the n positions, "sum" over them, or "none".

    Returns:
        A scalar, or one value a position (...) for "none". With n = 0 the mean is 0. A student's logit of −inf costs
        infinity where its class has weight in t: where it is the label's, and wherever ε > 0.

    Raises:
        ValueError: a wrong shape or dtype, ε out of range, or an unknown reduction.

    Two equal logits give ln 2; q = (3/4, 1/4) with label 0 gives ln(4/3), and smoothed by ε = 1/2, hence
    t = (3/4, 1/4), 3/4 · ln(4/3) + 1/4 · ln 4 = 0.2158 + 0.3466:

    >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
    0.6931
    >>> student = torch.tensor([[3.0, 1.0]]).log()
    >>> round(cross_entropy(student, torch.tensor([0])).item(), 4)
    0.2877
    >>> round(cross_entropy(student, torch.tensor([0]), label_smoothing=0.5).item(), 4)
    0.5623
    """
    check_logits("student_logits", student_logits)
    check_labels("target", target, student_logits)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: expected a number from 0 to below 1, got {label_smoothing}")
    log_q = torch.log_softmax(student_logits.to(wide(student_logits)), dim=-1)
    values = -log_q.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if label_smoothing > 0:  # 0 times a masked class's −inf would be NaN
        values = (1 - label_smoothing) * values - label_smoothing * log_q.mean(dim=-1)
    return reduce(values, reduction).to(student_logits.dtype)
