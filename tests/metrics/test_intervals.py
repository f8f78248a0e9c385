"""Intervals: the paired bootstrap against resampled indices, for coverage, in its limits; Wilson's against SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from gainfinder.metrics.intervals import paired_bootstrap_ci, wilson_interval


def outcomes(n: int, *, gain: float, loss: float, seed: int) -> tuple[Tensor, Tensor]:
    """Correctness before and after of n samples that are gained and lost at these rates."""
    draw = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    lost, gained = draw < loss, (draw >= loss) & (draw < loss + gain)
    unchanged = torch.rand(n, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    return (unchanged | lost) & ~gained, (unchanged | gained) & ~lost


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_equals_resampled_indices(level: float) -> None:
    before, after = outcomes(200, gain=0.15, loss=0.05, seed=0)
    change = (after.int() - before.int()).numpy()
    generator = np.random.Generator(np.random.PCG64(1))
    naive = [100 * change[generator.integers(0, 200, 200)].mean() for _ in range(8000)]
    low, high = paired_bootstrap_ci(before, after, level=level, resamples=50_000)
    expected = np.quantile(naive, [(1 - level) / 2, (1 + level) / 2])
    # The means lie on a grid of 0.5 pp.
    assert (low, high) == pytest.approx(tuple(expected), abs=0.51)
    assert low < 100 * change.mean() < high


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(300):
        before, after = outcomes(300, gain=0.2, loss=0.1, seed=2 * seed)
        low, high = paired_bootstrap_ci(before, after, level=0.9, resamples=500)
        hits += low <= 10.0 <= high
    assert 0.85 <= hits / 300 <= 0.95


def test_limits() -> None:
    right, wrong = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    assert paired_bootstrap_ci(right, right) == (0.0, 0.0)
    assert paired_bootstrap_ci(wrong, wrong) == (0.0, 0.0)
    assert paired_bootstrap_ci(wrong, right) == (100.0, 100.0)
    assert paired_bootstrap_ci(right, wrong) == (-100.0, -100.0)
    assert paired_bootstrap_ci(wrong[:1], right[:1], resamples=1) == (100.0, 100.0)


def test_is_a_function_of_its_arguments_and_mirrors() -> None:
    before, after = outcomes(100, gain=0.2, loss=0.1, seed=0)
    first = paired_bootstrap_ci(before, after, seed=3)
    assert first == paired_bootstrap_ci(before, after, seed=3)
    low, high = paired_bootstrap_ci(after, before, seed=3)
    assert (-high, -low) == pytest.approx(first, abs=1.01)
    narrow = paired_bootstrap_ci(before, after, level=0.5, seed=3)
    assert first[0] < narrow[0] < narrow[1] < first[1]


def test_messages() -> None:
    two, none = torch.tensor([True, False]), torch.zeros(0, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"after_correct_N: expected torch.bool \(N,\), got torch.int64 \(2,\)"):
        paired_bootstrap_ci(two, two.long())
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        paired_bootstrap_ci(none, none)
    with pytest.raises(ValueError, match="the same samples before and after, at least one, got 2 and 1"):
        paired_bootstrap_ci(two, two[:1])
    with pytest.raises(ValueError, match=r"level: .*got 1"):
        paired_bootstrap_ci(two, two, level=1)
    with pytest.raises(ValueError, match="resamples: expected 1 or more, got 0"):
        paired_bootstrap_ci(two, two, resamples=0)


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 50), (3, 50), (50, 50), (17, 10_000)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_wilson_equals_scipy(count: int, total: int, level: float) -> None:
    reference = binomtest(count, total).proportion_ci(confidence_level=level, method="wilson")
    assert wilson_interval(count, total, level=level) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_intervals_are_of_95_percent_unless_asked_otherwise() -> None:
    before, after = outcomes(100, gain=0.2, loss=0.1, seed=0)
    assert paired_bootstrap_ci(before, after) == paired_bootstrap_ci(before, after, level=0.95, seed=0)
    assert wilson_interval(3, 50) == wilson_interval(3, 50, level=0.95)


def test_wilson_messages() -> None:
    with pytest.raises(ValueError, match="0 to all of at least one sample, got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="got -1 of 2"):
        wilson_interval(-1, 2)
    with pytest.raises(ValueError, match="got 0 of 0"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match=r"level: .*got 1"):
        wilson_interval(1, 2, level=1)
