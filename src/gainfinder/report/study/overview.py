"""What each arm comes to over all its pairs, and which arms differ: the numbers behind tables, figures and findings."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .grouping import DELTA, Arm, Results, spread
from .uncertainty import Array, Range, crossed_interval, holm, median_interval, sign_flip_p


@dataclass(frozen=True, kw_only=True)
class Share:
    """A mean over pairs.

    Attributes:
        value: the mean; None without pairs.
        interval: its 95 % interval over students and teachers; None with fewer than two pairs.
        pairs: number of pairs that it is the mean of.
        planned: number of pairs in the study.
    """

    value: float | None
    interval: Range | None
    pairs: int
    planned: int

    @property
    def counted(self) -> str:
        """The number of pairs, and of how many where some are missing."""
        return f"{self.pairs}" if self.pairs == self.planned else f"{self.pairs} of {self.planned}"


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """An arm over all its pairs.

    Attributes:
        arm: the arm.
        success: share of the pairs with Δ_transf above 0.
        student_success: that share of each student's teachers, by the student's name; students without pairs aside.
        median_success: the median of these over students.
        median_interval: its interval over students.
        delta: mean Δ_transf, percentage points.
        gain: mean knowledge gain, a share.
        loss: mean knowledge loss, a share.
        seed_spread_pp: standard deviation of Δ_transf between seeds, pooled over pairs; None with one seed.
    """

    arm: Arm
    success: Share
    student_success: dict[str, float]
    median_success: float | None
    median_interval: Range | None
    delta: Share
    gain: Share
    loss: Share
    seed_spread_pp: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms on the pairs that both have.

    Attributes:
        first: the one.
        second: the other.
        difference: mean of first less second, Δ_transf in percentage points.
        p_pairs: p over pairs: sign flips of each pair's difference.
        p_students: p over students: sign flips of all differences of a student together.
        adjusted_pairs: p_pairs by Holm over all comparisons.
        adjusted_students: p_students likewise.
    """

    first: Arm
    second: Arm
    difference: Share
    p_pairs: float
    p_students: float
    adjusted_pairs: float = 1.0
    adjusted_students: float = 1.0


def share_of(values_ST: Array, *, planned: int) -> Share:
    """The mean of what is there, with its interval."""
    known = values_ST[~np.isnan(values_ST)]
    return Share(
        value=float(known.mean()) if known.size else None,
        interval=crossed_interval(values_ST),
        pairs=int(known.size),
        planned=planned,
    )


def summarise(results: Results) -> list[ArmSummary]:
    """Each arm that has pairs in the study."""
    return [_summary(results, arm) for arm in results.arms if results.of(arm)]


def success_by_student(results: Results, arm: Arm) -> dict[str, float]:
    """The share of its teachers from which each student gained; students without pairs aside."""
    found = {}
    for student, row_T in zip(results.students, results.success(arm), strict=True):
        known = row_T[~np.isnan(row_T)]
        if known.size:
            found[student] = float(known.mean())
    return found


def compare_arms(results: Results) -> list[Comparison]:
    """All pairs of arms that have two pairs or more in common, adjusted together."""
    arms = [arm for arm in results.arms if results.of(arm)]
    found = []
    for first, second in itertools.combinations(arms, 2):
        difference_ST = results.matrix(first) - results.matrix(second)
        known = ~np.isnan(difference_ST)
        if known.sum() >= 2:
            found.append(_comparison(first, second, difference_ST, planned=_planned(results, first, second)))
    by_pairs = holm([one.p_pairs for one in found])
    by_students = holm([one.p_students for one in found])
    return [
        Comparison(**{**vars(one), "adjusted_pairs": a, "adjusted_students": b})
        for one, a, b in zip(found, by_pairs, by_students, strict=True)
    ]


def _planned(results: Results, first: Arm, second: Arm) -> int:
    others = {(pair.student, pair.teacher) for pair in results.of(second)}
    return sum((pair.student, pair.teacher) in others for pair in results.of(first))


def _comparison(first: Arm, second: Arm, difference_ST: Array, *, planned: int) -> Comparison:
    known = ~np.isnan(difference_ST)
    by_student = np.nansum(difference_ST, axis=1)[known.any(axis=1)]
    p_pairs, p_students = sign_flip_p(difference_ST[known].tolist()), sign_flip_p(by_student.tolist())
    assert p_pairs is not None and p_students is not None, "there are pairs"
    return Comparison(
        first=first,
        second=second,
        difference=share_of(difference_ST, planned=planned),
        p_pairs=p_pairs,
        p_students=p_students,
    )


def _summary(results: Results, arm: Arm) -> ArmSummary:
    planned = len(results.of(arm))
    by_student = success_by_student(results, arm)
    return ArmSummary(
        arm=arm,
        success=share_of(results.success(arm), planned=planned),
        student_success=by_student,
        median_success=statistics.median(by_student.values()) if by_student else None,
        median_interval=median_interval(list(by_student.values())),
        delta=share_of(results.matrix(arm), planned=planned),
        gain=share_of(results.matrix(arm, "knowledge_gain"), planned=planned),
        loss=share_of(results.matrix(arm, "knowledge_loss"), planned=planned),
        seed_spread_pp=_seed_spread([[float(getattr(c, DELTA)) for c in pair.known] for pair in results.of(arm)]),
    )


def _seed_spread(by_pair: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation within pairs, pooled by degrees of freedom."""
    squares = freedom = 0.0
    for values in by_pair:
        within = spread(values)
        if within is not None:
            squares += within**2 * (len(values) - 1)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None
