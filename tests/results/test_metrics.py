"""Results as typed records: written and read again, of earlier versions, damaged, of newer ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gainfinder.errors import RunFolderError
from gainfinder.metrics import accuracy_change, measure_transfer
from gainfinder.predictions import Predictions
from gainfinder.report import write_report
from gainfinder.results import (
    FORMAT_VERSION,
    BankUse,
    ControlMetrics,
    EpochMetrics,
    GuardDecision,
    GuardPoint,
    RunConfig,
    RunFolder,
    StepMetrics,
    TransferMetrics,
    validated,
    write_thumbnails,
)

RIGHT = {"before": "--++", "after": "+-++", "teacher-1": "++--"}
"""Whether each model is right on each of four images."""
MEASURED = {
    "samples": 4, "agreement": 0.75, "accuracy_before": 0.5, "accuracy_after": 0.75, "transfer_delta_pp": 25.0,
    "transfer_delta_ci_pp": [0.0, 75.0], "knowledge_gain": 0.25, "knowledge_gain_ci": [0.05, 0.7],
    "knowledge_loss": 0.0, "knowledge_loss_ci": [0.0, 0.49], "positive_flips": 0.5, "negative_flips": 0.5,
    "transfer_rate": 0.5, "agreement_with_teachers": [[0.0, 0.25]], "dropped_mass": [0.0],
    "confidence_before": 0.58, "confidence_after": 0.58,
}  # fmt: skip
OLD_GUARD = {
    "share": 0.0, "adapted": True, "images": 9, "labelled": True, "held_out": True, "unguarded_delta_pp": -1.0,
    "unguarded_delta_ci_pp": [-2.0, 0.5],
    "points": [{"share": 0.0, "adapted": True, "measure": "accuracy", "gain": 2.0, "error": 0.5, "sure_gain": 1.0,
                "veto": None}],
}  # fmt: skip
OLD = {
    "student": "small", "teachers": ["big"], "method": "kl-dp-u", **MEASURED, "teacher_share": 0.3,
    "unaugmented_teachers": [], "broken_images": [], "temperatures": None, "guard": OLD_GUARD, "bank": None,
    "control": None, "resumed_epochs": 0, "out": "run", "student_reference": None,
}  # fmt: skip
"""`result.json` as it was written before it had a version."""
OLDEST = {
    "student": "small", "teachers": ["big"], "method": "kl", "samples": 4, "accuracy_before": 0.5,
    "accuracy_after": 0.75, "agreement": 0.75,
    "guard": {"share": 0.5, "images": 9, "points": [{"share": 1, "gain": 2}]},
}  # fmt: skip
ROW = {"epoch": 1, "train_loss": 0.7, "accuracy": 0.75, "knowledge_gain": 0.25, "knowledge_loss": 0.0}
CONFIG = {
    "student": {"reference": "small", "preprocessing": {"size": 8}}, "teachers": [{"reference": "big"}],
    "data": {"reference": "a", "samples": 9}, "val": {"reference": "b", "samples": 4}, "settings": {"lr": 0.1},
}  # fmt: skip


def predictions_that_are(right: str) -> Predictions:
    target = torch.arange(len(right)) % 3
    wrong = torch.tensor([sign == "-" for sign in right])
    logits = torch.nn.functional.one_hot((target + wrong) % 3, 3).float()
    return Predictions(model="m", ids=tuple("abcd"), logits=logits, target=target, class_names=("x", "y", "z"))


def folder_with(path: Path, document: dict[str, Any]) -> RunFolder:
    """A finished folder with a result as it is given."""
    folder = RunFolder(path / "run")
    folder.predictions.mkdir(parents=True)
    folder.config.write_text(json.dumps(CONFIG))
    folder.result.write_text(json.dumps(document))
    folder.epochs.write_text(json.dumps(ROW) + "\n")
    for name, right in RIGHT.items():
        predictions_that_are(right).write(folder.predictions / f"{name}.parquet")
    write_thumbnails(folder.thumbnails, [])
    return folder


def read(folder: RunFolder) -> TransferMetrics:
    found = folder.read_result()
    assert found is not None
    return found


def whole() -> TransferMetrics:
    """A result with all that there can be."""
    point = GuardPoint(
        alpha=0.5, bn_reestimated=False, measure="movement", gain=1.5, error=None, sure_gain=None, veto="for a reason"
    )
    guard = GuardDecision(alpha=0.5, bn_reestimated=False, points=(point,), images=1, labelled=False, held_out=True)
    change = accuracy_change(predictions_that_are(RIGHT["before"]), predictions_that_are(RIGHT["after"]))
    control = ControlMetrics(
        transfer_delta_pp=0.0, transfer_delta_ci_pp=(0.0, 0.0), knowledge_gain=0.0, knowledge_loss=0.0, agreement=1.0,
        beyond_pp=change.delta_pp, beyond_ci_pp=change.ci_pp,
    )  # fmt: skip
    measures = measure_transfer(predictions_that_are(RIGHT["before"]), predictions_that_are(RIGHT["after"]), [None])
    return TransferMetrics(
        student="small", teachers=("big",), method="kl-dp", strategy="soup", **measures.model_dump(),
        temperatures=(1.0, 2.0), guard=guard, control=control, steps=(StepMetrics(teacher="big", guard=guard),),
        bank=BankUse(folder="bank", entries=2, made=1, bytes=80, checked=0, largest_difference=None), out="run",
    )  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {})
    folder.write_result(whole())
    assert read(folder) == whole()
    document = json.loads(folder.result.read_text())
    assert document == whole().to_dict() and document["format_version"] == FORMAT_VERSION
    assert list(document)[:4] == ["format_version", "student", "teachers", "method"]
    assert document["transfer_delta_ci_pp"] == [0.0, 75.0] and document["guard"]["points"][0]["error"] is None


def test_a_result_is_a_value() -> None:
    assert len({whole(), whole()}) == 1
    with pytest.raises(ValidationError, match="frozen"):
        whole().accuracy_after = 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        StepMetrics(teacher="big", transfer_delta_pp=value)


def test_a_result_without_a_version_is_read_by_its_old_words(tmp_path: Path) -> None:
    steps = [{"teacher": "big", "transfer_delta_pp": 1.0, "guard": OLD_GUARD}]
    found = read(folder_with(tmp_path, {**OLD, "strategy": "sequential", "steps": steps}))
    for guard in (found.guard, found.steps[0].guard):
        assert guard is not None and (guard.alpha, guard.bn_reestimated, guard.kept_initial) == (0.0, True, False)
        assert (guard.points[0].alpha, guard.points[0].bn_reestimated, guard.points[0].gain) == (0.0, True, 2.0)
        assert guard.unguarded_delta_ci_pp == (-2.0, 0.5)
    assert found.transfer_delta_ci_pp == (0.0, 75.0) and found.format_version == FORMAT_VERSION


def test_what_the_oldest_lack_is_measured_anew_or_null(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, OLDEST)
    found = read(folder)
    assert (found.knowledge_gain, found.positive_flips, found.transfer_delta_pp) == (0.25, 0.5, 25.0)
    assert (found.control, found.teacher_share, found.steps) == (None, None, ())
    assert found.guard is not None and found.guard.labelled and found.guard.held_out is None
    point = found.guard.points[0]
    assert (point.alpha, point.measure, point.sure_gain, point.veto) == (1.0, "accuracy", None, None)
    assert folder.read_epochs() == [EpochMetrics.model_validate(ROW)]
    page = write_report(folder.path).read_text()
    assert "What small learned from big" in page and "α = 1" in page


def test_a_result_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {**OLD, "format_version": FORMAT_VERSION + 1, "unheard_of": 1})
    before = folder.result.read_bytes()
    with pytest.raises(RunFolderError, match=r"result.json: written by a newer version of gainfinder \(format 2; this"):
        folder.read_result()
    assert folder.result.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"teachers": "big"}, "teachers: unexpected 'big'"),
        ({"accuracy_after": "high"}, "accuracy_after: unexpected 'high'"),
        ({"knowledge_gain": True}, "knowledge_gain: unexpected True"),
        ({"transfer_delta_ci_pp": [1.0]}, "transfer_delta_ci_pp.2"),
        ({"guard": {"images": 9}}, "no guard.alpha"),
        ({"guard": {**OLD_GUARD, "points": [{"gain": 1.0}]}}, "no guard.points.1.alpha"),
        ({"guard": []}, "guard: unexpected []"),
        ({"steps": [{}]}, "no steps.1.teacher"),
        ({"steps": [{"teacher": "big"}]}, "there are steps, and no strategy"),
        ({"control": {"beyond_pp": 1.0}}, "no control.transfer_delta_pp"),
        ({"format_version": "two"}, "format_version: unexpected 'two'"),
    ],
)
def test_a_damaged_result_is_one_line_with_file_and_key(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    folder = folder_with(tmp_path, {**OLD, **change})
    with pytest.raises(RunFolderError) as raised:
        folder.read_result()
    message = str(raised.value)
    assert message.startswith(f"{folder.result}: not as gainfinder wrote it (") and reason in message
    assert "\n" not in message


def test_a_result_that_its_predictions_contradict_makes_no_report(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"samples": 5}, {"accuracy_after": None}, {"transfer_delta_ci_pp": None}]
    for number, change in enumerate(changes):
        folder = folder_with(tmp_path / str(number), {**OLD, **change})
        with pytest.raises(RunFolderError, match="by predictions/: not of the same transfer"):
            write_report(folder.path)


def test_rows_of_epochs_are_typed_and_keep_their_keys(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, OLD)
    (row,) = folder.read_epochs()
    assert row.knowledge_gain == 0.25 and row.total_gain is None and row.to_dict() == ROW
    folder.epochs.write_text(json.dumps({**ROW, "epoch": "first"}) + "\n")
    with pytest.raises(RunFolderError, match=r"epochs.jsonl: not as gainfinder wrote it \(epoch: unexpected 'first'"):
        folder.read_epochs()


def test_a_configuration_is_typed_and_its_environment_keeps_what_others_add() -> None:
    environment = {"gainfinder": "0.1", "torch": "2.11", "command": None, "track": ["wandb"], "cluster": "north"}
    found = validated(RunConfig, {**CONFIG, "environment": environment}, Path("config.json"))
    assert (found.student.reference, found.data.samples, found.guard) == ("small", 9, None)
    assert found.environment.torch == "2.11" and found.environment.timm is None
    assert found.environment.model_dump(mode="json", exclude_unset=True) == environment
    with pytest.raises(RunFolderError, match=r"config.json: not as gainfinder wrote it \(no val\)"):
        validated(RunConfig, {key: value for key, value in CONFIG.items() if key != "val"}, Path("config.json"))
