"""Training that leaves all bounds: it stops, says since when, and leaves the student as it was before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import gainfinder
from engines import InProcess
from gainfinder.cli import app
from gainfinder.data import Images
from gainfinder.errors import Diverged
from gainfinder.results import RunFolder
from gainfinder.runs import Callback, PreparedTransfer, control_of
from gainfinder.study import CellState, StudyFolder, read_study
from gainfinder.workers import run_study
from killing import KillAfter, Killed
from odd_models import Hostile, few
from studies import write_study
from transfers import Run, document, same, weights

SLOW: Run = {
    "preset": "gentle", "method": "kl", "lr": 1e-3, "optimizer": "sgd", "schedule": "constant", "epochs": 8,
    "batch_size": 16, "workers": 0, "device": "cpu", "guard": False,
}  # fmt: skip
"""Settings of four steps an epoch at a rate that changes little."""
AT_ONCE: Run = {**SLOW, "lr": 1e6}
GUARD = 60


class Growing(Hostile):
    """Its logits grow with each step, as those of a student whose weights do."""

    factor: torch.Tensor

    def __init__(self, growth: float) -> None:
        super().__init__(noise=0.3)
        self.growth = growth
        self.register_buffer("factor", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.factor.mul_(self.growth)
        return super().forward(x) * self.factor


class Stages(Callback):
    """Keeps the names of the stages."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str, images: int) -> None:
        self.names.append(name)


def data() -> Images:
    return few(64, start=100)


def diverge(student: Any, out: Path | None, **asked: Any) -> Diverged:
    with pytest.raises(Diverged) as caught:
        gainfinder.transfer(student, asked.pop("teacher", Hostile()), data(), val=few(), out=out, **asked)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.fixture
def late(tmp_path: Path) -> tuple[Path, Diverged]:
    out = tmp_path / "late"
    return out, diverge(Growing(4.0), out, **SLOW)


def test_the_student_of_the_last_finished_epoch_is_kept(late: tuple[Path, Diverged], tmp_path: Path) -> None:
    out, error = late
    told = document(out)["diverged"]
    assert (told["epoch"], told["step"], told["kept_epoch"]) == (error.epoch, error.step, error.epoch - 1)
    assert error.epoch > 1 and f"since step {error.step} of epoch {error.epoch}; {out / 'student'} holds" in str(error)
    asked = {**SLOW, "epochs": told["kept_epoch"]}
    short = gainfinder.transfer(Growing(4.0), Hostile(), data(), val=few(), out=tmp_path / "short", **asked)
    assert same(weights(out), weights(tmp_path / "short"))
    assert document(out)["accuracy_after"] == short.metrics.accuracy_after
    assert [row.epoch for row in RunFolder(out).read_epochs()] == [row.epoch for row in short.epochs]
    assert same(weights(error.result), weights(out))


def test_asked_again_it_says_the_same_and_does_not_train(late: tuple[Path, Diverged]) -> None:
    out, error = late
    watcher = Stages()
    again = diverge(Growing(4.0), out, **SLOW, callbacks=[watcher])
    assert str(again) == str(error) and watcher.names == []
    assert same(weights(again.result), weights(out))


@pytest.mark.parametrize("images", [16, 48, 80, 112])
def test_killed_on_the_way_it_ends_the_same(late: tuple[Path, Diverged], tmp_path: Path, images: int) -> None:
    out, error = late
    asked = {**SLOW, "checkpoint_every": 1}
    with pytest.raises(Killed):
        gainfinder.transfer(
            Growing(4.0), Hostile(), data(), val=few(), out=tmp_path / "k", callbacks=[KillAfter(images)], **asked
        )
    again = diverge(Growing(4.0), tmp_path / "k", **asked)
    assert (again.epoch, again.step, again.reason) == (error.epoch, error.step, error.reason)
    assert same(weights(tmp_path / "k"), weights(out))


def test_before_any_epoch_the_student_is_the_one_given(tmp_path: Path) -> None:
    student = Hostile(noise=0.3)
    error = diverge(student, tmp_path / "a", **AT_ONCE)
    assert error.epoch == 1 and error.step is not None and error.step > 1
    assert f"{tmp_path / 'a' / 'student'} holds the student as it was given" in str(error)
    assert "Give a lower `lr` than 1e+06, and another `out`" in str(error)
    assert same(weights(tmp_path / "a"), student.state_dict())
    assert document(tmp_path / "a")["transfer_delta_pp"] == 0 and RunFolder(tmp_path / "a").read_epochs() == []
    without = diverge(student, None, **AT_ONCE)
    assert without.result.out is None and "the result that comes with this error" in str(without)
    assert same(weights(without.result), student.state_dict())


@pytest.mark.parametrize(
    "given",
    [
        {"guard": True, "labels": "none", "guard_data": few(GUARD, start=300)},
        {"guard": True, "guard_data": few(GUARD, start=300)},
        {"ema_decay": 0.9},
        {"optimizer": "adamw", "lr": 1e9},
        {"method": "xe-kl-mcl"},
        {"method": "crd", "negatives": 16},
        {"precision": "bf16"},
        {"control": "copy"},
    ],
)
def test_however_it_trains_a_sound_student_is_left(given: Run, tmp_path: Path) -> None:
    error = diverge(Hostile(noise=0.3), tmp_path / "a", **{**AT_ONCE, **given})
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "a").values())
    assert document(tmp_path / "a")["accuracy_after"] >= document(tmp_path / "a")["accuracy_before"]
    assert str(diverge(Hostile(noise=0.3), tmp_path / "a", **{**AT_ONCE, **given})) == str(error)


def test_a_guard_judges_the_student_of_the_last_finished_epoch(tmp_path: Path) -> None:
    guard = {"guard": True, "guard_data": few(GUARD, start=300)}
    error = diverge(Growing(4.0), tmp_path / "a", **{**SLOW, **guard})
    told = document(tmp_path / "a")
    assert told["guard"]["points"] and told["guard"]["alpha"] == 0 and told["diverged"]["kept_epoch"] >= 1
    assert f"holds the student as it was given: the guard did not keep that after {error.epoch - 1} epoch" in str(error)
    assert same(weights(tmp_path / "a"), Growing(4.0).state_dict())


@pytest.mark.parametrize("strategy", ["sequential", "soup", "parallel"])
def test_in_every_strategy(strategy: str, tmp_path: Path) -> None:
    two = [Hostile(count=100), Hostile()]
    asked = {**AT_ONCE, "strategy": strategy, "method": "kl-dp-u", "teacher": two}
    error = diverge(Hostile(noise=0.3), tmp_path / "a", **asked)
    assert same(weights(tmp_path / "a"), Hostile(noise=0.3).state_dict())
    told = document(tmp_path / "a")
    assert told["diverged"]["epoch"] == error.epoch and len(told["steps"]) == (0 if strategy == "parallel" else 1)
    assert str(diverge(Hostile(noise=0.3), tmp_path / "a", **asked)) == str(error)


def test_a_control_that_diverges_leaves_the_transfer_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**SLOW, "epochs": 1, "control": ("copy", "labels")}

    def hot(prepared: PreparedTransfer, name: str, *, epochs: int) -> PreparedTransfer:
        found = control_of(prepared, name, epochs=epochs)
        return replace(found, settings=replace(found.settings, lr=1e6)) if name == "labels" else found

    monkeypatch.setattr("gainfinder.runs.control.control_of", hot)
    error = diverge(Hostile(noise=0.3), tmp_path / "a", **asked)
    assert "the transfer is complete, but its control 'labels' diverges: the loss" in str(error)
    told = document(tmp_path / "a")
    assert told["diverged"] is None and told["control"] is not None and told["control_labels"] is None
    assert same(weights(error.result), weights(tmp_path / "a"))


class Overflowing(Growing):
    """Its logits overflow where it is measured, not where it trains."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grown = super().forward(x)
        return grown / self.factor if self.training else grown * self.factor


def test_a_student_that_cannot_be_measured_has_diverged(tmp_path: Path) -> None:
    error = diverge(Overflowing(300.0), tmp_path / "a", **SLOW)
    assert (error.epoch, error.step) == (2, None)
    assert "the student's logits are NaN or infinite after epoch 2; " in str(error)
    asked = {**SLOW, "epochs": 1}
    gainfinder.transfer(Overflowing(300.0), Hostile(), data(), val=few(), out=tmp_path / "b", **asked)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_the_command_ends_with_one_line_and_exit_code_2(zoo: dict[str, str], tmp_path: Path) -> None:
    words = [
        "transfer", "--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val", "digits#1/4",
        "--no-guard", "--limit", "64", "--batch-size", "16", "--preset", "gentle", "--lr", "1e9", "--epochs", "3",
        "--workers", "0", "--device", "cpu", "--out", str(tmp_path / "a"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, words)
    last = done.stderr.splitlines()[-1]
    assert done.exit_code == 2 and last.startswith("gainfinder: training diverges: the ")
    assert "Give a lower --lr than 1e+09, and another --out" in last and "Traceback" not in done.stderr
    loaded = gainfinder.load_model(document(tmp_path / "a")["student_reference"])
    before = gainfinder.load_model(zoo["vit"])
    assert same(loaded.module.state_dict(), before.module.state_dict())
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2 and again.stderr.splitlines()[-1] == last


def test_a_cell_of_a_study_that_diverges_has_failed_with_its_reason(
    zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_study(tmp_path / "small.toml", zoo)
    cell_of = 'students = ["vit", "resnet"]\nteachers = ["convnext", "resnet"]'
    text = file.read_text().replace(cell_of, 'students = ["vit"]\nteachers = ["convnext"]')
    file.write_text(text.replace("epochs = 2", "epochs = 2\nlr = 1e9").replace('[variants.dp]\nmethod = "kl-dp-u"', ""))
    run_study(read_study(file), tmp_path / "out", backend=InProcess())
    folder = StudyFolder(tmp_path / "out")
    (cell,) = folder.all_cells()
    assert folder.states([cell]) == {cell.key: CellState.FAILED}
    failure = folder.failure(cell)
    assert failure is not None and failure.kind == "Diverged" and "since step" in failure.error and not failure.trace
