"""Files that a user names, looked up and read without surprises; and writing results so that a reader never sees half.

What is written has a temporary name beside the target until it is whole and synced, then it is renamed.
"""

import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import BadReference, GainfinderError, RunFolderError
from .references import shown, suggest

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
PARTIAL = ".partial-"
MOST_TEXT = 256_000_000
"""Bytes of the largest text that is read whole."""
DEEPEST_JSON = 64
"""Lists and objects within each other, at most: what gainfinder writes has fewer than ten."""


def write_atomically(path: Path, write: Callable[[Path], None], *, within: Path | None = None) -> None:
    """Let `write` fill a temporary file or folder beside `path`, then rename it to `path`.

    A file replaces an older one in one step. A folder replaces an older one after that is removed:
    only a result that can be made again belongs into one.

    Args:
        path: destination; its parent is created.
        write: called with the temporary path; creates a file or a folder there.
        within: a folder above `path` that is there, or was: only folders below it are created. Where somebody moved it
            away, nothing is made in its place.

    Raises:
        RunFolderError: it cannot be written (a full disk, say); what was at `path` before is still there.
    """
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        _make_parents(path, within=within)
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


def check_writable(path: Path, *, setting: str = "out") -> None:
    """Find out before the work is done whether its result can be written; nothing is left behind.

    Args:
        path: the file to write.
        setting: the setting that names it, for the message.

    Raises:
        RunFolderError: no file can be made in the folder of `path`, or in the nearest one that exists.
    """
    try:
        with tempfile.TemporaryFile(dir=_existing(path)):
            pass
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}); choose another `{setting}`") from error


def write_text(path: Path, text: str, *, within: Path | None = None) -> None:
    """Write a text file atomically, in UTF-8; `within` as for `write_atomically`."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write, within=within)


def write_json(path: Path, value: Mapping[str, Any], *, within: Path | None = None) -> None:
    """Write one JSON document atomically; `within` as for `write_atomically`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", within=within)


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]], *, within: Path | None = None) -> None:
    """Write rows as JSON Lines atomically, one object a line; `within` as for `write_atomically`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), within=within)


def spreadsheet_text(text: str) -> str:
    """A text as a cell of a CSV file that people open: a spreadsheet runs no formula of it.

    What begins with = + - @, a tab or a line's end gets an apostrophe before it, unless it is a number.

    >>> spreadsheet_text("=HYPERLINK(1)"), spreadsheet_text("-0.5"), spreadsheet_text("cat")
    ("'=HYPERLINK(1)", '-0.5', 'cat')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def text_of_spreadsheet(text: str) -> str:
    """What `spreadsheet_text` was given.

    >>> text_of_spreadsheet("'=HYPERLINK(1)"), text_of_spreadsheet("'t Hooft")
    ('=HYPERLINK(1)', "'t Hooft")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def nesting(value: Any) -> int:
    """How deep lists and mappings lie in each other: 0 of a plain value; counted up to `DEEPEST_JSON` + 1."""
    level, depth = [value], 0
    while depth <= DEEPEST_JSON and any(isinstance(one, list | dict) for one in level):
        inside = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, list | dict))
        level = [inner for values in inside for inner in values]
        depth += 1
    return depth


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


def _make_parents(path: Path, *, within: Path | None) -> None:
    if within is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    for folder in reversed([one for one in path.parents if one != within and one.is_relative_to(within)]):
        folder.mkdir(exist_ok=True)


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


def user_path(text: str | os.PathLike[str], *, what: str, error: type[GainfinderError] = BadReference) -> Path:
    """The path that a user's text names, `~` expanded; it may be missing, but can be looked up.

    Args:
        text: the path as given.
        what: what the path is of, for the message, such as `classes file`.
        error: kind of error to raise.

    Raises:
        GainfinderError: of the kind `error`; no home folder belongs to the `~name`, or no file can have this name (too
            long, NUL bytes), or a folder on the way cannot be entered.
    """
    given = os.fspath(text)
    try:
        path = Path(given).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except RuntimeError as problem:
        user = Path(given).parts[0]
        raise error(
            f"{what} {shown(given)}: there is no home folder for {shown(user)}; write the folder out, or ./{user} for "
            "one of that name"
        ) from problem
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem).splitlines()[0]
        raise error(f"{what} {shown(given)} cannot be looked up ({reason}); expected the path of a file") from problem
    return path


def file_problem(path: Path) -> str | None:
    """Why `path` is no file that can be read from start to end, as a phrase; None where it is one.

    Opening a FIFO waits for a writer, and a device may never end: only regular files are read.

    Returns:
        `is a folder`, `is a FIFO, not a regular file`, or `does not exist` with what is alike; no stop at its end.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"does not exist{near_siblings(path)}"
    except (OSError, ValueError) as problem:
        return f"cannot be looked up ({getattr(problem, 'strerror', None) or problem})"
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    kind = kinds.get(stat.S_IFMT(mode))
    return "is a folder" if stat.S_ISDIR(mode) else f"is a {kind or 'special file'}, not a regular file"


def read_user_text(path: Path) -> str:
    """The text of a file that a user wrote: UTF-8, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is not UTF-8, or above `MOST_TEXT` bytes.
    """
    if (problem := file_problem(path)) is not None:
        raise OSError(f"it {problem}")
    if (size := path.stat().st_size) > MOST_TEXT:
        raise ValueError(f"it has {size / 1e6:,.0f} MB, expected a text of at most {MOST_TEXT / 1e6:,.0f} MB")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save it as UTF-8") from error


def parse_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads`, and a `ValueError` for whatever it refuses, nesting too deep for it included.

    Lists and objects more than `DEEPEST_JSON` deep are refused, too: other libraries fail on them later.
    """
    try:
        value = json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply to be read") from error
    if nesting(value) > DEEPEST_JSON:
        raise ValueError(f"JSON nested more than {DEEPEST_JSON} deep")
    return value


def near_siblings(path: Path) -> str:
    """A phrase that suggests files or folders beside a missing one."""
    folder = path.parent
    if not folder.is_dir():
        return f"; its folder {str(folder)!r} does not exist"
    try:
        return suggest(path.name, [entry.name for entry in folder.iterdir()])
    except OSError:  # a folder that may not be listed
        return ""
