"""The guard's rule before certificates, as a baseline: which of several candidates to keep.

Candidates are points of the straight line in weight space from the initial to the transferred student, and, where the
student has batch-norm, the initial student with its statistics re-estimated (adaptation to the images, without any
knowledge). Each is given what it gains over the initial student, the noise of that gain and, without labels, whether
something contradicts it; the initial student is kept unless a gain is larger than its margin.

With labels the gain is one of accuracy. Without, four things are looked at, each a function of predictions alone:

- Movement towards the teachers (`selection.movement`). Predictions that the student gave up for one of the teachers'
  speak for a candidate; predictions that it shared with them and gave up speak against it, three times as much: what
  two different models agree on is mostly right, and damage shows there first.
- Consensus (`consensus_gain`). A candidate that the frozen models together, on a common scale of confidence, judge to
  be worse is vetoed: its teachers were less confident of what it took over than it had been of its own.
- Classes (`class_information`). A candidate that spreads its predictions over fewer classes is vetoed: so does a
  student that imitates a teacher which knows some classes only, confident everywhere. Where the images are mostly of a
  few classes, which a good student would rightly prefer, this is too cautious.
- Information (`information`). A student whose statistics fit the images better tells them apart better: the mutual
  information between image and predicted class rises. It judges adaptation only, for training changes confidences at
  will; a rise against the teachers, or with fewer classes, is vetoed.

Shapes: N samples, M models, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gainfinder.metrics import Candidate, calibration, information, mean_agreements, selection
from gainfinder.predictions import Predictions

ACCURACY_MARGIN = 2.0
"""Standard errors that are taken off a gain in accuracy."""
MOVEMENT_MARGIN = 1.0
"""Standard errors that are taken off a gain in movement, of which lost agreements have taken their share already."""
VETO_MARGIN = 2.0
"""Standard errors by which something must be below zero to contradict a gain."""
LOST_AGREEMENT_WEIGHT = 3.0
"""How much more an agreement lost counts than one won."""

Measure = Literal["accuracy", "movement", "information"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a candidate gains over the initial student.

    Attributes:
        candidate: the candidate that is judged.
        measure: the quantity gained: `accuracy` and `movement` are in percentage points, `information` in nats.
        gain: mean gain over the guard images.
        error: standard error of the gain.
        sure_gain: the gain less the margin for its noise.
        veto: the reason that contradicts the gain, or None.
    """

    candidate: Candidate
    measure: Measure
    gain: float
    error: float
    sure_gain: float
    veto: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the candidate may be kept."""
        return self.sure_gain > 0 and self.veto is None


def judge(
    before: Predictions, after: Predictions, teachers: Sequence[Predictions], *, candidate: Candidate
) -> Judgement:
    """What a candidate gains over the initial student on the guard images.

    Args:
        before: predictions of the initial student; their labels decide, where there are any.
        after: predictions of the candidate for the same images.
        teachers: predictions of the teachers for the same images; they only matter without labels.
        candidate: the candidate that `after` belongs to.
    """
    if before.target is not None:
        right_N = (after.predicted == before.target).double()
        gains_N = right_N - (before.predicted == before.target).double()
        return _judgement(candidate, "accuracy", 100 * gains_N, margin=ACCURACY_MARGIN)
    if candidate.bn_reestimated:
        return _judge_adaptation(before, after, teachers, candidate)
    moves_N = selection.movement(before, after, teachers)
    weighed_N = torch.where(moves_N < 0, LOST_AGREEMENT_WEIGHT * moves_N, moves_N)
    veto = None
    if _is_negative(consensus_gain(before, after, teachers)):
        veto = "the frozen models together hold it to be worse"
    elif _is_negative(_class_entropy_gain(before, after)):
        veto = selection.FEWER_CLASSES
    return _judgement(candidate, "movement", 100 * weighed_N, margin=MOVEMENT_MARGIN, veto=veto)


def choose(judgements: Sequence[Judgement]) -> Candidate | None:
    """The candidate to keep; None, the initial student, where none holds.

    Among those that hold, the one of highest sure gain; adaptation that is judged by information, which cannot be
    compared with the others, only where nothing else holds. Ties go to the smaller alpha.

    Example:
        >>> def judged(alpha, sure_gain):
        ...     point = Candidate(alpha=alpha)
        ...     return Judgement(candidate=point, measure="accuracy", gain=sure_gain, error=0.0, sure_gain=sure_gain)
        >>> choose([judged(0.5, 0.8), judged(1.0, 0.6)]).alpha
        0.5
        >>> choose([judged(1.0, -0.1)]) is None
        True
    """
    holding = sorted((one for one in judgements if one.holds), key=lambda one: one.candidate.alpha)
    comparable = [one for one in holding if one.measure != "information"]
    best = max(comparable or holding, key=lambda one: one.sure_gain, default=None)
    return None if best is None else best.candidate


def consensus_gain(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> Tensor:
    """Without labels: how much likelier, by the frozen models together, the candidate's prediction is right.

        q_i(candidate's class) − q_i(initial student's class),  q = mean over the models of σ(z_m / T_m)

    T_m is the temperature at which a model's mean confidence is its mean agreement with the others: models that are
    often contradicted may not be confident. The candidate itself is not counted. Alone this is too cautious to choose
    by: what no frozen model shows, such as statistics adapted to new images, counts as loss.

    Args:
        before: predictions of the initial student.
        after: predictions of the candidate for the same images.
        teachers: predictions of the teachers for the same images; without any, every gain is 0.

    Returns:
        float64 (N,), from −1 to 1; 0 where the class is unchanged.
    """
    if not teachers:
        return torch.zeros(len(before), dtype=torch.float64)
    models = [before, *teachers]
    agreements = mean_agreements(models)
    least = 1 / before.logits.shape[1]  # a model that agrees with none is unsure of everything, not an error
    temperatures = [
        calibration.fit_temperature_to(model.logits, max(agreement, least))
        for model, agreement in zip(models, agreements, strict=True)
    ]
    probs = [
        (model.logits.double() / temperature).softmax(dim=1)
        for model, temperature in zip(models, temperatures, strict=True)
    ]
    consensus_NC = torch.stack(probs).mean(dim=0)
    after_N, before_N = (consensus_NC.gather(1, one.predicted[:, None]).squeeze(1) for one in (after, before))
    return after_N - before_N


def _judge_adaptation(
    before: Predictions, after: Predictions, teachers: Sequence[Predictions], candidate: Candidate
) -> Judgement:
    """As the guard still judges it."""
    found = selection.judge(before, after, teachers, candidate=candidate)
    return Judgement(
        candidate=candidate,
        measure="information",
        gain=found.gain,
        error=found.error,
        sure_gain=found.sure_gain,
        veto=found.veto,
    )


def _class_entropy_gain(before: Predictions, after: Predictions) -> Tensor:
    classes = before.logits.shape[1]
    now_N, then_N = (information.class_information(one.predicted, num_classes=classes) for one in (after, before))
    return now_N - then_N


def _judgement(
    candidate: Candidate, measure: Measure, gains_N: Tensor, *, margin: float, veto: str | None = None
) -> Judgement:
    gain, error = float(gains_N.mean()), _standard_error(gains_N)
    return Judgement(
        candidate=candidate, measure=measure, gain=gain, error=error, sure_gain=gain - margin * error, veto=veto
    )


def _is_negative(changes_N: Tensor) -> bool:
    """Whether the mean is below zero by more than `VETO_MARGIN` standard errors."""
    return float(changes_N.mean()) < -VETO_MARGIN * _standard_error(changes_N)


def _standard_error(values_N: Tensor) -> float:
    return float(values_N.std(correction=1)) / len(values_N) ** 0.5 if len(values_N) > 1 else math.inf
