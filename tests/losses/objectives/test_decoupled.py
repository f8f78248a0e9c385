"""DKD against a float64 loop written from the paper's Eqs. 5 to 7, and its two parts against plain KL."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.losses.objectives import Reduction, dkd_loss, kl_divergence

Weights = tuple[float, float]
SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def logits(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def labels(n: int, c: int, *, seed: int = 0) -> Tensor:
    return torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(seed))


def naive_softmax(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((v - max(z)) / temperature) for v in z]
    return [power / sum(powers) for power in powers]


def naive_kl(p: list[float], q: list[float]) -> float:
    return sum(pj * math.log(pj / qj) for pj, qj in zip(p, q, strict=True) if pj > 0)


def naive_dkd(triple: tuple[list[float], list[float], int], t: float, alpha: float, beta: float) -> float:
    student, target, y = triple
    if len(student) == 1:
        return 0.0
    p, q = naive_softmax(target, t), naive_softmax(student, t)
    p_rest, q_rest = sum(p) - p[y], sum(q) - q[y]
    tckd = naive_kl([p[y], p_rest], [q[y], q_rest])
    others = [j for j in range(len(p)) if j != y]
    nckd = naive_kl([p[j] / p_rest for j in others], [q[j] / q_rest for j in others]) if p_rest > 1e-300 else 0.0
    return t**2 * (alpha * tckd + beta * nckd)


def naive_rows(student: Tensor, target: Tensor, y: Tensor, t: float = 1, weights: Weights = (1, 8)) -> list[float]:
    triples = zip(student.tolist(), target.tolist(), y.tolist(), strict=True)
    return [naive_dkd(triple, t, *weights) for triple in triples]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (0.5, 2.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize(("n", "c"), [(17, 5), (5, 2), (3, 1), (1, 10)])
def test_equals_the_naive_loop(n: int, c: int, alpha: float, beta: float, temperature: float) -> None:
    student, target, y = logits(n, c, seed=1), logits(n, c, seed=2), labels(n, c)
    rows = naive_rows(student, target, y, temperature, (alpha, beta))
    expected: dict[Reduction, list[float] | float] = {"none": rows, "sum": sum(rows), "mean": sum(rows) / n}
    for reduction, value in expected.items():
        loss = dkd_loss(
            student, target, y, temperature, target_weight=alpha, non_target_weight=beta, reduction=reduction
        )
        assert loss.tolist() == pytest.approx(value, abs=1e-9)


def test_the_weights_are_1_and_8_unless_given() -> None:
    student, target, y = logits(6, 4, seed=1), logits(6, 4, seed=2), labels(6, 4)
    assert dkd_loss(student, target, y).item() == pytest.approx(sum(naive_rows(student, target, y)) / 6)


@SETTINGS
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.2, 10))
def test_the_parts_add_up_to_plain_kl(seed: int, temperature: float) -> None:
    """The paper's Eq. 6: KL = TCKD + (1 − p_y) · NCKD."""
    student, target, y = logits(5, 4, seed=seed), logits(5, 4, seed=seed + 1), labels(5, 4, seed=seed)
    tckd, nckd = (
        dkd_loss(student, target, y, temperature, target_weight=a, non_target_weight=1 - a, reduction="none")
        for a in (1.0, 0.0)
    )
    p_y = (target / temperature).softmax(dim=1).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(tckd + (1 - p_y) * nckd, kl_divergence(student, target, temperature, reduction="none"))
    assert (tckd >= 0).all()
    assert (nckd > 0).all()


@SETTINGS
@given(seed=st.integers(0, 10_000), permutation=st.permutations(range(5)))
def test_does_not_depend_on_the_order_of_classes(seed: int, permutation: list[int]) -> None:
    student, target, y = logits(4, 5, seed=seed), logits(4, 5, seed=seed + 1), labels(4, 5, seed=seed)
    moved = torch.tensor(permutation).argsort()[y]
    torch.testing.assert_close(
        dkd_loss(student, target, y), dkd_loss(student[:, permutation], target[:, permutation], moved)
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("c", [2, 4])
def test_gradients(c: int, temperature: float) -> None:
    student, target = logits(3, c, seed=1).requires_grad_(), logits(3, c, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: dkd_loss(s, t, labels(3, c), temperature), (student, target))


def test_two_classes_have_no_second_part_and_one_class_no_loss() -> None:
    student, target, y = logits(5, 2, seed=1), logits(5, 2, seed=2), labels(5, 2)
    torch.testing.assert_close(dkd_loss(student, target, y), kl_divergence(student, target))
    student = logits(5, 1, seed=1).requires_grad_()
    loss = dkd_loss(student, logits(5, 1, seed=2), torch.zeros(5, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.tolist() == [[0.0]] * 5


@pytest.mark.parametrize("sure", [30.0, 200.0, 1e4])
def test_a_target_that_is_all_but_certain(sure: float) -> None:
    """In float32 p_y rounds to 1 from 17 on; 1 − p_y, then 0, has no logarithm."""
    student, target, y = torch.zeros(1, 4), torch.tensor([[sure, 3.0, 2.0, 1.0]]), torch.tensor([0])
    student.requires_grad_()
    tckd = dkd_loss(student, target, y, non_target_weight=0.0)
    assert tckd.item() == pytest.approx(math.log(4), rel=1e-6)
    nckd = dkd_loss(student, target, y, target_weight=0.0, non_target_weight=1.0)
    assert nckd.item() == pytest.approx(naive_kl(naive_softmax([3.0, 2.0, 1.0], 1.0), [1 / 3] * 3), rel=1e-5)
    certain = dkd_loss(target.requires_grad_(), student.detach(), y, non_target_weight=0.0)
    log_rest = math.log(sum(math.exp(z) for z in (3.0, 2.0, 1.0))) - sure
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert certain.item() == pytest.approx(-entropy - 0.75 * log_rest, rel=1e-5)
    for gradient in (*torch.autograd.grad(tckd + nckd, student), *torch.autograd.grad(certain, target)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("masked", [[1], [1, 3], [1, 2, 3], [0]])
@pytest.mark.parametrize("student_too", [True, False])
def test_masked_target_classes_contribute_nothing(masked: list[int], student_too: bool) -> None:
    student, target, y = logits(5, 4, seed=1), logits(5, 4, seed=2), torch.zeros(5, dtype=torch.int64)
    target[:, masked] = -torch.inf
    rows = naive_rows(student, target, y, 2.0)
    if student_too:
        student[:, masked] = -torch.inf
        rest = [j for j in range(4) if j not in masked]
        if masked != [0]:
            rows = naive_rows(student[:, rest], target[:, rest], y, 2.0)
        else:
            others = zip(student[:, 1:].tolist(), target[:, 1:].tolist(), strict=True)
            rows = [8 * 4 * naive_kl(naive_softmax(t, 2.0), naive_softmax(s, 2.0)) for s, t in others]
    student.requires_grad_()
    target.requires_grad_()
    values = dkd_loss(student, target, y, 2.0, reduction="none")
    assert values.tolist() == pytest.approx(rows, abs=1e-9)
    for gradient in torch.autograd.grad(values.sum(), (student, target)):
        assert bool(gradient.isfinite().all())


def test_one_sample_masked_leaves_the_others_alone() -> None:
    student, target, y = logits(3, 4, seed=1), logits(3, 4, seed=2), labels(3, 4)
    target[1] = -torch.inf
    target[1, y[1]] = 0.0
    rows = naive_rows(student, target, y)
    assert dkd_loss(student, target, y, reduction="none").tolist() == pytest.approx(rows, abs=1e-9)


def test_no_samples_cost_nothing_and_have_a_gradient() -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss = dkd_loss(student, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, target = logits(64, 50, seed=1, dtype=dtype), logits(64, 50, seed=2, dtype=dtype)
    loss = dkd_loss(student, target, labels(64, 50))
    exact = dkd_loss(student.double(), target.double(), labels(64, 50))
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(exact.item(), rel=tolerance)


def test_messages() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"of one shape \(N, classes\), got \(2, 3\) and \(2, 4\)"):
        dkd_loss(z, torch.zeros(2, 4), y)
    with pytest.raises(ValueError, match=r"of one shape \(N, classes\), got \(3,\) and \(3,\)"):
        dkd_loss(torch.zeros(3), torch.zeros(3), torch.tensor(0))
    with pytest.raises(
        ValueError, match=r"class_N: expected torch.int64 \(2,\) for logits \(2, 3\), got torch.float32"
    ):
        dkd_loss(z, z, torch.zeros(2))
    with pytest.raises(ValueError, match=r"temperature: expected a number above 0, got 0.0"):
        dkd_loss(z, z, y, 0.0)
    with pytest.raises(ValueError, match=r"non_target_weight: expected a number of at least 0, got -1"):
        dkd_loss(z, z, y, non_target_weight=-1)
    with pytest.raises(ValueError, match=r"^target_weight: expected a number of at least 0, got -1"):
        dkd_loss(z, z, y, target_weight=-1)
    for wrong in (-1, 3):
        with pytest.raises((RuntimeError, IndexError)):
            dkd_loss(z, z, torch.tensor([0, wrong]))
