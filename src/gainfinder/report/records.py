"""The input of a report: the files of a result folder, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import RunFolderError
from ..metrics import TransferMeasures, measure_transfer
from ..predictions import IMAGE, Predictions
from ..results import (
    HEAD_FILE,
    SCAN_FILE,
    EpochMetrics,
    GuardDecision,
    RunConfig,
    RunFolder,
    Thumbnail,
    TransferMetrics,
    read_pairs,
    read_scan,
    read_thumbnails,
    refuse_two_way,
    require_folder,
    unreadable,
    validated,
)

CROSS_CHECKED = ("samples", "accuracy_before", "accuracy_after", "agreement")
"""Measures that `result.json` and the predictions must agree on."""


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """A finished transfer; a sequence or soup holds one for each of its steps.

    Attributes:
        folder: path of the result folder.
        metrics: the metrics in `result.json`.
        config: the configuration in `config.json`.
        epochs: measures after each epoch, a row each; for a sequence, the rows of all its steps.
        before: the initial student's predictions for the images measured on.
        after: the transferred student's predictions for the same images.
        teachers: each teacher's predictions, or None for a prediction table without all of these images.
        thumbnails: small copies of images, or excerpts of texts, whose predicted class changed.
        steps: the transfers that a sequence or soup is made of.
    """

    folder: Path
    metrics: TransferMetrics
    config: RunConfig
    epochs: tuple[EpochMetrics, ...]
    before: Predictions
    after: Predictions
    teachers: tuple[Predictions | None, ...]
    thumbnails: tuple[Thumbnail, ...]
    steps: "tuple[TransferRecord, ...]" = ()

    @property
    def noun(self) -> str:
        """What a sample is: `image` or `text`."""
        return self.config.val.noun

    @property
    def place(self) -> str | None:
        """Of samples in places what one is, `word`, `token` or `cell`; each sample is measured on one. Else None."""
        found = self.config.student.preprocessing or {}
        return found.get("classifies") or ("cell" if found.get("grid") else None)

    @property
    def classified(self) -> str:
        """What gets a class: the sample, or each of its places."""
        return self.place or self.noun

    @property
    def labelled(self) -> bool:
        """Whether the samples measured on carry labels."""
        return self.before.target is not None

    @property
    def is_step(self) -> bool:
        """Whether it is a part of a sequence or soup."""
        return self.folder.parent.name == "steps" and RunFolder(self.folder.parent.parent).config.exists()

    @property
    def sequential(self) -> bool:
        """Whether several teachers taught one after the other."""
        return bool(self.steps) and self.metrics.strategy == "sequential"

    @property
    def guards(self) -> tuple[GuardDecision, ...]:
        """What guards decided: the transfer's own, and those of its steps."""
        guards = (self.metrics.guard, *(step.metrics.guard for step in self.steps))
        return tuple(guard for guard in guards if guard is not None)

    @property
    def known_teachers(self) -> tuple[Predictions, ...]:
        """The teachers whose predictions are there."""
        return tuple(teacher for teacher in self.teachers if teacher is not None)


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """A scan that was kept.

    Attributes:
        folder: path of the result folder.
        document: the JSON object in `scan.json`.
        pairs: the ordered pairs, a row each, see `results.read_pairs`.
    """

    folder: Path
    document: Mapping[str, Any]
    pairs: pa.Table

    @property
    def noun(self) -> str:
        """What a sample is: `image` or `text`."""
        return str(self.document.get("noun", IMAGE))


Record = TransferRecord | ScanRecord


def read_record(folder: Path) -> Record:
    """Read a result folder; what its version of gainfinder did not write yet is measured anew, where it can be.

    Raises:
        RunFolderError: it holds no finished result of gainfinder, or a damaged one.
    """
    require_folder(folder, expected="one that a transfer or a scan left")
    if (folder / SCAN_FILE).exists():
        document = read_scan(folder)
        return ScanRecord(folder=folder, document=document, pairs=read_pairs(folder, document))
    refuse_two_way(folder)
    if (folder / HEAD_FILE).exists():
        raise RunFolderError(
            f"{folder}: holds a model with a new head, of which {HEAD_FILE} tells all; it has no report"
        )
    return _read_transfer(folder)


def _read_transfer(path: Path) -> TransferRecord:
    folder = RunFolder(path)
    config, metrics = folder.read_config(), folder.read_result()
    if config is None:
        raise RunFolderError(f"{path}: holds no result of gainfinder{_results_below(path)}")
    if metrics is None:
        raise RunFolderError(f"{path}: this transfer is not finished; run its command again, which goes on with it")
    before, after, teachers = folder.read_predictions(len(metrics.teachers))
    return TransferRecord(
        folder=path,
        metrics=_checked(metrics, measure_transfer(before, after, teachers), folder.result),
        config=validated(RunConfig, config, folder.config),
        epochs=_read_epochs(folder, metrics),
        before=before,
        after=after,
        teachers=tuple(teachers),
        thumbnails=tuple(read_thumbnails(folder.thumbnails)),
        steps=tuple(_read_transfer(path / "steps" / str(number + 1)) for number in range(len(metrics.steps))),
    )


def _read_epochs(folder: RunFolder, metrics: TransferMetrics) -> tuple[EpochMetrics, ...]:
    """The rows of the epochs, which with labels hold all that is drawn of them."""
    rows = tuple(folder.read_epochs())
    drawn = ("step", "total_gain", "total_loss") if metrics.strategy == "sequential" else (
        "knowledge_gain", "knowledge_loss")  # fmt: skip
    missing = [name for name in drawn if metrics.labelled and any(getattr(row, name) is None for row in rows)]
    if missing:
        raise unreadable(folder.epochs, f"no {missing[0]}")
    return rows


def _checked(stated: TransferMetrics, measured: TransferMeasures, path: Path) -> TransferMetrics:
    """The metrics with measures recomputed from the predictions, which must be of the same transfer."""
    for name in TransferMeasures.model_fields:
        one, other = getattr(stated, name), getattr(measured, name)
        differs = (one is None) != (other is None)
        if name in CROSS_CHECKED and one is not None and other is not None:
            differs = abs(one - other) >= 1e-9
        if differs and (name in CROSS_CHECKED or _is_interval(name)):
            raise RunFolderError(f"{path}: {name} is {one}, and {other} by predictions/: not of the same transfer")
    # Intervals are kept as `result.json` states them: they depend on NumPy's generator.
    recomputed = {name: getattr(measured, name) for name in TransferMeasures.model_fields if not _is_interval(name)}
    return stated.model_copy(update=recomputed)


def _is_interval(name: str) -> bool:
    return name.endswith(("_ci", "_ci_pp"))


def _results_below(path: Path) -> str:
    """Names folders inside that hold results: a likely slip."""
    names = ("result.json", SCAN_FILE)
    found = sorted(child.name for child in path.iterdir() if any((child / name).exists() for name in names))
    return f"; did you mean {', '.join(str(path / name) for name in found[:3])}?" if found else ""
