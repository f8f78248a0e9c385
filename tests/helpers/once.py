"""What takes a while to make, made once for all processes that run the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(temporary: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the session's, which the process that comes first fills while the others wait.

    Args:
        temporary: the session's folders; those of pytest-xdist's workers lie in one.
        name: of the folder.
        make: fills the folder, which is there and empty. Tests leave what it holds as it is.
    """
    base = temporary.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, complete = shared / name, shared / f"{name}.complete"
    with FileLock(shared / f"{name}.lock"):
        if not complete.exists():
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
