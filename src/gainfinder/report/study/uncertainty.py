"""How sure a study's figures are: intervals over students and teachers, paired tests, Holm's adjustment.

The intervals of `metrics/intervals.py` say how far the images measured on could have decided a transfer; these say how
far the models that were chosen could have decided a mean over transfers. Every draw is of a fixed seed.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Range = tuple[float, float]
RESAMPLES = 2_000
FLIPS = 10_000
SEED = 0
LEVEL = 0.95
EXACT = 13
"""Up to so many units all sign flips are counted: 8,192 of them."""


def crossed_interval(values_ST: Array) -> Range | None:
    """Percentile interval of a mean over pairs, by a bootstrap over students and, independently, over teachers.

    Pairs that share a student or a teacher are not independent, so models are drawn, not pairs: a pair counts as often
    as its student times as often as its teacher (Owen 2007, the pigeonhole bootstrap). A single column, or row, is the
    plain bootstrap over the other.

    Args:
        values_ST: float (S, T), a row a student, a column a teacher; NaN where there is no value.

    Returns:
        (low, high) of 95 %, from 2,000 resamples with a fixed seed; None with fewer than two values.

    Example:
        >>> crossed_interval(np.array([[1.0], [1.0], [1.0]]))
        (1.0, 1.0)
        >>> crossed_interval(np.array([[2.0]])) is None
        True
    """
    known_ST = ~np.isnan(values_ST)
    if known_ST.sum() < 2:
        return None
    known_ST, values_ST = _without_empty(known_ST, values_ST)
    filled_ST = np.where(known_ST, values_ST, 0.0)
    students_BS, teachers_BT = _counts(known_ST.shape[0], 0), _counts(known_ST.shape[1], 1)
    weight_BT, total_BT = np.split(students_BS @ np.hstack([known_ST.astype(float), filled_ST]), 2, axis=1)
    weight_B, total_B = (weight_BT * teachers_BT).sum(axis=1), (total_BT * teachers_BT).sum(axis=1)
    return _range(total_B[weight_B > 0] / weight_B[weight_B > 0])


def mean_interval(values: Sequence[float]) -> Range | None:
    """Percentile interval of a mean, by a bootstrap over its units; None with fewer than two."""
    return crossed_interval(np.asarray(values, dtype=float)[:, None])


def median_interval(values: Sequence[float]) -> Range | None:
    """Percentile interval of a median, by a bootstrap over its units; None with fewer than two."""
    if len(values) < 2:
        return None
    drawn = np.random.Generator(np.random.PCG64(SEED)).integers(len(values), size=(RESAMPLES, len(values)))
    return _range(np.median(np.asarray(values, dtype=float)[drawn], axis=1))


def top_mean_interval(values: Array, top: float) -> Range | None:
    """Percentile interval of the mean of the largest values, by a bootstrap over all; None with fewer than two.

    Args:
        values: float (N,).
        top: share of them, the largest, that the mean is of: ⌈top · N⌉ of each resample.
    """
    if len(values) < 2:
        return None
    drawn_BN = np.random.Generator(np.random.PCG64(SEED)).integers(len(values), size=(RESAMPLES, len(values)))
    ordered_BN = np.sort(values[drawn_BN], axis=1)
    return _range(ordered_BN[:, -math.ceil(top * len(values)) :].mean(axis=1))


def slope_interval(x: Sequence[float], y: Sequence[float], groups: Sequence[str]) -> tuple[float, Range | None] | None:
    """Slope of y on x within groups (least squares, a constant for each group), by a bootstrap over the points.

    Args:
        x: a value a point.
        y: likewise.
        groups: the group of each point.

    Returns:
        The slope and its interval, None with fewer than three points that differ; None without two points of a group
        that differ in x.
    """
    masks_GN = np.asarray(groups)[None, :] == np.unique(groups)[:, None]
    x_N, y_N = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    estimate = _slopes(np.ones((1, len(x_N))), x_N, y_N, masks_GN)
    if not len(estimate):
        return None
    slopes = _slopes(_counts(len(x_N), 0), x_N, y_N, masks_GN)
    return float(estimate[0]), _range(slopes) if len(x_N) > 2 and len(slopes) else None


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of a mean difference of zero: the share of sign flips with a mean at least as far from zero.

    All flips of up to 13 units, else 10,000 random ones with a fixed seed, the observed one counted among them.

    Args:
        differences: one for each unit, such as a pair, or the sum over a student's pairs.

    Returns:
        None without units.

    Example:
        >>> sign_flip_p([1.0, 2.0, 3.0])  # 2 of the 8 flips are as far from zero
        0.25
    """
    d_N = np.asarray(differences, dtype=float)
    if not len(d_N):
        return None
    as_far = int((np.abs(_signs(len(d_N)) @ d_N) >= abs(d_N.sum()) - 1e-9).sum())
    return as_far / 2 ** len(d_N) if len(d_N) <= EXACT else (as_far + 1) / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number, so that the chance of one false positive among all stays below the level.

        the i-th smallest of m becomes max over j ≤ i of min(1, (m − j + 1) · p_j)

    Source: S. Holm (1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _without_empty(known_ST: Array, values_ST: Array) -> tuple[Array, Array]:
    """Students and teachers without any value are not drawn."""
    rows, columns = known_ST.any(axis=1), known_ST.any(axis=0)
    return known_ST[rows][:, columns], values_ST[rows][:, columns]


@functools.cache
def _counts(size: int, stream: int) -> Array:
    """How often each of so many models is drawn, in each resample."""
    generator = np.random.Generator(np.random.PCG64([SEED, stream]))
    return generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES).astype(float)


def _signs(size: int) -> Array:
    if size <= EXACT:
        return 1.0 - 2.0 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
    return _random_signs(1 << (size - 1).bit_length())[:, :size]


@functools.lru_cache(maxsize=4)
def _random_signs(size: int) -> Array:
    generator = np.random.Generator(np.random.PCG64(SEED))
    return 1 - 2 * generator.integers(2, size=(FLIPS, size), dtype=np.int8).astype(np.float32)


def _range(values: Array) -> Range:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _slopes(weight_BN: Array, x_N: Array, y_N: Array, masks_GN: Array) -> Array:
    """Slopes for several weightings of the points; those without two points of a group that differ are left out."""
    above_B, below_B = np.zeros(len(weight_BN)), np.zeros(len(weight_BN))
    for inside_N in masks_GN:
        weight, x, y = weight_BN[:, inside_N], x_N[inside_N] - x_N[inside_N].mean(), y_N[inside_N]
        count_B = np.maximum(weight.sum(axis=1), 1)
        above_B += weight @ (x * y) - (weight @ x) * (weight @ y) / count_B
        below_B += weight @ x**2 - (weight @ x) ** 2 / count_B
    return above_B[below_B > 1e-9] / below_B[below_B > 1e-9]
