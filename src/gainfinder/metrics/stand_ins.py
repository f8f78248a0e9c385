"""Without labels: what stands in for accuracy and positive flips, from the answers of a zoo's models alone.

What can be counted is where models disagree, and which of the two is the surer (the paper's Eq. 4 without labels). An
estimate of who is right comes from all models together: the product of their probabilities, as if each had looked at
the image by itself. It is as good as the models' confidences: one that is sure of everything outweighs all others.
Shapes: N samples, M models, C classes. In a matrix (M, M) the row is the student, the column the teacher.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .ceilings import ROWS, Answers
from .information import information

LEAST_LOG_PROB = math.log(1e-30)
"""No model alone rules a class out: some know fewer classes and give the others none."""
SAMPLES = 2048
"""Samples that are compared at once: those of some hundred models fit into a core's cache."""


@dataclass(frozen=True, kw_only=True)
class StandIns:
    """What the answers of a zoo's models say without labels; shares of all samples, float64.

    Attributes:
        disagreement_MM: student and teacher predict different classes; symmetric. ρ_pos is at most that.
        surer_disagreement_MM: they do, and the teacher is the more confident: what the label-free partition sends to it
            of what could be learned.
        kappa_MM: Cohen's κ of the predicted classes, symmetric: 1 the same answers, 0 as by chance from how often each
            predicts each class; NaN where chance alone lets them agree on everything.
        agreement_M: share on which another model predicts the same class, on average over the others; 1 without others.
        strength_M: mean agreement × mutual information of image and class, nats (`transfer.estimated_strengths`); None
            where logits were not kept.
        estimated_accuracy_M: mean probability of the model's answer by all models together.
        estimated_positive_flips_MM: mean probability, by all models together, that the teacher's answer is right and
            the student's another: the estimate of ρ_pos.
    """

    disagreement_MM: Tensor
    surer_disagreement_MM: Tensor
    kappa_MM: Tensor
    agreement_M: Tensor
    strength_M: Tensor | None
    estimated_accuracy_M: Tensor
    estimated_positive_flips_MM: Tensor


def measure_stand_ins(models: Sequence[Answers], num_classes: int) -> StandIns:
    """The stand-ins for a zoo's accuracies and flips; no label is read.

    Args:
        models: one or more models' answers to the same images.
        num_classes: C.
    """
    predicted_MN = torch.stack([model.predicted_N for model in models])
    confidence_MN = torch.stack([model.confidence_N for model in models])
    pooled_NC = pooled_probs(models, num_classes)
    right_MN = torch.stack([pooled_NC.gather(1, model.predicted_N[:, None]).squeeze(1) for model in models])
    samples = predicted_MN.shape[1]
    differ_MM, surer_MM, flips_MM = _disagreements(predicted_MN, confidence_MN, right_MN)
    disagreement_MM = differ_MM / samples
    agreement_M = _agreement_with_others(differ_MM, samples)
    logits = [model.logits_NC for model in models if model.logits_NC is not None]
    informative_M = torch.tensor([float(information(logits_NC).mean()) for logits_NC in logits], dtype=torch.float64)
    return StandIns(
        disagreement_MM=disagreement_MM,
        surer_disagreement_MM=surer_MM / samples,
        kappa_MM=_kappa(disagreement_MM, predicted_MN, num_classes),
        agreement_M=agreement_M,
        strength_M=agreement_M * informative_M if len(logits) == len(models) else None,
        estimated_accuracy_M=right_MN.double().mean(dim=1),
        estimated_positive_flips_MM=flips_MM / samples,
    )


def pooled_probs(models: Sequence[Answers], num_classes: int) -> Tensor:
    """The class probabilities of all models together, as if they erred independently.

        q(y) ∝ ∏_m p_m(y)

    Uncalibrated: of a zoo whose confidences mean something, the product trusts whoever knows. In place of a model's
    other probabilities, where logits were not kept, the rest of its confidence is spread evenly.

    Args:
        models: one or more models' answers to the same images.
        num_classes: C.

    Returns:
        float32 (N, C); rows add up to 1.

    Example:
        Two models of which one is surer; together they believe it, by odds of 9 · 1/3 = 3 to 1:

        >>> def answer(predicted, confidence):
        ...     return Answers(predicted_N=torch.tensor([predicted]), confidence_N=torch.tensor([confidence]))
        >>> [round(share, 4) for share in pooled_probs([answer(0, 0.9), answer(1, 0.75)], num_classes=2)[0].tolist()]
        [0.75, 0.25]
    """
    if all(model.logits_NC is not None for model in models):
        return torch.cat([_product(models, start) for start in range(0, len(models[0].predicted_N), ROWS)])
    votes_NC = torch.zeros(len(models[0].predicted_N), num_classes)
    for model in models:  # by how much its answer's logarithm is above that of each other class
        sure_N = model.confidence_N.nan_to_num(1.0)
        rest_N = ((1 - sure_N) / max(1, num_classes - 1)).log().clamp_min(LEAST_LOG_PROB)
        votes_NC.scatter_add_(1, model.predicted_N[:, None], (sure_N.log() - rest_N)[:, None])
    return votes_NC.softmax(dim=1)


def expected_accuracy(predicted_N: Tensor, truth: Tensor) -> float:
    """Share of samples predicted right: counted, or expected by class probabilities.

    Args:
        predicted_N: predicted classes, int64 (N,), N ≥ 1.
        truth: labels, int64 (N,), or class probabilities, float (N, C).

    Example:
        >>> expected_accuracy(torch.tensor([0, 1]), torch.tensor([0, 0]))
        0.5
        >>> expected_accuracy(torch.tensor([0, 1]), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
        0.625
    """
    if truth.ndim == 1:
        return int((predicted_N == truth).sum()) / len(truth)
    return float(truth.gather(1, predicted_N[:, None]).double().mean())


def _product(models: Sequence[Answers], start: int) -> Tensor:
    rows = slice(start, start + ROWS)
    logs = [model.logits_NC[rows].log_softmax(dim=1) for model in models if model.logits_NC is not None]
    return torch.stack([one.clamp_min(LEAST_LOG_PROB) for one in logs]).sum(dim=0).softmax(dim=1)


def _disagreements(predicted_MN: Tensor, confidence_MN: Tensor, right_MN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the samples on which two models differ: of 1, of 1 where the teacher is surer, of its being right."""
    models = len(predicted_MN)
    sums = torch.zeros(3, models, models, dtype=torch.float64)
    blocks = (one.split(SAMPLES, 1) for one in (predicted_MN.int(), confidence_MN, right_MN))
    for predicted_Mn, confidence_Mn, right_Mn in zip(*blocks, strict=True):
        # NumPy compares a block several times as fast as torch does.
        predicted, confidence, right = (one.contiguous().numpy() for one in (predicted_Mn, confidence_Mn, right_Mn))
        for student in range(models):
            differ = predicted != predicted[student]
            surer = (confidence > confidence[student]) & differ
            sums[0, student] += torch.from_numpy(differ.sum(axis=1))
            sums[1, student] += torch.from_numpy(surer.sum(axis=1))
            sums[2, student] += torch.from_numpy((right * differ).sum(axis=1, dtype="float64"))
    return sums[0], sums[1], sums[2]


def _kappa(disagreement_MM: Tensor, predicted_MN: Tensor, num_classes: int) -> Tensor:
    """(observed − expected agreement) / (1 − expected), expected from how often each model predicts each class."""
    counts_MC = torch.stack([torch.bincount(one, minlength=num_classes) for one in predicted_MN]).double()
    expected_MM = counts_MC @ counts_MC.T / predicted_MN.shape[1] ** 2
    return 1 - disagreement_MM / torch.where(expected_MM < 1, 1 - expected_MM, torch.nan)


def _agreement_with_others(differ_MM: Tensor, samples: int) -> Tensor:
    """Share of the samples on which another model agrees, on average; of counts, whose sums no order changes."""
    others = len(differ_MM) - 1
    return 1 - differ_MM.sum(dim=1) / (samples * others) if others else torch.ones(1, dtype=torch.float64)
