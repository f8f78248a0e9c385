"""The measures of a finished cell that its `result.json` lacks, from its predictions: what tables and figures need.

Written into the cell's folder when it is done, so that reports need no predictions, which are large.
"""

from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..config import Partition, find_method
from ..errors import RunFolderError
from ..files import parse_json
from ..metrics import PartitionGroup, by_partition, flips
from ..predictions import Predictions
from ..results import Record, RunFolder, TransferMetrics, validated

TOP_SHARES = (0.02, 0.05, 0.2, 0.5, 1.0)
"""Shares of the positive flips whose top classes Fig. 5a looks at."""
LABEL: Partition = "label"
CONFIDENCE: Partition = "confidence"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class ClassTransfer(Record):
    """Transfer within the classes that hold most of the positive flips before the transfer (Fig. 5a).

    Attributes:
        share: share of all positive flips that they hold, at least.
        classes: number of these classes.
        transfer_rate: positive flips of these classes that are right after / all of them; null without any.
        class_gain_ratio: all samples of these classes that were gained / their positive flips; null likewise.
    """

    share: float
    classes: int
    transfer_rate: float | None
    class_gain_ratio: float | None


class PartitionShares(Record):
    """Flips that a partition by confidence sends to the teacher, counted by the initial student (section 5.1).

    Attributes:
        supervised: whether confidence in the label decides, or the largest one.
        positive: share of the positive flips; null without any.
        negative: share of the negative flips; null likewise.
    """

    supervised: bool
    positive: float | None
    negative: float | None


class TeacherMeasures(Record):
    """One teacher of a cell, on the images measured on.

    Attributes:
        accuracy: its accuracy; null without labels or predictions.
        positive_flips_before: share of the images that it has right and the initial student wrong; null likewise.
        negative_flips_before: the other way round.
        positive_flips_after: likewise against the student that is kept (Table 8).
        negative_flips_after: likewise.
    """

    accuracy: float | None = None
    positive_flips_before: float | None = None
    negative_flips_before: float | None = None
    positive_flips_after: float | None = None
    negative_flips_after: float | None = None


class CellMeasures(Record):
    """What a finished cell keeps beside its result.

    Attributes:
        seconds: seconds of work, those of workers that were lost included as far as they are known.
        epochs: epochs trained.
        images_seen: views learned from.
        trained: likewise with those that were learned from again after a worker was lost.
        parameters: number of the student's weights.
        teachers: measures of each teacher.
        class_transfer: transfer in the top classes; empty without labels or flips.
        partitions: partition quality; empty without labels, and with several teachers.
        host: machine of the worker.
        finished: seconds since 1970.
    """

    seconds: float
    epochs: int
    images_seen: int
    trained: int = 0
    parameters: int | None = None
    teachers: tuple[TeacherMeasures, ...] = ()
    class_transfer: tuple[ClassTransfer, ...] = ()
    partitions: tuple[PartitionShares, ...] = ()
    host: str = ""
    finished: float = 0.0


def read_measures(path: Path) -> CellMeasures:
    """The measures in a cell's file.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path}: not as gainfinder wrote it ({error}); remove {path.parent}, and the cell runs again"
        ) from error
    return validated(CellMeasures, document, path)


def measure_cell(folder: RunFolder, metrics: TransferMetrics) -> dict[str, Any]:
    """The measures of a finished transfer that need its predictions or its student's file.

    Args:
        folder: the result folder.
        metrics: its result.

    Returns:
        Fields of `CellMeasures` by name.

    Raises:
        RunFolderError: predictions are missing or damaged.
    """
    before, after, teachers = folder.read_predictions(len(metrics.teachers))
    return {
        "parameters": count_parameters(folder.student / "model.safetensors"),
        "teachers": tuple(_teacher(before, after, teacher) for teacher in teachers),
        "class_transfer": _class_transfer(before, after, [one for one in teachers if one is not None]),
        "partitions": _partitions(before, teachers, metrics.method),
    }


def count_parameters(path: Path) -> int | None:
    """Number of the weights in a file, statistics of batch-norm aside; None where there is no such file."""
    if not path.exists():
        return None
    total = 0
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            if name.rsplit(".", 1)[-1] not in STATISTICS:
                count = 1
                for length in file.get_slice(name).get_shape():
                    count *= length
                total += count
    return total


def _teacher(before: Predictions, after: Predictions, teacher: Predictions | None) -> TeacherMeasures:
    target = before.target
    if teacher is None or target is None:
        return TeacherMeasures()
    predicted, count = teacher.predicted, len(before)
    return TeacherMeasures(
        accuracy=teacher.accuracy,
        positive_flips_before=int(flips.positive_flips(before.predicted, predicted, target).sum()) / count,
        negative_flips_before=int(flips.negative_flips(before.predicted, predicted, target).sum()) / count,
        positive_flips_after=int(flips.positive_flips(after.predicted, predicted, target).sum()) / count,
        negative_flips_after=int(flips.negative_flips(after.predicted, predicted, target).sum()) / count,
    )


def _class_transfer(before: Predictions, after: Predictions, teachers: list[Predictions]) -> tuple[ClassTransfer, ...]:
    """By the classes' positive flips before the transfer, of any teacher."""
    target = before.target
    if target is None or not teachers:
        return ()
    positive = flips.positive_flips(before.predicted, teachers[0].predicted, target)
    for teacher in teachers[1:]:
        positive = positive | flips.positive_flips(before.predicted, teacher.predicted, target)
    if not positive.any():
        return ()
    gained = flips.knowledge_gained(before.predicted, after.predicted, target)
    counts = flips.flip_counts(positive, target, before.logits.shape[1])
    found = []
    for share in TOP_SHARES:
        classes = flips.top_flip_classes(counts, share)
        found.append(
            ClassTransfer(
                share=share,
                classes=len(classes),
                transfer_rate=flips.transfer_rate(gained, positive, among=flips.in_classes(target, classes)),
                class_gain_ratio=flips.class_gain_ratio(gained, positive, target, classes),
            )
        )
    return tuple(found)


def _partitions(before: Predictions, teachers: list[Predictions | None], method: str) -> tuple[PartitionShares, ...]:
    known = [one for one in teachers if one is not None]
    if before.target is None or len(known) != 1 or not find_method(method).needs_teachers:
        return ()
    found = []
    for partition in (LABEL, CONFIDENCE):
        groups = {one.right: one for one in by_partition(before, known, partition)}
        found.append(
            PartitionShares(
                supervised=partition == LABEL, positive=_sent(groups["teacher"]), negative=_sent(groups["student"])
            )
        )
    return tuple(found)


def _sent(group: PartitionGroup) -> float | None:
    return group.to_teacher / group.samples if group.samples else None
