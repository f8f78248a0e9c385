"""From JSON to a typed record: what is missing or of another type is one line that names the file and the key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import RunFolderError
from ..files import parse_json

T = TypeVar("T", bound=BaseModel)


def read_json(path: Path) -> dict[str, Any] | None:
    """A document that describes a transfer, or None where there is no file.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, str(error)) from error
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
        RunFolderError: a key is missing, or its value is of another type.
    """
    try:
        # Through JSON, where a list may become a tuple, and yet nothing else is converted.
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise unreadable(path, _first(error)) from error


def unreadable(path: Path, reason: str) -> RunFolderError:
    """The error for a file that is not as gainfinder wrote it."""
    return RunFolderError(
        f"{path}: not as gainfinder wrote it ({reason}); nothing was changed. Choose another `out`, or remove "
        f"{path.parent} if it holds nothing you need"
    )


def _first(error: ValidationError) -> str:
    """The first thing that is wrong: `no guard.points.1.gain`, or `samples: unexpected 'many'`."""
    found = error.errors(include_url=False)[0]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in found["loc"])
    if found["type"] == "missing":
        return f"no {key}"
    if found["type"] == "value_error":
        return found["msg"].removeprefix("Value error, ")
    return f"{key}: unexpected {found['input']!r:.40}"
