"""CD and CRD against float64 loops written from Eqs. 6 and 7 and from Tian et al. (2020); gradients, dtypes, limits."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.losses.contrastive import ContrastiveMemory, cd_loss
from gainfinder.losses.objectives import Reduction

SETTINGS = settings(deadline=None, max_examples=30, derandomize=True)
LABELS = [0, 1, 0, 2, 2, 0, 1, 9]
D, E, F, K = 5, 3, 4, 6


def features(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def naive_cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def naive_row(rows: list[list[float]], i: int) -> list[float]:
    """Softmax of the cosines of row i with every row."""
    powers = [math.exp(naive_cosine(rows[i], other)) for other in rows]
    return [power / sum(powers) for power in powers]


def naive_cd(student: list[list[float]], teacher: list[list[float]]) -> list[float]:
    losses = []
    for i in range(len(student)):
        p, q = naive_row(teacher, i), naive_row(student, i)
        losses.append(sum(pj * (math.log(pj) - math.log(qj)) for pj, qj in zip(p, q, strict=True)))
    return losses


@pytest.mark.parametrize(("n", "d", "e"), [(9, 4, 7), (2, 1, 1), (16, 3, 3)])
def test_cd_equals_the_naive_loop(n: int, d: int, e: int) -> None:
    student, teacher = features(n, d, seed=1), 5 * features(n, e, seed=2)
    rows = naive_cd(student.tolist(), teacher.tolist())
    assert cd_loss(student, teacher, reduction="none").tolist() == pytest.approx(rows, abs=1e-12)
    assert cd_loss(student, teacher, reduction="sum").item() == pytest.approx(sum(rows), abs=1e-12)
    assert cd_loss(student, teacher).item() == pytest.approx(sum(rows) / n, abs=1e-12)


def test_cd_gradients_reach_the_student_alone() -> None:
    student, teacher = features(4, 3, seed=1).requires_grad_(), features(4, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: cd_loss(s, teacher.detach()), (student,))
    cd_loss(student, teacher).backward()
    assert student.grad is not None and student.grad.any()
    assert teacher.grad is None


def test_cd_points_from_teacher_to_student() -> None:
    apart, alike = torch.eye(2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    p = math.e / (math.e + 1)
    assert cd_loss(apart, alike).item() == pytest.approx(-math.log(2) - 0.5 * (math.log(p) + math.log(1 - p)))
    assert cd_loss(alike, apart).item() == pytest.approx(
        p * math.log(p) + (1 - p) * math.log(1 - p) + math.log(2), abs=1e-12
    )


@SETTINGS
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_cd_sees_angles_only(seed: int, scale: float) -> None:
    student, teacher = features(6, 4, seed=seed), features(6, 4, seed=seed + 1)
    torch.testing.assert_close(cd_loss(scale * student, teacher), cd_loss(student, teacher))
    turned, _ = torch.linalg.qr(features(4, 4, seed=seed + 2))
    assert cd_loss(scale * teacher @ turned, teacher).item() == pytest.approx(0, abs=1e-12)
    assert (cd_loss(student, teacher, reduction="none") >= -1e-12).all()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        cd_loss(student[order], teacher[order], reduction="none"), cd_loss(student, teacher, reduction="none")[order]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_cd_keeps_the_dtype_and_computes_half_precision_in_float32(dtype: torch.dtype) -> None:
    student, teacher = features(32, 8, seed=1, dtype=dtype), features(32, 9, seed=2, dtype=dtype)
    exact = cd_loss(student.double(), teacher.double()).item()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = cd_loss(student.requires_grad_(), teacher)
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cd_of_one_sample_and_of_none_is_nothing(reduction: Reduction) -> None:
    for n in (0, 1):
        student = torch.ones(n, 3, requires_grad=True)
        loss = cd_loss(student, torch.ones(n, 2), reduction=reduction)
        assert loss.shape == ((n,) if reduction == "none" else ())
        assert loss.sum().item() == 0
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert torch.equal(gradient, torch.zeros(n, 3))


def test_cd_of_features_without_a_direction_is_finite() -> None:
    student, teacher = features(4, 3, seed=1), features(4, 5, seed=2)
    student[1] = teacher[2] = 0.0
    loss = cd_loss(student.requires_grad_(), teacher)
    loss.backward()
    assert student.grad is not None
    assert bool(loss.isfinite())
    assert float(student.grad.abs().max()) < 10


def make(**changes: Any) -> ContrastiveMemory:
    arguments = {"student_size": D, "teacher_size": E, "seed": 0, "negatives": K, "projected_size": F, **changes}
    return ContrastiveMemory(torch.tensor(LABELS), **arguments).double()


class NaiveCRD:
    """One loss after another, sample by sample, negative by negative."""

    def __init__(self, memory: ContrastiveMemory) -> None:
        self.weights = {
            name: (layer.weight.tolist(), layer.bias.tolist())
            for name, layer in (("s", memory.student_projection), ("t", memory.teacher_projection))
        }
        self.bank = {"s": memory.student_memory.tolist(), "t": memory.teacher_memory.tolist()}
        self.z: dict[str, float] = {}
        self.tau, self.momentum = memory.temperature, memory.momentum

    def project(self, model: str, feature: list[float]) -> list[float]:
        weight, bias = self.weights[model]
        out = [b + sum(w * x for w, x in zip(row, feature, strict=True)) for row, b in zip(weight, bias, strict=True)]
        return unit(out)

    def batch(
        self, student: list[list[float]], teacher: list[list[float]], positions: list[int], negatives: list[list[int]]
    ) -> list[float]:
        n = len(LABELS)
        k = len(negatives[0])
        anchors = {"s": [self.project("s", f) for f in student], "t": [self.project("t", f) for f in teacher]}
        losses = [0.0] * len(positions)
        for model, other in (("s", "t"), ("t", "s")):
            powers = [
                [math.exp(dot(anchor, self.bank[other][row]) / self.tau) for row in [positions[i], *negatives[i]]]
                for i, anchor in enumerate(anchors[model])
            ]
            everything = [power for row in powers for power in row]
            z = self.z.setdefault(model, n * sum(everything) / len(everything))
            for i, row in enumerate(powers):
                h = [(power / z) / (power / z + k / n) for power in row]
                losses[i] -= math.log(h[0])
                for value in h[1:]:
                    losses[i] -= math.log(1 - value)
        for model in ("s", "t"):
            for i, position in enumerate(positions):
                old, new = self.bank[model][position], anchors[model][i]
                mixed = [self.momentum * o + (1 - self.momentum) * v for o, v in zip(old, new, strict=True)]
                self.bank[model][position] = unit(mixed)
        return losses


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(dot(row, row))
    return [value / length for value in row]


@pytest.mark.parametrize("changes", [{}, {"negatives": 1}, {"negatives": 50, "temperature": 0.5, "momentum": 0.9}])
def test_crd_equals_the_naive_loop_over_several_batches(changes: dict[str, Any]) -> None:
    memory = make(**changes)
    naive = NaiveCRD(memory)
    for step, batch in enumerate(([3, 0, 7], [1, 3], [6], [0, 1, 2, 3, 4, 5, 6, 7])):
        positions = torch.tensor(batch)
        student, teacher = features(len(batch), D, seed=step), features(len(batch), E, seed=step + 50)
        negatives = memory.draw_negatives(positions, generator=step).tolist()
        expected = naive.batch(student.tolist(), teacher.tolist(), batch, negatives)
        losses = memory(student, teacher, positions, generator=step)
        assert losses.tolist() == pytest.approx(expected, rel=1e-10)
        for bank, name in ((memory.student_memory, "s"), (memory.teacher_memory, "t")):
            torch.testing.assert_close(bank, torch.tensor(naive.bank[name], dtype=torch.float64))
    assert memory.student_log_z.exp().item() == pytest.approx(naive.z["s"])
    assert memory.teacher_log_z.exp().item() == pytest.approx(naive.z["t"])


@pytest.mark.parametrize("first", [True, False])
def test_crd_gradients(first: bool) -> None:
    """With fixed memories and negatives; Z is a constant, or taken from this batch, but never differentiated."""
    memory, positions = make(temperature=0.5), torch.tensor([4, 2])
    if not first:
        memory(features(2, D, seed=3), features(2, E, seed=4), positions, generator=0)
    student, teacher = features(2, D, seed=1).requires_grad_(), features(2, E, seed=2)
    if first:  # the Z that this batch would give, held still for the differences
        probe = copy.deepcopy(memory)
        probe(student.detach(), teacher, positions, generator=1)
        by_autograd = torch.autograd.grad(
            copy.deepcopy(memory)(student, teacher, positions, generator=1).sum(), student
        )
        memory.student_log_z, memory.teacher_log_z = probe.student_log_z, probe.teacher_log_z
        held = torch.autograd.grad(copy.deepcopy(memory)(student, teacher, positions, generator=1).sum(), student)
        torch.testing.assert_close(by_autograd, held)

    names = [name for name, _ in memory.named_parameters()]
    assert names == [f"{model}_projection.{name}" for model in ("student", "teacher") for name in ("weight", "bias")]

    def losses(student: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        result: Tensor = torch.func.functional_call(
            copy.deepcopy(memory), state, (student, teacher, positions), {"generator": 1}
        )
        return result

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in memory.parameters())
    assert torch.autograd.gradcheck(losses, (student, *parameters))


def test_crd_never_reaches_the_teacher_or_the_memories() -> None:
    memory = make()
    student, teacher = features(3, D, seed=1).requires_grad_(), features(3, E, seed=2).requires_grad_()
    memory(student, teacher, torch.tensor([0, 3, 6]), generator=0).sum().backward()
    assert student.grad is not None and student.grad.any()
    assert teacher.grad is None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in memory.parameters())
    assert not any(buffer.requires_grad for buffer in memory.buffers())


def test_crd_of_extreme_values_is_finite() -> None:
    """e^{v·m/τ} leaves float32 at τ = 0.005; features of zeros have no direction."""
    memory = make(temperature=0.005).float()
    student, teacher = features(3, D, seed=1, dtype=torch.float32), torch.zeros(3, E)
    with torch.no_grad():
        memory.teacher_projection.bias.zero_()
    student.requires_grad_()
    for seed in range(3):
        losses = memory(student, teacher, torch.tensor([0, 3, 6]), generator=seed)
        losses.sum().backward()
        assert bool(losses.isfinite().all())
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in memory.parameters() if p.grad is not None)
    assert all(bool(value.isfinite().all()) for value in memory.state_dict().values())
