"""What the measures of a transfer are made of: by class, by who was right before, by where gains came from.

Functions of predictions for the same labelled images. Before, after and teachers are as in
`evaluation.measure_transfer`; with several teachers a sample counts as known to them where any of them is right.
Shapes: N samples, M models, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import DataError
from .evaluation import check_same_samples
from .flips import flip_counts, knowledge_gained, knowledge_lost
from .methods import Partition
from .partition import log_confidences, surest
from .predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class ClassKnowledge:
    """What there was to learn in a class, and what became of it; counts of samples of that label.

    Attributes:
        name: of the class, or its index.
        samples: of the class.
        positive_flips: a teacher is right and the initial student wrong.
        transferred: of these, the student is right after the transfer.
        gained: wrong before, right after, whoever knew it.
        lost: right before, wrong after.
        right_before: that the initial student has right.
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
class PartitionGroup:
    """Samples by who has them right, and how many of them the partition gives to a teacher.

    Attributes:
        right: `both`, `teacher` (positive flips), `student` (negative flips) or `neither`.
        samples: in the group.
        to_teacher: of these, a teacher is the most confident.
    """

    right: str
    samples: int
    to_teacher: int


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where gains came from: of what the initial student had wrong, what it has right after.

    Attributes:
        known: samples that a teacher has right (positive flips).
        known_gained: of these, gained.
        unknown: samples that no teacher has right either.
        unknown_gained: of these, gained: no teacher can have shown them.
    """

    known: int
    known_gained: int
    unknown: int
    unknown_gained: int


def by_class(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> list[ClassKnowledge]:
    """Complementary knowledge, gain and loss of each class (section 5.2), in the order of the classes.

    Raises:
        DataError: no labels, no teacher, or predictions for different images.
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


def by_partition(
    before: Predictions,
    teachers: Sequence[Predictions],
    partition: Partition,
    *,
    temperatures: Sequence[float] | None = None,
) -> list[PartitionGroup]:
    """The partition's quality: whom it lets teach, by who is right (section 5.1).

    A good one sends what only the teacher has right to the teacher and keeps what only the student has right. Told of
    the images measured on, as they are; in training the models see augmented views of others.

    Args:
        before: of the initial student.
        teachers: of the teachers.
        partition: by the `label` or by each model's own `confidence`.
        temperatures: logits of the initial student and the teachers are divided by them, for calibrated methods.

    Raises:
        DataError: no labels, no teacher, or predictions for different images.
    """
    target = _target(before, *teachers)
    logits_NMC = torch.stack([model.logits for model in (before, *teachers)], dim=1)
    if temperatures is not None:
        logits_NMC = logits_NMC / torch.tensor(temperatures)[:, None]
    to_teacher = surest(log_confidences(logits_NMC, target if partition == "label" else None)) > 0
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


def by_source(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> Sources:
    """Whether gains lie where a teacher could show them, or as much where none could.

    A student that merely adapts to the images gains on both kinds.

    Raises:
        DataError: no labels, no teacher, or predictions for different images.
    """
    target = _target(before, after, *teachers)
    wrong, known = before.predicted != target, _known(teachers, target)
    gained = knowledge_gained(before.predicted, after.predicted, target)
    return Sources(
        known=int((wrong & known).sum()),
        known_gained=int((gained & known).sum()),
        unknown=int((wrong & ~known).sum()),
        unknown_gained=int((gained & ~known).sum()),
    )


def _target(first: Predictions, *others: Predictions) -> Tensor:
    check_same_samples(first, *others)
    if first.target is None:
        raise DataError(f"predictions of {first.model} carry no labels: who is right is unknown")
    return first.target


def _known(teachers: Sequence[Predictions], target: Tensor) -> Tensor:
    if not teachers:
        raise DataError("there are no predictions of a teacher for these images")
    return torch.stack([teacher.predicted == target for teacher in teachers]).any(dim=0)
