"""Losses that bring a student's distribution over classes to a target's, position by position.

Source: Eq. 1 and appendix B.1 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653).
"""

import torch
from torch import Tensor

from .arguments import Reduction, check_pair, check_temperature, reduce, wide


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
    log_q, log_p = _log_probs(student_logits, target_logits, temperature)
    # 0 · (−inf) is NaN, in the value and in the gradient: a masked class is taken out before the product.
    log_ratio = (log_p - log_q).masked_fill(log_p == -torch.inf, 0.0)
    values = (log_p.exp() * log_ratio).sum(dim=-1) * temperature**2
    return reduce(values, reduction).to(student_logits.dtype)


def soft_cross_entropy(
    student_logits: Tensor, target_logits: Tensor, temperature: float = 1.0, *, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy of the student with the target's soft labels at a temperature T (appendix B.1).

        −T²/n · Σ_i Σ_j p_ij · log q_ij,  p = σ(target_logits / T),  q = σ(student_logits / T)

    That is `kl_divergence` plus T² times the target's entropy. The entropy does not depend on the student, so both
    have the same gradient: with a constant target they train the same student. The 1.2 percentage points that the paper
    loses by it are suspect for that reason: the published code takes a second softmax of q. Here there is one.

    Args:
        student_logits: floating point (..., C), C ≥ 1.
        target_logits: floating point, the same shape. Not detached, and masked by −inf, as in `kl_divergence`.
        temperature: T > 0.
        reduction: "mean" over the n positions, "sum" over them, or "none".

    Returns:
        As `kl_divergence`.

    Raises:
        ValueError: as `kl_divergence`.

    With p = (3/4, 1/4), a student of even odds pays ln 2, and one that equals the target its entropy,
    3/4 · ln(4/3) + 1/4 · ln 4 = 0.2158 + 0.3466:

    >>> target = torch.tensor([[3.0, 1.0]]).log()
    >>> round(soft_cross_entropy(torch.zeros(1, 2), target).item(), 4)
    0.6931
    >>> round(soft_cross_entropy(target, target).item(), 4)
    0.5623
    """
    log_q, log_p = _log_probs(student_logits, target_logits, temperature)
    masked = log_p == -torch.inf
    values = -(log_p.exp() * log_q.masked_fill(masked, 0.0)).sum(dim=-1) * temperature**2
    return reduce(values, reduction).to(student_logits.dtype)


def top_k_kl(
    student_logits: Tensor, target_logits: Tensor, k: int, temperature: float = 1.0, *, reduction: Reduction = "mean"
) -> Tensor:
    """KL divergence among the target's k most probable classes (appendix B.1).

        T²/n · Σ_i KL(σ(z_t,i[K_i] / T) ‖ σ(z_s,i[K_i] / T)),  K_i = the k classes of largest z_t,i

    Both softmaxes are over the chosen logits alone: each side's probabilities of the k classes add up to 1, and the
    student's other logits get no gradient.

    With "none" this is also the appendix's analysis that led to it, the divergence over the top 10 or 100 classes
    against that over all of them, `kl_divergence(..., reduction="none")` at the same T. Neither bounds the other:
    all that holds is kl ≥ P(K_i) · top_k_kl, with P(K_i) the target's probability of its top k.

    Args:
        student_logits: floating point (..., C), C ≥ 1.
        target_logits: floating point, the same shape. Not detached, and masked by −inf, as in `kl_divergence`.
        k: number of classes, k ≥ 1 (k = 1 is always 0). From C on, all classes: equal to `kl_divergence`.
        temperature: T > 0.
        reduction: "mean" over the n positions, "sum" over them, or "none".

    Returns:
        As `kl_divergence`.

    Ties for the last place go to the lowest class index.

    Raises:
        ValueError: k < 1, and as `kl_divergence`.

    Between the target's top two classes (weights 3 and 1) the student has even odds (see `kl_divergence`); what it
    makes of the third does not count:

    >>> target = torch.tensor([[3.0, 0.5, 1.0]]).log()
    >>> student = torch.tensor([[1.0, 70.0, 1.0]]).log()
    >>> round(top_k_kl(student, target, 2).item(), 4)
    0.1308
    """
    check_pair(student_logits, target_logits)
    if k < 1:
        raise ValueError(f"k: expected a number of classes of at least 1, got {k}")
    if k < target_logits.shape[-1]:
        # Not topk, which leaves open which of equal values it takes.
        order = target_logits.detach().sort(dim=-1, descending=True, stable=True).indices[..., :k]
        student_logits, target_logits = student_logits.gather(-1, order), target_logits.gather(-1, order)
    return kl_divergence(student_logits, target_logits, temperature, reduction=reduction)


def _log_probs(student_logits: Tensor, target_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    check_pair(student_logits, target_logits)
    check_temperature(temperature)
    dtype = wide(student_logits, target_logits)
    log_q = torch.log_softmax(student_logits.to(dtype) / temperature, dim=-1)
    log_p = torch.log_softmax(target_logits.to(dtype) / temperature, dim=-1)
    return log_q, log_p
