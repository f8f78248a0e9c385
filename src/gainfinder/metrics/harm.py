"""A bound on harm that needs no label: accuracy cannot change by more than the share of changed predictions.

    |accuracy of the new student − accuracy of the old one| ≤ P(predicted class differs)

The share on guard images is an estimate of that probability; `most_changed` bounds it from above. Several candidates
are tried in a fixed order that ends at the first one whose bound is too high: so the probability that any admitted one
changes more than is allowed stays at `level`, without a correction (the fixed-sequence procedure: W. Maurer, L. Hothorn
and W. Lehmacher, 1995).
"""

import math

import numpy as np

from ..predictions import Predictions

FINER_ALPHAS = (1 / 32, 1 / 16, 1 / 8)
"""Interpolation coefficients that are tried before the usual ones where few predictions may change."""
TOO_MANY = "more answers change than is allowed"
"""The veto against a candidate beyond the limit."""
LEVEL = 0.025
"""Probability that a candidate is admitted whose predictions change more often than is allowed, at most: half of 5 %,
since points of a line and a student beside it, with statistics re-estimated, are tried apart."""


def count_changed(before: Predictions, after: Predictions) -> int:
    """Number of images whose predicted class differs."""
    return int((before.predicted != after.predicted).sum())


def most_changed(count: int, total: int, *, level: float = LEVEL) -> float:
    """Upper confidence bound of the probability that a prediction changes: exact, one-sided.

        the largest p with P(Binomial(total, p) ≤ count) ≥ level

    Source: C. J. Clopper and E. S. Pearson (1934).

    Args:
        count: changed images, from 0 to `total`.
        total: all images, 1 or more.
        level: probability that the bound is below the truth, at most; between 0 and 1, both excluded.

    Returns:
        A share, from 0 to 1; never too low by more than 1e-12.

    Raises:
        ValueError: a count or level out of range, or no images.

    Example:
        >>> round(most_changed(0, 299, level=0.05), 5), round(most_changed(3, 1000, level=0.05), 5)
        (0.00997, 0.00774)
    """
    if not 0 <= count <= total or total < 1 or not 0 < level < 1:
        raise ValueError(f"expected 0 to all of at least one image and a level below 1, got {count}, {total}, {level}")
    if count == total:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if binomial_at_most(count, total, middle) >= level:
            low = middle
        else:
            high = middle
    return high


def fewest_images(share: float, *, level: float = LEVEL) -> int:
    """Number of images below which no share can be shown to be at most `share`, even where nothing changed.

    Example:
        >>> fewest_images(0.01)
        368
    """
    return 1 if share >= 1 else math.ceil(math.log(level) / math.log1p(-share))


def binomial_at_most(count: int, total: int, share: float) -> float:
    """P(Binomial(total, share) ≤ count), to some twelve digits.

    Args:
        count: from 0 to `total`.
        total: number of trials, 0 or more.
        share: probability of each.

    Example:
        >>> round(binomial_at_most(1, 4, 0.5), 9)
        0.3125
    """
    if count >= total or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    k = np.arange(1, count + 1)
    # log of (total choose k), summed up: SciPy's import alone would take seconds
    choose = np.concatenate([[0.0], np.log((total - k + 1) / k).cumsum()])
    logs = choose + np.arange(count + 1) * math.log(share) + (total - np.arange(count + 1)) * math.log1p(-share)
    return min(1.0, float(np.exp(logs).sum()))
