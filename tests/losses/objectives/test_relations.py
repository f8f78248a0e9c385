"""DIST against a float64 loop written from the paper's Eqs. 7 to 9, and where nothing correlates."""

import math
from statistics import mean
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.losses.objectives import dist_loss

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def logits(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def naive_softmax(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((v - max(z)) / temperature) for v in z]
    return [power / sum(powers) for power in powers]


def naive_distance(a: list[float], b: list[float]) -> float:
    da, db = [x - mean(a) for x in a], [x - mean(b) for x in b]
    norms = math.sqrt(sum(x * x for x in da)) * math.sqrt(sum(x * x for x in db))
    return 1 - sum(x * y for x, y in zip(da, db, strict=True)) / norms if len(set(a)) > 1 < len(set(b)) else 0.0


def naive_dist(student: Tensor, target: Tensor, temperature: float, inter: float, intra: float) -> list[float]:
    q = [naive_softmax(z, temperature) for z in student.tolist()]
    p = [naive_softmax(z, temperature) for z in target.tolist()]
    columns = [
        naive_distance(list(a), list(b)) for a, b in zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    ]
    rows = [naive_distance(a, b) for a, b in zip(p, q, strict=True)]
    return [temperature**2 * (inter * row + intra * mean(columns)) for row in rows]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize(("inter", "intra"), [(1.0, 1.0), (2.0, 0.5), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize(("n", "c"), [(17, 5), (2, 3), (5, 2), (1, 4), (4, 1), (1, 1)])
def test_equals_the_naive_loop(n: int, c: int, inter: float, intra: float, temperature: float) -> None:
    student, target = logits(n, c, seed=1), logits(n, c, seed=2)
    rows = naive_dist(student, target, temperature, inter, intra)
    weights: dict[str, Any] = {"inter_weight": inter, "intra_weight": intra}
    assert dist_loss(student, target, temperature, reduction="none", **weights).tolist() == pytest.approx(
        rows, abs=1e-10
    )
    assert dist_loss(student, target, temperature, **weights).item() == pytest.approx(mean(rows), abs=1e-10)
    total = dist_loss(student, target, temperature, reduction="sum", **weights)
    assert total.item() == pytest.approx(sum(rows), abs=1e-9)


def test_weights_are_1_unless_given() -> None:
    student, target = logits(6, 4, seed=1), logits(6, 4, seed=2)
    assert dist_loss(student, target).item() == pytest.approx(
        mean(naive_dist(student, target, 1.0, 1.0, 1.0)), abs=1e-10
    )


@SETTINGS
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.1, 10))
def test_zero_for_the_same_predictions_and_within_bounds_for_others(seed: int, temperature: float) -> None:
    student, target = logits(6, 5, seed=seed), logits(6, 5, seed=seed + 1)
    same = dist_loss(student, student + 2.0, temperature, reduction="none")
    torch.testing.assert_close(same, torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)
    values = dist_loss(student, target, temperature, reduction="none") / temperature**2
    assert ((values >= 0) & (values <= 4)).all()


def test_equal_predictions_cost_exactly_nothing_in_float32_too() -> None:
    """Where a class is next to impossible as well: the authors' 1e-8 in the denominator makes that class cost 1."""
    z = logits(8, 50, seed=1, dtype=torch.float32)
    z[:, 3] -= 90
    assert dist_loss(z, z.clone()).item() == 0


def test_classes_of_small_probability_correlate_as_others_do() -> None:
    student, target = logits(8, 4, seed=1), logits(8, 4, seed=2)
    for single in (student, target):
        single[:, 0] -= 110  # probabilities of 1e-48, whose squares float32 cannot hold, nor itself
    exact = naive_dist(student, target, 1.0, 1.0, 1.0)
    assert dist_loss(student, target, reduction="none").tolist() == pytest.approx(exact, abs=1e-9)
    single_precision = dist_loss(student.float(), target.float(), reduction="none")
    assert single_precision.tolist() == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("n", "c"), [(4, 3), (2, 5)])
def test_gradients(n: int, c: int, temperature: float) -> None:
    student, target = logits(n, c, seed=1).requires_grad_(), logits(n, c, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: dist_loss(s, t, temperature), (student, target))
    assert torch.autograd.gradcheck(
        lambda s, t: dist_loss(s, t, temperature, inter_weight=0.5, intra_weight=2.0, reduction="none"),
        (student, target),
    )


def check_nothing(student: Tensor, target: Tensor, **weights: Any) -> None:
    student, target = student.clone().requires_grad_(), target.clone().requires_grad_()
    loss = dist_loss(student, target, 2.0, **weights)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, (student, target)):
        assert not bool(gradient.any())  # NaN would be true


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("c", [3, 7, 1000])
def test_a_constant_side_has_no_inter_term(c: int, dtype: torch.dtype) -> None:
    even, uneven = torch.full((4, c), 0.1, dtype=dtype), logits(4, c, seed=1, dtype=dtype)
    check_nothing(even, uneven, intra_weight=0.0)
    check_nothing(uneven, even, intra_weight=0.0)
    check_nothing(even, even)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_class_without_change_over_the_batch_has_no_intra_term(dtype: torch.dtype) -> None:
    row, other = logits(1, 7, seed=1, dtype=dtype), logits(6, 7, seed=2, dtype=dtype)
    shifts = torch.linspace(-20, 20, 6, dtype=dtype).unsqueeze(1)  # leave probabilities as they are up to rounding
    check_nothing(row + shifts, other, inter_weight=0.0)
    check_nothing(other, row + shifts, inter_weight=0.0)


def test_one_class_or_one_sample_has_no_term_over_it() -> None:
    check_nothing(logits(5, 1, seed=1), logits(5, 1, seed=2))
    check_nothing(logits(1, 5, seed=1), logits(1, 5, seed=2), inter_weight=0.0)
    assert dist_loss(logits(1, 5, seed=1), logits(1, 5, seed=2), intra_weight=0.0).item() > 0.01


def test_one_constant_sample_leaves_the_others_alone() -> None:
    student, target = logits(4, 5, seed=1), logits(4, 5, seed=2)
    student[2] = 0.0
    student.requires_grad_()
    values = dist_loss(student, target, intra_weight=0.0, reduction="none")
    assert values.tolist() == pytest.approx(naive_dist(student.detach(), target, 1.0, 1.0, 0.0), abs=1e-10)
    assert (values > 0).tolist() == [True, True, False, True]
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.any(dim=1).tolist() == [True, True, False, True]


@pytest.mark.parametrize("whole_class", [True, False])
def test_a_masked_target_class_is_a_probability_of_0(whole_class: bool) -> None:
    student, target = logits(5, 4, seed=1).requires_grad_(), logits(5, 4, seed=2)
    target[slice(None) if whole_class else slice(0, 2), 1] = -torch.inf
    target.requires_grad_()
    values = dist_loss(student, target, 2.0, reduction="none")
    assert values.tolist() == pytest.approx(naive_dist(student.detach(), target.detach(), 2.0, 1.0, 1.0), abs=1e-10)
    for gradient in torch.autograd.grad(values.sum(), (student, target)):
        assert bool(gradient.isfinite().all())


def test_no_samples_cost_nothing_and_have_a_gradient() -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    for loss in (dist_loss(student, torch.zeros(0, 4)), dist_loss(student, torch.zeros(0, 4), reduction="sum")):
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.shape == (0, 4)
    assert dist_loss(student, torch.zeros(0, 4), reduction="none").shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, target = logits(64, 50, seed=1, dtype=dtype).requires_grad_(), logits(64, 50, seed=2, dtype=dtype)
    loss = dist_loss(student, target)
    exact = dist_loss(student.detach().double(), target.double())
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(exact.item(), rel=tolerance)
    loss.backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_messages() -> None:
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"of one shape \(N, classes\), got \(2, 3\) and \(3, 2\)"):
        dist_loss(z, torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"of one shape \(N, classes\), got \(2, 3, 4\) and \(2, 3, 4\)"):
        dist_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="temperature: expected a number above 0, got -1"):
        dist_loss(z, z, -1.0)
    with pytest.raises(ValueError, match=r"inter_weight: expected a number of at least 0, got -0.5"):
        dist_loss(z, z, inter_weight=-0.5)
    with pytest.raises(ValueError, match="intra_weight: expected a number of at least 0, got nan"):
        dist_loss(z, z, intra_weight=math.nan)
    with pytest.raises(ValueError, match="reduction: expected 'mean', 'sum' or 'none', got 'batchmean'"):
        dist_loss(z, z, reduction="batchmean")  # type: ignore[arg-type]
