"""Never a worse student: which point between the initial and the transferred student to keep.

The points lie on the straight line in weight space. Each is judged on guard images, which none of the models should
have been trained on, by the accuracy it gains over the initial student less a margin for the noise of that gain; the
initial student gains 0 without noise, and is kept unless a point is better than that. Without labels the gain is
estimated; see `expected_gain`.

Shapes: N samples, M models, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .calibration import fit_temperature_to
from .evaluation import estimated_strengths
from .predictions import Predictions

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Points of the line that are tried besides the initial student (0)."""
MARGIN = 1.0
"""Standard errors that are taken off a gain in accuracy."""
UNLABELLED_MARGIN = 2.0
"""Standard errors that are taken off a gain that is estimated without labels."""


@dataclass(frozen=True, kw_only=True)
class GuardPoint:
    """A point of the line and what it gains over the initial student.

    Attributes:
        share: of the way from the initial (0) to the transferred student (1).
        gain_pp: accuracy gained on the guard images, percentage points; estimated where there are no labels.
        error_pp: standard error of that gain.
        sure_gain_pp: the gain less the margin for its noise.
    """

    share: float
    gain_pp: float
    error_pp: float
    sure_gain_pp: float


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
    gain_pp, error_pp = 100 * float(gains_N.mean()), 100 * error
    margin = UNLABELLED_MARGIN if before.target is None else MARGIN
    sure_pp = gain_pp - margin * error_pp
    return GuardPoint(share=share, gain_pp=gain_pp, error_pp=error_pp, sure_gain_pp=sure_pp)


def choose(points: Sequence[GuardPoint]) -> float:
    """The share of the way to keep: the point of highest sure gain; 0, the initial student, where none is above 0.

    Ties go to the shorter way.

    >>> near = GuardPoint(share=0.5, gain_pp=1.0, error_pp=0.2, sure_gain_pp=0.8)
    >>> far = GuardPoint(share=1.0, gain_pp=1.1, error_pp=0.5, sure_gain_pp=0.6)
    >>> choose([near, far]), choose([GuardPoint(share=1.0, gain_pp=0.1, error_pp=0.2, sure_gain_pp=-0.1)])
    (0.5, 0.0)
    """
    best, kept = 0.0, 0.0
    for point in sorted(points, key=lambda point: point.share):
        if point.sure_gain_pp > best:
            best, kept = point.sure_gain_pp, point.share
    return kept


def expected_gain(before: Predictions, candidate: Predictions, teachers: Sequence[Predictions]) -> Tensor:
    """Without labels: how much likelier, in the eyes of the frozen models together, the candidate's answer is right.

        q_i(candidate's class) − q_i(initial student's class),  q = mean over the models of σ(z_m / T_m)

    T_m is the temperature at which a model's mean confidence is its mean agreement with the others: models that are
    often contradicted may not be sure. The candidate itself has no say. It is a cautious measure: knowledge that no
    frozen model shows, such as statistics adapted to new images, counts as loss (benchmarks/README.md tells how often
    it chose well and badly).

    Args:
        before: of the initial student.
        candidate: of the student in question, for the same images.
        teachers: of the teachers, for the same images; without any, nothing is known and every gain is 0.

    Returns:
        float64 (N,), from −1 to 1; 0 where the answer is unchanged.
    """
    if not teachers:
        return torch.zeros(len(before), dtype=torch.float64)
    models = [before, *teachers]
    agreements = estimated_strengths([replace(model, target=None) for model in models])
    least = 1 / before.logits.shape[1]  # a model that agrees with none is unsure of everything, not an error
    temperatures = [
        fit_temperature_to(model.logits, max(agreement, least))
        for model, agreement in zip(models, agreements, strict=True)
    ]
    probs = [
        (model.logits.double() / temperature).softmax(dim=1)
        for model, temperature in zip(models, temperatures, strict=True)
    ]
    consensus_NC = torch.stack(probs).mean(dim=0)
    after_N, before_N = (consensus_NC.gather(1, one.predicted[:, None]).squeeze(1) for one in (candidate, before))
    return after_N - before_N
