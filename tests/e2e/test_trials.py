"""A run that chooses its own recipe."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.errors import RunFolderError, SettingsError
from killing import KillAtStage, Killed
from transfers import GUARDED, Run, document, same, weights

DATA, VAL, GUARD = "digits#2/8", "digits#1/16", "digits#12/16"
SETTINGS: Run = {
    **GUARDED,
    "val": VAL,
    "guard_data": GUARD,
    "limit": None,
    "epochs": 3,
    "batch_size": 8,
    "trials": True,
    "optimizer": "adamw",
}


@pytest.fixture(autouse=True)
def room_for_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of some eighty steps have trials, too: shorter ones than would tell anything."""
    monkeypatch.setattr("gainfinder.runs.trials.FEWEST_STEPS", 2)


def test_what_was_tried_and_chosen_stands_in_the_result(zoo: dict[str, str], tmp_path: Path) -> None:
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, out=tmp_path / "a", **SETTINGS)
    metrics = done.metrics
    assert [one.round for one in metrics.trials] == [1] * 4 + [2] * (len(metrics.trials) - 4)
    assert {one.optimizer for one in metrics.trials} == {"adamw"}
    chosen = (metrics.optimizer, metrics.learning_rate)
    assert chosen in [(one.optimizer, one.lr) for one in metrics.trials if one.round == 2]
    assert metrics.learning_rate is not None and done.epochs[0].learning_rate is not None
    assert done.epochs[0].learning_rate <= metrics.learning_rate
    assert document(tmp_path / "a")["trials"][0]["guard_loss"] > 0


def command(zoo: dict[str, str], out: Path, *more: str) -> list[str]:
    return [
        "transfer", "--student", zoo["vit"], "--teacher", zoo["resnet"], "--data", "digits#2/4", "--val", VAL,
        "--guard-data", GUARD, "--labels", "none", "--workers", "0", "--device", "cpu", "--out", str(out), *more,
    ]  # fmt: skip


def test_the_command_tells_the_recipe(zoo: dict[str, str], tmp_path: Path) -> None:
    out, short = tmp_path / "a", ("--batch-size", "16", "--epochs", "3", "--optimizer", "sgd")
    done = CliRunner().invoke(app, command(zoo, out, *short))
    assert done.exit_code == 0, done.stderr
    told = document(out)
    assert told["method"] == "kl-prod-cal-u" and told["optimizer"] == "sgd" and 4 <= len(told["trials"]) <= 5
    assert {one["optimizer"] for one in told["trials"]} == {"sgd"}
    shown = " ".join(done.stdout.split())
    assert f"optimiser and rate sgd at {told['learning_rate']:g}, chosen by {len(told['trials'])} trials" in shown


@pytest.mark.parametrize(
    ("words", "steps", "recipe"),
    [
        ("", "at most 100 epochs of 4", "adamw, its rate chosen by at most 6 trials, 24% of the steps at most, "),
        ("--optimizer sgd", "at most 100 epochs of 4", "sgd, its rate chosen by at most 5 trials, 24% of the steps"),
        ("--epochs 7", "at most 7 epochs of 4", "adamw at 0.0003, by rule, weight decay 0.05, schedule plateau"),
        ("--lr 0.002 --schedule cosine", "100 epochs of 4", "adamw at 0.002, weight decay 0.05, schedule cosine"),
        ("--preset gentle", "5 epochs of 8", "sgd at 0.001, by preset gentle, momentum 0.9, weight decay 0.001"),
    ],
)  # fmt: skip
def test_a_dry_run_tells_how_the_recipe_is_found(
    zoo: dict[str, str], tmp_path: Path, words: str, steps: str, recipe: str
) -> None:
    done = CliRunner().invoke(app, command(zoo, tmp_path / "a", "--dry-run", *words.split()))
    assert done.exit_code == 0, done.stderr
    assert f"\nsteps: {steps}" in done.stdout and f"\noptimiser and rate: {recipe}" in done.stdout
    assert not (tmp_path / "a").exists()


def test_the_same_run_with_its_recipe_given_is_the_same(zoo: dict[str, str], tmp_path: Path) -> None:
    done = gainfinder.transfer(zoo["resnet"], zoo["vit"], DATA, out=tmp_path / "a", **SETTINGS)
    given = {
        **SETTINGS,
        "trials": False,
        "lr": done.metrics.learning_rate,
    }
    gainfinder.transfer(zoo["resnet"], zoo["vit"], DATA, out=tmp_path / "b", **given)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_trials_that_a_killed_run_finished_are_not_repeated(zoo: dict[str, str], tmp_path: Path) -> None:
    gainfinder.transfer(zoo["resnet"], zoo["vit"], DATA, out=tmp_path / "whole", **SETTINGS)
    killed = {**SETTINGS, "out": tmp_path / "killed"}
    third = [one["lr"] for one in document(tmp_path / "whole")["trials"]][2]
    with pytest.raises(Killed):
        stop = KillAtStage(f"measuring the trial of adamw at {third:g}")
        gainfinder.transfer(zoo["resnet"], zoo["vit"], DATA, callbacks=[stop], **killed)
    assert len((tmp_path / "killed" / "trials.jsonl").read_text().splitlines()) == 2
    first = KillAtStage("trial of adamw at")
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["resnet"], zoo["vit"], DATA, callbacks=[first], **killed)
    gainfinder.transfer(zoo["resnet"], zoo["vit"], DATA, **killed)
    assert document(tmp_path / "whole")["trials"] == document(tmp_path / "killed")["trials"]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_damaged_file_of_trials_is_refused(zoo: dict[str, str], tmp_path: Path) -> None:
    asked = {**SETTINGS, "out": tmp_path / "a"}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, callbacks=[KillAtStage("training")], **asked)
    (tmp_path / "a" / "trials.jsonl").write_text("{")
    with pytest.raises(RunFolderError, match=r"trials\.jsonl: not as gainfinder wrote it"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, **asked)


def test_trials_and_a_plateau_read_the_bank(
    zoo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of a longer run, but for its length, the views and the guard's images."""
    asked: Run = {
        "val": VAL, "guard_data": GUARD, "labels": "none", "epochs": 5, "patience": 1, "views": 2,
        "batch_size": 8, "mixup": 0.7, "bank": tmp_path / "bank", "device": "cpu", "workers": 0,
    }  # fmt: skip
    first = gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, out=tmp_path / "a", **asked)
    assert first.metrics.trials and first.metrics.bank is not None and first.metrics.bank.made == 4
    again = gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, out=tmp_path / "b", **asked)
    assert again.metrics.bank is not None and again.metrics.bank.made == 0
    assert again.metrics.trials == first.metrics.trials
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    asked |= {"views": None, "bank": tmp_path / "other"}
    monkeypatch.setattr("gainfinder.runs.guard_loss.GuardLoss.of", lambda *_: 1.0)  # it never falls
    fresh = gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, out=tmp_path / "c", **asked)
    assert len(fresh.epochs) < 5 and fresh.metrics.bank is not None
    used = fresh.metrics.bank
    assert used.made == used.entries == 2 * len(fresh.epochs), "no view of an epoch that is not made"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": 0.1}, "lr is 0.1, and trials would choose it"),
        ({"guard": False, "guard_data": None}, "the guard is off"),
        ({"method": "cd", "labels": "use"}, "method 'cd' compares features"),
    ],
)
def test_trials_that_cannot_be_are_refused(zoo: dict[str, str], given: Run, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], DATA, **{**SETTINGS, **given})
