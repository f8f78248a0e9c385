"""KL divergence split into the label's part and the rest, weighted separately (DKD).

Source: Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022, arXiv 2203.08679). Shapes: N samples, C classes.
"""

import torch
from torch import Tensor

from .arguments import Reduction, check_labels, check_pair, check_temperature, check_weight, reduce, wide
from .divergence import kl_divergence


def dkd_loss(
    student_logits_NC: Tensor,
    target_logits_NC: Tensor,
    class_N: Tensor,
    temperature: float = 1.0,
    *,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Decoupled distillation: how sure of one class, and how the others are shared out.

        T²/N · Σ_i [ α · KL((p_y, 1 − p_y) ‖ (q_y, 1 − q_y)) + β · KL(p̂ ‖ q̂) ],  y = class_i

        p = σ(target_logits / T),  q = σ(student_logits / T),  p̂, q̂ the same softmaxes without class y

    The first term is the paper's TCKD, the second its NCKD. `kl_divergence` is TCKD + (1 − p_y) · NCKD (Eq. 6 there):
    it silences the second term where the target is sure of y.

    Args:
        student_logits_NC: floating point (N, C), C ≥ 1.
        target_logits_NC: floating point, the same shape. Not detached, and masked by −inf, as in `kl_divergence`.
        class_N: int64 (N,), from 0 to C − 1: the label, as in the paper, or without labels the target's own prediction.
        temperature: T > 0.
        target_weight: α ≥ 0, the paper's 1.
        non_target_weight: β ≥ 0. The paper's 8 is for its CIFAR-100 pairs; it has other values for other pairs.
        reduction: "mean" over the samples, "sum" over them, or "none".

    Returns:
        As `kl_divergence`. C = 1 costs 0; with C = 2, and where −inf masks every class but y, the second term is 0.

    Raises:
        ValueError: a wrong shape or dtype, T ≤ 0, a weight < 0, or an unknown reduction.

    With p = (3/4, 1/8, 1/8) and q = (1/2, 3/8, 1/8): the first term is 0.1308 (see `kl_divergence`); without the first
    class p̂ = (1/2, 1/2) and q̂ = (3/4, 1/4), so the second is 1/2 · ln(2/3) + 1/2 · ln 2 = −0.2027 + 0.3466:

    >>> target, student = torch.tensor([[6.0, 1.0, 1.0]]).log(), torch.tensor([[4.0, 3.0, 1.0]]).log()
    >>> y = torch.tensor([0])
    >>> round(dkd_loss(student, target, y, non_target_weight=0).item(), 4)
    0.1308
    >>> round(dkd_loss(student, target, y, target_weight=0, non_target_weight=1).item(), 4)
    0.1438
    """
    check_pair(student_logits_NC, target_logits_NC, dimensions=2)
    check_labels("class_N", class_N, student_logits_NC)
    check_temperature(temperature)
    check_weight("target_weight", target_weight)
    check_weight("non_target_weight", non_target_weight)
    dtype = wide(student_logits_NC, target_logits_NC)
    student, target = student_logits_NC.to(dtype) / temperature, target_logits_NC.to(dtype) / temperature
    label_N1, others_NK = _split(class_N, student.shape[1])
    student_label, student_rest = student.gather(1, label_N1), student.gather(1, others_NK)
    target_label, target_rest = target.gather(1, label_N1), target.gather(1, others_NK)
    values = target_weight * kl_divergence(
        torch.cat([student_label, _log_total(student_rest)], dim=1),
        torch.cat([target_label, _log_total(target_rest)], dim=1),
        reduction="none",
    )
    if others_NK.shape[1] > 0:
        alone_N1 = _masked_whole(target_rest)
        # Where nothing is left to share out, logits of 0 on both sides cost 0, without a NaN of −inf alone.
        student_rest, target_rest = student_rest.masked_fill(alone_N1, 0.0), target_rest.masked_fill(alone_N1, 0.0)
        values = values + non_target_weight * kl_divergence(student_rest, target_rest, reduction="none")
    return reduce(temperature**2 * values, reduction).to(student_logits_NC.dtype)


def _split(class_N: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """Indices (N, 1) of each sample's class and (N, C − 1) of the others, ascending."""
    label_N1 = class_N.unsqueeze(1)
    rank_K = torch.arange(C - 1, device=class_N.device)
    return label_N1, rank_K + (rank_K >= label_N1)


def _log_total(rest_NK: Tensor) -> Tensor:
    """The logit (N, 1) of all the others as one class: not by way of 1 − p, which rounds to 0. −inf where K is 0."""
    masked_N1 = _masked_whole(rest_NK)  # there the gradient would be NaN
    return rest_NK.masked_fill(masked_N1, 0.0).logsumexp(dim=1, keepdim=True).masked_fill(masked_N1, -torch.inf)


def _masked_whole(rest_NK: Tensor) -> Tensor:
    return (rest_NK == -torch.inf).all(dim=1, keepdim=True)
