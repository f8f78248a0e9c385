"""What is said of folders that are no result, or damaged: what is wrong, and advice that fits the command alone."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gainfinder.cli import app
from gainfinder.errors import RunFolderError
from gainfinder.results import RunFolder
from result_folders import put

READERS = {"push": ["ann/x", "--dry-run"], "export": ["--onnx", "x.onnx"], "repeat": [], "ask": [], "report": []}


@pytest.mark.parametrize("command", READERS)
def test_who_only_reads_is_not_told_to_write_elsewhere_or_to_remove_anything(tmp_path: Path, command: str) -> None:
    run, torn, file = put(tmp_path / "run"), put(tmp_path / "torn"), tmp_path / "run.toml"
    (run / "student").mkdir()
    (run / "student" / "config.json").write_text('{"architecture": "vit"}')
    (torn / "result.json").write_text("[]")
    file.write_text("")
    for given, said in (
        (run / "student", f"holds a student alone; expected .*: give {run}"),
        (torn, r"result\.json: not as gainfinder wrote it \(.*\); expected a folder as gainfinder left it"),
        (file, "is a file; expected "),
        (file / "deeper", "there is no such folder; expected "),
    ):
        refused = CliRunner().invoke(app, [command, str(given), *READERS[command]])
        assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
        assert refused.stderr.startswith(f"gainfinder: {given}"), refused.stderr
        with pytest.raises(RunFolderError, match=said):
            raise RunFolderError(refused.stderr)
        assert "--out" not in refused.stderr and "remove" not in refused.stderr


def test_who_writes_is_told_how_to_do_without_what_is_damaged(tmp_path: Path) -> None:
    folder = RunFolder(put(tmp_path / "run"))
    folder.config.write_text("[]")
    with pytest.raises(RunFolderError, match=f"Choose another `out`, or remove {folder.path} if it holds nothing you"):
        folder.check({"student": {}})
    with pytest.raises(RunFolderError, match=r"\(it does not describe a transfer\); expected a folder as gainfinder"):
        folder.read_config()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": "x"}', '{"seconds": -1}', '{"seconds": NaN}'])
def test_a_damaged_note_of_the_time_is_not_known_and_stops_no_run(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_worked() is None
    folder.write_worked(2.5)
    assert folder.read_worked() == 2.5
    folder.worked.write_text(content)
    assert folder.read_worked() is None
