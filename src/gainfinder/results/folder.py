"""The folder of one transfer: what is in it, who may write, and whether it holds the requested run.

config.json          the resolved run: models, images, settings, views, with digests; what was asked for, to do it again
                     (`config/run_file.py`); and the environment
epochs.jsonl         measures after each epoch, a row each
predictions/         before.parquet, after.parquet, teacher-1.parquet …, for the images measured on
student/             model.safetensors and, where the architecture's library has one, its configuration; and
                     README.md, its model card, which is written together with the report
candidate/           the student that a guard without labels did not keep, for a few labels to decide on: student/,
                     after.parquet and thumbnails.parquet, as they would have been
partition.parquet    which model teaches each transfer image, where that is decided once, before training
thumbnails.parquet   small copies of images on which the student's prediction changed
result.json          the metrics: what was gained and lost, see `metrics.py`; present when the run is finished
questions.csv        images to name the class of, see `questions.py`, and ask.html, a page to do it on
certificate.json     what the answers said
report.html          a page on it, with its figures and their rows in figures/; made of all the above
checkpoint.pt        state to resume from; removed when the run is finished
worked.json          how long the run has worked until it kept something last; removed likewise
tracking/            with trackers only: what they keep on disk, and what was logged to which; see `runs/tracking.py`
.lock, .running.json while a process writes: the lock, and which process has it
"""

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..config import first_few
from ..errors import DataError, RunFolderError
from ..files import parse_json, remove_partials, write_json
from ..metrics import TransferMeasures, measure_transfer
from ..predictions import IMAGE, NOUNS, Predictions
from .differences import differences, in_words
from .documents import read_json, unreadable, validated, written_to
from .metrics import EpochMetrics, TransferMetrics, Trial
from .migrations import is_current, migrated

LOCK = ".lock"
HOLDER = ".running.json"
"""Who has the lock: a file, for a lock does not say."""
REPORT_FILE = "report.html"
CARD_FILE = "README.md"
"""The model card, in the folder of the student."""
LOCK_WAIT_S = 10
TWO_WAY_FILE = "two-way.json"
DIRECTIONS = ("1", "2")
"""Names of the two result folders of a two-way transfer."""


class RunFolder:
    """The folder of one transfer, locked by one process (and its fellow processes) at a time.

    Use as a context manager around everything that writes.

    Args:
        path: the folder; created with its parents by `claim`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.epochs = path / "epochs.jsonl"
        self.trials = path / "trials.jsonl"
        self.predictions = path / "predictions"
        self.student = path / "student"
        self.candidate = path / "candidate"
        self.questions = path / "questions.csv"
        self.ask = path / "ask.html"
        self.certificate = path / "certificate.json"
        self.partition = path / "partition.parquet"
        self.thumbnails = path / "thumbnails.parquet"
        self.result = path / "result.json"
        self.report = path / REPORT_FILE
        self.checkpoint = path / "checkpoint.pt"
        self.worked = path / "worked.json"
        self.tracking = path / "tracking"
        # Worker processes of a killed run may hold the lock for some seconds longer.
        self._lock = FileLock(path / LOCK, timeout=LOCK_WAIT_S)
        self._holder = path / HOLDER

    def __enter__(self) -> "RunFolder":
        """Lock the folder.

        Raises:
            RunFolderError: another process has the lock, the folder holds something else, or it cannot be written.
        """
        try:
            _check_usable(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise RunFolderError(f"{self.path}: {self._who()} is writing to this folder; wait for it to end") from None
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot write to this folder: {error.strerror or error}") from error
        try:
            write_json(self._holder, {"pid": os.getpid(), "host": socket.gethostname(), "began": time.time()})
        except RunFolderError:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_held():
            self._holder.unlink(missing_ok=True)
        self._lock.release()

    @property
    def noun(self) -> str:
        """What a sample of the transfer is, by its configuration: `image` or `text`."""
        found = (self.read_config() or {}).get("val")
        noun = found.get("noun") if isinstance(found, Mapping) else None
        return noun if noun in NOUNS else IMAGE

    def check_in_place(self) -> None:
        """Make sure, before something is written, that the folder is still the one that was locked.

        Raises:
            RunFolderError: it was moved, removed or replaced meanwhile; nothing is written in its place.
        """
        if not self._is_held():
            raise RunFolderError(
                f"{self.path}: was moved or removed while the run wrote into it; put it back and give the same "
                "command, which then goes on from the last checkpoint"
            )

    def _is_held(self) -> bool:
        holder = self._read_holder()
        return holder.get("pid") == os.getpid() and holder.get("host") == socket.gethostname()

    def _read_holder(self) -> dict[str, Any]:
        try:
            found = parse_json(self._holder.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _who(self) -> str:
        holder = self._read_holder()
        return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another run"

    def claim(self, config: Mapping[str, Any]) -> bool:
        """Make this the folder of the run with that configuration, and clear away what a killed process left there.

        Returns:
            Whether the run was in the folder already (finished or not).

        Raises:
            RunFolderError: it holds a different run; the first few differences are named, and nothing is changed.
        """
        exists = self.check(config)
        for folder in (self.path, self.predictions):
            remove_partials(folder)
        if not exists:
            write_json(self.config, config)
        return exists

    def check(self, config: Mapping[str, Any]) -> bool:
        """Whether the folder holds the run with that configuration; nothing is written.

        Raises:
            RunFolderError: it holds a different run, or other files.
        """
        _check_usable(self.path)
        with written_to():
            existing = self.read_config()
        if existing is not None and (found := differences(existing, config)):
            told = first_few(in_words(found, config, asked=True))
            raise RunFolderError(
                f"{self.path}: holds a different run; nothing was changed. Differing: {told}. "
                f"Give the same settings, or another `out`{_former(existing)}"
            )
        return existing is not None

    def read_config(self) -> dict[str, Any] | None:
        """The configuration in the folder, or None.

        Raises:
            RunFolderError: it is damaged.
        """
        return read_json(self.config)

    def read_epochs(self) -> list[EpochMetrics]:
        """The measures after each epoch.

        Raises:
            RunFolderError: they are missing or damaged.
        """
        return [validated(EpochMetrics, row, self.epochs) for row in _read_lines(self.epochs)]

    def read_trials(self) -> list[Trial]:
        """The trials that are finished; none where there is no file.

        Raises:
            RunFolderError: the file is damaged.
        """
        rows = _read_lines(self.trials) if self.trials.exists() else []
        return [validated(Trial, row, self.trials) for row in rows]

    def read_result(self) -> TransferMetrics | None:
        """The result in the folder, also of an earlier version, or None where the run is not finished.

        Raises:
            RunFolderError: it is damaged, or of a newer version.
        """
        document = read_json(self.result)
        if document is None:
            return None
        current = migrated(document, self.result, measure=lambda: self._measured(document))
        return validated(TransferMetrics, current, self.result)

    def write_result(self, metrics: TransferMetrics) -> None:
        """Write the result atomically.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.result, metrics.to_dict(), within=self.path)

    def read_worked(self) -> float | None:
        """Seconds that the run in progress had worked when it kept something last; None where no file says it."""
        try:
            found = parse_json(self.worked.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        seconds = found.get("seconds") if isinstance(found, dict) else None
        return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < math.inf else None

    def write_worked(self, seconds: float) -> None:
        """Write how long the run has worked, atomically.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.worked, {"seconds": seconds}, within=self.path)

    def remove_state(self) -> None:
        """Remove what only a run that is not finished needs."""
        self.checkpoint.unlink(missing_ok=True)
        self.worked.unlink(missing_ok=True)

    def read_predictions(self, teachers: int) -> tuple[Predictions, Predictions, list[Predictions | None]]:
        """Predictions for the images measured on: before, after, and each teacher's (None for a table without them).

        Args:
            teachers: number of teachers.

        Raises:
            RunFolderError: they are missing, damaged, or not for the same images and classes.
        """
        changed = "the folder has been changed since the transfer"
        try:
            before, after = (Predictions.load(self.predictions / f"{name}.parquet") for name in ("before", "after"))
            paths = [self.predictions / f"teacher-{number}.parquet" for number in range(1, teachers + 1)]
            found = [Predictions.load(path) if path.exists() else None for path in paths]
        except DataError as error:
            raise RunFolderError(f"{error}; {changed}") from error
        for other in (after, *found):
            if other is not None and (other.ids != before.ids or other.logits.shape != before.logits.shape):
                raise RunFolderError(f"{self.predictions}: not all for the same {before.noun}s and classes; {changed}")
        return before, after, found

    def _measured(self, document: Mapping[str, Any]) -> TransferMeasures:
        teachers = document.get("teachers")
        if not isinstance(teachers, list):
            raise unreadable(self.result, "no teachers")
        return measure_transfer(*self.read_predictions(len(teachers)))


def ways_begun(path: Path) -> list[str]:
    """Names of the result folders in a folder as a two-way transfer has them; none of a run of one way."""
    return [name for name in DIRECTIONS if RunFolder(path / name).config.exists()]


def _former(existing: Mapping[str, Any]) -> str:
    """Of a run by a version whose settings by rule were others: how to get those."""
    settings = existing.get("settings")
    if not isinstance(settings, Mapping) or is_current(settings):
        return ""
    return "; an earlier version made it, whose rules preset 'gentle' (--preset gentle) still has"


def _read_lines(path: Path) -> list[Any]:
    """The JSON objects in a file, one a line."""
    try:
        rows = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if strange := [number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)]:
        raise unreadable(path, f"line {strange[0]} is no object")
    return rows


def _check_usable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise RunFolderError(f"{path}: is a file; expected a folder or a name that is free")
    names = {child.name for child in path.iterdir()} - {LOCK}
    begun = ways_begun(path)
    if "config.json" in names:
        with written_to():
            read_json(path / "config.json")
    elif TWO_WAY_FILE in names or begun:
        found = f"results in {' and '.join(begun)}, as a two-way transfer does"
        raise RunFolderError(
            f"{path}: holds {'a two-way transfer' if TWO_WAY_FILE in names else found}, and a transfer one way needs a "
            "folder of its own; choose another `out`"
        )
    elif any(not name.startswith(".") for name in names):
        raise RunFolderError(
            f"{path}: holds files but no run of gainfinder ({', '.join(sorted(names)[:3])}); choose an empty `out`"
        )
