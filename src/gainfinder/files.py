"""Writing results so that a reader never sees half of one: a temporary name beside the target, synced, then renamed."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import RunFolderError
from .references import suggest

PARTIAL = ".partial-"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file or folder beside `path`, then rename it to `path`.

    A file replaces an older one in one step. A folder replaces an older one after that is removed:
    only a result that can be made again belongs into one.

    Args:
        path: destination; its parent is created.
        write: called with the temporary path; creates a file or a folder there.

    Raises:
        RunFolderError: it cannot be written (a full disk, say); what was at `path` before is still there.
    """
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        if partial.is_dir():
            for child in partial.rglob("*"):
                _sync(child)
            if path.exists():
                shutil.rmtree(path)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap the system's errors
        reason = next(iter((getattr(error, "strerror", None) or str(error)).splitlines()), type(error).__name__)
        raise RunFolderError(f"{path}: cannot be written ({reason}); {_room(path)}") from error
    finally:
        _remove(partial)


def check_writable(path: Path) -> None:
    """Find out before the work is done whether its result can be written; nothing is left behind.

    Raises:
        RunFolderError: no file can be made in the folder of `path`, or in the nearest one that exists.
    """
    try:
        with tempfile.TemporaryFile(dir=_existing(path)):
            pass
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}); choose another `out`") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON document atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines atomically, one object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`, not below it."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _room(path: Path) -> str:
    try:
        free = shutil.disk_usage(_existing(path)).free
    except OSError:
        return "is its folder still there?"
    return f"{free / 1e6:,.0f} MB are free there"


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists, or a file in its place."""
    return next(folder for folder in path.absolute().parents if folder.exists())


def _sync(path: Path) -> None:
    # A rename may reach the disk before the content does, unless the content is flushed first.
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) if path.is_dir() else os.O_RDONLY
    try:
        handle = os.open(path, flags)
    except PermissionError:  # directories cannot be opened on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def near_siblings(path: Path) -> str:
    """A phrase that suggests files or folders beside a missing one."""
    folder = path.parent
    if not folder.is_dir():
        return f"; its folder {str(folder)!r} does not exist"
    return suggest(path.name, [entry.name for entry in folder.iterdir()])
