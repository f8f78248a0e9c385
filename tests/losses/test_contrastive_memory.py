"""The memory of CRD: negatives, updates, what is drawn from where, resuming, and messages."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gainfinder.errors import SettingsError
from gainfinder.losses.contrastive import ContrastiveMemory, cd_loss

LABELS = torch.tensor([4, 4, -2, 8, 4, -2, 8, 8, 4, 100])


def make(labels: Tensor = LABELS, **changes: Any) -> ContrastiveMemory:
    arguments = {"student_size": 5, "teacher_size": 3, "seed": 0, "negatives": 6, "projected_size": 4, **changes}
    return ContrastiveMemory(labels, **arguments)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(memory: ContrastiveMemory, positions: list[int], *, seed: int) -> Tensor:
    n = len(positions)
    losses: Tensor = memory(
        randn(n, 5, seed=seed), randn(n, 3, seed=seed + 99), torch.tensor(positions), generator=seed
    )
    return losses


def test_negatives_are_of_other_classes_and_uniform_over_them() -> None:
    draws = 20_000
    memory = make(negatives=draws)
    positions = torch.arange(len(LABELS))
    negatives = memory.draw_negatives(positions, generator=0)
    assert negatives.shape == (len(LABELS), draws)
    assert not (LABELS[negatives] == LABELS[positions, None]).any()
    for anchor in positions.tolist():
        others = (LABELS[anchor] != LABELS).nonzero().flatten()
        counts = negatives[anchor].bincount(minlength=len(LABELS))[others].double()
        expected = draws / len(others)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 30, f"{anchor}: {counts.tolist()}"  # 8 degrees of freedom at most: p < 0.0003


def test_negatives_of_two_classes_are_the_whole_other_class() -> None:
    memory = make(torch.tensor([1, 0, 0, 1, 1]), negatives=200)
    negatives = memory.draw_negatives(torch.tensor([1, 3]), generator=0)
    assert set(negatives[0].tolist()) == {0, 3, 4}
    assert set(negatives[1].tolist()) == {1, 2}


def test_the_same_draws_give_the_same_negatives() -> None:
    memory, positions = make(negatives=500), torch.tensor([3, 1])
    by_seed = memory.draw_negatives(positions, generator=7)
    assert torch.equal(by_seed, memory.draw_negatives(positions, generator=7))
    assert torch.equal(by_seed, memory.draw_negatives(positions, generator=torch.Generator().manual_seed(7)))
    generator = torch.Generator().manual_seed(7)
    memory.draw_negatives(positions, generator=generator)
    assert not torch.equal(by_seed, memory.draw_negatives(positions, generator=generator))
    assert not torch.equal(by_seed[0], by_seed[1])


def test_no_global_generator_is_read() -> None:
    before = torch.get_rng_state()
    first = make()
    step(first, [0, 1], seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again = make()
    step(again, [0, 1], seed=0)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(make(seed=1).student_memory, make().student_memory)


def test_projections_start_as_linear_layers_do_and_memories_near_length_one() -> None:
    memory = make(torch.arange(2000), student_size=64, projected_size=128)
    for layer, size in ((memory.student_projection, 64), (memory.teacher_projection, 3)):
        for values in (layer.weight, layer.bias):
            assert float(values.detach().abs().max()) <= size**-0.5
        assert float(layer.weight.detach().std()) == pytest.approx(size**-0.5 / 3**0.5, rel=0.1)
        assert layer.weight.requires_grad and layer.bias.requires_grad
    for bank in (memory.student_memory, memory.teacher_memory):
        assert float(bank.norm(dim=1).mean()) == pytest.approx(1, abs=0.02)


def test_a_batch_updates_its_own_rows_by_momentum_to_length_one() -> None:
    memory = make(momentum=0.25)
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    student = randn(2, 5, seed=3)
    projected = nn.functional.normalize(memory.student_projection(student)).detach()
    memory(student, randn(2, 3, seed=4), torch.tensor([6, 2]), generator=0)
    for row, position in enumerate((6, 2)):
        mixed = 0.25 * before["student_memory"][position] + 0.75 * projected[row]
        torch.testing.assert_close(memory.student_memory[position], mixed / mixed.norm())
    for name in ("student_memory", "teacher_memory"):
        bank = getattr(memory, name)
        others = [row for row in range(len(LABELS)) if row not in {6, 2}]
        assert torch.equal(bank[others], before[name][others])
        assert not torch.equal(bank[[6, 2]], before[name][[6, 2]])


def test_without_momentum_a_row_is_the_latest_projection() -> None:
    memory, teacher = make(momentum=0.0), randn(1, 3, seed=1)
    memory(randn(1, 5, seed=0), teacher, torch.tensor([9]), generator=0)
    expected = nn.functional.normalize(memory.teacher_projection(teacher)).detach()
    torch.testing.assert_close(memory.teacher_memory[9:], expected)


def test_the_constants_come_from_the_first_batch_and_stay() -> None:
    memory = make()
    assert bool(memory.student_log_z.isnan()) and bool(memory.teacher_log_z.isnan())
    step(memory, [0, 1, 2], seed=0)
    first = memory.student_log_z.item(), memory.teacher_log_z.item()
    step(memory, [3, 4], seed=1)
    assert (memory.student_log_z.item(), memory.teacher_log_z.item()) == first


def test_an_empty_batch_changes_nothing() -> None:
    memory = make()
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    student = torch.zeros(0, 5, requires_grad=True)
    losses = memory(student, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), generator=0)
    assert losses.shape == (0,)
    losses.sum().backward()
    for name, value in memory.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    student, teacher, positions = randn(3, 5, seed=0), randn(3, 3, seed=1), torch.tensor([0, 2, 3])
    student, teacher = student.bfloat16().float(), teacher.bfloat16().float()
    expected = make()(student, teacher, positions, generator=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = make()(student.bfloat16().requires_grad_(), teacher.bfloat16(), positions, generator=0)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, expected)
    losses.sum().backward()


class Run:
    """A student of one layer that learns by CRD, four steps an epoch."""

    def __init__(self, *, seed: int) -> None:
        self.memory = make(seed=seed)
        self.student = nn.Linear(2, 5)
        with torch.no_grad():
            self.student.weight.copy_(randn(5, 2, seed=seed))
            self.student.bias.zero_()
        learned = [*self.student.parameters(), *self.memory.parameters()]
        self.optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.9)

    def train(self, steps: range) -> list[float]:
        losses = []
        for index in steps:
            positions = (torch.arange(4) * 3 + index) % len(LABELS)
            images, teacher = randn(10, 2, seed=1)[positions], randn(10, 3, seed=2)[positions]
            loss = self.memory(self.student(images), teacher, positions, generator=index).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def parts(self) -> dict[str, Any]:
        return {"memory": self.memory, "student": self.student, "optimizer": self.optimizer}


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = Run(seed=0)
    losses = whole.train(range(8))
    assert losses[-1] < losses[0]
    for stop in (0, 3):
        first = Run(seed=0)
        assert first.train(range(stop)) == losses[:stop]
        torch.save({name: part.state_dict() for name, part in first.parts().items()}, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        second = Run(seed=5)
        for name, part in second.parts().items():
            part.load_state_dict(state[name])
        assert second.train(range(stop, 8)) == losses[stop:]
        for name, value in whole.memory.state_dict().items():
            assert torch.equal(value, second.memory.state_dict()[name]), name


def test_the_state_holds_what_changes() -> None:
    assert set(make().state_dict()) == {
        "student_projection.weight", "student_projection.bias", "teacher_projection.weight", "teacher_projection.bias",
        "student_memory", "teacher_memory", "student_log_z", "teacher_log_z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([3, 3, 3])}, r"expected at least two, but the 3 sample\(s\) hold 1: give images of"),
        ({"labels": torch.tensor([], dtype=torch.int64)}, r"expected at least two, but the 0 sample\(s\) hold 0"),
        ({"negatives": 0}, "negatives: expected at least 1, got 0"),
        ({"temperature": 0.0}, "temperature of CRD: expected a number above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature of CRD: expected a number above 0, got nan"),
        ({"momentum": 1.0}, "momentum of the memories: expected a number from 0 to below 1, got 1.0"),
    ],
)
def test_settings_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make(**changes)


def test_messages() -> None:
    z, memory = torch.zeros(2, 3), make()
    with pytest.raises(ValueError, match=r"^student_features_ND: expected floating point \(N, D\), got torch.int64"):
        cd_loss(z.long(), z)
    with pytest.raises(ValueError, match=r"^teacher_features_NE: .*got torch.float32 \(2, 3, 1\)"):
        cd_loss(z, z[..., None])
    with pytest.raises(ValueError, match="of the same samples, got 2 of the student and 1 of the teacher"):
        cd_loss(z, z[:1])
    with pytest.raises(ValueError, match="reduction: expected 'mean', 'sum' or 'none', got 'batchmean'"):
        cd_loss(z, z, reduction="batchmean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 5 features of the student and 3 of the teacher, got 3 and 3"):
        memory(z, z, torch.tensor([0, 1]), generator=0)
    with pytest.raises(ValueError, match=r"positions_N: expected torch.int64 \(2,\), got torch.int64 \(1,\)"):
        memory(torch.zeros(2, 5), z, torch.tensor([0]), generator=0)
    with pytest.raises(ValueError, match=r"labels_n: expected torch.int64 \(n,\), got torch.float32 \(2,\)"):
        make(torch.tensor([0.0, 1.0]))
