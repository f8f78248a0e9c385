"""Logit standardisation against a float64 loop written from the paper's algorithm 1, and where nothing deviates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.losses.objectives import kl_divergence, standardised_logits

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def logits(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def naive_standardised(z: list[float]) -> list[float]:
    finite = [v for v in z if v != -math.inf]
    if len(set(finite)) < 2:
        return [v if v == -math.inf else 0.0 for v in z]
    centre = sum(finite) / len(finite)
    deviation = math.sqrt(sum((v - centre) ** 2 for v in finite) / len(finite))
    return [v if v == -math.inf else (v - centre) / deviation for v in z]


@pytest.mark.parametrize("masked", [0, 1, 3, 5])
@pytest.mark.parametrize(("n", "c"), [(17, 5), (3, 1), (4, 2), (0, 3), (5, 100)])
def test_equals_the_naive_loop(n: int, c: int, masked: int) -> None:
    z = logits(n, c, seed=1)
    z[: n // 2, :masked] = -torch.inf
    expected = torch.tensor([naive_standardised(row) for row in z.tolist()], dtype=torch.float64).reshape(n, c)
    torch.testing.assert_close(standardised_logits(z), expected, atol=1e-12, rtol=1e-12)


def test_the_deviation_is_the_populations() -> None:
    """Algorithm 1 divides by K; the authors' code calls Tensor.std, which divides by K − 1."""
    assert standardised_logits(torch.tensor([0.0, 1.0])).tolist() == [-1.0, 1.0]
    z = logits(6, 5, seed=1)
    standard = standardised_logits(z)
    torch.testing.assert_close(standard.std(dim=-1, correction=0), torch.ones(6, dtype=torch.float64))
    sample = (z - z.mean(dim=-1, keepdim=True)) / z.std(dim=-1, keepdim=True)
    torch.testing.assert_close(standard, sample * math.sqrt(5 / 4))


@SETTINGS
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50), scale=st.floats(1e-3, 1e3))
def test_shift_and_scale_of_either_side_change_no_loss(seed: int, shift: float, scale: float) -> None:
    student, target = logits(4, 5, seed=seed), logits(4, 5, seed=seed + 1)
    loss = kl_divergence(standardised_logits(student), standardised_logits(target), 2.0)
    moved = kl_divergence(standardised_logits(student * scale + shift), standardised_logits(target), 2.0)
    torch.testing.assert_close(moved, loss)
    assert loss > 0
    assert (standardised_logits(student).abs() <= math.sqrt(4) + 1e-12).all()


def test_gradients() -> None:
    z = logits(3, 4, seed=1)
    z[0, 1] = -torch.inf
    finite = z.isfinite()
    values = z[finite].clone().requires_grad_()

    def standardise(values: Tensor) -> Tensor:
        return standardised_logits(z.masked_scatter(finite, values))[finite]

    assert torch.autograd.gradcheck(standardise, (values,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("value", [0.1, 0.0, -7.3, 30.3])
@pytest.mark.parametrize("c", [1, 3, 1000])
def test_equal_logits_become_exactly_0_without_gradient(c: int, value: float, dtype: torch.dtype) -> None:
    z = torch.full((4, c), value, dtype=dtype)
    z[1, : c // 2] = -torch.inf
    z.requires_grad_()
    standard = standardised_logits(z)
    assert torch.equal(standard[z != -torch.inf], torch.zeros(4 * c - c // 2, dtype=dtype))
    assert (standard[z == -torch.inf] == -torch.inf).all()
    weights = torch.arange(1, 4 * c + 1, dtype=torch.float64).reshape(4, c).to(dtype)
    (gradient,) = torch.autograd.grad((standard.masked_fill(standard == -torch.inf, 0.0) * weights).sum(), z)
    assert not bool(gradient.any())  # NaN would be true


def test_a_row_that_is_masked_whole_and_one_that_is_not_a_number() -> None:
    z = torch.tensor([[-torch.inf, -torch.inf], [torch.nan, 1.0], [3.0, 1.0]])
    assert standardised_logits(z)[0].tolist() == [-torch.inf, -torch.inf]
    assert standardised_logits(z)[1].isnan().all()
    assert standardised_logits(z)[2].tolist() == [1.0, -1.0]


def test_a_masked_class_gets_no_gradient_and_gives_no_nan_under_kl() -> None:
    student, target = logits(5, 4, seed=1), logits(5, 4, seed=2)
    student[:, 2] = target[:, 2] = -torch.inf
    student.requires_grad_()
    loss = kl_divergence(standardised_logits(student), standardised_logits(target))
    rest = [0, 1, 3]
    torch.testing.assert_close(
        loss, kl_divergence(standardised_logits(student[:, rest]), standardised_logits(target[:, rest]))
    )
    (gradient,) = torch.autograd.grad(loss, student)
    assert bool(gradient.isfinite().all())
    assert not bool(gradient[:, 2].any())


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e30])
def test_neither_small_nor_large_logits_are_lost_in_their_squares(scale: float) -> None:
    z = (torch.tensor([2.0, 4.0, 6.0, 8.0]) * scale).requires_grad_()
    standard = standardised_logits(z)
    assert standard.tolist() == pytest.approx([v / math.sqrt(5) for v in (-3, -1, 1, 3)], rel=1e-6)
    (gradient,) = torch.autograd.grad(standard[0], z)
    assert (gradient * scale).tolist() == pytest.approx([j / (20 * math.sqrt(5)) for j in (6, -8, -2, 4)], abs=1e-6)


def test_differences_of_one_unit_in_the_last_place_are_kept() -> None:
    """At 4096 neighbours in float32 are 2^-11 apart: a mean of the logits themselves would be rounded by that much."""
    z = 4096 + torch.tensor([0.0, 1.0, 2.0, 3.0]) * 2.0**-11
    assert standardised_logits(z).tolist() == pytest.approx([v / math.sqrt(5) for v in (-3, -1, 1, 3)], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_kept(dtype: torch.dtype) -> None:
    z = logits(64, 50, seed=1, dtype=dtype)
    z[:, 0] = 60_000  # its square is beyond float16
    standard = standardised_logits(z)
    assert standard.dtype == dtype
    assert torch.equal(standard, standardised_logits(z.float()).to(dtype))


def test_leading_dimensions_are_positions() -> None:
    z = logits(2, 3, 4, 5, seed=1)
    assert torch.equal(standardised_logits(z).reshape(24, 5), standardised_logits(z.reshape(24, 5)))


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"^logits: expected floating point .*got torch.int64 \(2, 3\)"):
        standardised_logits(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^logits: .*at least one class, got torch.float32 \(2, 0\)"):
        standardised_logits(torch.zeros(2, 0))
