"""The loss on relations between predictions instead of on the predictions themselves (DIST).

Source: Huang et al., "Knowledge Distillation from A Stronger Teacher" (NeurIPS 2022, arXiv 2205.10536). Shapes: N
samples, C classes.
"""

import torch
from torch import Tensor

from .arguments import Reduction, check_pair, check_temperature, check_weight, reduce, wide


def dist_loss(
    student_logits_NC: Tensor,
    target_logits_NC: Tensor,
    temperature: float = 1.0,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far the student's probabilities are from a linear function of the target's (DIST).

        T² · [ β/N · Σ_i (1 − ρ(p_i·, q_i·)) + γ/C · Σ_j (1 − ρ(p_·j, q_·j)) ]

        p = σ(target_logits / T),  q = σ(student_logits / T),  ρ Pearson's correlation

    The first term (inter) correlates over the classes of each sample, the second (intra) over the batch's samples for
    each class. The second depends on the batch: the loss of a batch is not the mean of its halves' losses.

    Args:
        student_logits_NC: floating point (N, C), C ≥ 1.
        target_logits_NC: floating point, the same shape. Not detached. A logit of −inf is a probability of 0.
        temperature: T > 0.
        inter_weight: β ≥ 0.
        intra_weight: γ ≥ 0. Both are 1 in the authors' code.
        reduction: "none" gives each sample its own inter term plus the batch's intra term, T² and weights included;
            "mean" is their mean, which is the loss, and "sum" their sum.

    Returns:
        A scalar, or (N,) for "none", ≥ 0, in the dtype of the student's logits; with N = 0 the mean is 0.

    A constant vector has no correlation: where the target's or the student's is, the term is 0, with a gradient of 0.
    So are the inter terms with C = 1 and the intra terms with N = 1. Constant is what deviates from its mean by less
    than rounding could make it (64 units in the last place, relative to the vector's length).

    Departure from the authors' code, which adds 1e-8 to the denominator: that keeps the loss of equal predictions above
    0 and cuts off classes of small probability. Here ρ does not depend on the scale, however small, as in the paper.

    Raises:
        ValueError: a wrong shape or dtype, T ≤ 0, a weight < 0, or an unknown reduction.

    Two classes' probabilities lie on a line, so they correlate by 1 (samples 1 and 2) or −1 (sample 3). Over the batch,
    p_·1 = (3/4, 3/4, 1/4) and q_·1 = (3/4, 3/4, 3/4), a constant; so is the second class:

    >>> target = torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 3.0]]).log()
    >>> student = torch.tensor([[3.0, 1.0], [3.0, 1.0], [3.0, 1.0]]).log()
    >>> [round(value, 4) for value in dist_loss(student, target, reduction="none").tolist()]
    [0.0, 0.0, 2.0]
    """
    check_pair(student_logits_NC, target_logits_NC, dimensions=2)
    check_temperature(temperature)
    check_weight("inter_weight", inter_weight)
    check_weight("intra_weight", intra_weight)
    dtype = wide(student_logits_NC, target_logits_NC)
    log_q = torch.log_softmax(student_logits_NC.to(dtype) / temperature, dim=1)
    log_p = torch.log_softmax(target_logits_NC.to(dtype) / temperature, dim=1)
    if len(log_q) == 0:
        values = log_q.sum(dim=1)
    else:
        inter_N = _one_minus_correlation(log_q, log_p, dim=1)
        intra = _one_minus_correlation(log_q, log_p, dim=0).mean()
        values = temperature**2 * (inter_weight * inter_N + intra_weight * intra)
    return reduce(values, reduction).to(student_logits_NC.dtype)


def _one_minus_correlation(log_q: Tensor, log_p: Tensor, *, dim: int) -> Tensor:
    """1 − ρ(p, q) along a dimension; 0 where either is constant."""
    q, q_is_constant = _direction(log_q, dim)
    p, p_is_constant = _direction(log_p, dim)
    # ½|p − q|² = 1 − p·q for unit vectors, without a loss of digits and never below 0.
    return (0.5 * (p - q).square().sum(dim=dim)).masked_fill((p_is_constant | q_is_constant).squeeze(dim), 0.0)


def _direction(log_probs: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The probabilities less their mean, scaled to length 1, and where they are constant instead."""
    # ρ does not depend on the scale: with 1 for the largest, probabilities whose squares would underflow count too.
    peak = log_probs.detach().amax(dim=dim, keepdim=True)
    relative = (log_probs - peak.masked_fill(peak == -torch.inf, 0.0)).exp()
    centred = relative - relative.mean(dim=dim, keepdim=True)
    squared = centred.square().sum(dim=dim, keepdim=True)
    tolerance = 64 * torch.finfo(relative.dtype).eps
    constant = squared <= tolerance**2 * relative.detach().square().sum(dim=dim, keepdim=True)
    return centred / squared.masked_fill(constant, 1.0).sqrt(), constant
