"""Training goes on while the loss on guard images falls, and a run that was killed goes on as if it had not been."""

import json
from pathlib import Path

import pytest

import gainfinder
from gainfinder.errors import SettingsError
from gainfinder.losses import TransferLoss
from gainfinder.predictions import Predictions
from killing import KillAtEpoch, Killed
from transfers import GUARDED, Run, same, weights

SETTINGS: Run = {
    **GUARDED,
    "schedule": "plateau",
    "patience": 1,
    "epochs": 12,
}
LONG: Run = {**SETTINGS, "lr": 0.5, "epochs": 5, "val": "digits#1/16", "guard_data": "digits#12/16"}


def test_it_ends_when_the_loss_no_longer_falls(zoo: dict[str, str], tmp_path: Path) -> None:
    # at this rate the student leaves the teacher behind at once
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path / "a", lr=1.0, **SETTINGS)
    assert len(done.epochs) < 12 and done.epochs[-1].learning_rate is not None
    losses = [row.guard_loss for row in done.epochs]
    assert all(loss is not None for loss in losses)
    assert done.epochs[-1].learning_rate < done.epochs[0].learning_rate


def test_the_loss_is_that_of_the_method_on_guard_images(zoo: dict[str, str], tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 1, "lr": 1e-2, "guard_data": "digits#3/4"}
    done = gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", out=tmp_path / "a", **settings)
    found = {name: Predictions.load(tmp_path / "a" / "predictions" / f"{name}.parquet") for name in NAMES}
    expected = TransferLoss("kl-dp-u")(*(found[name].logits for name in NAMES))
    assert done.epochs[0].guard_loss == pytest.approx(float(expected), rel=1e-5)


NAMES = ("guard-1", "probe-before", "probe-teacher-1")


@pytest.fixture(scope="module")
def whole(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five epochs that nothing disturbs."""
    out = tmp_path_factory.mktemp("plateau") / "whole"
    gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", out=out, **LONG)
    return out


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_killed_run_ends_where_the_whole_one_does(
    zoo: dict[str, str], tmp_path: Path, whole: Path, epoch: int
) -> None:
    killed = {**LONG, "out": tmp_path / "killed"}
    with pytest.raises(Killed):
        gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", callbacks=[KillAtEpoch(epoch)], **killed)
    again = gainfinder.transfer(zoo["resnet"], zoo["vit"], "digits#2/4", **killed)
    assert (tmp_path / "killed" / "epochs.jsonl").read_bytes() == (whole / "epochs.jsonl").read_bytes()
    rows = (whole / "epochs.jsonl").read_text().splitlines()
    assert [row.to_dict() for row in again.epochs] == [json.loads(row) for row in rows]
    assert same(weights(whole), weights(tmp_path / "killed"))


def test_without_a_guard_there_is_nothing_to_go_by(zoo: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="schedule plateau goes by the loss on guard images, and the guard is off"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **{**SETTINGS, "guard": False, "guard_data": None})
    with pytest.raises(SettingsError, match="patience is a setting of schedule 'plateau'"):
        gainfinder.transfer(zoo["vit"], zoo["resnet"], "digits#2/4", **{**SETTINGS, "schedule": "cosine"})
