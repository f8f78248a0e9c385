"""How values stand in a table's cells: means with their spread and number, intervals, and why a value is missing."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .grouping import Pair, mean, spread
from .overview import Share
from .table import NONE, TableCell, formatted, words

LONGEST_SLUG = 80
"""Characters of a name in a file's name."""
PP = "Δ in percentage points."
SPREAD = "Mean ± standard deviation over teachers (number of teachers; n of m where some of the m pairs are missing)"
MODELS = (
    "Intervals in brackets: 95 %, bootstrap over students and, independently, teachers (2,000 resamples, seed 0); "
    "seeds of a pair are averaged first."
)


@dataclass(frozen=True, kw_only=True)
class Omitted:
    """A table or figure that the cells do not allow, with the reason.

    Attributes:
        label: what the paper calls it.
        reason: what is lacking.
    """

    label: str
    reason: str

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}"


def slug(name: str) -> str:
    """A name as part of a file's name.

    Example:
        >>> slug("kl-dp, lr 1e-3")
        'kl-dp-lr-1e-3'
    """
    found = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-") or "unnamed"
    if len(found) <= LONGEST_SLUG:
        return found
    return f"{found[: LONGEST_SLUG - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def over_teachers(pairs: Sequence[Pair]) -> TableCell:
    return mean_cell([one.delta for one in pairs if one.delta is not None], planned=len(pairs))


def mean_cell(values: Sequence[float], *, planned: int) -> TableCell:
    """Mean, spread and number."""
    if not planned:
        return words("·")
    counted = f"({len(values)})" if len(values) == planned else f"({len(values)} of {planned})"
    if not values:
        return words(f"{NONE} {counted}")
    deviation = spread(values)
    return TableCell(
        formatted(mean(values)) + ("" if deviation is None else f" ± {deviation:.2f}") + f" {counted}", mean(values)
    )


def delta_cell(pair: Pair | None) -> TableCell:
    """A pair's delta with the spread of its seeds; in words why there is none."""
    if pair is None:
        return words("·")
    if pair.delta is None:
        return words(pair.state)
    values = [float(one.transfer_delta_pp or 0.0) for one in pair.known]
    deviation = spread(values)
    seeds = "" if len(pair.known) == len(pair.cells) else f" ({len(pair.known)} of {len(pair.cells)} seeds)"
    return TableCell(formatted(pair.delta) + ("" if deviation is None else f" ± {deviation:.2f}") + seeds, pair.delta)


def measured(pair: Pair | None) -> TableCell:
    """A pair's delta with its interval over images; in words why there is none."""
    if pair is None:
        return words("·")
    if pair.delta is None:
        return words(pair.state)
    low, high = pair.mean("transfer_delta_low_pp"), pair.mean("transfer_delta_high_pp")
    cell = bounded(pair.delta, None if low is None or high is None else (low, high))
    if len(pair.known) < len(pair.cells):
        return TableCell(f"{cell.text} ({len(pair.known)} of {len(pair.cells)} seeds)", cell.value)
    return cell


def bounded(value: float | None, interval: tuple[float, float] | None, form: str = "{:+.2f}") -> TableCell:
    if value is None:
        return words(NONE)
    text = formatted(value, form)
    return TableCell(
        text if interval is None else f"{text} [{formatted(interval[0], form)}, {formatted(interval[1], form)}]", value
    )


def total(share: Share) -> TableCell:
    cell = bounded(share.value, share.interval)
    return TableCell(f"{cell.text} ({share.counted})", cell.value)


def mean_of(pairs: Sequence[Pair], measure: str) -> float | None:
    values = [one for one in (pair.mean(measure) for pair in pairs) if one is not None]
    return mean(values) if values else None


def percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
