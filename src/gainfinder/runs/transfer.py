"""One transfer in its result folder: train from the last checkpoint, measure, guard."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..metrics import TransferMeasures, accuracy_change, measure_transfer
from ..models import PredictionTable
from ..predictions import Predictions
from ..results import TransferMetrics
from ..training import Progress, copied
from .callbacks import Callback
from .context import RunContext, SharedWork, forked_generators, open_run
from .guard import WeightPath, keep_best
from .learning import Learned, learn, prepare_learning
from .prepare import PreparedTransfer
from .result import TransferResult, finalize, load_finished


def run_transfer(
    prepared: PreparedTransfer,
    out: Path,
    *,
    callback: Callback,
    name: str | None = None,
    shared: SharedWork | None = None,
    origin: Predictions | None = None,
) -> TransferResult:
    """Run a single transfer in a folder of its own, from the start or from its last checkpoint.

    Args:
        prepared: the transfer to run; several teachers teach at once.
        out: the result folder.
        callback: notified of progress and of the result.
        name: the run's name for trackers; by default the folder's.
        shared: work that the runs of a sequence share.
        origin: predictions of the student that a sequence of transfers began with, for the images measured on.

    Raises:
        RunFolderError: the folder belongs to another run, is in use or is damaged.
        GainfinderError: models or images cannot be used.
    """
    with open_run(prepared, out, callback=callback, name=name, shared=shared, origin=origin) as run:
        return transfer_in(run)


def transfer_in(run: RunContext) -> TransferResult:
    """Run a single transfer in its open folder, or find it finished there."""
    tracking = run.tracking
    metrics = run.folder.read_result()
    if metrics is not None:
        rows = run.folder.read_epochs()
        tracking.epochs([row.to_dict() for row in rows])
        tracking.metrics(metrics, epochs=len(rows))
        return load_finished(run, metrics)
    tracking.begin()
    with forked_generators(run.prepared):
        result = judge(learn(prepare_learning(run)))()
    tracking.metrics(result.metrics, epochs=len(result.epochs))
    return result


def judge(learned: Learned) -> Callable[..., TransferResult]:
    """Guard and measure a student that has learned.

    Args:
        learned: the student, in the open folder of its run.

    Returns:
        What writes the result of its run: `finalize`, to which only `ended` may be given yet.
    """
    learning, run = learned.learning, learned.learning.run
    prepared, before, after, guarded = run.prepared, learning.frozen.before, learned.latest, None
    if prepared.guard_images is not None and learning.probes is not None:
        weight_path = WeightPath(
            initial=prepared.student.module.state_dict(),
            transferred=copied(learned.student.module.state_dict(), device=torch.device("cpu")),
        )
        ends = (before, learned.latest)
        after, judged = keep_best(run, weight_path, learned.student, probes=learning.probes, ends=ends)
        guarded = judged.decision(accuracy_change(*ends))
    measures, progress = measure_transfer(before, after, learning.frozen.teachers), learned.progress
    metrics = _metrics(prepared, progress, measures, broken=before.broken)
    found = {**learned.about, "guard": guarded}
    told = metrics.model_copy(update=found)
    return functools.partial(finalize, run, learned.student, told, ends=(before, after), rows=progress.rows)


def _metrics(
    prepared: PreparedTransfer, progress: Progress, measures: TransferMeasures, *, broken: Sequence[str]
) -> TransferMetrics:
    partitioned = prepared.settings.method.partition is not None
    return TransferMetrics(
        student=prepared.student.reference,
        teachers=tuple(teacher.reference for teacher in prepared.teachers),
        method=prepared.settings.method.name,
        **measures.model_dump(),
        teacher_share=progress.taught / progress.seen if partitioned and progress.seen else None,
        unaugmented_teachers=tuple(
            teacher.reference for teacher in prepared.teachers if isinstance(teacher, PredictionTable)
        ),
        broken_images=tuple(sorted({*progress.broken, *broken})),
    )
