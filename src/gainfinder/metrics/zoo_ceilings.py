"""The ceilings of `ceilings.py` for all pairs of a zoo, and for each model with all others as its teachers.

Without logits all at once; where logits are kept, one after the other, since the ensemble of mean probabilities is made
of all classes' probabilities. Then there cannot be many: see `zoo.scan_models`.
Shapes: N samples, M models. In a matrix (M, M) the row is the student, the column the teacher.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from ..partition import argmax_confidence
from .ceilings import Answers, Ceilings, ceilings_of
from .zoo_flips import ZooFlips

SAMPLES = 2048
"""Samples that are compared at once: those of some hundred models fit into a core's cache."""


def ceilings_of_pairs(models: Sequence[Answers], target_N: Tensor, flips: ZooFlips) -> dict[tuple[int, int], Ceilings]:
    """For each ordered pair (student, teacher), by their places, what `ceilings_of` gives.

    Args:
        models: the models' answers to the same images.
        target_N: labels, int64 (N,), N ≥ 1.
        flips: the models' complementary knowledge, as `compare_zoo` gives it.
    """
    pairs = permutations(range(len(models)), 2)
    if any(model.logits_NC is not None for model in models):
        return {(s, t): ceilings_of(models[s], [models[t]], target_N) for s, t in pairs}
    routed_MM = routed_counts(_confidence(models), _right(models, target_N)).double() / flips.samples
    headroom_pp_MM = 100 * (routed_MM - flips.accuracy_M[:, None])
    oracle, routed, headroom_pp = flips.oracle_accuracy_MM.tolist(), routed_MM.tolist(), headroom_pp_MM.tolist()
    return {
        (s, t): Ceilings(
            oracle_accuracy=oracle[s][t],
            routed_accuracy=routed[s][t],
            mean_accuracy=None,
            headroom_pp=headroom_pp[s][t],
        )
        for s, t in pairs
    }


def ceilings_with_all_others(models: Sequence[Answers], target_N: Tensor) -> list[Ceilings]:
    """For each model what `ceilings_of` gives with all others as its teachers, in their order.

    Args:
        models: the models' answers to the same images.
        target_N: labels, int64 (N,), N ≥ 1.
    """
    if any(model.logits_NC is not None for model in models):
        return [ceilings_of(model, [other for other in models if other is not model], target_N) for model in models]
    confidence_MN, right_MN = _confidence(models), _right(models, target_N)
    surest_N = argmax_confidence(confidence_MN.T)
    highest_N = confidence_MN.gather(0, surest_N[None])
    # As a student, a model answers wherever none is surer than it; elsewhere the surest that comes first.
    routed_M = torch.where(confidence_MN == highest_N, right_MN, right_MN.gather(0, surest_N[None])).sum(dim=1)
    n = len(target_N)
    oracle = int(right_MN.any(dim=0).sum()) / n
    return [
        Ceilings(
            oracle_accuracy=oracle,
            routed_accuracy=routed / n,
            mean_accuracy=None,
            headroom_pp=100 * (routed / n - right / n),
        )
        for routed, right in zip(routed_M.tolist(), right_MN.sum(dim=1).tolist(), strict=True)
    ]


def routed_counts(confidence_MN: Tensor, right_MN: Tensor) -> Tensor:
    """Number of samples that the routed ensemble of each ordered pair has right: the surer model's answer.

        |t right and surer than s| + |s right and t not surer than s|

    Ties go to the student, as in `ceilings_of`.

    Args:
        confidence_MN: largest softmax probabilities, float32 (M, N), without NaN.
        right_MN: bool (M, N).

    Returns:
        int64 (M, M); on the diagonal what the model itself has right.

    Two models are right about one of two samples each, and the second one is as sure of the first, less of the second:

    >>> routed_counts(torch.tensor([[0.5, 0.5], [0.5, 0.25]]), torch.tensor([[True, False], [False, True]])).tolist()
    [[1, 1], [0, 1]]
    """
    # No comparison with NaN is true, so a model that is wrong adds nothing, however sure it is.
    if_right_MN = torch.where(right_MN, confidence_MN, torch.nan)
    counts_MM = np.zeros((len(right_MN), len(right_MN)), dtype=np.int64)
    for if_right_Mn, confidence_Mn in zip(if_right_MN.split(SAMPLES, 1), confidence_MN.split(SAMPLES, 1), strict=True):
        # NumPy compares a block four times as fast as torch does.
        right, all_of_it = if_right_Mn.contiguous().numpy(), confidence_Mn.contiguous().numpy()
        for model, own in enumerate(all_of_it):
            counts_MM[model] += (right > own).sum(axis=1)
            counts_MM[:, model] += (right >= own).sum(axis=1)
    return torch.from_numpy(counts_MM)


def _confidence(models: Sequence[Answers]) -> Tensor:
    """Confidences, float32 (M, N); NaN is the greatest, as `argmax_confidence` takes it."""
    confidence_MN = torch.stack([model.confidence_N for model in models])
    return confidence_MN.masked_fill(confidence_MN.isnan(), torch.inf)


def _right(models: Sequence[Answers], target_N: Tensor) -> Tensor:
    return torch.stack([model.predicted_N == target_N for model in models])
