"""What the measures of a transfer are made of: by class, by who was right before, by where gains came from.

Functions of predictions for the same labelled images. Before, after and teachers are as in
`metrics.measure_transfer`; with several teachers a sample counts as known to them where any of them is right.
Shapes: N samples, M models, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import Partition
from ..errors import DataError
from ..partition import argmax_confidence, log_confidences
from ..predictions import Predictions
from .flips import flip_counts, knowledge_gained, knowledge_lost, negative_flips, positive_flips
from .transfer import check_same_samples

STRATA = 10
"""Groups of images that were as nearly right; more leave too few in each."""


@dataclass(frozen=True, kw_only=True)
class ClassKnowledge:
    """What there was to learn in a class, and what became of it; counts of samples of that label.

    Attributes:
        name: class name, or class index as text.
        samples: number of samples with this label.
        positive_flips: samples that a teacher has right and the initial student wrong.
        transferred: positive flips that the student has right after the transfer.
        gained: samples wrong before and right after, whether a teacher has them right or not.
        lost: samples right before and wrong after.
        right_before: samples that the initial student has right.
    """

    name: str
    samples: int
    positive_flips: int
    transferred: int
    gained: int
    lost: int
    right_before: int

    @property
    def right_after(self) -> int:
        """Samples that the student has right after the transfer."""
        return self.right_before + self.gained - self.lost


@dataclass(frozen=True, kw_only=True)
class TeacherKnowledge:
    """What one teacher had to teach, and what became of it; counts of samples.

    Attributes:
        right: samples that the teacher has right.
        positive_flips: samples that it has right and the initial student wrong.
        transferred: positive flips that the student has right after the transfer.
        negative_flips: samples that it has wrong and the initial student right.
        misled: negative flips that the student has wrong after the transfer.
    """

    right: int
    positive_flips: int
    transferred: int
    negative_flips: int
    misled: int


@dataclass(frozen=True, kw_only=True)
class PartitionGroup:
    """Samples by who has them right, and how many of them the partition gives to a teacher.

    Attributes:
        right: `both`, `teacher` (positive flips), `student` (negative flips) or `neither`.
        samples: number of samples in the group.
        to_teacher: samples of the group on which a teacher is the most confident model.
    """

    right: str
    samples: int
    to_teacher: int


@dataclass(frozen=True, kw_only=True)
class GainAttribution:
    """Where gains came from: of what the initial student had wrong, what it has right after.

    Attributes:
        known: samples that a teacher has right (positive flips).
        known_gained: known samples that were gained.
        unknown: samples that no teacher has right either.
        unknown_gained: unknown samples that were gained: no teacher can have shown them.
        expected: how many of `known` would be gained on average if samples that the initial student had as nearly right
            were gained alike, whether a teacher has them right or not.
        error: standard deviation of `expected`.
    """

    known: int
    known_gained: int
    unknown: int
    unknown_gained: int
    expected: float
    error: float


def by_class(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> list[ClassKnowledge]:
    """Complementary knowledge, gain and loss of each class (section 5.2), in the order of the classes.

    Without teachers there are no positive flips.

    Raises:
        DataError: no labels, or predictions for different images.
    """
    target = _target(before, after, *teachers)
    num_classes = before.logits.shape[1]
    positive = _known(teachers, target) & (before.predicted != target)
    gained = knowledge_gained(before.predicted, after.predicted, target)
    lost = knowledge_lost(before.predicted, after.predicted, target)
    masks = (torch.ones_like(positive), positive, positive & gained, gained, lost, before.predicted == target)
    counts = torch.stack([flip_counts(mask, target, num_classes) for mask in masks], dim=1).tolist()
    names = before.class_names or tuple(str(c) for c in range(num_classes))
    return [
        ClassKnowledge(
            name=name,
            samples=samples,
            positive_flips=flips,
            transferred=transferred,
            gained=gains,
            lost=losses,
            right_before=right,
        )
        for name, (samples, flips, transferred, gains, losses, right) in zip(names, counts, strict=True)
    ]


def by_teacher(before: Predictions, after: Predictions, teacher: Predictions) -> TeacherKnowledge:
    """Gain and loss of a transfer where one teacher is right, and where it is wrong.

    With several teachers the same sample counts for each that has it right.

    Raises:
        DataError: no labels, or predictions for different images.
    """
    target = _target(before, after, teacher)
    positive = positive_flips(before.predicted, teacher.predicted, target)
    negative = negative_flips(before.predicted, teacher.predicted, target)
    right = after.predicted == target
    return TeacherKnowledge(
        right=int((teacher.predicted == target).sum()),
        positive_flips=int(positive.sum()),
        transferred=int((positive & right).sum()),
        negative_flips=int(negative.sum()),
        misled=int((negative & ~right).sum()),
    )


def by_partition(
    before: Predictions,
    teachers: Sequence[Predictions],
    partition: Partition,
    *,
    temperatures: Sequence[float] | None = None,
) -> list[PartitionGroup]:
    """The partition's quality: whom it lets teach, by who is right (section 5.1).

    A good one sends what only the teacher has right to the teacher and keeps what only the student has right. Measured
    on the evaluation images, as they are; in training the models see augmented views of other images.

    Args:
        before: predictions of the initial student.
        teachers: predictions of the teachers; without any, no sample goes to a teacher.
        partition: `label`, by each model's probability of the label, or `confidence`, by its largest probability.
        temperatures: logits of the initial student and the teachers are divided by them, for calibrated methods.

    Raises:
        DataError: no labels, or predictions for different images.
    """
    target = _target(before, *teachers)
    models = (before, *teachers)
    # One model at a time: all of them in one tensor would take several times the memory of the predictions.
    confidence_NM = torch.cat(
        [
            log_confidences(
                (model.logits if by == 1 else model.logits / by)[:, None], target if partition == "label" else None
            )
            for model, by in zip(models, temperatures or [1.0] * len(models), strict=True)
        ],
        dim=1,
    )
    to_teacher = argmax_confidence(confidence_NM) > 0
    student, teacher = before.predicted == target, _known(teachers, target)
    groups = {
        "both": student & teacher,
        "teacher": ~student & teacher,
        "student": student & ~teacher,
        "neither": ~student & ~teacher,
    }
    return [
        PartitionGroup(right=name, samples=int(mask.sum()), to_teacher=int((mask & to_teacher).sum()))
        for name, mask in groups.items()
    ]


def attribute_gains(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> GainAttribution:
    """Whether gains lie where a teacher could show them, or as much where none could.

    A student that merely adapts to the images gains on both kinds, but more where a teacher is right: these images are
    the easier ones. So images are compared that the initial student had as nearly right, by how far the label's logit
    was below the greatest: `STRATA` groups of them by its quantiles, equal values in one group. `expected` and `error`
    are of the sum over groups of hypergeometric counts (Mantel and Haenszel 1959, their test's null hypothesis).

    Raises:
        DataError: no labels, or predictions for different images.
    """
    target = _target(before, after, *teachers)
    wrong = before.predicted != target
    known = _known(teachers, target)[wrong]
    gained = knowledge_gained(before.predicted, after.predicted, target)[wrong]
    logits_NC = before.logits[wrong]
    short_N = logits_NC.amax(dim=1) - logits_NC.gather(1, target[wrong][:, None]).squeeze(1)
    expected, error = _hypergeometric(known, gained, _strata(short_N))
    return GainAttribution(
        known=int(known.sum()),
        known_gained=int((gained & known).sum()),
        unknown=int((~known).sum()),
        unknown_gained=int((gained & ~known).sum()),
        expected=expected,
        error=error,
    )


def _strata(values_N: Tensor) -> Tensor:
    """Groups of about equal size by value, int64 (N,); equal values share one."""
    edges = np.quantile(values_N.numpy(), np.linspace(0, 1, STRATA + 1)[1:-1]) if len(values_N) else np.zeros(0)
    return torch.from_numpy(np.searchsorted(edges, values_N.numpy()))


def _hypergeometric(known_N: Tensor, gained_N: Tensor, stratum_N: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the known that are gained, if in each stratum the gained were drawn at random."""
    mean = variance = 0.0
    for stratum in sorted(set(stratum_N.tolist())):
        inside = stratum_N == stratum
        n, known, gained = int(inside.sum()), int(known_N[inside].sum()), int(gained_N[inside].sum())
        mean += known * gained / n
        if n > 1:
            variance += known * (n - known) * gained * (n - gained) / (n * n * (n - 1))
    return mean, math.sqrt(variance)


def _target(first: Predictions, *others: Predictions) -> Tensor:
    check_same_samples(first, *others)
    if first.target is None:
        raise DataError(f"predictions of {first.model} carry no labels: who is right is unknown")
    return first.target


def _known(teachers: Sequence[Predictions], target: Tensor) -> Tensor:
    known = torch.zeros_like(target, dtype=torch.bool)
    for teacher in teachers:
        known |= teacher.predicted == target
    return known
