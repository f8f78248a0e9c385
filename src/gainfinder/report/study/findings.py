"""Whether the paper's findings hold in a study: each with estimate, interval and number, and in words made of these."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .figure_rows import size_rows
from .grouping import Arm, Results, learns_from_itself, mean
from .overview import share_of
from .strategy_tables import strategy_rows
from .table import formatted
from .uncertainty import Array, Range, mean_interval, slope_interval

Verdict = Literal["holds", "does not hold", "cannot be told"]
TONES: dict[Verdict, str] = {"holds": "good", "does not hold": "bad", "cannot be told": "open"}
WEAKER = "Weaker teachers help"
PARTITION = "Data partitioning beats KL"
SEQUENCE = "One teacher after another beats all at once"
SOUP = "All at once beats the soup"
SIZE = "Larger students receive more"
EXPERTISE = "Areas of expertise go first"
FEWEST = 5
"""Students from which on an interval is believed."""


@dataclass(frozen=True, kw_only=True)
class StudyFinding:
    """A finding of the paper, checked.

    Attributes:
        claim: the finding.
        method: the arm or arms that it is checked with; empty where there is none.
        verdict: `holds` where all of the interval is above 0, `does not hold` where none is, else `cannot be told`; of
            fewer than five students, unless it is of a single one and five teachers, always the latter.
        estimate: what is compared with 0; None without cells for it.
        interval: its 95 % interval; None with too few.
        count: what the estimate is over, with the number.
        text: what was found, in words.
    """

    claim: str
    method: str = ""
    verdict: Verdict = "cannot be told"
    estimate: float | None = None
    interval: Range | None = None
    count: str = ""
    text: str

    @property
    def tone(self) -> str:
        """Class of the page's style."""
        return TONES[self.verdict]


def study_findings(results: Results) -> list[StudyFinding]:
    """All findings, each for every arm, or two, that can tell."""
    found: list[StudyFinding] = []
    checks: tuple[tuple[str, str, Callable[[Results], Iterator[StudyFinding]]], ...] = (
        (WEAKER, "no finished pair of a method with data partitioning whose teacher is the weaker one", _weaker),
        (PARTITION, "no pairs that both kl and a method with data partitioning have", _partition),
        (SEQUENCE, "no student that has several teachers both in sequence and in parallel", _sequence),
        (SOUP, "no student that has several teachers both in parallel and as a soup", _soup),
        (SIZE, "no two finished students of a family and of different size", _size),
        (EXPERTISE, "no finished pairs with transfer rates by class", _expertise),
    )
    for claim, lacking, check in checks:
        found += list(check(results)) or [StudyFinding(claim=claim, text=f"{lacking[0].upper()}{lacking[1:]}.")]
    return found


def verdict_of(interval: Range | None, *, enough: bool = True) -> Verdict:
    """What an interval says of a claim that its estimate is above 0.

    Args:
        interval: its interval.
        enough: whether there are enough models for it: a bootstrap over fewer is too sure of itself.
    """
    if interval is None or not enough:
        return "cannot be told"
    return "holds" if interval[0] > 0 else "does not hold" if interval[1] <= 0 else "cannot be told"


def _weaker(results: Results) -> Iterator[StudyFinding]:
    for arm in _retaining(results):
        delta_ST, strength_ST = results.matrix(arm), results.matrix(arm, "delta_acc_pp")
        weaker_ST = np.where(strength_ST < 0, delta_ST, np.nan)
        gained, pairs = int((weaker_ST > 0).sum()), int((~np.isnan(weaker_ST)).sum())
        if pairs:
            text = (
                f"By {arm.name}, weaker teachers change the student's accuracy by {{value}} {{range}}; "
                f"{gained} of {pairs} pairs gain ({gained / pairs:.0%})."
            )
            yield _of_pairs(WEAKER, arm.name, weaker_ST, text)


def _partition(results: Results) -> Iterator[StudyFinding]:
    for method in ("kl-dp", "kl-dp-u"):
        for kl, other in results.matched("kl", method):
            more_ST = results.matrix(other) - results.matrix(kl)
            both_ST = ~np.isnan(more_ST)
            if both_ST.any():
                rates = [float(np.mean(results.success(arm)[both_ST])) for arm in (other, kl)]
                text = (
                    f"{other.name} gives {{value}} more than {kl.name} {{range}}; {rates[0]:.0%} of these pairs "
                    f"gain, by {kl.name} {rates[1]:.0%}."
                )
                yield _of_pairs(PARTITION, f"{other.name}, {kl.name}", more_ST, text)


def _sequence(results: Results) -> Iterator[StudyFinding]:
    yield from _strategies(results, SEQUENCE, "sequential", "parallel")


def _soup(results: Results) -> Iterator[StudyFinding]:
    yield from _strategies(results, SOUP, "parallel", "soup")


def _strategies(results: Results, claim: str, first: str, second: str) -> Iterator[StudyFinding]:
    for arm in results.arms:
        values, students = [], set()
        for unit in strategy_rows(results, arm):
            deltas = [unit.together[name].delta if name in unit.together else None for name in (first, second)]
            if deltas[0] is not None and deltas[1] is not None:
                values.append(deltas[0] - deltas[1])
                students.add(unit.student)
        if values:
            count = _counted(len(values), "student" if len(values) == len(students) else "set of teachers")
            yield _finding(
                claim, arm.name, mean(values), mean_interval(values), count,
                text=f"By {arm.name}, {first} gives {{value}} more than {second} {{range}}.", students=len(students),
            )  # fmt: skip


def _size(results: Results) -> Iterator[StudyFinding]:
    rows = size_rows(results)
    for arm in _retaining(results):
        here = [row for row in rows if row["method"] == arm.name]
        slope = slope_interval(
            [math.log2(row["parameters_m"]) for row in here],
            [100 * row["rate"] for row in here],
            [row["family"] for row in here],
        )
        if slope is not None:
            text = f"By {arm.name}, twice the weights change the transfer rate by {{value}} within families {{range}}."
            yield _finding(
                SIZE, arm.name, *slope, _counted(len(here), "student"), text=text, students=len(here)
            )  # fmt: skip


def _expertise(results: Results) -> Iterator[StudyFinding]:
    for arm in _retaining(results):
        top_ST, overall_ST = results.matrix(arm, "transfer_rate_top_2"), results.matrix(arm, "transfer_rate")
        more_ST = 100 * (top_ST - overall_ST)
        known_ST = ~np.isnan(more_ST)
        if known_ST.any():
            text = (
                f"By {arm.name}, of the positive flips in the classes with the top 2 % of them "
                f"{top_ST[known_ST].mean():.1%} arrive, over all classes "
                f"{overall_ST[known_ST].mean():.1%}: {{value}} more {{range}}."
            )
            yield _of_pairs(EXPERTISE, arm.name, more_ST, text)


def _retaining(results: Results) -> list[Arm]:
    """The arms of methods that partition or pool."""
    return [arm for arm in results.arms if learns_from_itself(arm)]


def _of_pairs(claim: str, method: str, values_ST: Array, text: str) -> StudyFinding:
    """A finding that is a mean over pairs."""
    share, known_ST = share_of(values_ST, planned=0), ~np.isnan(values_ST)
    assert share.value is not None, "there are pairs"
    students, teachers = int(known_ST.any(axis=1).sum()), int(known_ST.any(axis=0).sum())
    count = _counted(share.pairs, "pair")
    return _finding(
        claim, method, share.value, share.interval, count, text=text, students=students, teachers=teachers
    )  # fmt: skip


def _finding(
    claim: str, method: str, estimate: float, interval: Range | None, count: str,
    *, text: str, students: int, teachers: int = 0,
) -> StudyFinding:  # fmt: skip
    """A finding with its estimate put into its text.

    Args:
        claim: the finding.
        method: the arm.
        estimate: what is compared with 0.
        interval: its interval.
        count: what it is over.
        text: what was found, with {value} for the estimate and {range} for its interval and number.
        students: number of students that it is over.
        teachers: number of teachers likewise.
    """
    enough = students >= FEWEST or (students == 1 and teachers >= FEWEST)
    told = f"{formatted(estimate)} {'points' if claim in (SIZE, EXPERTISE) else 'pp'}"
    ends = "" if interval is None else f"95 %: {formatted(interval[0])} to {formatted(interval[1])}; "
    few = "" if enough else f" Of {_counted(students, 'student')} that says little."
    return StudyFinding(
        claim=claim,
        method=method,
        verdict=verdict_of(interval, enough=enough),
        estimate=estimate,
        interval=interval,
        count=count,
        text=text.format(value=told, range=f"({ends}{count})") + few,
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what if count == 1 else what.replace('set of', 'sets of') if 'set of' in what else what + 's'}"
