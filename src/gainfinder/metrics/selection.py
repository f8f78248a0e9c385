"""Never a worse student: which of several candidates to keep, judged on images that are new to all models.

Candidates are points of the straight line in weight space from the initial to the transferred student, and, where the
student has batch-norm, the initial student with its statistics re-estimated (adaptation to the images, without any
knowledge). Each is given what it gains over the initial student, the noise of that gain and, without labels, whether
something contradicts it; the initial student is kept unless a gain is larger than its margin.

With labels the gain is one of accuracy, and an exact test decides (`sign_test`). Without, nobody can know; what is
looked at are functions of predictions alone:

- The posterior (`posterior.posterior_of`). What the frozen models, teachers and the student as it was, together hold
  the changed answers to be worth. Each changed answer has to pay a toll (`TOLL`): the posterior is too hopeful by a
  few hundredths. It is blind to what they all get wrong, and to a wrong class order, which is looked for apart
  (`posterior.crossed_classes`).
- Referees, where there are any (`posterior.votes`): models that did not teach vote on changed answers, in place of the
  posterior. Their evidence is an e-value; a candidate that any one of them surely votes down is vetoed.
- Classes (`class_information`). A candidate that spreads its predictions over fewer classes is vetoed, and with the
  trained student all points on the way to it: so does a student that imitates a teacher which knows some classes only,
  confident everywhere. Where the images are mostly of a few classes, which a good student would rightly prefer, this is
  too cautious.
- Information (`information`). A student whose statistics fit the images better tells them apart better: the mutual
  information between image and predicted class rises. It judges adaptation only, for training changes confidences at
  will; a rise against the teachers (`movement`), or with fewer classes, is vetoed. Where it is kept, the points of the
  line have to be better than it, for what stale statistics get wrong the frozen models may all get wrong.

The trained student is tested at a tenth of the error, then the points of the line in a fixed order at the rest
(`certified`), so that testing several costs little. The error of 5 % is that of labels. Without labels it is one under
assumptions: that the posterior is right but for the toll, or that referees err independently. The numbers were chosen
on one half of transfers between CIFAR-10 models and tested on the other: benchmarks/guard/README.md.

Shapes: N samples, M models, C classes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..predictions import Predictions
from .harm import TOO_MANY, binomial_at_most
from .information import class_information, information
from .posterior import betting_evidence, crossed_classes, posterior_of, votes, worth

ALPHAS = (0.25, 0.5, 0.75, 1.0)
"""Interpolation coefficients that are tried besides the initial student (0)."""
LEVEL = 0.05
"""Probability that any candidate is kept that is not better, at most, where there are labels: of all together."""
ORDER = (0.5, 0.75, 1.0, 0.25)
"""The fixed order in which points of the line are tested: after a short run what lies half of the way is the surest."""
WHOLE_SHARE = 0.1
"""Share of the error at which the trained student itself is tested first. After a long run it is the surest by far, and
what lies between it and the initial one can be worse than both."""
ACCURACY_MARGIN = 2.0
"""Standard errors that are taken off a gain in accuracy for the gain that is told; an exact test decides."""
POSTERIOR_MARGIN = 1.645
"""Standard errors that are taken off a gain by the posterior: 5 %, one-sided."""
TOLL = 0.03
"""What the posterior is too hopeful by, for each changed answer."""
INFORMATION_MARGIN = 2.0
"""Standard errors that are taken off a gain in information."""
VETO_MARGIN = 2.0
"""Standard errors by which something must be below zero to contradict a gain."""
LEAST_INFORMATION = 0.005
"""A gain in information below this share of ln C is not worth a change."""

MAY_BE_CHANCE = "it may be chance"
FEWER_CLASSES = "its answers are spread over fewer classes"
TO_FEWER = "the trained student's answers are spread over fewer classes"
WRONG_ORDER = "a teacher takes one class for another, as with a wrong class order"
REFEREE_IN_WRONG_ORDER = "a referee takes one class for another, as with a wrong class order"
VOTED_DOWN = "a referee votes against it"
NOT_ITS_TURN = "a point that is tested before it may be chance"

Measure = Literal["accuracy", "posterior", "votes", "information"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A student that may be kept instead of the initial one.

    Attributes:
        alpha: interpolation coefficient in weight space, from the initial (0) to the transferred student (1).
        bn_reestimated: whether it is the initial student with batch-norm statistics re-estimated; its alpha is 0.
    """

    alpha: float
    bn_reestimated: bool = False

    @property
    def name(self) -> str:
        """The name in files and messages."""
        return "adapted" if self.bn_reestimated else f"{self.alpha:g}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a candidate gains over the initial student.

    Attributes:
        candidate: the candidate that is judged.
        measure: the quantity gained: `accuracy`, and what it is estimated to be by the `posterior` or by the `votes` of
            referees, in percentage points; `information` in nats.
        gain: mean gain over the guard images.
        error: standard error of the gain.
        sure_gain: the gain less the margin for its noise.
        veto: the reason that contradicts the gain, or None.
        gained: guard images that the initial student has wrong and the candidate right; None without labels.
        lost: those the other way round; None without labels.
        p_value: that of the test that decides: exact with labels, 1 / e-value with referees, of a normal distribution
            by the posterior; None for information.
        over_adapted: whether the gain is over the student with its statistics re-estimated, not the initial one.
    """

    candidate: Candidate
    measure: Measure
    gain: float
    error: float
    sure_gain: float
    veto: str | None = None
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None
    over_adapted: bool = False

    @property
    def holds(self) -> bool:
        """Whether the candidate may be kept, its turn come; a test decides, where there is one, not the margin."""
        return self.veto is None and (self.sure_gain > 0 or self.p_value is not None)

    def holds_at(self, level: float) -> bool:
        """Whether it holds at an error that is part of the one it was judged at."""
        return self.holds and (self.p_value is None or self.p_value <= level)


def judge(
    before: Predictions,
    after: Predictions,
    teachers: Sequence[Predictions],
    *,
    candidate: Candidate,
    level: float = LEVEL,
    referees: Sequence[Predictions] = (),
    adapted: Predictions | None = None,
    posterior_NC: Tensor | None = None,
) -> Judgement:
    """What a candidate gains over the initial student on the guard images.

    Args:
        before: predictions of the initial student; their labels decide, where there are any.
        after: predictions of the candidate for the same images.
        teachers: predictions of the teachers for the same images; they only matter without labels.
        candidate: the candidate that `after` belongs to.
        level: error of the test.
        referees: predictions of models that did not teach, for the same images; they only matter without labels.
        adapted: without labels or referees, predictions of the student with its statistics re-estimated, where that is
            kept: a point of the line is then compared with it.
        posterior_NC: `posterior_of` the student it is compared with and the teachers; None to work it out.
    """
    if before.target is not None:
        return _judge_by_labels(before, after, before.target, candidate, level)
    if referees:
        return _judge_by_votes(before, after, referees, candidate, level)
    if candidate.bn_reestimated:
        return _judge_adaptation(before, after, teachers, candidate)
    old = before if adapted is None else adapted
    probs_NC = posterior_of(old, teachers) if posterior_NC is None else posterior_NC
    found = replace(_judge_by_posterior(old, after, probs_NC, candidate, level), over_adapted=adapted is not None)
    if any(crossed_classes(old, teacher) for teacher in teachers):
        return replace(found, veto=WRONG_ORDER)
    return found


def sign_test(gained: int, lost: int) -> float:
    """The p-value of "the new student is not better": exact, one-sided.

        P(Binomial(gained + lost, 1/2) ≥ gained)

    Sources: Q. McNemar (1947), in its exact form. Images that both students have right, or both wrong, tell nothing.

    Args:
        gained: images that only the new student has right, 0 or more.
        lost: images that only the old student has right, 0 or more.

    Returns:
        From 0 to 1; 1 where there are none.

    Example:
        >>> sign_test(4, 0), sign_test(5, 0), sign_test(0, 0)
        (0.0625, 0.03125, 1.0)
    """
    return binomial_at_most(lost, gained + lost, 0.5)


def certified(judgements: Sequence[Judgement], *, level: float = LEVEL) -> list[Judgement]:
    """Those that hold together, at an error of `level` for all points of the line.

    The trained student is tested first, at `WHOLE_SHARE` of the error. If it passes, the other points of the line are
    tested at the whole error, else all points at the rest of it: in the fixed `ORDER`, then any others, the furthest
    first; the first that does not pass ends it, however good the later ones look (the fixed-sequence procedure:
    W. Maurer, L. Hothorn and W. Lehmacher, 1995). For a wrong one to be kept, the trained student must be wrong and
    pass the first test, or the first wrong one in the order its own; both together err as `level` says. Points that lie
    beyond a limit on changed answers are no part of the order: the limit reads no label. The student with its
    statistics re-estimated is tested apart.

    Args:
        judgements: judgements of the candidates, made at the same `level`.
        level: error of all points of the line together.
    """
    allowed = [one for one in with_end(judgements) if one.veto != TOO_MANY]
    line = sorted((one for one in allowed if not one.candidate.bn_reestimated), key=lambda one: _turn(one.candidate))
    first = [one for one in line if one.candidate.alpha == 1 and one.holds_at(WHOLE_SHARE * level)]
    left = _level_after(first, level)
    passed = itertools.takewhile(lambda one: one.holds_at(left), (one for one in line if one not in first))
    return [*(one for one in allowed if one.candidate.bn_reestimated and one.holds), *first, *passed]


def settled(judgements: Sequence[Judgement], *, level: float = LEVEL) -> list[Judgement]:
    """The judgements, each of a candidate that does not hold with the reason: chance at its turn, or none came."""
    holding = [one.candidate for one in certified(judgements, level=level)]
    return [
        one if one.veto is not None or one.candidate in holding else replace(one, veto=_why_not(one, judgements, level))
        for one in with_end(judgements)
    ]


def _why_not(judgement: Judgement, judgements: Sequence[Judgement], level: float) -> str:
    """Why a candidate without a veto does not hold."""
    turn = level_of(judgement.candidate, judgements, level=level)
    return NOT_ITS_TURN if judgement.holds_at(turn) else MAY_BE_CHANCE


def level_of(candidate: Candidate, judgements: Sequence[Judgement], *, level: float = LEVEL) -> float:
    """The error of the test by which a candidate holds, one of those that are `certified` with the same arguments."""
    if candidate.bn_reestimated:
        return level
    first = [one for one in with_end(judgements) if one.candidate.alpha == 1 and one.holds_at(WHOLE_SHARE * level)]
    return WHOLE_SHARE * level if first and candidate.alpha == 1 else _level_after(first, level)


def _level_after(first: Sequence[Judgement], level: float) -> float:
    """The error that the line has left when the trained student has passed the first test, or has not."""
    return level if first else (1 - WHOLE_SHARE) * level


def with_end(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements, where the trained student answers with fewer classes with a veto of all points on the way to it.

    On the way it only does not show yet: they lean to the classes that a teacher knows.
    """
    if not any(one.candidate.alpha == 1 and one.veto == FEWER_CLASSES for one in judgements):
        return list(judgements)
    return [
        one if one.candidate.bn_reestimated or one.veto not in (None, MAY_BE_CHANCE) else replace(one, veto=TO_FEWER)
        for one in judgements
    ]


def _turn(candidate: Candidate) -> tuple[int, float]:
    known = candidate.alpha in ORDER
    return (ORDER.index(candidate.alpha) if known else len(ORDER), -candidate.alpha)


def choose(judgements: Sequence[Judgement], *, level: float = LEVEL) -> Candidate | None:
    """The candidate to keep; None, the initial student, where none holds at an error of `level`.

    Among those that are `certified`, the one of highest sure gain; adaptation that is judged by information, which
    cannot be compared with the others, only where nothing else holds. Ties go to the smaller alpha.

    Example:
        >>> def judged(alpha, sure_gain):
        ...     point = Candidate(alpha=alpha)
        ...     return Judgement(candidate=point, measure="accuracy", gain=sure_gain, error=0.0, sure_gain=sure_gain)
        >>> choose([judged(0.5, 0.8), judged(1.0, 0.6)]).alpha
        0.5
        >>> choose([judged(1.0, -0.1)]) is None
        True
    """
    holding = sorted(certified(judgements, level=level), key=lambda one: one.candidate.alpha)
    comparable = [one for one in holding if one.measure != "information"]
    best = max(comparable or holding, key=lambda one: one.sure_gain, default=None)
    return None if best is None else best.candidate


def movement(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> Tensor:
    """Without labels: how far each prediction has moved towards the teachers'.

        v_i = share of the teachers that predict the candidate's class − share that predict the initial student's

    Args:
        before: predictions of the initial student.
        after: predictions of the candidate for the same images.
        teachers: predictions of the teachers for the same images; without any, every move is 0.

    Returns:
        float64 (N,), from −1 to 1; 0 where the class is unchanged, or changed between two that no teacher predicts.
    """
    moves_N = torch.zeros(len(before), dtype=torch.float64)
    for teacher in teachers:
        moves_N += (after.predicted == teacher.predicted).double() - (before.predicted == teacher.predicted).double()
    return moves_N / max(1, len(teachers))


def _judge_by_labels(
    before: Predictions, after: Predictions, target_N: Tensor, candidate: Candidate, level: float
) -> Judgement:
    right_N, was_right_N = (one.predicted == target_N for one in (after, before))
    gains_N = right_N.double() - was_right_N.double()
    gained, lost = int((right_N & ~was_right_N).sum()), int((was_right_N & ~right_N).sum())
    p_value = sign_test(gained, lost)
    found = _judgement(
        candidate, "accuracy", 100 * gains_N, margin=ACCURACY_MARGIN, veto=MAY_BE_CHANCE if p_value > level else None
    )
    return replace(found, gained=gained, lost=lost, p_value=p_value)


def _judge_by_votes(
    before: Predictions, after: Predictions, referees: Sequence[Predictions], candidate: Candidate, level: float
) -> Judgement:
    """The mean of all referees' votes decides; each of them may veto."""
    votes_RN = torch.stack([votes(referee, old=before, new=after) for referee in referees])
    changed_N = after.predicted != before.predicted
    p_value = min(1.0, 1 / max(betting_evidence(votes_RN.mean(dim=0)[changed_N]), math.ulp(0.0)))
    veto = MAY_BE_CHANCE if p_value > level else None
    if any(crossed_classes(before, referee) for referee in referees):
        veto = REFEREE_IN_WRONG_ORDER
    elif any(betting_evidence(-votes_N[changed_N]) >= 1 / level for votes_N in votes_RN):
        veto = VOTED_DOWN
    gains_N = 100 * votes_RN.mean(dim=0)
    return replace(_judgement(candidate, "votes", gains_N, margin=POSTERIOR_MARGIN, veto=veto), p_value=p_value)


def _judge_by_posterior(
    old: Predictions, after: Predictions, probs_NC: Tensor, candidate: Candidate, level: float
) -> Judgement:
    """What changed answers are worth, less the toll; tested by a normal distribution."""
    changed_N = (after.predicted != old.predicted).double()
    gains_N = worth(probs_NC, old=old, new=after) - TOLL * changed_N
    found = _judgement(candidate, "posterior", 100 * gains_N, margin=POSTERIOR_MARGIN)
    p_value = _normal_p_value(found)
    veto = MAY_BE_CHANCE if p_value > level else None
    if _is_negative(_class_entropy_gain(old, after)):
        veto = FEWER_CLASSES
    return replace(found, veto=veto, p_value=p_value)


def _normal_p_value(judgement: Judgement) -> float:
    """One-sided, of a mean that is normally distributed; 1 where there is no gain, or nothing known of its error."""
    if judgement.gain <= 0 or not math.isfinite(judgement.error):
        return 1.0
    return 0.5 * math.erfc(judgement.gain / judgement.error / math.sqrt(2)) if judgement.error > 0 else 0.0


def _judge_adaptation(
    before: Predictions, after: Predictions, teachers: Sequence[Predictions], candidate: Candidate
) -> Judgement:
    gains_N = information(after.logits) - information(before.logits)
    veto = None
    if _is_negative(_class_entropy_gain(before, after)):
        veto = FEWER_CLASSES
    elif _is_negative(movement(before, after, teachers)):
        veto = "the teachers agree less"
    elif float(gains_N.mean()) < LEAST_INFORMATION * math.log(before.logits.shape[1]):
        veto = "the gain is too small to matter"
    return _judgement(candidate, "information", gains_N, margin=INFORMATION_MARGIN, veto=veto)


def _class_entropy_gain(before: Predictions, after: Predictions) -> Tensor:
    classes = before.logits.shape[1]
    now_N, then_N = (class_information(one.predicted, num_classes=classes) for one in (after, before))
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
