"""A run that chooses its own recipe."""

from pathlib import Path

import pytest

import gainfinder
from gainfinder.errors import RunFolderError, SettingsError
from killing import KillAtStage, Killed
from transfers import SHORT, Run, document, same, weights

SETTINGS: Run = {
    **SHORT,
    "guard": True,
    "guard_data": "digits#3/4",
    "val": "digits#1/4",
    "method": "kl-dp-u",
    "labels": "none",
    "limit": None,
    "epochs": 8,
    "trials": True,
}


def test_what_was_tried_and_chosen_stands_in_the_result(zoo: dict[str, str], tmp_path: Path) -> None:
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path / "a", **SETTINGS)
    metrics = done.metrics
    assert [one.round for one in metrics.trials] == [1] * 7 + [2] * (len(metrics.trials) - 7)
    assert {one.optimizer for one in metrics.trials} == {"adamw", "sgd"}
    chosen = (metrics.optimizer, metrics.learning_rate)
    assert chosen in [(one.optimizer, one.lr) for one in metrics.trials if one.round == 2]
    assert metrics.learning_rate is not None and done.epochs[0].learning_rate is not None
    assert done.epochs[0].learning_rate <= metrics.learning_rate
    assert document(tmp_path / "a")["trials"][0]["guard_loss"] > 0


def test_the_same_run_with_its_recipe_given_is_the_same(zoo: dict[str, str], tmp_path: Path) -> None:
    done = gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=tmp_path / "a", **SETTINGS)
    given = {
        **SETTINGS,
        "trials": False,
        "optimizer": done.metrics.optimizer,
        "lr": done.metrics.learning_rate,
    }
    gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=tmp_path / "b", **given)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_trials_that_a_killed_run_finished_are_not_repeated(zoo: dict[str, str], tmp_path: Path) -> None:
    gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=tmp_path / "whole", **SETTINGS)
    killed = {**SETTINGS, "out": tmp_path / "killed"}
    third = [one["lr"] for one in document(tmp_path / "whole")["trials"]][2]
    with pytest.raises(Killed):
        stop = KillAtStage(f"measuring the trial of adamw at {third:g}")
        gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", callbacks=[stop], **killed)
    assert len((tmp_path / "killed" / "trials.jsonl").read_text().splitlines()) == 2
    first = KillAtStage("trial of adamw at")
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", callbacks=[first], **killed)
    gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", **killed)
    assert document(tmp_path / "whole")["trials"] == document(tmp_path / "killed")["trials"]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_damaged_file_of_trials_is_refused(zoo: dict[str, str], tmp_path: Path) -> None:
    asked = {**SETTINGS, "out": tmp_path / "a"}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", callbacks=[KillAtStage("training")], **asked)
    (tmp_path / "a" / "trials.jsonl").write_text("{")
    with pytest.raises(RunFolderError, match=r"trials\.jsonl: not as gainfinder wrote it"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **asked)


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
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **{**SETTINGS, **given})
