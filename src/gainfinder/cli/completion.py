"""What the shell completes as values of options; nothing here imports torch, since every TAB starts it.

Where a completer offers nothing, bash, zsh and fish offer files and folders, which is right for images, `--out` and the
like. bash takes `local-dir:pho` for several words, the last of them `pho`, and so completes the path by itself.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, get_type_hints

from typer.models import ParameterInfo

from ..config import METHODS, RULES, SETTINGS

Command = TypeVar("Command", bound=Callable[..., None])
Completer = Callable[[str], Sequence[str | tuple[str, str]]]
"""From the word so far to the words that it can become, each alone or with its meaning."""

CHOICES = {one.name: one.choices for one in SETTINGS if one.choices}
"""Options with a fixed set of values."""
PATHS = {"local-dir": (), "hf": (), "file": (".py",), "onnx": (".onnx",), "table": (".parquet", ".csv")}
"""Prefixes of model references that a path follows: a folder, or a file of these endings."""
NAMES = ("hf-hub", "torchvision")
"""Prefixes of model references that no path follows."""


def completing(command: Command) -> Command:
    """The command, its options given their completers."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        for info in getattr(hint, "__metadata__", ()):
            if isinstance(info, ParameterInfo):
                info.autocompletion = completer_of(name)
    return command


def completer_of(option: str) -> Completer:
    """What completes an option's values."""
    if option in CHOICES:
        return _one_of(CHOICES[option])
    others: dict[str, Completer] = {
        "by": _one_of(RULES),
        "method": _methods,
        "model": _models,
        "student": _models,
        "teacher": _teachers,
        "referee": _teachers,
    }
    return others.get(option, _nothing)


def _one_of(values: tuple[str, ...]) -> Completer:
    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def _nothing(incomplete: str) -> list[str]:
    """For paths: left alone, older versions of Typer offer the word so far, and the shell then nothing of its own."""
    return []


def _methods(incomplete: str) -> list[tuple[str, str]]:
    return [(method.name, method.summary) for method in METHODS if method.name.startswith(incomplete)]


def _models(incomplete: str) -> list[str]:
    return [found for found in _teachers(incomplete) if not found.startswith("table:")]


def _teachers(incomplete: str) -> list[str]:
    prefix, colon, path = incomplete.partition(":")
    if colon:
        return [f"{prefix}:{found}" for found in _paths(path, PATHS[prefix])] if prefix in PATHS else []
    found = [f"{one}:" for one in (*PATHS, *NAMES) if one.startswith(incomplete)]
    # bash would put a space behind the only one that fits
    in_bash = os.environ.get("_GAINFINDER_COMPLETE") == "complete_bash"
    return [] if in_bash and len(found) == 1 else found


def _paths(start: str, endings: tuple[str, ...]) -> list[str]:
    """Folders, each with a slash, and files of these endings, whose paths begin with `start`."""
    head, slash, name = start.rpartition("/")
    try:
        entries = sorted(Path(head + slash).expanduser().iterdir())
    except (OSError, RuntimeError):  # no such folder, or no such user's
        return []
    return [
        head + slash + entry.name + ("/" if entry.is_dir() else "")
        for entry in entries
        if entry.name.startswith(name) and (name or not entry.name.startswith("."))
        if entry.is_dir() or entry.name.endswith(endings)
    ]
