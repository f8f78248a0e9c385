"""Whether the paper's findings hold in a study: each with estimate, interval and number, and in words made of these."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .figure_rows import size_rows
from .grouping import Arm, Results, learns_from_itself, mean
from .overview import Share, share_of
from .strategy_tables import strategy_rows
from .table import formatted
from .uncertainty import Range, mean_interval, slope_interval

Verdict = Literal["holds", "does not hold", "cannot be told"]
TONES: dict[Verdict, str] = {"holds": "good", "does not hold": "bad", "cannot be told": "open"}
WEAKER = "Weaker teachers help"
PARTITION = "Data partitioning beats KL"
SEQUENCE = "One teacher after another beats all at once"
SOUP = "All at once beats the soup"
SIZE = "Larger students receive more"
EXPERTISE = "Areas of expertise go first"


@dataclass(frozen=True, kw_only=True)
class StudyFinding:
    """A finding of the paper, checked.

    Attributes:
        claim: the finding.
        method: the arm or arms that it is checked with; empty where there is none.
        verdict: `holds` where all of the interval is above 0, `does not hold` where none is, else `cannot be told`.
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


def verdict_of(interval: Range | None) -> Verdict:
    """What an interval says of a claim that its estimate is above 0."""
    if interval is None:
        return "cannot be told"
    return "holds" if interval[0] > 0 else "does not hold" if interval[1] <= 0 else "cannot be told"


def _weaker(results: Results) -> Iterator[StudyFinding]:
    for arm in _retaining(results):
        delta_ST, strength_ST = results.matrix(arm), results.matrix(arm, "delta_acc_pp")
        weaker_ST = np.where(strength_ST < 0, delta_ST, np.nan)
        share = share_of(weaker_ST, planned=0)
        if share.value is not None:
            gained = int((weaker_ST > 0).sum())
            tail = f"; {gained} of these pairs gain ({gained / share.pairs:.0%})"
            yield _about_pairs(WEAKER, arm.name, share, "Δ_transf from weaker teachers", tail)


def _partition(results: Results) -> Iterator[StudyFinding]:
    for method in ("kl-dp", "kl-dp-u"):
        for kl, other in results.matched("kl", method):
            share = share_of(results.matrix(other) - results.matrix(kl), planned=0)
            if share.value is not None:
                both = ~np.isnan(results.matrix(other) - results.matrix(kl))
                rates = [float(np.mean(results.success(arm)[both])) for arm in (other, kl)]
                tail = f"; {rates[0]:.0%} of these pairs gain, and {rates[1]:.0%} by {kl.name}"
                yield _about_pairs(PARTITION, f"{other.name}, {kl.name}", share, "Δ_transf less that of KL", tail)


def _sequence(results: Results) -> Iterator[StudyFinding]:
    yield from _strategies(results, SEQUENCE, "sequential", "parallel")


def _soup(results: Results) -> Iterator[StudyFinding]:
    yield from _strategies(results, SOUP, "parallel", "soup")


def _strategies(results: Results, claim: str, first: str, second: str) -> Iterator[StudyFinding]:
    for arm in results.arms:
        values = []
        for unit in strategy_rows(results, arm):
            deltas = [unit.together[name].delta if name in unit.together else None for name in (first, second)]
            if deltas[0] is not None and deltas[1] is not None:
                values.append(deltas[0] - deltas[1])
        if values:
            interval, count = mean_interval(values), _counted(len(values), "student")
            told = _signed(mean(values), interval)
            text = f"Δ_transf of {first} less {second}, by {arm.name}: {told} pp, mean of {count}."
            yield StudyFinding(claim=claim, method=arm.name, verdict=verdict_of(interval), estimate=mean(values),
                               interval=interval, count=count, text=text)  # fmt: skip


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
            estimate, interval = slope
            count = _counted(len(here), "student")
            text = (
                f"For twice the weights the transfer rate by {arm.name} changes by {_signed(estimate, interval)} "
                f"points, within families, over {count}."
            )
            yield StudyFinding(claim=SIZE, method=arm.name, verdict=verdict_of(interval), estimate=estimate,
                               interval=interval, count=count, text=text)  # fmt: skip


def _expertise(results: Results) -> Iterator[StudyFinding]:
    for arm in _retaining(results):
        overall_ST, top_ST = results.matrix(arm, "transfer_rate"), results.matrix(arm, "transfer_rate_top_2")
        share = share_of(100 * (top_ST - overall_ST), planned=0)
        if share.value is not None:
            rates = [float(np.nanmean(one)) for one in (top_ST, overall_ST)]
            tail = f" ({rates[0]:.1%} there, {rates[1]:.1%} over all classes)"
            what = "transfer rate of the classes with the top 2 % of positive flips less that of all"
            yield _about_pairs(EXPERTISE, arm.name, share, what, tail)


def _retaining(results: Results) -> list[Arm]:
    """The arms of methods that partition or pool."""
    return [arm for arm in results.arms if learns_from_itself(arm)]


def _about_pairs(claim: str, method: str, share: Share, what: str, tail: str) -> StudyFinding:
    assert share.value is not None
    count = _counted(share.pairs, "pair")
    text = (
        f"{what[0].upper()}{what[1:]}, by {method}: {_signed(share.value, share.interval)} pp, mean of {count}{tail}."
    )
    return StudyFinding(claim=claim, method=method, verdict=verdict_of(share.interval), estimate=share.value,
                        interval=share.interval, count=count, text=text)  # fmt: skip


def _signed(value: float, interval: Range | None) -> str:
    if interval is None:
        return formatted(value)
    return f"{formatted(value)} (95 %: {formatted(interval[0])} to {formatted(interval[1])})"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
