"""Targets chosen or mixed for each sample, against float64 loops; any objective under a partition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.losses.objectives import (
    Reduction,
    chosen_logits,
    cross_entropy,
    dkd_loss,
    kl_divergence,
    mixed_kl,
    partitioned_kl,
    soft_cross_entropy,
)
from gainfinder.partition import most_confident, soft_weights

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def logits(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def random_weights(n: int, m: int, *, seed: int) -> Tensor:
    """Some of them 0, rows of any sum."""
    uniform = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (3 * uniform - 1).clamp(min=0)


def naive_softmax(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((v - max(z)) / temperature) for v in z]
    return [power / sum(powers) for power in powers]


def naive_mixed(student: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> list[float]:
    rows = []
    for s, models, ws in zip(student.tolist(), targets.tolist(), weights.tolist(), strict=True):
        q, row = naive_softmax(s, temperature), 0.0
        for z, w in zip(models, ws, strict=True):
            p = naive_softmax(z, temperature)
            row += w * sum(pj * math.log(pj / qj) for pj, qj in zip(p, q, strict=True) if pj > 0)
        rows.append(temperature**2 * row)
    return rows


def test_chosen_logits_are_those_of_the_choice() -> None:
    targets, choice = logits(30, 3, 4, seed=1), torch.arange(30) % 3
    expected = [targets[i, int(m)].tolist() for i, m in enumerate(choice)]
    assert chosen_logits(targets, choice).tolist() == expected
    assert chosen_logits(targets.half(), choice).dtype == torch.float16
    assert chosen_logits(torch.zeros(0, 3, 4), choice[:0]).shape == (0, 4)


def test_a_gradient_goes_to_the_chosen_models_alone() -> None:
    targets = logits(2, 2, 3, seed=1).requires_grad_()
    chosen_logits(targets, torch.tensor([1, 0])).sum().backward()
    assert targets.grad is not None
    assert targets.grad.tolist() == [[[0.0] * 3, [1.0] * 3], [[1.0] * 3, [0.0] * 3]]


def test_a_model_that_fails_where_it_is_not_chosen_does_no_harm() -> None:
    student, targets = logits(2, 3, seed=1).requires_grad_(), logits(2, 2, 3, seed=2)
    expected = partitioned_kl(student, targets, torch.tensor([0, 1]))
    targets[0, 1] = torch.nan
    loss = partitioned_kl(student, targets, torch.tensor([0, 1]))
    assert torch.equal(loss, expected)
    (gradient,) = torch.autograd.grad(loss, student)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("sent", ["both", "all to the teacher", "none to the teacher"])
def test_any_objective_goes_under_a_partition(sent: str) -> None:
    student, targets = logits(12, 4, seed=1), logits(12, 2, 4, seed=2)
    choice = {
        "both": most_confident(targets.softmax(dim=-1)),
        "all to the teacher": torch.ones(12, dtype=torch.int64),
        "none to the teacher": torch.zeros(12, dtype=torch.int64),
    }[sent]
    assert sent != "both" or 0 < int(choice.sum()) < 12
    y = targets[:, 0].argmax(dim=1)
    for objective in (
        lambda s, t: kl_divergence(s, t, 2.0, reduction="none"),
        lambda s, t: soft_cross_entropy(s, t, 2.0, reduction="none"),
        lambda s, t: dkd_loss(s, t, y, 2.0, reduction="none"),
    ):
        keep, learn = objective(student, targets[:, 0]), objective(student, targets[:, 1])
        expected = torch.where(choice == 1, learn, keep)
        torch.testing.assert_close(objective(student, chosen_logits(targets, choice)), expected)
    torch.testing.assert_close(
        partitioned_kl(student, targets, choice, 2.0),
        kl_divergence(student, chosen_logits(targets, choice), 2.0),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5, 10.0])
@pytest.mark.parametrize(("n", "m", "c"), [(30, 3, 4), (5, 1, 4), (4, 2, 1), (1, 4, 2)])
def test_mixed_kl_equals_the_naive_loop(n: int, m: int, c: int, temperature: float) -> None:
    student, targets, weights = logits(n, c, seed=1), logits(n, m, c, seed=2), random_weights(n, m, seed=3)
    rows = naive_mixed(student, targets, weights, temperature)
    expected: dict[Reduction, list[float] | float] = {"none": rows, "sum": sum(rows), "mean": sum(rows) / n}
    for reduction, value in expected.items():
        loss = mixed_kl(student, targets, weights, temperature, reduction=reduction)
        assert loss.tolist() == pytest.approx(value, abs=1e-10)


@SETTINGS
@given(seed=st.integers(0, 10_000), m=st.integers(1, 4), temperature=st.floats(0.2, 10))
def test_one_hot_weights_are_a_partition(seed: int, m: int, temperature: float) -> None:
    student, targets = logits(6, 4, seed=seed), logits(6, m, 4, seed=seed + 1)
    choice = torch.randint(0, m, (6,), generator=torch.Generator().manual_seed(seed))
    weights = torch.nn.functional.one_hot(choice, m).double()
    torch.testing.assert_close(
        mixed_kl(student, targets, weights, temperature, reduction="none"),
        partitioned_kl(student, targets, choice, temperature, reduction="none"),
    )


@SETTINGS
@given(seed=st.integers(0, 10_000))
def test_the_student_is_drawn_to_the_weighted_mean_of_probabilities(seed: int) -> None:
    student, targets = logits(4, 5, seed=seed).requires_grad_(), logits(4, 3, 5, seed=seed + 1)
    weights = soft_weights(targets.softmax(dim=-1), sharpness=2.0)
    mean = (weights.unsqueeze(2) * targets.softmax(dim=-1)).sum(dim=1)
    (mixed,) = torch.autograd.grad(mixed_kl(student, targets, weights), student)
    (single,) = torch.autograd.grad(kl_divergence(student, mean.log()), student)
    torch.testing.assert_close(mixed, single)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_model_of_weight_0_contributes_nothing_even_where_it_fails(bad: float) -> None:
    student, targets = logits(3, 4, seed=1), logits(3, 2, 4, seed=2)
    student[:, 3] = targets[:, 0, 3] = -torch.inf  # a class the student cannot give, but the failed model can
    expected = kl_divergence(student, targets[:, 0])
    targets[0, 1] = bad
    student.requires_grad_()
    targets.requires_grad_()
    loss = mixed_kl(student, targets, torch.tensor([[1.0, 0.0]] * 3))
    torch.testing.assert_close(loss, expected)
    for gradient in torch.autograd.grad(loss, (student, targets)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients(temperature: float) -> None:
    student, targets = logits(3, 4, seed=1).requires_grad_(), logits(3, 2, 4, seed=2).requires_grad_()
    weights = torch.tensor([[0.5, 0.5], [0.0, 1.0], [2.0, 0.1]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s, t: mixed_kl(s, t, weights, temperature), (student, targets))
    assert torch.autograd.gradcheck(
        lambda s, t: soft_cross_entropy(s, chosen_logits(t, torch.tensor([0, 1, 1])), temperature), (student, targets)
    )


def test_no_samples_cost_nothing_and_have_a_gradient() -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss = mixed_kl(student, torch.zeros(0, 2, 4), torch.zeros(0, 2))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    """Rounding each model's divergence to half precision before the sum would show here: one part in 2048 or 256."""
    student, targets = logits(64, 50, seed=1, dtype=dtype), logits(64, 3, 50, seed=2, dtype=dtype)
    weights = random_weights(64, 3, seed=3).to(dtype)
    loss = mixed_kl(student, targets, weights, reduction="none")
    exact = mixed_kl(student.double(), targets.double(), weights.double(), reduction="none")
    assert loss.dtype == dtype
    torch.testing.assert_close(loss, exact.float().to(dtype), rtol=1e-5 if dtype == torch.float32 else 0, atol=0)


def test_messages() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"target_logits_NMC: .*\(N, models, classes\), got torch.float32 \(2, 3\)"):
        chosen_logits(z, y)
    with pytest.raises(ValueError, match=r"target_logits_NMC: .*got torch.float32 \(2, 0, 3\)"):
        chosen_logits(torch.zeros(2, 0, 3), y)
    with pytest.raises(ValueError, match=r"choice_N: expected torch.int64 \(2,\), got torch.bool \(2,\)"):
        chosen_logits(torch.zeros(2, 2, 3), y.bool())
    for wrong in (-1, 2):
        with pytest.raises((RuntimeError, IndexError)):
            chosen_logits(torch.zeros(2, 2, 3), torch.tensor([0, wrong]))
    with pytest.raises(ValueError, match=r"target logits \(N, models, classes\), got \(2, 3\) and \(2, 2, 4\)"):
        mixed_kl(z, torch.zeros(2, 2, 4), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"weights_NM: expected floating point \(2, 2\), got torch.float32 \(2,\)"):
        mixed_kl(z, torch.zeros(2, 2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"weights_NM: expected floating point \(2, 2\), got torch.int64 \(2, 2\)"):
        mixed_kl(z, torch.zeros(2, 2, 3), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"temperature: expected a number above 0, got 0.0"):
        mixed_kl(z, torch.zeros(2, 2, 3), torch.zeros(2, 2), 0.0)
    with pytest.raises(ValueError, match=r"target: expected torch.int64 \(2,\)"):
        cross_entropy(z, y[:1], label_smoothing=0.1)
