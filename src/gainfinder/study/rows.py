"""A row of measures for each cell of a study, also for those that are missing: what tables and figures are made of.

Shares and accuracies are in [0, 1]; names that end in `_pp` are percentage points; whatever a cell does not have is
None. Nothing is loaded but JSON: no model, no image, no predictions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from ..config import default_method
from ..results import EpochMetrics, Record, TransferMetrics
from .cells import Cell
from .document import StudyDocument
from .folder import CELL_FILE, CellState, StudyFolder
from .measures import CellMeasures, read_measures

FAMILIES = (
    ("MLP", r"mixer|mlp|gmlp|resmlp"),
    ("Transformer", r"vit|deit|swin|xcit|cait|beit|pit_|twins|volo|tnt|coat|crossvit|levit|transformer|mobilevit"),
    ("CNN", r"res(?:net|next|nest)|convnext|regnet|efficientnet|mobilenet|dense|vgg|inception|nfnet|dla|dpn|rexnet|"
            r"ghostnet|hrnet|senet|nasnet|darknet|cnn|conv"),
)  # fmt: skip
"""A model's family by its name, first match: the paper's three."""
OTHER = "other"
COLUMNS = ("method", "strategy", "order", "seed")
"""Settings that a row has a field of its own for: no axes of it."""
TOGETHER = " + "
"""What joins the names of several teachers that teach one student."""


class StudyRow(Record):
    """A cell, what it is, and what came of it.

    Attributes:
        cell: its key, the name of its folder.
        state: `done`, `running`, `failed` or `missing`.
        error: why it failed; None where it did not.
        student: name of the student.
        teacher: name of the teacher; of several, joined by ` + `.
        teacher_count: number of teachers.
        student_family: the student's family, such as CNN, Transformer or MLP.
        teacher_family: the teacher's; of several `several`, unless they are of one.
        data: name of the images.
        noun: what a sample of them is, as far as the cell is done.
        variant: name of the variant; empty where the study has none.
        method: name of the method.
        strategy: `sequential`, `parallel` or `soup`; None with a single teacher.
        order: order of a sequence; None likewise.
        supervised: whether training may read labels (`labels` is `use`).
        seed: the seed.
        axes: other settings that vary over the study, by name, as text.
        samples: number of images measured on.
        parameters: number of the student's weights.
        accuracy_before: the student's accuracy before.
        accuracy_after: that of the student that is kept.
        teacher_accuracy: the teacher's; of several the highest.
        delta_acc_pp: teacher_accuracy less accuracy_before.
        transfer_delta_pp: accuracy_after less accuracy_before.
        transfer_delta_low_pp: low end of its 95 % interval.
        transfer_delta_high_pp: high end.
        unguarded_delta_pp: transfer delta of the trained student before any guard; without one that of the kept one.
        kept_alpha: interpolation coefficient that the guard kept; None without a guard.
        knowledge_gain: share wrong before and right after.
        knowledge_loss: share right before and wrong after.
        positive_flips: share that any teacher has right and the initial student wrong.
        negative_flips: share that no teacher has right and the initial student has.
        positive_flips_after: the teacher's positive flips against the student that is kept; the mean over teachers.
        negative_flips_after: likewise.
        transfer_rate: share of the positive flips that are right after.
        transfer_rate_top_2 … transfer_rate_top_100: likewise in the top classes that hold so many percent (Fig. 5a).
        class_gain_ratio_top_2 … class_gain_ratio_top_100: all gains in these classes / their positive flips.
        partition_positive_supervised: share of the positive flips that the supervised partition sends to the teacher.
        partition_negative_supervised: share of the negative flips likewise.
        partition_positive_unsupervised: by the unsupervised partition.
        partition_negative_unsupervised: likewise.
        headroom_pp: accuracy of the better ensemble of student and teachers less the student's.
        headroom_captured: transfer_delta_pp / headroom_pp; None without headroom above 0.
        agreement: share of the images whose predicted class is unchanged.
        optimizer: the optimiser.
        learning_rate: its highest rate.
        epochs: epochs trained.
        images_seen: views learned from.
        seconds: seconds of work.
    """

    cell: str
    state: str
    error: str | None = None
    student: str
    teacher: str
    teacher_count: int
    student_family: str
    teacher_family: str
    data: str
    noun: Literal["image", "text"] = "image"
    variant: str
    method: str
    strategy: str | None
    order: str | None
    supervised: bool
    seed: int
    axes: dict[str, str] = Field(default_factory=dict)
    samples: int | None = None
    parameters: int | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    teacher_accuracy: float | None = None
    delta_acc_pp: float | None = None
    transfer_delta_pp: float | None = None
    transfer_delta_low_pp: float | None = None
    transfer_delta_high_pp: float | None = None
    unguarded_delta_pp: float | None = None
    kept_alpha: float | None = None
    knowledge_gain: float | None = None
    knowledge_loss: float | None = None
    positive_flips: float | None = None
    negative_flips: float | None = None
    positive_flips_after: float | None = None
    negative_flips_after: float | None = None
    transfer_rate: float | None = None
    transfer_rate_top_2: float | None = None
    transfer_rate_top_5: float | None = None
    transfer_rate_top_20: float | None = None
    transfer_rate_top_50: float | None = None
    transfer_rate_top_100: float | None = None
    class_gain_ratio_top_2: float | None = None
    class_gain_ratio_top_5: float | None = None
    class_gain_ratio_top_20: float | None = None
    class_gain_ratio_top_50: float | None = None
    class_gain_ratio_top_100: float | None = None
    partition_positive_supervised: float | None = None
    partition_negative_supervised: float | None = None
    partition_positive_unsupervised: float | None = None
    partition_negative_unsupervised: float | None = None
    headroom_pp: float | None = None
    headroom_captured: float | None = None
    agreement: float | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    images_seen: int | None = None
    seconds: float | None = None

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers."""
        return tuple(self.teacher.split(TOGETHER))


class EpochRow(Record):
    """An epoch of a sequence of several teachers: what the student has gained and lost since it began (Fig. 11).

    Attributes:
        cell: the cell's key.
        student: name of the student.
        teachers: names of its teachers, joined by ` + `.
        variant: name of the variant.
        method: name of the method.
        step: number of the teacher, from 1.
        teacher: its name, or its reference where it has none.
        epoch: epoch of this step, from 1.
        total_delta_pp: transfer delta since before the first teacher.
        total_gain: knowledge gain likewise.
        total_loss: knowledge loss likewise.
    """

    cell: str
    student: str
    teachers: str
    variant: str
    method: str
    step: int
    teacher: str
    epoch: int
    total_delta_pp: float | None
    total_gain: float | None
    total_loss: float | None


def study_rows(folder: StudyFolder, cells: Sequence[Cell] | None = None) -> list[StudyRow]:
    """A row for each cell of the study in a folder.

    Args:
        folder: the study's folder.
        cells: its cells, where they are known already.

    Raises:
        RunFolderError: a file is damaged.
    """
    study = folder.read()
    return [_row(folder, study, cell) for cell in (folder.all_cells() if cells is None else cells)]


def epoch_rows(folder: StudyFolder, cells: Sequence[Cell] | None = None) -> list[EpochRow]:
    """The epochs of finished sequences of several teachers.

    Raises:
        RunFolderError: a file is damaged.
    """
    found: list[EpochRow] = []
    for cell in folder.all_cells() if cells is None else cells:
        sequence = len(cell.teachers) > 1 and cell.spec.config.strategy == "sequential"
        if sequence and folder.is_done(cell):
            found += _epochs(folder, cell, folder.run_folder(cell).read_epochs())
    return found


def family_of(study: StudyDocument, name: str) -> str:
    """The family of a model: as the study gives it, else by its name or reference."""
    model = study.models.get(name)
    if model is not None and model.family is not None:
        return model.family
    for text in (name, study.reference(name)):
        for family, pattern in FAMILIES:
            if re.search(pattern, text.lower()):
                return family
    return OTHER


def _row(folder: StudyFolder, study: StudyDocument, cell: Cell) -> StudyRow:
    state = folder.state(cell)
    config, several = cell.spec.config, len(cell.teachers) > 1
    families = {family_of(study, teacher) for teacher in cell.teachers}
    about: dict[str, Any] = {
        "cell": cell.key,
        "state": str(state),
        "student": cell.student,
        "teacher": TOGETHER.join(cell.teachers),
        "teacher_count": len(cell.teachers),
        "student_family": family_of(study, cell.student),
        "teacher_family": families.pop() if len(families) == 1 else "several",
        "data": cell.data,
        "variant": cell.variant,
        "method": config.method or default_method(labelled=config.labels == "use", preset=config.preset),
        "strategy": config.strategy if several else None,
        "order": config.order if several else None,
        "supervised": config.labels == "use",
        "seed": config.seed,
        "axes": {name: str(value) for name, value in cell.axes.items() if name not in COLUMNS},
    }
    if state == CellState.FAILED and (failure := folder.failure(cell)) is not None:
        about["error"] = failure.error
    if state != CellState.DONE:
        return StudyRow(**about)
    run_folder = folder.run_folder(cell)
    metrics = run_folder.read_result()
    assert metrics is not None, "a cell that is done has a result"
    measures = read_measures(run_folder.path / CELL_FILE)
    about["noun"] = run_folder.noun
    return StudyRow(**{**about, **_of_result(metrics), **_of_cell(measures, metrics), "method": metrics.method})


def _of_result(metrics: TransferMetrics) -> dict[str, Any]:
    interval, guard = metrics.transfer_delta_ci_pp, metrics.guard
    same = (
        "samples",
        "accuracy_before",
        "accuracy_after",
        "transfer_delta_pp",
        "knowledge_gain",
        "knowledge_loss",
        "positive_flips",
        "negative_flips",
        "transfer_rate",
        "headroom_pp",
        "headroom_captured",
        "agreement",
        "optimizer",
        "learning_rate",
    )
    return {
        **{name: getattr(metrics, name) for name in same},
        "transfer_delta_low_pp": None if interval is None else interval[0],
        "transfer_delta_high_pp": None if interval is None else interval[1],
        "unguarded_delta_pp": metrics.transfer_delta_pp if guard is None else guard.unguarded_delta_pp,
        "kept_alpha": None if guard is None else guard.alpha,
    }


def _of_cell(measures: CellMeasures, metrics: TransferMetrics) -> dict[str, Any]:
    accuracies = [one.accuracy for one in measures.teachers if one.accuracy is not None]
    best, before = max(accuracies, default=None), metrics.accuracy_before
    found: dict[str, Any] = {
        "parameters": measures.parameters,
        "teacher_accuracy": best,
        "delta_acc_pp": None if best is None or before is None else 100 * (best - before),
        "positive_flips_after": _mean([one.positive_flips_after for one in measures.teachers]),
        "negative_flips_after": _mean([one.negative_flips_after for one in measures.teachers]),
        "epochs": measures.epochs,
        "images_seen": measures.images_seen,
        "seconds": measures.seconds,
    }
    for top in measures.class_transfer:
        found[f"transfer_rate_top_{round(100 * top.share)}"] = top.transfer_rate
        found[f"class_gain_ratio_top_{round(100 * top.share)}"] = top.class_gain_ratio
    for shares in measures.partitions:
        kind = "supervised" if shares.supervised else "unsupervised"
        found[f"partition_positive_{kind}"] = shares.positive
        found[f"partition_negative_{kind}"] = shares.negative
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


def _epochs(folder: StudyFolder, cell: Cell, rows: Sequence[EpochMetrics]) -> list[EpochRow]:
    names: Mapping[str, str] = dict(zip(cell.spec.teachers, cell.teachers, strict=True))
    metrics = folder.run_folder(cell).read_result()
    assert metrics is not None, "a cell that is done has a result"
    return [
        EpochRow(
            cell=cell.key,
            student=cell.student,
            teachers=TOGETHER.join(cell.teachers),
            variant=cell.variant,
            method=metrics.method,
            step=row.step or 1,
            teacher=names.get(row.teacher or "", row.teacher or ""),
            epoch=row.epoch,
            total_delta_pp=row.total_delta_pp,
            total_gain=row.total_gain,
            total_loss=row.total_loss,
        )
        for row in rows
    ]
