"""The folder of a scan that is kept: what was measured, the report that is made from it, the models' predictions.

scan.json            the models and all of the scan but its pairs; the pairs, too, in folders of earlier versions
pairs.parquet        all ordered pairs, a row each, a column a measure
predictions/         the models' predictions, a file each, see `zoo/kept.py`
report.html          a page on it, with its figures and their rows in figures/; made of the first two
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import RunFolderError
from ..files import PARTIAL, check_writable, parse_json, remove_partials, write_atomically, write_json
from .documents import read_json, unreadable, validated, written_to
from .metrics import Record

SCAN_FILE = "scan.json"
SCAN_PAIRS = "pairs.parquet"
RANKING_FILE = "ranking.json"
"""A ranking of teachers, beside a scan or alone."""
SCAN_PREDICTIONS = "predictions"
_NAME = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    "student": _NAME,
    "teacher": _NAME,
    "area_sizes": pa.list_(pa.int32()),
    "area_similarity": pa.list_(pa.float64()),
}
"""Of a pair's columns; those of all others are numbers, float64, null where there is none."""


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


class _PairsFile(Record):
    """Where the pairs are, and the file's digest: a scan that was killed may leave it newer than `scan.json`."""

    file: str
    rows: int
    sha256: str


class _Scan(Record):
    """The required keys of `scan.json`; a reader gets the whole document."""

    models: tuple[_Model, ...]
    pairs: _PairsFile | tuple[_Pair, ...]
    samples: int
    noun: Literal["image", "text"] = "image"
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
        with written_to():
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
    with written_to():
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
    return child.name.startswith(PARTIAL) or child.name == (SCAN_PREDICTIONS if child.is_dir() else SCAN_PAIRS)


def write_scan(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a scan (`Scan.to_dict`, with what it was made of), each file atomically, its pairs first.

    301 models have 90,300 pairs, which are columns of numbers: as JSON they take twenty times the room and the time.
    """
    rows: Sequence[Mapping[str, Any]] = document["pairs"]
    content = io.BytesIO()
    pq.write_table(_table(rows), content, compression="zstd")
    write_atomically(folder / SCAN_PAIRS, lambda partial: _write(partial, content.getvalue()))
    pairs = {"file": SCAN_PAIRS, "rows": len(rows), "sha256": hashlib.sha256(content.getvalue()).hexdigest()}
    write_json(folder / SCAN_FILE, {**document, "pairs": pairs})


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
    """Read `scan.json`: all that `write_scan` was given but the pairs, see `read_pairs`.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    path = folder / SCAN_FILE
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    validated(_Scan, document, path)
    found: dict[str, Any] = document
    return found


def read_pairs(folder: Path, document: Mapping[str, Any]) -> pa.Table:
    """The ordered pairs of a scan, a row each, in the order of the models: the student's first, then the teacher's.

    Args:
        folder: the scan's folder.
        document: the scan, as `read_scan` gives it. One of an earlier version holds the pairs, and not all measures.

    Returns:
        The columns `student` and `teacher`, references, and the measures that there are (`ScannedPair`).

    Raises:
        RunFolderError: the pairs are missing, damaged, or not of this scan.
    """
    pairs = document["pairs"]
    if not isinstance(pairs, Mapping):
        return _table(pairs)
    path = folder / SCAN_PAIRS
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != pairs["sha256"]:
            raise unreadable(path, f"it is not of the scan in {SCAN_FILE}")
        table = pq.read_table(io.BytesIO(content))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    return table


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = pa.schema([(name, _TYPES.get(name, pa.float64())) for name in rows[0]])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
