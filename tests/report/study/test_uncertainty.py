"""Intervals, tests and the adjustment, against naive loops, SciPy and numbers worked out by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gainfinder.report.study.uncertainty import (
    crossed_interval,
    holm,
    mean_interval,
    median_interval,
    sign_flip_p,
    slope_interval,
    top_mean_interval,
)

DRAW = np.random.Generator(np.random.PCG64(5))


def test_holm_by_hand() -> None:
    # Sorted: 0.005 · 4, 0.01 · 3, then 0.03 · 2 and 0.04 · 1, of which the larger so far counts.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flips_are_all_counted() -> None:
    values = DRAW.normal(0.5, 1, 8)
    flips = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in itertools.product((1, -1), repeat=8)]
    share = sum(abs(one) >= abs(values.sum()) - 1e-9 for one in flips) / len(flips)
    assert sign_flip_p(values.tolist()) == share
    assert sign_flip_p([]) is None


def test_many_sign_flips_agree_with_scipy() -> None:
    values = DRAW.normal(0.25, 1, 60)
    expected = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(1)
    ).pvalue
    assert sign_flip_p(values.tolist()) == pytest.approx(expected, abs=0.015)


def test_an_interval_over_units_agrees_with_scipy() -> None:
    values = DRAW.normal(2, 1, 30)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert mean_interval(values.tolist()) == pytest.approx((expected.low, expected.high), abs=0.05)
    spread = stats.bootstrap(
        (values,), np.median, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert median_interval(values.tolist()) == pytest.approx((spread.low, spread.high), abs=0.1)


def test_models_are_drawn_not_pairs() -> None:
    """Where all of the variance is between students, many teachers make nothing surer."""
    students = DRAW.normal(0, 1, 10)
    repeated = np.repeat(students[:, None], 20, axis=1)
    assert crossed_interval(repeated) == pytest.approx(mean_interval(students.tolist()))


def test_a_crossed_interval_agrees_with_a_naive_loop() -> None:
    values = DRAW.normal(0, 1, (6, 5)) + DRAW.normal(0, 1, (6, 1))
    values[0, 0] = values[3, 2] = np.nan
    draw, means = np.random.default_rng(7), []
    for _ in range(2000):
        rows, columns = draw.integers(6, size=6), draw.integers(5, size=5)
        means.append(np.nanmean([values[i, j] for i in rows for j in columns]))
    assert crossed_interval(values) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.12)


def test_who_has_no_pair_is_not_drawn() -> None:
    values = DRAW.normal(0, 1, (4, 4))
    with_empty = np.full((6, 5), np.nan)
    with_empty[:4, :4] = values
    assert crossed_interval(with_empty) == crossed_interval(values)
    assert crossed_interval(np.full((3, 3), np.nan)) is None


def test_a_slope_is_within_groups() -> None:
    x = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    y = [1.0, 3.0, 5.0, 11.0, 13.0, 15.0]
    groups = ["a", "a", "a", "b", "b", "b"]
    found = slope_interval(x, y, groups)
    assert found is not None and found[0] == pytest.approx(2)
    assert found[1] == pytest.approx((2, 2))
    assert slope_interval([1.0, 1.0], [1.0, 2.0], ["a", "a"]) is None
    assert slope_interval([1.0, 2.0], [1.0, 2.0], ["a", "b"]) is None


def test_the_mean_of_the_best() -> None:
    values = np.array([1.0, 1.0, 1.0, 5.0])
    low, high = top_mean_interval(values, 0.25) or (0, 0)
    assert (low, high) == (1.0, 5.0)  # the best of a resample is 5 unless it was not drawn
    assert top_mean_interval(values[:1], 0.25) is None
