"""The results of transfers under a folder, a row each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import NOT_AS_WRITTEN, DamagedFile, DataError, RunFolderError
from ..files import parse_json
from ..metrics import Interval
from ..predictions import IMAGE
from .config import RunConfig
from .documents import validated
from .folder import RunFolder
from .metrics import Record, TransferMetrics
from .scan_folder import SCAN_FILE


class ListedResult(Record):
    """A finished transfer.

    Attributes:
        folder: its folder, relative to the one that was listed; `.` for that folder itself.
        student: reference of the student.
        teachers: references of the teachers.
        method: name of the method.
        strategy: `sequential` or `soup`; null where one transfer is all.
        val: reference of the images measured on.
        images: number of images measured on.
        noun: what a sample is: `image` or `text`.
        accuracy_before: accuracy of the student that was given; null without labels.
        accuracy_after: accuracy of the student that is kept; null without labels.
        transfer_delta_pp: transfer delta in percentage points; null without labels.
        transfer_delta_ci_pp: its 95 % interval; null without labels.
        knowledge_gain: share of the images gained; null without labels.
        knowledge_loss: share of the images lost; null without labels.
        guarded: whether there was a guard.
        kept_initial: whether the student that was given was kept; null without a guard.
        guard_certificate: what speaks for the student that the guard kept, in words; null where nothing does.
        labels_verdict: what a few labels said: `better`, `not better`, `not yet known`; null where none were asked for.
        diverged: whether training left all bounds.
        finished: when it was finished, in seconds since 1970; null in files of earlier versions.
        seconds: how long it worked, without pauses between a kill and the next start; null likewise, and where an
            earlier version began it.
    """

    folder: str
    student: str
    teachers: tuple[str, ...]
    method: str
    strategy: str | None
    val: str
    images: int
    noun: str = IMAGE
    accuracy_before: float | None
    accuracy_after: float | None
    transfer_delta_pp: float | None
    transfer_delta_ci_pp: Interval | None
    knowledge_gain: float | None
    knowledge_loss: float | None
    guarded: bool
    kept_initial: bool | None
    guard_certificate: str | None
    labels_verdict: str | None
    diverged: bool
    finished: float | None
    seconds: float | None

    @property
    def certificate(self) -> str:
        """What vouches for the student, in a few words.

        Labels count more than the guard, and the guard more than nothing.
        """
        if self.labels_verdict is not None:
            return f"{self.labels_verdict}, by labels"
        if self.diverged:
            return "diverged"
        if not self.guarded:
            return "no guard"
        if self.kept_initial:
            return "the given student was kept"
        return "guard"


class UnlistedResult(Record):
    """A folder of a transfer that has no result, or one that cannot be read.

    Attributes:
        folder: the folder, relative to the one that was listed.
        reason: why; of what is damaged, the file in it and what is wrong with that.
    """

    folder: str
    reason: str


class Listing(Record):
    """What was found under a folder.

    Attributes:
        folder: the folder.
        results: finished transfers; the largest transfer delta first, those without labels last, by folder.
        others: folders of transfers that are not finished or damaged, by folder.
    """

    folder: str
    results: tuple[ListedResult, ...]
    others: tuple[UnlistedResult, ...]

    @property
    def noun(self) -> str:
        """What a sample of all results is; `sample` where they are of several kinds."""
        nouns = {one.noun for one in self.results} or {IMAGE}
        return nouns.pop() if len(nouns) == 1 else "sample"


def list_results(folder: str | Path) -> Listing:
    """Find the results of transfers under a folder, however deep; parts of a result (steps, controls) count as it.

    Symbolic links to folders are not followed, nor hidden folders looked into.

    Args:
        folder: a folder of result folders, such as a study's, or a result folder.

    Raises:
        RunFolderError: it is no folder, or cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RunFolderError(f"{root}: is no folder: expected one with results of transfers under it")
    results: list[ListedResult] = []
    others: list[UnlistedResult] = []
    for path in _run_folders(root):
        name = path.relative_to(root).as_posix()
        try:
            results.append(_listed(RunFolder(path), name))
        except _OfAnotherKind:
            continue
        except _Unfinished:
            others.append(UnlistedResult(folder=name, reason="not finished"))
        except (RunFolderError, DataError, OSError) as error:
            others.append(UnlistedResult(folder=name, reason=_reason(error, path)))
    return Listing(folder=str(root), results=tuple(sorted(results, key=_rank)), others=tuple(others))


class _OfAnotherKind(Exception):
    """A folder is that of something else, such as a head fitted to a model."""


class _Unfinished(Exception):
    """A folder has no result yet."""


def _rank(one: ListedResult) -> tuple[bool, float, str]:
    return one.transfer_delta_pp is None, -(one.transfer_delta_pp or 0.0), one.folder


def _run_folders(root: Path) -> Iterator[Path]:
    """The folders of transfers under a folder, by name, without those within them."""

    def fail(error: OSError) -> None:
        if Path(error.filename) == root:
            raise RunFolderError(f"{root}: cannot be listed: {error.strerror}") from error

    for path, folders, files in os.walk(root, onerror=fail):
        if _is_run(Path(path), set(files), set(folders)):
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _reason(error: Exception, path: Path) -> str:
    """What is wrong in a folder, which is named beside it; what to do would depend on what it is wanted for."""
    if isinstance(error, DamagedFile) and error.path.is_relative_to(path):
        return f"{error.path.relative_to(path)}: {NOT_AS_WRITTEN} ({error.reason})"
    return str(error).removeprefix(f"{path}{os.sep}").removeprefix(f"{path}: ")


def _is_run(path: Path, files: set[str], folders: set[str]) -> bool:
    """Whether a folder is that of a transfer: a model's folder, too, has a `config.json`."""
    if SCAN_FILE in files:
        return False
    if "config.json" not in files:
        left = bool(files & {"epochs.jsonl", "thumbnails.parquet"}) or "predictions" in folders
        return "result.json" in files and (left or _describes_transfer(path / "result.json"))
    return bool(files & {"result.json", "epochs.jsonl", "checkpoint.pt", ".lock"}) or "predictions" in folders


def _describes_transfer(path: Path) -> bool:
    """Whether a `result.json` is a transfer's: other programs, too, give their files this name."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"student", "teachers", "method"} <= found.keys()


def _listed(folder: RunFolder, name: str) -> ListedResult:
    document = folder.read_config()
    if document is None:
        raise RunFolderError(f"{folder.config}: is missing")
    if "teachers" not in document:
        raise _OfAnotherKind
    metrics = folder.read_result()
    if metrics is None:
        raise _Unfinished
    config = validated(RunConfig, document, folder.config)
    return ListedResult(
        folder=name,
        student=metrics.student,
        teachers=metrics.teachers,
        method=metrics.method,
        strategy=metrics.strategy,
        val=config.val.reference,
        images=config.val.samples,
        noun=config.val.noun,
        accuracy_before=metrics.accuracy_before,
        accuracy_after=metrics.accuracy_after,
        transfer_delta_pp=metrics.transfer_delta_pp,
        transfer_delta_ci_pp=metrics.transfer_delta_ci_pp,
        knowledge_gain=metrics.knowledge_gain,
        knowledge_loss=metrics.knowledge_loss,
        labels_verdict=None if metrics.certificate is None else metrics.certificate.verdict,
        diverged=metrics.diverged is not None,
        finished=metrics.finished,
        seconds=metrics.seconds,
        **_guarded(metrics),
    )


def _guarded(metrics: TransferMetrics) -> dict[str, Any]:
    """What the guard said; that of a sequence is the last step's."""
    guard = metrics.guard
    if guard is None and metrics.steps:
        guard = metrics.steps[-1].guard
    if guard is None:
        return {"guarded": False, "kept_initial": None, "guard_certificate": None}
    kept_initial = guard.kept_initial
    if metrics.guard is None:  # each step may have kept what the one before it left
        kept_initial = all(one.guard is not None and one.guard.kept_initial for one in metrics.steps)
    return {"guarded": True, "kept_initial": kept_initial, "guard_certificate": guard.certificate}
