"""Results under a folder, found and put in order, whatever else lies there."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gainfinder.cli import app
from gainfinder.errors import RunFolderError
from gainfinder.report import listed_cells
from gainfinder.results import Listing, list_results
from result_folders import ANSWERED, GUARD, put


def folders(found: Listing) -> list[str]:
    return [one.folder for one in found.results]


def test_results_are_sorted_by_delta_those_without_labels_last(tmp_path: Path) -> None:
    put(tmp_path / "a" / "worse", transfer_delta_pp=-1.0)
    put(tmp_path / "b", transfer_delta_pp=2.0)
    put(tmp_path / "c", transfer_delta_pp=None, transfer_delta_ci_pp=None, accuracy_after=None)
    put(tmp_path / "d", transfer_delta_pp=2.0)
    found = list_results(tmp_path)
    assert folders(found) == ["b", "d", "a/worse", "c"] and found.others == ()


def test_a_row_says_what_the_result_says(tmp_path: Path) -> None:
    put(tmp_path / "run", seconds=90.5, finished=1000.0)
    (one,) = list_results(tmp_path).results
    assert (one.student, one.teachers, one.method, one.val, one.images) == ("small", ("big",), "kl-dp", "digits", 4)
    assert (one.accuracy_before, one.accuracy_after, one.transfer_delta_pp) == (0.5, 0.75, 25.0)
    assert one.transfer_delta_ci_pp == (0.0, 75.0)
    assert (one.finished, one.seconds) == (1000.0, 90.5)


def test_a_result_of_before_says_nothing_of_its_time_whatever_its_files_say(tmp_path: Path) -> None:
    run = put(tmp_path / "run")
    os.utime(run / "config.json", (1000.0, 1000.0))
    (one,) = list_results(tmp_path).results
    assert (one.finished, one.seconds) == (None, None)
    assert (listed_cells(one).took, listed_cells(one).finished) == ("–", "–")


def test_a_result_itself_can_be_listed_and_its_parts_are_none_of_their_own(tmp_path: Path) -> None:
    run = put(tmp_path / "run")
    put(run / "steps" / "1")
    put(run / "control")
    assert folders(list_results(run)) == ["."]
    assert folders(list_results(tmp_path)) == ["run"]


def test_other_folders_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "run")
    put(tmp_path / ".hidden" / "run")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architecture": "resnet18"}')
    (model / "model.safetensors").write_text("")
    head = put(tmp_path / "head")
    (head / "config.json").write_text('{"student": {}, "classes": 4}')
    (tmp_path / "link").symlink_to(tmp_path / "run")
    found = list_results(tmp_path)
    assert folders(found) == ["run"] and found.others == ()


def test_what_is_not_finished_or_damaged_is_told_and_takes_nothing_with_it(tmp_path: Path) -> None:
    put(tmp_path / "run")
    (put(tmp_path / "stopped") / "result.json").unlink()
    (put(tmp_path / "torn") / "result.json").write_text('{"format_version": 1, "stu')
    (put(tmp_path / "strange") / "config.json").write_text("[]")
    found = list_results(tmp_path)
    assert folders(found) == ["run"]
    reasons = {one.folder: one.reason for one in found.others}
    assert [*reasons] == ["stopped", "strange", "torn"] and reasons["stopped"] == "not finished"
    assert reasons["strange"] == "config.json: not as gainfinder wrote it (it does not describe a transfer)"
    assert reasons["torn"].startswith("result.json: not as gainfinder wrote it (Unterminated string")


def test_a_line_on_damage_names_the_folder_once_and_gives_no_advice_of_other_commands(tmp_path: Path) -> None:
    torn = put(tmp_path / "torn")
    (torn / "result.json").write_text('{"format_version": 1, "stu')
    (put(tmp_path / "newer") / "result.json").write_text('{"format_version": 99, "student": "a"}')
    for folder, begin in ((tmp_path, "torn: "), (torn, f"{torn}: ")):
        shown = CliRunner().invoke(app, ["list", str(folder)]).stdout
        assert f"{begin}result.json: not as gainfinder wrote it (Unterminated" in " ".join(shown.split())
        assert all(line.count("torn: ") <= 1 and line.count(str(tmp_path)) <= 1 for line in shown.splitlines())
        assert "--out" not in shown and "`out`" not in shown and "remove" not in shown
    assert "newer: result.json: written by a newer version" in CliRunner().invoke(app, ["list", str(tmp_path)]).stdout


def test_a_result_without_its_configuration_is_damaged_and_one_of_another_program_none(tmp_path: Path) -> None:
    (put(tmp_path / "bare") / "config.json").unlink()
    (put(tmp_path / "bare and torn") / "config.json").unlink()
    (tmp_path / "bare and torn" / "result.json").write_text("{")
    put(tmp_path / "other" / "run")
    (tmp_path / "other" / "result.json").write_text('{"score": 1}')
    found = list_results(tmp_path)
    assert folders(found) == ["other/run"], "looked for below the other program's file"
    assert {one.folder: one.reason for one in found.others} == dict.fromkeys(
        ["bare", "bare and torn"], "config.json: is missing"
    )
    document = json.loads(CliRunner().invoke(app, ["list", str(tmp_path), "--json"]).stdout)
    assert [one["folder"] for one in document["others"]] == ["bare", "bare and torn"]


@pytest.mark.parametrize(
    ("changes", "certificate"),
    [
        ({}, "no guard"),
        ({"guard": GUARD}, "the given student was kept"),
        ({"guard": {**GUARD, "alpha": 0.5}}, "guard"),
        ({"guard": GUARD, "certificate": ANSWERED}, "better, by labels"),
        ({"diverged": {"epoch": 1, "step": 2, "reason": "it", "kept_epoch": 0}}, "diverged"),
        ({"strategy": "sequential", "steps": [{"teacher": "a", "guard": {**GUARD, "alpha": 1.0}},
                                              {"teacher": "b", "guard": GUARD}]}, "guard"),
        ({"strategy": "sequential", "steps": [{"teacher": "a", "guard": GUARD}]}, "the given student was kept"),
    ],
)  # fmt: skip
def test_who_vouches_for_the_student(tmp_path: Path, changes: dict[str, Any], certificate: str) -> None:
    put(tmp_path / "run", **changes)
    (one,) = list_results(tmp_path).results
    assert one.certificate == certificate


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no folder: expected one with results"):
        list_results(tmp_path / "nowhere")
