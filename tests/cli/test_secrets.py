"""What all commands have in common: messages, notes and the command that is kept, without secrets and of one line."""

import logging
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gainfinder.cli import app, main
from gainfinder.cli.command import typed_command

REFUSED = ["--student", "local-dir:none", "--teacher", "local-dir:none", "--out", "out", "--dry-run"]


def test_the_command_is_kept_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-mine")
    monkeypatch.setattr(sys, "argv", ["gainfinder", "study", "run", "--mirror", "s3://k:s@b/x", "a-secret-of-mine"])
    assert typed_command() == "gainfinder study run --mirror s3://***@b/x ***"


@pytest.mark.parametrize(
    "data", ["https://me:pa55word@host/data.tar", "hfds/org/set?token=pa55word", f"digits#1/{'9' * 5000}"]
)
def test_a_refusal_is_one_line_without_secrets(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["transfer", *REFUSED, "--data", data])
    assert result.exit_code == 2, result.output
    assert len(result.output.strip().splitlines()) == 1 and len(result.output) < 1000
    assert "pa55word" not in result.output and not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["9" * 5000, "x" * 5000, "nan", "1e400"])
def test_options_of_any_length_are_refused_in_one_line(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--epochs", "--batch-size", "--lr", "--seed"):
        monkeypatch.setattr(sys, "argv", ["gainfinder", "transfer", *REFUSED, "--data", "digits", option, value])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == 2 and len(told.strip().splitlines()) == 1 and len(told) < 700, told[:300]


def test_notes_are_shown_without_secrets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    CliRunner().invoke(app, ["report", str(tmp_path)])  # which lets notes be shown
    logging.getLogger("gainfinder").warning("not copied to %s\x1b[2J", "s3://k:secret@b")
    assert "secret" not in capsys.readouterr().err


def test_json_of_a_study_has_no_secret(tmp_path: Path) -> None:
    text = '[study]\nstudents = ["a"]\nteachers = ["b"]\n[data]\ndata = "https://me:pa55word@host/x"\n'
    (tmp_path / "s.toml").write_text(text)
    result = CliRunner().invoke(app, ["study", "run", str(tmp_path / "s.toml"), "--out", str(tmp_path / "o"), "--json"])
    assert result.exit_code == 2 and "pa55word" not in result.output and "holds a password" in result.output
    assert not (tmp_path / "o").exists()
