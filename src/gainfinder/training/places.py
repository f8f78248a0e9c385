"""Losses of samples in places, such as the words of a text, each of which has a class.

A loss and a partition are of each place for itself; a sample's loss is the mean over its places, so that a long text
weighs as much as a short one, as an image does as another.

Shapes: N samples, P places, M models, C classes.
"""

import torch
from torch import Tensor

from ..inference import Targets, labels_in_places, usable_by_all
from ..losses import Losses, TransferLoss


def losses_in_places(
    criterion: TransferLoss,
    student_logits_NPC: Tensor,
    usable_NP: Tensor | None,
    targets: Targets,
    target_NP: Tensor | None,
) -> Losses:
    """A loss for each sample: the mean over those of its places that all models have read, and that have a label.

    Args:
        criterion: the method's loss.
        student_logits_NPC: the student's logits.
        usable_NP: bool, the places that the student has read.
        targets: the frozen models' logits, maybe of fewer or more places; the same for all places where nothing is
            learned from them.
        target_NP: labels, int64, of as many places as the longest sample has, -1 where there is none; None for methods
            that read none.
    """
    model_logits = targets.logits_NMC
    if model_logits.ndim == 3:
        model_logits = model_logits[:, None].expand(-1, student_logits_NPC.shape[1], -1, -1)
    usable_NP = usable_by_all([student_logits_NPC, model_logits], [usable_NP, targets.usable_NP])
    assert usable_NP is not None, "samples in places"
    P = usable_NP.shape[1]
    if target_NP is not None:
        target_NP = labels_in_places(target_NP, P)
        usable_NP = usable_NP & (target_NP >= 0)
        target_NP = target_NP.clamp_min(0)
    confidence = targets.log_confidence_NM
    found = criterion.losses(
        student_logits_NPC[:, :P],
        model_logits[:, :P].nan_to_num(),  # kept ones, where there is no place
        target_NP,
        log_confidence=None if confidence is None else confidence[:, :P].nan_to_num(),
    )
    return mean_over_places(found, usable_NP)


def mean_over_places(losses: Losses, usable_NP: Tensor) -> Losses:
    """The losses of samples: each the mean over its usable places, 0 where it has none.

    Args:
        losses: a loss for each place, (N, P).
        usable_NP: bool, the places that count.

    Returns:
        A loss for each sample, (N,), and the mean share of each model in teaching its places, (N, M).

    Example:
        >>> two = Losses(values=torch.tensor([[1.0, 3.0], [5.0, 7.0]]), weights=torch.ones(2, 2, 1))
        >>> mean_over_places(two, torch.tensor([[True, True], [True, False]])).values
        tensor([2., 5.])
    """
    count_N = usable_NP.sum(dim=1).clamp_min(1)
    values_N = torch.where(usable_NP, losses.values, 0.0).sum(dim=1) / count_N
    weights_NPM = losses.weights.float() * usable_NP[..., None]
    return Losses(values=values_N, weights=weights_NPM.sum(dim=1) / count_N[:, None])
