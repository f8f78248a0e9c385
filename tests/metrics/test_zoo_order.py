"""The order of a zoo's models: alike ones side by side."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage

from gainfinder.metrics import order_alike


def families(sizes: list[int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Who of several families each model is, in mixed order, and how alike they are: more within a family."""
    rng = np.random.default_rng(seed)
    family_M = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    noise_MM = rng.uniform(0, 0.2, (len(family_M), len(family_M)))
    alike_MM = np.where(family_M[:, None] == family_M, 0.6, 0.1) + (noise_MM + noise_MM.T) / 2
    np.fill_diagonal(alike_MM, np.nan)
    return family_M, alike_MM


@pytest.mark.parametrize("seed", range(5))
def test_families_stand_together(seed: int) -> None:
    family_M, alike_MM = families([7, 3, 12, 1], seed=seed)
    order = order_alike(alike_MM)
    assert sorted(order) == list(range(23))
    in_order = family_M[list(order)]
    assert np.count_nonzero(np.diff(in_order)) == 3, in_order
    assert 2 * order.index(0) < 23


def test_neighbours_are_more_alike_than_in_any_order_of_leaves() -> None:
    _, alike_MM = families([5, 6, 4], seed=7)

    def apart(order: list[int]) -> float:
        return float(sum(1 - alike_MM[one, other] for one, other in pairwise(order)))

    as_merged = leaves_list(linkage((1 - alike_MM)[np.triu_indices(15, k=1)], method="average"))
    assert apart(list(order_alike(alike_MM))) < apart([int(place) for place in as_merged])


def test_few_models_and_unknown_consistency() -> None:
    assert order_alike(np.full((1, 1), np.nan)) == (0,)
    assert order_alike(np.full((2, 2), np.nan)) == (0, 1)
    alike_MM = np.full((4, 4), np.nan)
    alike_MM[0, 3] = alike_MM[3, 0] = 0.9
    order = order_alike(alike_MM)
    assert sorted(order) == [0, 1, 2, 3] and abs(order.index(0) - order.index(3)) == 1
