"""The bound on changed predictions: SciPy's exact interval, the least number of images, and what it promises."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from gainfinder.metrics.harm import count_changed, fewest_images, most_changed
from gainfinder.predictions import Predictions


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 50), (3, 50), (49, 50), (50, 50), (37, 5000), (400, 50_000)])
@pytest.mark.parametrize("level", [0.025, 0.05, 0.5])
def test_equals_scipys_exact_bound(count: int, total: int, level: float) -> None:
    expected = binomtest(count, total, alternative="less").proportion_ci(1 - level, method="exact").high
    assert most_changed(count, total, level=level) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2])
def test_fewest_images_are_those_that_can_show_it(share: float) -> None:
    fewest = fewest_images(share)
    assert most_changed(0, fewest) <= share < most_changed(0, fewest - 1)
    assert fewest_images(1.0) == 1


def test_a_bound_is_too_low_as_rarely_as_it_says() -> None:
    truth, total = 0.012, 2000
    counts = np.arange(total + 1)
    too_low = [most_changed(int(count), total, level=0.05) < truth for count in counts[:60]]
    assert 0.01 < sum(binom.pmf(counts[:60], total, truth)[too_low]) <= 0.05


def test_changed_predictions_are_counted_by_class() -> None:
    logits = torch.eye(4)
    one, other = (
        Predictions(model="m", ids=tuple("abcd"), logits=found, target=None) for found in (logits, logits[[0, 2, 1, 3]])
    )
    assert count_changed(one, other) == 2 and count_changed(one, one) == 0


@pytest.mark.parametrize(
    ("count", "total", "level"), [(-1, 5, 0.05), (6, 5, 0.05), (0, 0, 0.05), (0, 5, 0.0), (0, 5, 1.0)]
)
def test_mistakes(count: int, total: int, level: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        most_changed(count, total, level=level)
