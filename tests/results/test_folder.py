"""A result folder belongs to one process at a time, and to one run; whoever comes second is told why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forked import forked
from gainfinder.errors import RunFolderError
from gainfinder.results import RunFolder
from gainfinder.results.folder import differences


def hold(path: Path) -> None:
    with RunFolder(path):
        print(os.getpid(), flush=True)
        sys.stdin.read()


def test_the_second_process_is_told_the_firsts_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    with forked(hold, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        pid = int(first.stdout.readline())
        second = RunFolder(path)
        monkeypatch.setattr(second._lock, "timeout", 0.1)
        with pytest.raises(RunFolderError, match=f"process {pid} on .* is writing to this folder"):
            second.__enter__()
        first.communicate("")
    with RunFolder(path):
        pass
    assert [file.name for file in path.iterdir()] == [".lock"]


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run"
    with RunFolder(path) as folder:
        folder.check_in_place()
        if how == "removed":
            shutil.rmtree(path)
        else:
            path.rename(tmp_path / "away")
        if how == "replaced":
            path.mkdir()
        with pytest.raises(RunFolderError, match=r"was moved or removed while the run wrote into it; put it back"):
            folder.check_in_place()
    assert path.exists() == (how == "replaced")


def config(pixels: str | None, pillow: str) -> dict[str, object]:
    known = {} if pixels is None else {"pixels": pixels}
    return {"data": {"reference": "a", **known}, "settings": {}, "environment": {"pillow": pillow}}


@pytest.mark.parametrize(
    ("stored", "asked", "differ"),
    [
        (config("1", "12"), config("1", "12"), False),
        (config("1", "12"), config("2", "12"), True),
        (config("1", "12"), config("2", "13"), False),  # another decoder
        (config(None, "12"), config("2", "12"), False),  # an earlier version
    ],
)
def test_other_pixels_are_another_run_where_they_can_be_compared(
    stored: dict[str, object], asked: dict[str, object], differ: bool
) -> None:
    found = differences(stored, asked)
    assert bool(found) == differ
    if differ:
        assert found == ["data.pixels: 1 in the folder, 2 asked for"]
