"""A reader never sees half a result; and what a user names is looked up without a hang or a traceback."""

import os
from pathlib import Path

import pytest

from gainfinder.errors import BadReference, DataError, RunFolderError
from gainfinder.files import (
    check_writable,
    file_problem,
    parse_json,
    read_user_text,
    remove_partials,
    user_path,
    write_atomically,
    write_json,
)
from gainfinder.references import whole_number


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"a": 1})

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError("disk full\nat block 7")  # torch and safetensors raise no OSError

    with pytest.raises(RunFolderError, match=r"result.json: cannot be written \(disk full\); .* MB are free"):
        write_atomically(target, fail)
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_folders_are_replaced_whole(tmp_path: Path) -> None:
    for content in ("one", "two"):

        def write(partial: Path, content: str = content) -> None:
            partial.mkdir()
            (partial / content).write_text(content)

        write_atomically(tmp_path / "student", write)
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["two"]


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "rows" / "deep" / "a.json", {"a": 1}, within=run)
    assert (run / "rows" / "deep" / "a.json").exists()
    run.rename(tmp_path / "elsewhere")
    for path in (run / "b.json", run / "rows" / "b.json"):
        with pytest.raises(RunFolderError, match=r"b\.json: cannot be written \(No such file or directory\)"):
            write_json(path, {"a": 1}, within=run)
    assert not run.exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial-1-checkpoint.pt").write_text("half")
    (tmp_path / ".partial-2-student").mkdir()
    (tmp_path / ".partial-2-student" / "model").write_text("half")
    (tmp_path / "config.json").write_text("{}")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_where_nothing_can_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "new" / "folder" / "out.parquet")
    with pytest.raises(RunFolderError, match=r"out.parquet: cannot be written \(.+\); choose another `out`"):
        check_writable(tmp_path / "file" / "out.parquet")
    with pytest.raises(RunFolderError, match="choose another `onnx`"):
        check_writable(tmp_path / "file" / "x.onnx", setting="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("~nosuchuser/x", r"photos '~nosuchuser/x': there is no home folder for '~nosuchuser'; write the folder out"),
        ("a" * 300, r"photos 'a+…a+' \(300 characters\) cannot be looked up \(File name too long\)"),
        ("a\0b", r"photos 'a\\x00b' cannot be looked up \(.*embedded null "),
        ("\ud800", r"photos '\\ud800' cannot be looked up \('utf-8' codec can't encode"),
    ],
)
def test_paths_that_no_file_can_have_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadReference, match=message):
        user_path(text, what="photos")
    with pytest.raises(DataError):
        user_path(text, what="photos", error=DataError)


def test_a_path_that_is_missing_is_no_error_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").touch()
    assert user_path("~/there", what="x") == tmp_path / "there"
    assert user_path(tmp_path / "there" / "below", what="x") == tmp_path / "there" / "below"


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfant\r\n")
    assert file_problem(tmp_path / "text") is None
    assert read_user_text(tmp_path / "text") == "ant\r\n"
    assert file_problem(tmp_path) == "is a folder"
    assert file_problem(tmp_path / "pipe") == "is a FIFO, not a regular file"
    assert file_problem(Path("/dev/zero")) == "is a device, not a regular file"
    assert file_problem(tmp_path / "loop") == "cannot be looked up (Too many levels of symbolic links)"
    assert file_problem(tmp_path / "tex") == "does not exist; near matches: text"
    with pytest.raises(OSError, match="it is a FIFO"):
        read_user_text(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "message"),
    [("ant".encode("utf-16"), "it is UTF-16; save it as UTF-8"), (b"ant\nb\xff", "line 2 is not UTF-8")],
)
def test_texts_in_other_encodings_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_user_text(tmp_path / "text")


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{"])
def test_json_that_cannot_be_read_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("text", ["", "x", "1" * 5000, "٣", "1.0", "1001", "-1"])
def test_whole_numbers_out_of_range(text: str) -> None:
    with pytest.raises(BadReference, match=r"^n is '.*: expected a whole number from 0 to 1000$"):
        whole_number(text, what="n", least=0, most=1000)
