"""Files of a transfer: TOML that people write, and what a result's configuration holds."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gainfinder.config import RunFile, TransferConfig, TransferSpec, read_run, request_of
from gainfinder.errors import SettingsError

WHOLE = TransferSpec(
    student="hf:lab/net?size=64",
    teachers=("vit_a", 'file:my nets.py:small@"a".pt'),
    data="photos",
    val="test.parquet#2/2",
    label_maps=("map.csv",),
    referees=("judge",),
    config=TransferConfig(guard=True, control=("copy",), lr=1e-5, bank=Path("views"), seed=-1, at_most="1%"),
)


def written(tmp_path: Path, text: str, name: str = "run.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_is_read_as_the_same_transfer(tmp_path: Path) -> None:
    asked = request_of(WHOLE).updated({"out": "better \x7f", "ask": 5}, {})
    asked.write(tmp_path / "run.toml", by_rule={"epochs": 7, "method": "kl-dp"})
    again = read_run(tmp_path / "run.toml")
    assert again.spec() == WHOLE
    assert (again.out, again.ask) == ("better \x7f", 5)


def test_settings_by_rule_are_comments_that_can_be_uncommented(tmp_path: Path) -> None:
    RunFile(student="a", teachers=["b"], data="c").write(tmp_path / "run.toml", by_rule={"epochs": 7})
    text = (tmp_path / "run.toml").read_text(encoding="utf-8")
    assert "epochs" not in tomllib.loads(text)["settings"]
    assert read_run(written(tmp_path, text.replace("# epochs", "epochs"), "other.toml")).settings == {"epochs": 7}


def test_a_results_configuration_holds_what_was_asked_for(tmp_path: Path) -> None:
    request = request_of(WHOLE).model_dump(exclude_defaults=True)
    config = {"student": {"reference": "other"}, "request": request, "environment": {"torch": "2"}}
    assert read_run(written(tmp_path, json.dumps(config), "config.json")).spec() == WHOLE


@pytest.mark.parametrize("request_key", [{}, {"request": None}, {"request": 3}, {"request": ["a"]}])
def test_a_configuration_that_does_not_hold_it_is_refused_with_its_command(
    tmp_path: Path, request_key: dict[str, Any]
) -> None:
    config = {**request_key, "environment": {"command": "gainfinder transfer --student x"}}
    with pytest.raises(SettingsError, match=r"does not hold what was asked for.*by: gainfinder transfer --student x"):
        read_run(written(tmp_path, json.dumps(config), "config.json"))
    measures = tmp_path / "result.json"
    measures.write_text(json.dumps({"format_version": 1, "method": "kl", "transfer_delta_pp": None}))
    with pytest.raises(SettingsError, match=r"what was asked for is in .*config\.json: give that"):
        read_run(measures)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,2]", r"config\.json: is \[1, 2\], not as gainfinder wrote it: .*is it damaged\?"),
        ("3", r"config\.json: is 3, not as gainfinder wrote it"),
        ('{"student": ', r"config\.json: is no JSON, or damaged: "),
        ("", r"config\.json: is no JSON, or damaged: "),
    ],
)
def test_a_damaged_configuration_is_not_taken_for_toml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        read_run(written(tmp_path, text, "config.json"))
    assert "TOML" not in str(refused.value)


def test_one_teacher_needs_no_brackets(tmp_path: Path) -> None:
    assert read_run(written(tmp_path, 'teachers = "vit"')).teachers == ["vit"]


def test_what_is_given_beside_the_file_takes_its_place() -> None:
    file = RunFile(student="a", teachers=["b", "c"], data="d", settings={"epochs": 2, "guard": True})
    spec = file.updated({"teachers": ["e"], "val": "v", "data": None, "referees": []}, {"guard": False}).spec()
    assert (spec.student, spec.teachers, spec.data, spec.val) == ("a", ("e",), "d", "v")
    assert (spec.config.epochs, spec.config.guard) == (2, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('student = "a"\nteacher = "b"', r"line 2: unknown key 'teacher'; near matches: teachers"),
        ("[settings]\nepoch = 2", r"line 2: unknown key 'epoch'; near matches: epochs"),
        ("[settings]\nepochs = -2", r"line 2: epochs is -2: expected a whole number, 1 or more|expected 1 or more"),
        ("epochs = 2", r"line 1: 'epochs' is a setting: write it under \[settings\]"),
        ("student = 3", r"line 1: student is 3"),
        ("settings = 3", r"line 1: settings is 3: expected a table"),
        ("teachers = [1]", r"line 1: teachers.* is 1"),
        ('student = "hf:lab/net?trust_remote_code=yes"', r"line 1: student: .*trusts the model's own code"),
        ('data = "s3://key:secret@bucket/x"', r"line 1: data holds a password or token"),
        ('student = "hf:lab/***"', r"line 1: student is 'hf:lab/\*\*\*', a secret of which was taken out"),
        ("student = ", r"is no TOML"),
        ("ask = 1e400", r"finite"),
        ("ask = 0", r"line 1: ask is 0: .*greater than or equal to 1"),
        ("{", r"is no JSON"),
        ('{"student": [1]}', r"student is \[1\]"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_run(written(tmp_path, text))


def test_files_that_are_not_there_are_told() -> None:
    with pytest.raises(SettingsError, match="cannot be read as a run"):
        read_run("nowhere/run.toml")


@pytest.mark.parametrize(("missing", "option"), [("student", "student"), ("teachers", "teacher"), ("data", "data")])
def test_what_is_missing_is_told(missing: str, option: str) -> None:
    given: dict[str, Any] = {"student": "a", "teachers": ["b"], "data": "c"}
    del given[missing]
    with pytest.raises(SettingsError, match=f"no {option} is given: give `{option}`"):
        RunFile(**given).spec()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path, "mine")
    with pytest.raises(SettingsError, match="not overwritten"):
        RunFile(student="a").write(path, by_rule={})
    assert path.read_text(encoding="utf-8") == "mine"


def test_leave_to_run_code_and_secrets_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hushhushhush")
    spec = TransferSpec(
        student="hf:lab/net?trust_remote_code=yes", teachers=("vit",), data="hfds/hushhushhush/set?token=abcdef"
    )
    request = request_of(spec)
    assert request.student == "hf:lab/net" and request.data == "hfds/***/set?token=***"


def test_a_secret_is_not_written(tmp_path: Path) -> None:
    asked = RunFile(student="a", teachers=["b"], data="s3://key:secret@bucket/x")
    with pytest.raises(SettingsError, match="holds a password or token"):
        asked.write(tmp_path / "run.toml", by_rule={})
    assert not (tmp_path / "run.toml").exists()
