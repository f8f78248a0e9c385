"""From JSON to a typed record: what is missing or of another type is one line that names the file and the key."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import DamagedFile, RunFolderError
from ..files import parse_json

T = TypeVar("T", bound=BaseModel)


def read_json(path: Path) -> dict[str, Any] | None:
    """A document that describes a transfer, or None where there is no file.

    Raises:
        DamagedFile: it is damaged.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not isinstance(value, dict) or "student" not in value:
        raise unreadable(path, "it does not describe a transfer")
    return value


def validated(model: type[T], document: Mapping[str, Any], path: Path) -> T:
    """A document as a typed record; keys that it does not know are left out.

    Args:
        model: the record's type.
        document: the parsed JSON object.
        path: the file it is from, for messages.

    Raises:
        DamagedFile: a key is missing, or its value is of another type.
    """
    try:
        # Through JSON, where a list may become a tuple, and yet nothing else is converted.
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise unreadable(path, _first(error)) from error


def unreadable(path: Path, reason: str | Exception) -> DamagedFile:
    """The error for a file that is not as gainfinder wrote it, where its folder is read."""
    if isinstance(reason, Exception):
        reason = getattr(reason, "strerror", None) or str(reason)
    return DamagedFile(path, reason, remedy="expected a folder as gainfinder left it")


@contextmanager
def written_to() -> Iterator[None]:
    """In this block folders are read to be written to: the error for a damaged file says how to do without it.

    Raises:
        DamagedFile: with that advice, which would be wrong for who only reads.
    """
    try:
        yield
    except DamagedFile as error:
        path = error.path
        remedy = f"nothing was changed. Choose another `out`, or remove {path.parent} if it holds nothing you need"
        raise DamagedFile(path, error.reason, remedy=remedy) from error


def require_folder(path: Path, *, expected: str = "the result folder of a transfer") -> None:
    """Refuse what is no folder, or the student's, where that of a result is expected.

    Args:
        path: the path as it was given.
        expected: what is expected, for the message.

    Raises:
        RunFolderError: it is a file, is not there, or is the folder of a student in a result.
    """
    if not path.exists():
        raise RunFolderError(f"{path}: there is no such folder; expected {expected}")
    if not path.is_dir():
        raise RunFolderError(f"{path}: is a file; expected {expected}")
    if path.name == "student" and (path.parent / "result.json").exists():
        raise RunFolderError(f"{path}: holds a student alone; expected {expected}: give {path.parent}")


def _first(error: ValidationError) -> str:
    """The first thing that is wrong: `no guard.points.1.gain`, or `samples: unexpected 'many'`."""
    found = error.errors(include_url=False)[0]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in found["loc"])
    if found["type"] == "missing":
        return f"no {key}"
    if found["type"] == "value_error":
        return found["msg"].removeprefix("Value error, ")
    return f"{key}: unexpected {found['input']!r:.40}"
