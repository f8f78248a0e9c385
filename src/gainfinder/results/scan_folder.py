"""The folder of a scan that is kept: scan.json, the report that is made from it, and the models' predictions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunFolderError
from ..files import PARTIAL, check_writable, remove_partials, write_json, write_text
from .documents import read_json, validated
from .metrics import Record

SCAN_FILE = "scan.json"
RANKING_FILE = "ranking.json"
"""A ranking of teachers, beside a scan or alone."""
SCAN_PREDICTIONS = "predictions"
"""Folder of the models' predictions in it, a file each (`zoo/kept.py`)."""


class _Model(Record):
    model: str
    accuracy: float | None


class _Pair(Record):
    student: str
    teacher: str
    delta_acc_pp: float | None
    positive_flips: float | None
    negative_flips: float | None
    flip_entropy: float | None


class _Scan(Record):
    """The required keys of `scan.json`; a reader gets the whole document."""

    models: tuple[_Model, ...]
    pairs: tuple[_Pair, ...]
    samples: int
    data: str
    asked: tuple[str, ...]


class _Ranking(Record):
    """The required keys of `ranking.json`."""

    student: str
    data: str


def claim_scan_folder(folder: Path, *, models: Sequence[str], data: str) -> None:
    """Find out before the work is done whether a scan can be kept here.

    The folder must not exist, be empty, hold what a stopped scan left, or a scan on the same images of these models or
    some of them, which is made anew.

    Args:
        folder: the scan's folder.
        models: the requested models, as given.
        data: the data reference, as given.

    Raises:
        RunFolderError: it holds something else, or cannot be written.
    """
    _check_is_ours(folder, data=data)
    if (folder / SCAN_FILE).exists():
        existing = read_scan(folder)
        if lost := [model for model in existing["asked"] if model not in models]:
            raise RunFolderError(
                f"{folder}: holds a scan of {len(existing['asked'])} models, of which {len(lost)} are not asked for "
                f"now, such as {lost[0]}; nothing was changed. Name them, too, or choose another `out`"
            )
    check_writable(folder / SCAN_FILE)
    remove_partials(folder)  # of a scan that was killed


def claim_ranking_folder(folder: Path, *, data: str) -> None:
    """Find out before the work is done whether a ranking can be kept here.

    The folder must not exist, be empty, or hold a ranking or scan on the same images, of whatever models, whose
    predictions are used; a ranking is replaced.

    Args:
        folder: the ranking's folder.
        data: the data reference, as given.

    Raises:
        RunFolderError: it holds something else, or cannot be written.
    """
    _check_is_ours(folder, data=data)
    check_writable(folder / RANKING_FILE)
    remove_partials(folder)


def _check_is_ours(folder: Path, *, data: str) -> None:
    """Refuse a folder with other files, or on other images."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file; expected a folder or a name that is free")
    found = {"scan": read_scan(folder) if (folder / SCAN_FILE).exists() else None, "ranking": read_ranking(folder)}
    for what, existing in found.items():
        if existing is not None and existing["data"] != data:
            raise RunFolderError(
                f"{folder}: holds a {what} on {existing['data']}, not {data}; nothing was changed. Choose another `out`"
            )
    if not any(found.values()) and folder.exists() and any(not _is_left(child) for child in folder.iterdir()):
        raise RunFolderError(f"{folder}: holds files but no scan of gainfinder; choose an empty `out`")


def _is_left(child: Path) -> bool:
    """Whether it is something that a stopped scan leaves."""
    return child.name.startswith(PARTIAL) or (child.name == SCAN_PREDICTIONS and child.is_dir())


def write_scan(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a scan (`Scan.to_dict`, with what it was made of) atomically: a line a row, for 301 models have 90,300."""
    parts = []
    for key, value in document.items():
        is_rows = isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value)
        lines = [f"    {json.dumps(one, ensure_ascii=False)}" for one in value] if is_rows else []
        text = "[\n" + ",\n".join(lines) + "\n  ]" if is_rows else json.dumps(value, ensure_ascii=False)
        parts.append(f"  {json.dumps(key)}: {text}")
    write_text(folder / SCAN_FILE, "{\n" + ",\n".join(parts) + "\n}\n")


def write_ranking(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a ranking (`Ranking.to_dict`, with what it was made of) atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RANKING_FILE, document)


def read_ranking(folder: Path) -> dict[str, Any] | None:
    """Read what `write_ranking` wrote; None where there is none.

    Raises:
        RunFolderError: it is damaged.
    """
    document = read_json(folder / RANKING_FILE)
    if document is not None:
        validated(_Ranking, document, folder / RANKING_FILE)
    return document


def read_scan(folder: Path) -> dict[str, Any]:
    """Read what `write_scan` wrote.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    path = folder / SCAN_FILE
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: not as gainfinder wrote it ({error}); nothing was changed") from error
    validated(_Scan, document, path)
    found: dict[str, Any] = document
    return found
