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


def test_of_many_differences_the_first_few_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run"
    stored = {"student": {"reference": "a"}, "settings": {f"setting_{number}": 1 for number in range(40)}}
    with RunFolder(path) as folder:
        folder.claim(stored)
        asked = {"student": {"reference": "b"}, "settings": {f"setting_{number}": 2 for number in range(40)}}
        with pytest.raises(RunFolderError) as refused:
            folder.check(asked)
    said = str(refused.value)
    assert "Differing: student.reference: a in the folder, b asked for; settings.setting_0: 1 in the folder, 2" in said
    assert "; and 36 more. Give the same settings, or another `out`" in said and len(said) < 600
