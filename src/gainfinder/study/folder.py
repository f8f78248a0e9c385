"""The folder of a study: its cells, who is at work on them, and what went wrong.

study.json       the study as it was last run
cells/KEY/       a cell: the folder of a transfer (`results/folder.py`), and cell.json, written last: it is done
failed/KEY.json  why a cell failed; removed when it is tried again
running/KEY.json how far the worker on a cell is, renewed every few seconds
logs/KEY.log     what a cell's worker noted
locks/           which cells are taken
bank/            the frozen models' logits for their views, of all cells
report/          tables, figures, a page and all rows
"""

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from ..errors import RunFolderError
from ..files import PARTIAL, check_writable, parse_json, write_json, write_text
from ..redaction import redacted
from ..results import RunFolder
from .cells import BANK, Cell, study_cells
from .document import StudyDocument

CELL_FILE = "cell.json"
"""What says that a cell is done; its measures beyond `result.json` (`measures.CellMeasures`)."""
STALE_S = 60.0
"""A worker that has not renewed its note for so long is taken for gone."""


NOTED: Mapping[str, tuple[type, ...]] = {
    "cell": (str,),
    "label": (str,),
    "worker": (int,),
    "host": (str,),
    "pid": (int,),
    "stage": (str,),
    "trained": (int,),
    "epoch": (int,),
    "epochs": (int, type(None)),
    "share": (int, float),
    "delta_pp": (float, type(None)),
    "spent_s": (int, float),
}
"""What a worker notes, and its types; a note with another is none."""


class CellState(StrEnum):
    """What has become of a cell."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a cell failed.

    Attributes:
        error: the error in one line.
        kind: name of the error's class.
        trace: where it happened; empty for a mistake that the message explains.
        when: seconds since 1970.
        host: machine it happened on.
    """

    error: str
    kind: str
    trace: str
    when: float
    host: str


class StudyFolder:
    """The folder of a study.

    Args:
        path: the folder; created by `claim`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.document = self.path / "study.json"
        self.cells = self.path / "cells"
        self.bank = self.path / BANK
        self.report = self.path / "report"
        self._failed = self.path / "failed"
        self._running = self.path / "running"
        self._logs = self.path / "logs"
        self._locks = self.path / "locks"

    def claim(self, study: StudyDocument) -> None:
        """Make this the folder of a study; one of a study of that name may be grown by other values.

        Raises:
            RunFolderError: it holds something else, or cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file; expected a folder or a name that is free")
        there = [] if not self.path.exists() else [child.name for child in self.path.iterdir()]
        if not self.document.exists() and any(not name.startswith(PARTIAL) for name in there):
            raise RunFolderError(
                f"{self.path}: holds files but no study of gainfinder ({', '.join(sorted(there)[:3])}); choose an "
                "empty `out`"
            )
        if self.document.exists() and (name := self.read().study.name) != study.study.name:
            raise RunFolderError(
                f"{self.path}: holds the study {name!r}, not {study.study.name!r}; nothing was changed. Choose another "
                "`out`"
            )
        check_writable(self.document)
        write_text(self.document, study.to_json())
        for folder in (self.cells, self._failed, self._running, self._logs, self._locks):
            folder.mkdir(exist_ok=True)

    def read(self) -> StudyDocument:
        """The study as it was last run.

        Raises:
            RunFolderError: the folder holds none, or a damaged one.
        """
        try:
            return StudyDocument.from_json(self.document.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: holds no study ({error.strerror or error}); expected the `out` of `gainfinder study run`"
            ) from error
        except Exception as error:
            raise RunFolderError(f"{self.document}: {error}") from error

    def all_cells(self) -> list[Cell]:
        """The cells of the study as it was last run."""
        return study_cells(self.read(), self.path)

    def run_folder(self, cell: Cell) -> RunFolder:
        """The result folder of a cell."""
        return RunFolder(self.cells / cell.key)

    def kept(self, cell: Cell) -> set[tuple[str, int]]:
        """What a cell's workers have left so far to those after them: another value whenever that has become more.

        It becomes so with predictions, a trial or a checkpoint of the run, and with the result of each of its parts.
        """
        run = self.run_folder(cell)
        found = set()
        for path in (path for name in (run.worked.name, run.result.name) for path in run.path.rglob(name)):
            with contextlib.suppress(FileNotFoundError):  # another worker may be at the cell by now
                found.add((path.relative_to(run.path).as_posix(), path.stat().st_mtime_ns))
        return found

    def log(self, cell: Cell) -> Path:
        """The file of what a cell's worker noted."""
        return self._logs / f"{cell.key}.log"

    def lock(self, name: str) -> FileLock | None:
        """The lock of a cell or of a group of cells, taken; None where another process has it.

        It is free again when the process ends, however it ends.
        """
        lock = FileLock(self._locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell's measures are complete."""
        folder = self.run_folder(cell)
        return (folder.path / CELL_FILE).exists() and folder.result.exists()

    def state(self, cell: Cell) -> CellState:
        """What has become of a cell, by what is on disk."""
        if self.is_done(cell):
            return CellState.DONE
        if self.progress(cell) is not None:
            return CellState.RUNNING
        return CellState.FAILED if self._failure_file(cell).exists() else CellState.MISSING

    def states(self, cells: Sequence[Cell]) -> dict[str, CellState]:
        """The state of each cell, by its key."""
        return {cell.key: self.state(cell) for cell in cells}

    def finish(self, cell: Cell, measures: Mapping[str, Any]) -> None:
        """Note that a cell is done, with its measures."""
        write_json(self.run_folder(cell).path / CELL_FILE, measures)
        self._failure_file(cell).unlink(missing_ok=True)

    def fail(self, cell: Cell, failure: Failure) -> None:
        """Note that a cell failed, and why, without secrets."""
        told = {name: redacted(value) if isinstance(value, str) else value for name, value in vars(failure).items()}
        write_json(self._failure_file(cell), told)

    def failure(self, cell: Cell) -> Failure | None:
        """Why a cell failed; None where it did not."""
        try:
            return TypeAdapter(Failure).validate_python(
                parse_json(self._failure_file(cell).read_text(encoding="utf-8"))
            )
        except (OSError, ValueError):
            return None

    def has_failed(self, cell: Cell) -> bool:
        """Whether a cell failed and is not to be tried again."""
        return self._failure_file(cell).exists()

    def is_open(self, cell: Cell) -> bool:
        """Whether a cell is left to do: neither done nor failed."""
        return not self.is_done(cell) and not self.has_failed(cell)

    def forgive(self, cell: Cell) -> None:
        """Forget that a cell failed: it is tried again."""
        self._failure_file(cell).unlink(missing_ok=True)

    def note_progress(self, cell: Cell, progress: Mapping[str, Any]) -> None:
        """Note how far a cell's worker is; not synced: after a crash of the machine nobody is at work."""
        path = self._note(cell)
        partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
        partial.write_text(json.dumps(progress), encoding="utf-8")
        partial.replace(path)

    def end_progress(self, cell: Cell) -> None:
        """Note that nobody is at work on a cell."""
        self._note(cell).unlink(missing_ok=True)

    def progress(self, cell: Cell) -> dict[str, Any] | None:
        """How far the worker on a cell is; None where nobody is at work on it."""
        try:
            age_s = abs(time.time() - self._note(cell).stat().st_mtime)
        except OSError:
            return None
        found = self.last_note(cell)
        gone = found.get("host") == socket.gethostname() and not psutil.pid_exists(found.get("pid", -1))
        blank = {"label": cell.label, "worker": 0, "stage": "", "share": 0.0}
        return None if age_s > STALE_S or gone or not found else {**blank, **found}

    def last_note(self, cell: Cell) -> dict[str, Any]:
        """What the last worker on a cell noted, also of one that is gone; empty where nobody was since it ended."""
        try:
            found = parse_json(self._note(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and all(map(_is_noted, found.items())) else {}

    def _note(self, cell: Cell) -> Path:
        return self._running / f"{cell.key}.json"

    def _failure_file(self, cell: Cell) -> Path:
        return self._failed / f"{cell.key}.json"


def _is_noted(item: tuple[str, Any]) -> bool:
    """Whether a key of a note has a value as workers write it; keys of other versions may have any."""
    name, value = item
    if not isinstance(value, NOTED.get(name, object)) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    return not isinstance(value, int) or 0 <= value < 2**31 or name == "trained"
