"""What a report is made of: the files of a result folder, read and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, RunFolderError
from ..files import MAYBE_NUMBER, NUMBER, check_shape
from ..metrics import measure_transfer
from ..predictions import Predictions
from ..results import SCAN_FILE, RunFolder, Thumbnail, read_scan, read_thumbnails

MODEL = {"reference": str}
IMAGES = {"reference": str, "samples": int}
CONFIG = {"student": MODEL, "teachers": [MODEL], "data": IMAGES, "val": IMAGES, "settings": {}}
ACCOUNT = {"student": str, "teachers": [str], "method": str}
POINT = {"share": NUMBER, "gain": MAYBE_NUMBER}
GUARD = {"share": NUMBER, "images": int, "points": [POINT]}
STEP = {"teacher": str}
CONTROL = {"transfer_delta_pp": MAYBE_NUMBER, "beyond_pp": MAYBE_NUMBER, "beyond_ci_pp": (list, type(None))}
LABELLED_EPOCH = {"epoch": int, "knowledge_gain": NUMBER, "knowledge_loss": NUMBER}
SEQUENCE_EPOCH = {"epoch": int, "step": int, "total_gain": NUMBER, "total_loss": NUMBER}
"""What must be there, as `files.check_shape` takes it. What earlier versions did not write stands below, with what it
counts as, or is measured anew."""
CONFIG_SINCE: dict[str, Any] = {"guard": None, "environment": {}}
ACCOUNT_SINCE = {"guard": None, "teacher_share": None, "temperatures": None, "control": None}
GUARD_SINCE = {"adapted": False, "labelled": True, "unguarded_delta_pp": None, "unguarded_delta_ci_pp": None}
POINT_SINCE = {"adapted": False, "measure": "accuracy", "error": None, "sure_gain": None, "veto": None}
TOLD_TWICE = ("samples", "accuracy_before", "accuracy_after", "agreement")
"""Measures that `result.json` and the predictions must agree on."""


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
    def is_step(self) -> bool:
        """Whether it is a part of a sequence or soup."""
        return self.folder.parent.name == "steps" and RunFolder(self.folder.parent.parent).config.exists()

    @property
    def sequential(self) -> bool:
        """Whether several teachers taught one after the other."""
        return bool(self.steps) and self.account["strategy"] == "sequential"

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
    """Read a result folder; what its version of gainfinder did not write yet is measured anew, where it can be.

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
    check_shape(config, CONFIG, folder.config)
    check_shape(account, ACCOUNT, folder.result)
    before, after, teachers = _read_predictions(folder, len(account["teachers"]))
    account = _completed(account, measure_transfer(before, after, teachers), folder.result)
    sequential = bool(account["steps"]) and account["strategy"] == "sequential"
    epochs = folder.read_epochs()
    if before.target is not None:
        check_shape(epochs, [SEQUENCE_EPOCH if sequential else LABELLED_EPOCH], folder.epochs)
    return TransferRecord(
        folder=path,
        account=account,
        config={**CONFIG_SINCE, **config},
        epochs=tuple(epochs),
        before=before,
        after=after,
        teachers=tuple(teachers),
        thumbnails=tuple(read_thumbnails(folder.thumbnails)),
        steps=tuple(_read_transfer(path / "steps" / str(number + 1)) for number in range(len(account["steps"]))),
    )


def _read_predictions(folder: RunFolder, teachers: int) -> tuple[Predictions, Predictions, list[Predictions | None]]:
    changed = "the folder has been changed since the transfer"
    try:
        before, after = (Predictions.load(folder.predictions / f"{name}.parquet") for name in ("before", "after"))
        found = [_read_teacher(folder, number + 1) for number in range(teachers)]
    except DataError as error:
        raise RunFolderError(f"{error}; {changed}") from error
    for other in (after, *found):
        if other is not None and (other.ids != before.ids or other.logits.shape != before.logits.shape):
            raise RunFolderError(f"{folder.predictions}: not all for the same images and classes; {changed}")
    return before, after, found


def _read_teacher(folder: RunFolder, number: int) -> Predictions | None:
    path = folder.predictions / f"teacher-{number}.parquet"
    return Predictions.load(path) if path.exists() else None


def _completed(account: Mapping[str, Any], measured: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """An account with all that this version writes."""
    # Intervals are kept as they were told: they depend on NumPy's generator.
    told_intervals = {name: account[name] for name in account.keys() & measured.keys() if "_ci" in name}
    whole: dict[str, Any] = {"steps": [], **ACCOUNT_SINCE, **account, **measured, **told_intervals}
    check_shape(account, {name: MAYBE_NUMBER for name in TOLD_TWICE if name in account}, path)
    for name in TOLD_TWICE:
        told, found = account.get(name, measured[name]), measured[name]
        if (told is None) != (found is None) or not (told is None or abs(told - found) < 1e-9):
            raise RunFolderError(f"{path}: {name} is {told}, and {found} by predictions/: not of the same transfer")
    for name in told_intervals:
        check_shape(whole[name], [NUMBER] if isinstance(measured[name], list) else type(None), path)
    check_shape(whole["steps"], [STEP], path)
    if whole["steps"]:
        check_shape(whole, {"strategy": str}, path)
    if whole["control"] is not None:
        check_shape(whole["control"], CONTROL, path)
    if whole["guard"] is not None:
        guard = {"points": [], **GUARD_SINCE, **whole["guard"]}
        check_shape(guard, GUARD, path)
        whole["guard"] = {**guard, "points": [{**POINT_SINCE, **point} for point in guard["points"]]}
    return whole


def _results_below(path: Path) -> str:
    """Names folders inside that hold results: a likely slip."""
    names = ("result.json", SCAN_FILE)
    found = sorted(child.name for child in path.iterdir() if any((child / name).exists() for name in names))
    return f"; did you mean {', '.join(str(path / name) for name in found[:3])}?" if found else ""
