"""Label smoothing, soft-target cross-entropy and top-k KL against float64 loops written from appendix B.1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.losses.objectives import Reduction, cross_entropy, kl_divergence, soft_cross_entropy, top_k_kl

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def logits(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def labels(n: int, c: int, *, seed: int = 0) -> Tensor:
    return torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(seed))


def naive_softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    top = max(z)
    powers = [math.exp((v - top) / temperature) for v in z]
    return [power / sum(powers) for power in powers]


def naive_smoothed(student: list[float], label: int, epsilon: float) -> float:
    q, c = naive_softmax(student), len(student)
    targets = [(1 - epsilon) * (j == label) + epsilon / c for j in range(c)]
    return -sum(t * math.log(qj) for t, qj in zip(targets, q, strict=True))


def naive_soft(student: list[float], target: list[float], temperature: float) -> float:
    p, q = naive_softmax(target, temperature), naive_softmax(student, temperature)
    return -(temperature**2) * sum(pj * math.log(qj) for pj, qj in zip(p, q, strict=True) if pj > 0)


def naive_top_k(student: list[float], target: list[float], k: int, temperature: float) -> float:
    chosen: list[int] = []
    while len(chosen) < min(k, len(target)):
        best = None
        for j, v in enumerate(target):
            if j not in chosen and (best is None or v > target[best]):
                best = j
        assert best is not None
        chosen.append(best)
    p = naive_softmax([target[j] for j in chosen], temperature)
    q = naive_softmax([student[j] for j in chosen], temperature)
    return temperature**2 * sum(pj * math.log(pj / qj) for pj, qj in zip(p, q, strict=True) if pj > 0)


def check_reductions(losses: dict[Reduction, Tensor], rows: list[float]) -> None:
    assert losses["none"].tolist() == pytest.approx(rows, abs=1e-12)
    assert losses["sum"].item() == pytest.approx(sum(rows), abs=1e-12)
    assert losses["mean"].item() == pytest.approx(sum(rows) / max(len(rows), 1), abs=1e-12)


REDUCTIONS: tuple[Reduction, ...] = ("none", "sum", "mean")


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("n", "c"), [(17, 5), (3, 1), (1, 2), (0, 4)])
def test_label_smoothing_equals_the_naive_loop(n: int, c: int, epsilon: float) -> None:
    student, target = logits(n, c, seed=1), labels(n, c)
    rows = [naive_smoothed(s, y, epsilon) for s, y in zip(student.tolist(), target.tolist(), strict=True)]
    losses = {r: cross_entropy(student, target, label_smoothing=epsilon, reduction=r) for r in REDUCTIONS}
    check_reductions(losses, rows)


def test_smoothing_is_of_the_targets_not_of_the_predictions() -> None:
    """The published code smooths predictions: −log((1 − ε)·q + ε/C), least at certainty, at most ln(C/ε)."""
    y = labels(6, 5)
    targets = 0.9 * torch.nn.functional.one_hot(y, 5).double() + 0.1 / 5
    student = targets.log().requires_grad_()
    cross_entropy(student, y, label_smoothing=0.1).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros_like(student.grad))
    certain = 50 * torch.nn.functional.one_hot(y, 5).double()
    assert cross_entropy(certain, y, label_smoothing=0.1).item() == pytest.approx(0.1 / 5 * 4 * 50, abs=1e-6)
    assert cross_entropy(-certain, y, label_smoothing=0.1).item() > math.log(5 / 0.1) + 30


def test_a_masked_class_costs_nothing_unless_smoothing_asks_for_it() -> None:
    student = torch.tensor([[1.0, -torch.inf, 1.0]], requires_grad=True)
    loss = cross_entropy(student, torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([-0.5, 0.0, 0.5])
    assert cross_entropy(student, torch.tensor([0]), label_smoothing=0.1).item() == math.inf


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize(("n", "c"), [(17, 5), (3, 1), (1, 2), (0, 4)])
def test_soft_cross_entropy_equals_the_naive_loop(n: int, c: int, temperature: float) -> None:
    student, target = logits(n, c, seed=1), logits(n, c, seed=2)
    rows = [naive_soft(s, t, temperature) for s, t in zip(student.tolist(), target.tolist(), strict=True)]
    losses = {r: soft_cross_entropy(student, target, temperature, reduction=r) for r in REDUCTIONS}
    check_reductions(losses, rows)


def test_soft_cross_entropy_takes_no_second_softmax() -> None:
    """With one, a certain student that is right would still pay 5.909 at 1000 classes."""
    certain = 100 * torch.nn.functional.one_hot(labels(4, 1000), 1000).float()
    assert soft_cross_entropy(certain, certain).item() == pytest.approx(0, abs=1e-6)
    assert soft_cross_entropy(certain.softmax(dim=-1), certain).item() == pytest.approx(5.909, abs=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_trains_as_kl_does(temperature: float) -> None:
    student, target = logits(5, 4, seed=1).requires_grad_(), logits(5, 4, seed=2)
    (soft,) = torch.autograd.grad(soft_cross_entropy(student, target, temperature), student)
    (kl,) = torch.autograd.grad(kl_divergence(student, target, temperature), student)
    torch.testing.assert_close(soft, kl)
    assert bool(kl.any())


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 10, 1000])
@pytest.mark.parametrize(("n", "c"), [(17, 5), (3, 1), (0, 4)])
def test_top_k_equals_the_naive_loop(n: int, c: int, k: int, temperature: float) -> None:
    student, target = logits(n, c, seed=1), logits(n, c, seed=2)
    rows = [naive_top_k(s, t, k, temperature) for s, t in zip(student.tolist(), target.tolist(), strict=True)]
    losses = {r: top_k_kl(student, target, k, temperature, reduction=r) for r in REDUCTIONS}
    check_reductions(losses, rows)


def test_ties_for_the_last_place_go_to_the_lowest_class() -> None:
    """Many classes in few steps: torch.topk takes other ones of the equal classes."""
    student = logits(20, 300, seed=1)
    target = torch.randint(0, 3, (20, 300), generator=torch.Generator().manual_seed(2)).double()
    for k in (7, 150, 299):
        rows = [naive_top_k(s, t, k, 1.0) for s, t in zip(student.tolist(), target.tolist(), strict=True)]
        assert top_k_kl(student, target, k, reduction="none").tolist() == pytest.approx(rows, abs=1e-12)


@pytest.mark.parametrize("k", [5, 6, 1000])
def test_k_from_the_class_count_on_is_all_classes(k: int) -> None:
    student, target = logits(17, 5, seed=1), logits(17, 5, seed=2)
    assert torch.equal(top_k_kl(student, target, k, 2.0), kl_divergence(student, target, 2.0))


def test_the_students_other_classes_get_no_gradient() -> None:
    student, target = logits(3, 4, seed=1).requires_grad_(), torch.tensor([[0.0, 3.0, 1.0, 2.0]] * 3)
    top_k_kl(student, target, 2).backward()
    assert student.grad is not None
    assert (student.grad != 0).tolist() == [[False, True, False, True]] * 3


@SETTINGS
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_the_whole_divergence_is_at_least_the_top_ks_share_of_it(seed: int, k: int) -> None:
    student, target = logits(4, 6, seed=seed), logits(4, 6, seed=seed + 1)
    share = target.softmax(dim=-1).sort(dim=-1, descending=True).values[:, :k].sum(dim=-1)
    top, whole = (f(student, target) for f in (lambda s, t: top_k_kl(s, t, k, reduction="none"), per_sample_kl))
    assert (whole >= share * top - 1e-12).all()


def per_sample_kl(student: Tensor, target: Tensor) -> Tensor:
    return kl_divergence(student, target, reduction="none")


def test_neither_divergence_bounds_the_other() -> None:
    target = torch.tensor([[4.0, 2.0, 2.0]]).log()
    tail = torch.tensor([[4.0, 2.0, 0.01]]).log()
    assert top_k_kl(tail, target, 2).item() == pytest.approx(0, abs=1e-6)
    assert kl_divergence(tail, target).item() > 0.5
    head = torch.tensor([[2.0, 4.0, 2.0]]).log()
    assert top_k_kl(head, target, 2).item() > kl_divergence(head, target).item()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_masked_target_classes_contribute_nothing(k: int) -> None:
    student, target = logits(5, 4, seed=1).requires_grad_(), logits(5, 4, seed=2)
    target[:, 1:3] = -torch.inf
    target.requires_grad_()
    pairs = list(zip(student.tolist(), target.tolist(), strict=True))
    for loss, rows in (
        (top_k_kl(student, target, k, 2.0), [naive_top_k(s, t, k, 2.0) for s, t in pairs]),
        (soft_cross_entropy(student, target, 2.0), [naive_soft(s, t, 2.0) for s, t in pairs]),
    ):
        assert loss.item() == pytest.approx(sum(rows) / 5, abs=1e-12)
        for gradient in torch.autograd.grad(loss, (student, target)):
            assert bool(gradient.isfinite().all())


def test_a_class_masked_on_both_sides_is_a_smaller_problem() -> None:
    student, target = logits(5, 4, seed=1), logits(5, 4, seed=2)
    student[:, 2] = target[:, 2] = -torch.inf
    rest = [0, 1, 3]
    student.requires_grad_()
    loss = soft_cross_entropy(student, target)
    torch.testing.assert_close(loss, soft_cross_entropy(student[:, rest], target[:, rest]))
    loss.backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients(temperature: float) -> None:
    student, target = logits(3, 4, seed=1).requires_grad_(), logits(3, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: soft_cross_entropy(s, t, temperature), (student, target))
    assert torch.autograd.gradcheck(lambda s, t: top_k_kl(s, t, 2, temperature), (student, target))
    assert torch.autograd.gradcheck(lambda s: cross_entropy(s, labels(3, 4), label_smoothing=0.3), (student,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, target = logits(64, 50, seed=1, dtype=dtype), logits(64, 50, seed=2, dtype=dtype)
    exact_student, exact_target = student.double(), target.double()
    y = labels(64, 50)
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for loss, exact in (
        (soft_cross_entropy(student, target), soft_cross_entropy(exact_student, exact_target)),
        (top_k_kl(student, target, 10), top_k_kl(exact_student, exact_target, 10)),
        (cross_entropy(student, y, label_smoothing=0.1), cross_entropy(exact_student, y, label_smoothing=0.1)),
    ):
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(exact.item(), rel=tolerance)


def test_leading_dimensions_are_positions() -> None:
    student, target, y = logits(2, 3, 5, seed=1), logits(2, 3, 5, seed=2), labels(6, 5)
    flat = student.reshape(6, 5), target.reshape(6, 5)
    assert torch.equal(top_k_kl(student, target, 2, reduction="none").flatten(), top_k_kl(*flat, 2, reduction="none"))
    assert torch.equal(
        soft_cross_entropy(student, target, reduction="none").flatten(), soft_cross_entropy(*flat, reduction="none")
    )
    smoothed = cross_entropy(student, y.reshape(2, 3), label_smoothing=0.1, reduction="none")
    assert torch.equal(smoothed.flatten(), cross_entropy(flat[0], y, label_smoothing=0.1, reduction="none"))


def test_messages() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"k: expected a number of classes of at least 1, got {k}"):
            top_k_kl(z, z, k)
    with pytest.raises(ValueError, match=r"of one shape \(..., classes\), got \(2, 3\) and \(2, 4\)"):
        top_k_kl(z, torch.zeros(2, 4), 2)
    with pytest.raises(ValueError, match=r"of one shape \(..., classes\), got \(2, 3\) and \(2, 4\)"):
        soft_cross_entropy(z, torch.zeros(2, 4))
    for epsilon in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="label_smoothing: expected a number from 0 to below 1, got"):
            cross_entropy(z, y, label_smoothing=epsilon)
    for function in (soft_cross_entropy, lambda s, t, temperature: top_k_kl(s, t, 2, temperature)):
        with pytest.raises(ValueError, match=r"temperature: expected a number above 0, got 0.0"):
            function(z, z, 0.0)
