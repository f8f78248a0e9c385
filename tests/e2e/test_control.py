"""The controls: from the student's own copy, and from the true labels, beside the transfer that was asked for."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gainfinder
from gainfinder.cli import app
from gainfinder.data.images import Images
from gainfinder.errors import DataError, SettingsError
from gainfinder.metrics.intervals import paired_bootstrap_ci
from gainfinder.predictions import Predictions
from transfers import SHORT, Run, document, reproducible, same, weights

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
    assert {**reproducible(later.account), "control": None} == reproducible(first.account)
    assert later.account["seconds"] == first.account["seconds"] + document(tmp_path / "run" / "control")["seconds"]
    assert later.account["finished"] > document(tmp_path / "run" / "control")["finished"]
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


UNLABELLED: Run = {**SETTINGS, "data": "digits#2/12", "limit": None, "labels": "none"}


def test_labels_show_what_the_same_recipe_could_reach(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    """The transfer reads no label, whether its control does or not; the control is the cross-entropy alone."""
    asked = {**UNLABELLED, "val": val}
    plain = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "plain")
    done = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, control="labels", out=tmp_path / "run")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "plain"))
    assert document(tmp_path / "run", "config.json")["data"]["labelled"] is False
    assert {**reproducible(done.account), "control_labels": None} == reproducible(plain.account)
    found, folder = done.metrics.control_labels, tmp_path / "run/control-labels"
    assert found is not None and found.transfer_delta_pp is not None and done.metrics.transfer_delta_pp is not None
    assert found.transfer_delta_pp == document(folder)["transfer_delta_pp"] > 0
    assert found.captured_of_labels == pytest.approx(done.metrics.transfer_delta_pp / found.transfer_delta_pp)
    # It is the student that a user would get by the labels alone, whatever teacher is named.
    taught = {**asked, "labels": "use", "method": "xe", "out": tmp_path / "taught"}
    gainfinder.transfer(zoo["convnext"], zoo["resnet"], **taught)
    assert same(weights(folder), weights(tmp_path / "taught"))


def test_no_teacher_is_run_for_labels(zoo: dict[str, str], val: Images) -> None:
    teacher, seen = gainfinder.load_model(zoo["vit"]), []
    teacher.module.register_forward_hook(lambda _module, _inputs, logits: seen.append(len(logits)))
    gainfinder.transfer(zoo["convnext"], teacher, **{**SETTINGS, "method": "xe", "val": val})
    assert sum(seen) == len(val), "measured, never asked about a view"


def test_both_controls_and_a_kill_between_them(
    zoo: dict[str, str], val: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**UNLABELLED, "val": val, "control": ["labels", "copy"]}
    whole = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "whole").metrics
    with monkeypatch.context() as patched:
        patched.setattr("gainfinder.runs.control.captured", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "killed")
    left = document(tmp_path / "killed")
    assert left["control"] is not None and left["control_labels"] is None
    resumed = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, out=tmp_path / "killed").metrics
    assert (resumed.control, resumed.control_labels) == (whole.control, whole.control_labels)
    assert resumed.control is not None and resumed.control_labels is not None


def test_slow_weights_stay_part_of_the_recipe(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    asked = {**SETTINGS, "val": val, "method": "xe-kl-mcl", "control": "labels", "slow_momentum": 1.0}
    found = gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked).metrics.control_labels
    assert found is not None and found.agreement == 1, "with τ 1 the slow student stays as it was"


def test_labels_are_learned_from_the_same_mixed_views(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    asked = {**UNLABELLED, "val": val}
    gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, control="labels", mixup=1.0, out=tmp_path / "mixed")
    asked |= {"labels": "use", "method": "xe"}
    for name, share in (("taught", 1.0), ("plain", 0.0)):
        gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked, mixup=share, out=tmp_path / name)
    assert same(weights(tmp_path / "mixed/control-labels"), weights(tmp_path / "taught"))
    assert not same(weights(tmp_path / "taught"), weights(tmp_path / "plain"))


def test_labels_that_are_not_there_are_missed_before_anything_runs(
    zoo: dict[str, str], val: Images, tmp_path: Path
) -> None:
    bare = gainfinder.load_images("digits#2/12").without_labels()
    asked = {**UNLABELLED, "data": bare, "val": val, "control": "labels", "out": tmp_path / "run"}
    with pytest.raises(DataError, match=r"`control='labels'` learns from the labels .* these carry none"):
        gainfinder.transfer(zoo["convnext"], zoo["vit"], **asked)
    assert not (tmp_path / "run").exists()
    images = tmp_path / "images"
    images.mkdir()
    for number in range(30):
        bare.read(number).save(images / f"{number}.png")
    command = [
        "transfer", "--student", zoo["convnext"], "--teacher", zoo["vit"], "--data", str(images), "--val",
        "digits#1/8", "--no-guard", "--epochs", "1", "--labels", "none", "--control", "labels",
        "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "--control labels" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingsError, match="control is 'lables'; near matches: labels"):
        gainfinder.transfer(zoo["convnext"], zoo["vit"], **{**SETTINGS, "control": "lables"})
