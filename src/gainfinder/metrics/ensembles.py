"""Which few teachers to take: a greedy choice by what the ensemble with them would have over the student.

Shapes: N samples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .ceilings import ROWS, Answers, better_of
from .stand_ins import expected_accuracy


@dataclass(frozen=True, kw_only=True)
class ChosenTeacher:
    """A teacher of a greedy choice, and what the ensembles of the student and all chosen so far have.

    Attributes:
        teacher: its place among the teachers given, from 0.
        routed_accuracy: accuracy of the routed ensemble, the answer of the most confident model, in [0, 1].
        mean_accuracy: accuracy of the ensemble of mean calibrated probabilities, in [0, 1]; None without logits.
        headroom_pp: accuracy of the better of the two less the student's, in percentage points.
        added_pp: what this teacher has added to the headroom, in percentage points, above 0.
    """

    teacher: int
    routed_accuracy: float
    mean_accuracy: float | None
    headroom_pp: float
    added_pp: float


def choose_teachers(
    student: Answers, teachers: Sequence[Answers], truth: Tensor, *, most: int
) -> tuple[ChosenTeacher, ...]:
    """Choose teachers one after another, each the one with which the better of both ensembles is best.

    It ends where no other teacher would improve the ensemble, or after so many. The ensembles are those of
    `ceilings.ceilings_of` with the teachers in the order of the choice.

    Args:
        student: the student's answers.
        teachers: the answers of the teachers to the same images, in the student's class order.
        truth: labels, int64 (N,), N ≥ 1. The same labels choose and measure: of many teachers the headroom of the
            chosen ones is a little too high. Without labels class probabilities (N, C), as `stand_ins.pooled_probs`
            gives them of all models: accuracies are then expected by these, which is too high as well.
        most: number of teachers at most, 1 or more.

    Returns:
        The choice, the first teacher first; between equal ones that which comes first. Empty where no teacher improves
        on the student alone.

    Example:
        The first teacher corrects one image, the second the same and another one; then the first adds nothing:

        >>> def sure(*classes):
        ...     return Answers(predicted_N=torch.tensor(classes), confidence_N=torch.tensor([0.5, 0.9, 0.9]))
        >>> student = Answers(predicted_N=torch.tensor([0, 0, 0]), confidence_N=torch.full((3,), 0.6))
        >>> found = choose_teachers(student, [sure(0, 1, 0), sure(0, 1, 1)], torch.tensor([0, 1, 1]), most=2)
        >>> [(one.teacher, round(one.headroom_pp, 1)) for one in found]
        [(1, 66.7)]
    """
    own = expected_accuracy(student.predicted_N, truth)
    ensemble = _Ensemble.of(student)
    chosen: list[ChosenTeacher] = []
    left = dict(enumerate(teachers))
    best = own
    while left and len(chosen) < most:
        measured = {number: ensemble.measured_with(teacher, truth) for number, teacher in left.items()}
        number = max(measured, key=lambda one: (better_of(*measured[one]), -one))
        routed, mean = measured[number]
        now = better_of(routed, mean)
        if now <= best:
            break
        chosen.append(
            ChosenTeacher(
                teacher=number,
                routed_accuracy=routed,
                mean_accuracy=mean,
                headroom_pp=100 * (now - own),
                added_pp=100 * (now - best),
            )
        )
        ensemble, best = ensemble.joined_by(left.pop(number)), now
    return tuple(chosen)


@dataclass(frozen=True, kw_only=True)
class _Ensemble:
    """The routed answers of some models, and the sum of their calibrated probabilities; None without logits."""

    predicted_N: Tensor
    confidence_N: Tensor
    probs_NC: Tensor | None

    @classmethod
    def of(cls, model: Answers) -> "_Ensemble":
        return cls(predicted_N=model.predicted_N, confidence_N=model.confidence_N, probs_NC=model.probs())

    def joined_by(self, model: Answers) -> "_Ensemble":
        probs_NC, own_NC = self.probs_NC, model.probs()
        return _Ensemble(
            predicted_N=self._routed_with(model),
            confidence_N=torch.maximum(self.confidence_N, model.confidence_N),
            probs_NC=None if probs_NC is None or own_NC is None else probs_NC + own_NC,
        )

    def measured_with(self, model: Answers, truth: Tensor) -> tuple[float, float | None]:
        """Accuracy of the routed ensemble and of that of means with a further model."""
        routed = expected_accuracy(self._routed_with(model), truth)
        predicted = []
        for start in range(0, len(truth), ROWS):
            rows = slice(start, start + ROWS)
            own_NC = model.probs(rows)
            if self.probs_NC is None or own_NC is None:
                return routed, None
            predicted.append((self.probs_NC[rows] + own_NC).argmax(dim=1))
        return routed, expected_accuracy(torch.cat(predicted), truth)

    def _routed_with(self, model: Answers) -> Tensor:
        """The surer answers; ties go to those that were there."""
        return torch.where(model.confidence_N > self.confidence_N, model.predicted_N, self.predicted_N)
