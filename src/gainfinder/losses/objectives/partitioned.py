"""Losses with a target of their own for each sample: one chosen model (Eq. 5), or a mixture of several."""

import torch
from torch import Tensor

from .arguments import Reduction, reduce, wide
from .divergence import kl_divergence


def chosen_logits(target_logits_NMC: Tensor, choice_N: Tensor) -> Tensor:
    """The logits of the model chosen for each sample: what puts any objective under a partition.

        z_i = target_logits_{i, choice_i}

    Args:
        target_logits_NMC: floating point (N, M, C), M ≥ 1, of the models to learn from; model 0 is the initial student.
        choice_N: int64 (N,), from 0 to M − 1, as `partition.most_confident` gives it.

    Returns:
        (N, C), in the dtype of the logits; a gradient goes back to the chosen models' logits alone.

    Raises:
        ValueError: a wrong shape or dtype.

    >>> targets = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    >>> chosen_logits(targets, torch.tensor([0, 1])).tolist()
    [[1.0, 2.0], [7.0, 8.0]]
    """
    if target_logits_NMC.ndim != 3 or target_logits_NMC.shape[1] < 1 or not target_logits_NMC.is_floating_point():
        raise ValueError(
            f"target_logits_NMC: expected floating point (N, models, classes), "
            f"got {target_logits_NMC.dtype} {tuple(target_logits_NMC.shape)}"
        )
    N, _, C = target_logits_NMC.shape
    if choice_N.shape != (N,) or choice_N.dtype != torch.int64:
        raise ValueError(f"choice_N: expected torch.int64 ({N},), got {choice_N.dtype} {tuple(choice_N.shape)}")
    return target_logits_NMC.gather(1, choice_N[:, None, None].expand(N, 1, C)).squeeze(1)


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
    _check_models(student_logits_NC, target_logits_NMC)
    return kl_divergence(
        student_logits_NC, chosen_logits(target_logits_NMC, choice_N), temperature, reduction=reduction
    )


def mixed_kl(
    student_logits_NC: Tensor,
    target_logits_NMC: Tensor,
    weights_NM: Tensor,
    temperature: float = 1.0,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL divergence of the student from several models at once, weighted for each sample.

        T²/n · Σ_i Σ_m w_im · KL(σ(z_{m, i} / T) ‖ σ(z_s,i / T))

    Our generalisation of Eq. 5, which `partitioned_kl` is: the same with rows of one 1 and zeros. Up to a constant, a
    row that adds up to 1 has the weighted mean of the models' probabilities as its target.

    Args:
        student_logits_NC: floating point (N, C), of the student under training.
        target_logits_NMC: floating point (N, M, C), M ≥ 1, of the models to learn from. Not detached here, as in
            `kl_divergence`.
        weights_NM: floating point (N, M), each ≥ 0, as `partition.soft_weights` gives them. The values are not checked,
            and rows need not add up to 1. A model of weight 0 contributes nothing, even where its logits are NaN.
        temperature: T > 0.
        reduction: "mean", "sum" or "none".

    Returns:
        As `kl_divergence`.

    Raises:
        ValueError: a wrong shape or dtype, T ≤ 0, or an unknown reduction.

    From even odds, to keep them costs nothing and three to one costs 0.1308 (see `kl_divergence`); half of each:

    >>> targets = torch.tensor([[[1.0, 1.0], [3.0, 1.0]]]).log()
    >>> round(mixed_kl(torch.zeros(1, 2), targets, torch.tensor([[0.5, 0.5]])).item(), 4)
    0.0654
    """
    N, M = _check_models(student_logits_NC, target_logits_NMC)
    if weights_NM.shape != (N, M) or not weights_NM.is_floating_point():
        raise ValueError(
            f"weights_NM: expected floating point ({N}, {M}), got {weights_NM.dtype} {tuple(weights_NM.shape)}"
        )
    dtype = wide(student_logits_NC, target_logits_NMC, weights_NM)
    unused_NM = weights_NM == 0
    # 0 times a model's NaN or infinity would be NaN, in the value and in the gradient.
    used_NMC = target_logits_NMC.masked_fill(unused_NM.unsqueeze(2), 0.0)
    student_NMC = student_logits_NC.to(dtype).unsqueeze(1).expand_as(used_NMC)
    values_NM = kl_divergence(student_NMC, used_NMC, temperature, reduction="none").masked_fill(unused_NM, 0.0)
    return reduce((weights_NM * values_NM).sum(dim=1), reduction).to(student_logits_NC.dtype)


def _check_models(student_logits_NC: Tensor, target_logits_NMC: Tensor) -> tuple[int, int]:
    """N and M. Raises ValueError unless (N, C) and (N, M, C), M ≥ 1."""
    N, C = student_logits_NC.shape if student_logits_NC.ndim == 2 else (-1, -1)
    M = target_logits_NMC.shape[1] if target_logits_NMC.ndim == 3 else -1
    if N < 0 or M < 1 or target_logits_NMC.shape != (N, M, C):
        raise ValueError(
            f"expected student logits (N, classes) and target logits (N, models, classes), "
            f"got {tuple(student_logits_NC.shape)} and {tuple(target_logits_NMC.shape)}"
        )
    return N, M
