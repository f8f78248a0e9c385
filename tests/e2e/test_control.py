"""The control: a transfer from the student's own copy beside the one that was asked for."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.data.images import Images
from gainfinder.errors import SettingsError
from gainfinder.metrics.intervals import paired_bootstrap_ci
from gainfinder.predictions import Predictions
from transfers import SHORT, Run, same, weights

SETTINGS: Run = {**SHORT, "data": "digits#2/4", "epochs": 2, "limit": 96, "lr": 2e-2, "method": "kl-dp-u"}


def after(folder: Path) -> Predictions:
    return Predictions.load(folder / "predictions/after.parquet")


def test_the_control_learns_from_its_own_copy(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    asked = {**SETTINGS, "val": val, "out": tmp_path / "run"}
    found = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, control=True).metrics.control
    assert found is not None
    control = json.loads((tmp_path / "run/control/result.json").read_text())
    assert control["teachers"] == [control["student"]] and control["teacher_share"] == 0
    for key in ("transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain", "knowledge_loss", "agreement"):
        assert found.to_dict()[key] == control[key]
    own, taught = after(tmp_path / "run/control"), after(tmp_path / "run")
    assert own.target is not None
    right = [model.predicted == own.target for model in (own, taught)]
    beyond = 100 * (right[1].double().mean() - right[0].double().mean()).item()
    assert found.beyond_pp == pytest.approx(beyond)
    assert found.beyond_ci_pp == paired_bootstrap_ci(*right)
    # It is the transfer that a user would ask for with the student as the teacher.
    plain = gainfinder.transfer(zoo["convnext"], zoo["convnext"], **{**asked, "out": tmp_path / "plain"}).metrics
    assert plain.transfer_delta_pp == control["transfer_delta_pp"] and plain.agreement == control["agreement"]


def test_it_may_be_asked_for_afterwards_and_changes_no_result(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    asked = {**SETTINGS, "val": val, "out": tmp_path / "run"}
    first = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked)
    assert first.metrics.control is None
    before = weights(tmp_path / "run")
    later = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, control=True)
    assert later.metrics.control.transfer_delta_pp is not None
    assert {**later.account, "control": None, "resumed_epochs": 0} == {**first.account, "resumed_epochs": 0}
    assert same(weights(tmp_path / "run"), before)
    again = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked)  # what is known stays in the result
    assert again.metrics.control == later.metrics.control


def test_a_killed_control_goes_on(
    zoo: dict[str, str], val: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**SETTINGS, "val": val, "control": True}
    whole = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "whole").metrics
    with monkeypatch.context() as patched:
        patched.setattr("gainfinder.runs.control.accuracy_change", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "killed")
    assert json.loads((tmp_path / "killed/result.json").read_text())["control"] is None
    resumed = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "killed")
    assert resumed.metrics.control == whole.control


def test_without_labels_and_with_a_bank(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    asked = {**SETTINGS, "val": val.without_labels(), "control": True, "bank": tmp_path / "bank", "views": 1}
    found = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked).metrics.control
    assert found is not None
    assert found.beyond_pp is None and found.transfer_delta_pp is None and 0 < found.agreement <= 1


def test_the_command_shows_it_and_refuses_sequences(zoo: dict[str, str], tmp_path: Path) -> None:
    command = [
        "transfer", "--student", zoo["convnext"], "--teacher", zoo["vit"], "--data", "digits#2/4", "--val",
        "digits#1/8", "--no-guard", "--limit", "64", "--epochs", "1", "--workers", "0",
        "--out", str(tmp_path / "run"), "--control", "copy",
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    control = json.loads((tmp_path / "run/result.json").read_text())["control"]
    low, high = control["beyond_ci_pp"]
    assert "learning from its own copy instead (control)" in done.stdout
    assert f"{control['beyond_pp']:+.2f} pp ({low:+.2f} to {high:+.2f})" in done.stdout
    with pytest.raises(SettingsError, match="2 teachers and strategy sequential"):
        gainfinder.transfer(
            zoo["convnext"], [zoo["vit"], zoo["resnet"]], **SETTINGS, control=True, out=tmp_path / "two"
        )
    assert not (tmp_path / "two").exists()
