"""A model folder's configuration, looked at before a library builds what it says."""

import re
import stat
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import parse_json, read_user_text
from ..libraries import first_line

MOST = 1_000_000
"""Largest width, size or number of classes of a configuration; no model comes near it."""
MOST_LAYERS = 2_000
"""Largest number of layers or blocks."""
_DEEPEST = 32
_SIZE = re.compile(r"size|dim|width|channels|heads|labels|classes|hidden|embed|planes|features|patch|num_|resolution")
_LAYERS = re.compile(r"depth|layer|block|stage|repeat")


def read_config(path: Path, *, reference: str) -> dict[str, Any]:
    """The JSON object in a configuration file, none of its sizes beyond all measure.

    Args:
        path: the file.
        reference: the model reference, for messages.

    Raises:
        ModelError: it is no JSON object, or one that no model has: a size or depth would take all memory, or for ever.
    """
    try:
        config = parse_json(read_user_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference}: {path.name} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{reference}: {path.name} holds a {type(config).__name__}: expected an object of settings")
    _check(config, "", 0, where=f"{reference}: {path.name}")
    return config


def check_files(folder: Path, *, reference: str) -> None:
    """Refuse a folder in which a name stands for something else than a file or folder: reading a pipe waits for ever.

    Raises:
        ModelError: there is such a name.
    """
    for entry in folder.iterdir():
        try:
            mode = entry.stat().st_mode
        except OSError:  # a link to nowhere
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ModelError(f"{reference}: {entry.name!r} in its folder is no regular file: remove it")


def _check(value: Any, key: str, depth: int, *, where: str) -> None:
    if depth > _DEEPEST:
        raise ModelError(f"{where}: its settings are nested more than {_DEEPEST} deep: expected a model's")
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(inner, str(name), depth + 1, where=where)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, key, depth + 1, where=where)
    elif isinstance(value, int | float):
        most = MOST_LAYERS if _LAYERS.search(key) else MOST if _SIZE.search(key) else None
        if most is not None and not abs(value) <= most:
            raise ModelError(f"{where}: {key[:60]!r} is {str(value)[:20]}: expected at most {most:,}")
