"""What a report is made of: the files of a result folder, read and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, RunFolderError
from ..predictions import Predictions
from ..run_folder import RunFolder
from ..scan_folder import SCAN_FILE, read_scan
from ..thumbnails import Thumbnail, read_thumbnails


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """A finished transfer; a sequence or soup holds one for each of its steps.

    Attributes:
        folder: where it lies.
        account: as `result.json` holds it.
        config: as `config.json` holds it.
        epochs: measures after each epoch, a row each; of all steps for several teachers one after the other.
        before: the initial student's predictions for the images measured on.
        after: the transferred student's.
        teachers: each teacher's, or None for a table that does not hold all of these images.
        thumbnails: of images on which the student's answer changed.
        steps: the transfers that a sequence or soup is made of.
    """

    folder: Path
    account: Mapping[str, Any]
    config: Mapping[str, Any]
    epochs: tuple[dict[str, Any], ...]
    before: Predictions
    after: Predictions
    teachers: tuple[Predictions | None, ...]
    thumbnails: tuple[Thumbnail, ...]
    steps: "tuple[TransferRecord, ...]" = ()

    @property
    def labelled(self) -> bool:
        """Whether the images measured on carry labels."""
        return self.before.target is not None

    @property
    def guards(self) -> tuple[Mapping[str, Any], ...]:
        """What guards decided: the transfer's own, and those of its steps."""
        accounts = (self.account, *(step.account for step in self.steps))
        return tuple(account["guard"] for account in accounts if account["guard"] is not None)

    @property
    def known_teachers(self) -> tuple[Predictions, ...]:
        """The teachers whose predictions are there."""
        return tuple(teacher for teacher in self.teachers if teacher is not None)


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """A scan that was kept.

    Attributes:
        folder: where it lies.
        document: as `scan.json` holds it.
    """

    folder: Path
    document: Mapping[str, Any]


Record = TransferRecord | ScanRecord


def read_record(folder: Path) -> Record:
    """Read a result folder.

    Raises:
        RunFolderError: it holds no finished result of gainfinder, or a damaged one.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: there is no such folder; expected one that a transfer or a scan left")
    if (folder / SCAN_FILE).exists():
        return ScanRecord(folder=folder, document=read_scan(folder))
    return _read_transfer(folder)


def _read_transfer(path: Path) -> TransferRecord:
    folder = RunFolder(path)
    config, account = folder.read_config(), folder.read_result()
    if config is None:
        raise RunFolderError(f"{path}: holds no result of gainfinder{_results_below(path)}")
    if account is None:
        raise RunFolderError(f"{path}: this transfer is not finished; run its command again, which goes on with it")
    count = len(account["teachers"])
    try:
        before, after = (Predictions.load(folder.predictions / f"{name}.parquet") for name in ("before", "after"))
        teachers = [_read_teacher(folder, number) for number in range(1, count + 1)]
    except DataError as error:
        raise RunFolderError(f"{error}; the folder has been changed since the transfer") from error
    steps = range(1, len(account.get("steps") or ()) + 1)
    return TransferRecord(
        folder=path,
        account=account,
        config=config,
        epochs=tuple(folder.read_epochs()),
        before=before,
        after=after,
        teachers=tuple(teachers),
        thumbnails=tuple(read_thumbnails(folder.thumbnails)),
        steps=tuple(_read_transfer(path / "steps" / str(number)) for number in steps),
    )


def _read_teacher(folder: RunFolder, number: int) -> Predictions | None:
    path = folder.predictions / f"teacher-{number}.parquet"
    return Predictions.load(path) if path.exists() else None


def _results_below(path: Path) -> str:
    """Names folders inside that hold results: a likely slip."""
    names = ("result.json", SCAN_FILE)
    found = sorted(child.name for child in path.iterdir() if any((child / name).exists() for name in names))
    return f"; did you mean {', '.join(str(path / name) for name in found[:3])}?" if found else ""
