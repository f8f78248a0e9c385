"""A reader never sees half a result."""

from pathlib import Path

import pytest

from gainfinder.errors import RunFolderError
from gainfinder.files import check_writable, remove_partials, write_atomically, write_json


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
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
