"""Never a worse student: which point between the initial and the transferred student to keep.

The points lie on the straight line in weight space. Each is judged on guard images, which none of the models should
have been trained on, by the accuracy it gains over the initial student less a margin for the noise of that gain; the
initial student gains 0 without noise, and is kept unless a point is better than that. Without labels the gain is
estimated; see `expected_gain`.

Shapes: N samples, M models, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .predictions import Predictions

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Points of the line that are tried besides the initial student (0)."""
MARGIN = 1.0
"""Standard errors that are taken off a gain."""


@dataclass(frozen=True, kw_only=True)
class GuardPoint:
    """A point of the line and what it gains over the initial student.

    Attributes:
        share: of the way from the initial (0) to the transferred student (1).
        gain_pp: accuracy gained on the guard images, percentage points; estimated where there are no labels.
        error_pp: standard error of that gain.
    """

    share: float
    gain_pp: float
    error_pp: float

    @property
    def sure_gain_pp(self) -> float:
        """The gain less the margin for its noise."""
        return self.gain_pp - MARGIN * self.error_pp


def judge(before: Predictions, candidate: Predictions, teachers: Sequence[Predictions], *, share: float) -> GuardPoint:
    """What a candidate gains over the initial student on the guard images.

    Args:
        before: of the initial student; with labels, they decide.
        candidate: of the point, for the same images.
        teachers: of the teachers, for the same images; they only matter without labels.
        share: of the way.
    """
    if before.target is None:
        gains_N = expected_gain(before, candidate, teachers)
    else:
        right_N = (candidate.predicted == before.target).double()
        gains_N = right_N - (before.predicted == before.target).double()
    error = float(gains_N.std(correction=1)) / len(gains_N) ** 0.5 if len(gains_N) > 1 else float("inf")
    return GuardPoint(share=share, gain_pp=100 * float(gains_N.mean()), error_pp=100 * error)


def choose(points: Sequence[GuardPoint]) -> float:
    """The share of the way to keep: the point of highest sure gain; 0, the initial student, where none is above 0.

    Ties go to the shorter way.

    >>> choose([GuardPoint(share=0.5, gain_pp=1.0, error_pp=0.2), GuardPoint(share=1.0, gain_pp=1.1, error_pp=0.5)])
    0.5
    >>> choose([GuardPoint(share=1.0, gain_pp=0.1, error_pp=0.2)])
    0.0
    """
    best, kept = 0.0, 0.0
    for point in sorted(points, key=lambda point: point.share):
        if point.sure_gain_pp > best:
            best, kept = point.sure_gain_pp, point.share
    return kept


def expected_gain(before: Predictions, candidate: Predictions, teachers: Sequence[Predictions]) -> Tensor:
    """Without labels: the change of the probability of being right that the models together see, float64 (N,)."""
    models = [before, *teachers]
    consensus_NC = torch.stack([model.logits.double().softmax(dim=1) for model in models]).mean(dim=0)
    gathered = [consensus_NC.gather(1, one.predicted[:, None]).squeeze(1) for one in (candidate, before)]
    return gathered[0] - gathered[1]
