"""One model's answers, computed twice: what rounding explains, and what it does not."""

import pytest
import torch
from torch import Tensor

from gainfinder.predictions import Predictions, answered_otherwise, beyond_rounding

INF = torch.inf


def predictions(logits: Tensor, ids: str = "abc") -> Predictions:
    return Predictions(model="net", ids=tuple(ids), logits=logits, target=None)


@pytest.mark.parametrize(
    ("one", "other", "share", "expected"),
    [
        ([[10.0, 0.0]], [[10.0, 0.19]], 0.02, False),
        ([[10.0, 0.0]], [[10.0, 0.21]], 0.02, True),
        ([[0.0, 10.0]], [[0.0, 10.0]], 0.0, False),
        ([[0.0, 10.0]], [[1e-6, 10.0]], 0.0, True),
        ([[1.0, -INF]], [[1.0, -INF]], 0.0, False),
        ([[1.0, -INF]], [[1.0, 0.0]], 0.02, True),
    ],
)
def test_a_row_differs_by_a_share_of_its_largest_logit(
    one: list[list[float]], other: list[list[float]], share: float, expected: bool
) -> None:
    assert beyond_rounding(torch.tensor(one), torch.tensor(other), share=share).tolist() == [expected]


def test_a_row_near_zero_has_no_smaller_margin() -> None:
    one = torch.tensor([[0.01, -0.01], [10.0, 0.0]])
    assert beyond_rounding(one, one + torch.tensor([[0.05, 0.0], [0.0, 0.0]])).tolist() == [False, False]
    assert beyond_rounding(torch.zeros(0, 2), torch.zeros(0, 2)).tolist() == []


def test_ids_are_found_whatever_their_order_and_whoever_lacks_them() -> None:
    then = predictions(torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 1.0]]))
    now = predictions(torch.tensor([[1.0, 4.0], [4.0, 0.0], [0.0, 1.0]]), "cad")
    assert answered_otherwise(then, now) == ("b", "c", "d")
    assert answered_otherwise(then, then) == ()
    assert answered_otherwise(then, predictions(torch.zeros(3, 5))) == ("a", "b", "c")


def test_where_the_class_counts_another_certainty_does_not() -> None:
    then = predictions(torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 1.0]]))
    now = predictions(torch.tensor([[2.0, 0.0], [4.0, 0.0], [4.0, 1.0]]))
    assert answered_otherwise(then, now) == ("a", "b") and answered_otherwise(then, now, classes=True) == ("b",)
