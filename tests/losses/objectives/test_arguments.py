"""What every objective does with its arguments: the precision it computes in, and what it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gainfinder.losses.objectives import (
    cross_entropy,
    dist_loss,
    dkd_loss,
    kl_divergence,
    mixed_kl,
    partitioned_kl,
    soft_cross_entropy,
    top_k_kl,
)

N, M, C = 6, 2, 5
LABELS = torch.arange(N) % C
CHOICE = torch.arange(N) % M
WEIGHTS = torch.full((N, M), 0.5)
ONE_TARGET: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": kl_divergence,
    "soft cross-entropy": soft_cross_entropy,
    "top k": lambda student, target: top_k_kl(student, target, k=3),
    "dist": dist_loss,
    "dkd": lambda student, target: dkd_loss(student, target, LABELS),
    "partitioned": lambda student, target: partitioned_kl(student, torch.stack([target, target], 1), CHOICE),
    "mixed": lambda student, target: mixed_kl(student, torch.stack([target, -target], 1), WEIGHTS.to(target.dtype)),
}


def logits(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Logits that half precision holds exactly, so that a wider dtype means the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-40, 40, shape, generator=generator) / 8).to(dtype)


@pytest.mark.parametrize("name", ONE_TARGET)
@pytest.mark.parametrize(
    ("student_dtype", "target_dtype"),
    [
        (torch.float16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
    ],
)
def test_the_widest_dtype_is_computed_in_and_the_students_is_given(
    name: str, student_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    loss = ONE_TARGET[name]
    student, target = logits(N, C, seed=0, dtype=student_dtype), logits(N, C, seed=1, dtype=target_dtype)
    exact = loss(student.double(), target.double()).item()
    found = loss(student, target)
    assert found.dtype == student_dtype
    resolution = 1e-10 if torch.float64 in (student_dtype, target_dtype) else 1e-6
    rounding = torch.finfo(student_dtype).eps  # of the result, once
    assert found.item() == pytest.approx(exact, rel=max(resolution, rounding))


@pytest.mark.parametrize("weights", [torch.float16, torch.float32, torch.float64])
def test_weights_of_another_dtype_are_taken(weights: torch.dtype) -> None:
    student, targets = logits(N, C, seed=0, dtype=torch.float32), logits(N, M, C, seed=1, dtype=torch.float32)
    expected = mixed_kl(student.double(), targets.double(), WEIGHTS.double()).item()
    assert mixed_kl(student, targets, WEIGHTS.to(weights)).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_half_precision_is_computed_in_float32() -> None:
    student = logits(N, C, seed=0, dtype=torch.float16)
    found = cross_entropy(student, LABELS, reduction="none")
    exact = cross_entropy(student.double(), LABELS, reduction="none")
    assert found.dtype == torch.float16
    assert found.tolist() == pytest.approx(exact.tolist(), rel=torch.finfo(torch.float16).eps / 2)


def test_the_highest_classes_are_those_of_the_last_dimension() -> None:
    """Of (positions, positions, classes), as for per-pixel logits."""
    student, target = logits(2, 3, 7, seed=0, dtype=torch.float64), logits(2, 3, 7, seed=1, dtype=torch.float64)
    found = top_k_kl(student, target, k=4, reduction="none")
    flat = top_k_kl(student.reshape(6, 7), target.reshape(6, 7), k=4, reduction="none")
    assert found.shape == (2, 3) and torch.equal(found.reshape(6), flat)
    assert not torch.allclose(flat, kl_divergence(student.reshape(6, 7), target.reshape(6, 7), reduction="none"))


@pytest.mark.parametrize(
    ("student", "targets"),
    [
        ((C,), (N, M, C)),
        ((N, 1, C), (N, M, C)),
        ((N, C), (N, C)),
        ((N, C), (C,)),
        ((N, C), (N, 0, C)),
        ((N, C), (N, M, C + 1)),
        ((N, C), (N + 1, M, C)),
    ],
)
def test_models_of_wrong_shapes_are_refused_with_both_shapes(
    student: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    logits_NC, logits_NMC = torch.zeros(student), torch.zeros(targets)
    with pytest.raises(ValueError) as found:
        mixed_kl(logits_NC, logits_NMC, WEIGHTS)
    assert str(student) in str(found.value) and str(targets) in str(found.value)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"^student_logits: expected floating point"):
        cross_entropy(torch.zeros(N, C, dtype=torch.int64), LABELS)
    with pytest.raises(ValueError, match=r"expected torch.int64 \(2, 3\) for logits \(2, 3, 5\)"):
        cross_entropy(torch.zeros(2, 3, 5), torch.zeros(2, dtype=torch.int64))


def test_rows_that_hardly_differ_are_compared_and_constant_ones_are_not() -> None:
    """A spread of a thousandth is far above rounding: its direction counts."""
    rising = 1e-3 * torch.arange(C, dtype=torch.float64).repeat(2, 1)
    assert dist_loss(rising, rising, intra_weight=0.0).item() == pytest.approx(0.0, abs=1e-9)
    assert dist_loss(rising, -rising, intra_weight=0.0).item() == pytest.approx(2.0, abs=1e-2)
    assert dist_loss(rising.float(), -rising.float(), intra_weight=0.0).item() == pytest.approx(2.0, abs=1e-2)
