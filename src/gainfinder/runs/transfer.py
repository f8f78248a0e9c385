"""One transfer in its result folder: train from the last checkpoint, measure, guard."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..config import Recipe, with_recipe
from ..errors import DataError
from ..files import write_json_lines
from ..metrics import (
    TransferMeasures,
    accuracy_change,
    calibrated_temperatures,
    class_temperatures,
    epoch_measures,
    measure_transfer,
    since_origin,
)
from ..models import Classifier, PredictionTable
from ..predictions import Predictions
from ..results import TransferMetrics
from ..training import (
    Progress,
    StudentTrainer,
    blank_batch,
    copied,
    load_checkpoint,
    note_parts,
    run_length,
    save_checkpoint,
    train,
)
from .bank import TargetModels
from .callbacks import Callback
from .context import RunContext, SharedWork, forked_generators, open_run
from .frozen import FrozenPredictions, load_trained, predict_frozen
from .guard import WeightPath, keep_best
from .guard_loss import GuardLoss, guard_loss
from .prepare import PreparedTransfer
from .result import TransferResult, finalize, load_finished
from .start import Start, choose_start
from .trainers import make_trainer
from .trials import choose_recipe

_log = logging.getLogger("gainfinder")


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
        result = _train_and_measure(run)
    tracking.metrics(result.metrics, epochs=len(result.epochs))
    return result


def _train_and_measure(run: RunContext) -> TransferResult:
    frozen = predict_frozen(run, run.prepared.val_images)
    before = frozen.before
    probes = predict_frozen(run, run.probe_images, prefix="probe-") if run.prepared.needs_probes else None
    learned = _learn(run, before, probes)
    prepared, after, guarded = learned.run.prepared, learned.latest, None
    if prepared.guard_images is not None and probes is not None:
        weight_path = WeightPath(
            initial=prepared.student.module.state_dict(),
            transferred=copied(learned.student.module.state_dict(), device=torch.device("cpu")),
        )
        ends = (before, learned.latest)
        after, judged = keep_best(learned.run, weight_path, learned.student, probes=probes, ends=ends)
        guarded = judged.decision(accuracy_change(*ends))
    measures, progress = measure_transfer(before, after, frozen.teachers), learned.progress
    metrics = _metrics(prepared, progress, measures, broken=before.broken)
    found = {**learned.about, "guard": guarded}
    return finalize(
        learned.run, learned.student, metrics.model_copy(update=found), ends=(before, after), rows=progress.rows
    )


@dataclass(frozen=True, kw_only=True)
class _Learned:
    """A student that has learned, before any guard.

    Attributes:
        run: the run with the recipe that was chosen.
        student: the student.
        latest: its predictions for the images measured on.
        progress: the training that led there.
        about: metrics that tell how it learned, by their names.
    """

    run: RunContext
    student: Classifier
    latest: Predictions
    progress: Progress
    about: dict[str, Any]


def _learn(run: RunContext, before: Predictions, probes: FrozenPredictions | None) -> _Learned:
    """Choose start and recipe, and train.

    Args:
        run: the run.
        before: predictions of the initial student for the images measured on.
        probes: predictions of the frozen models for the guard images.
    """
    start = choose_start(run, probes)
    learning = _learning_from(run, start)
    targets = TargetModels(learning.prepared, run.callback)
    by_class, temperatures = _temperatures(learning, start.probes)
    scales = by_class or temperatures
    held_out = guard_loss(run.prepared, run.shared, start.probes, temperatures=scales)
    recipe, trials = choose_recipe(learning, held_out, targets, start.probes, temperatures=scales)
    if recipe is not None:
        run, learning = _with_recipe(run, recipe), _with_recipe(learning, recipe)
    trainer = make_trainer(learning.prepared, targets.models, temperatures=scales)
    # Measured on a copy: mixed precision wraps the module that trains.
    student = run.prepared.student.copied()
    latest, progress, resumed = _train(run, trainer, student, before, targets=targets, held_out=held_out)
    about = {
        "temperatures": None if temperatures is None else tuple(temperatures),
        "trials": trials,
        "start_reestimated": start.reestimated,
        "optimizer": run.prepared.settings.optimizer,
        "learning_rate": run.prepared.settings.lr,
        "bank": targets.bank_use(progress.epoch),
        "resumed_epochs": resumed,
    }
    return _Learned(run=run, student=student, latest=latest, progress=progress, about=about)


def _learning_from(run: RunContext, start: Start) -> RunContext:
    """The run with the student that learns in the given one's place."""
    return replace(run, prepared=replace(run.prepared, student=start.student)) if start.reestimated else run


def _with_recipe(run: RunContext, recipe: Recipe) -> RunContext:
    return replace(run, prepared=replace(run.prepared, settings=with_recipe(run.prepared.settings, recipe)))


def _train(
    run: RunContext,
    trainer: StudentTrainer,
    snapshot: Classifier,
    before: Predictions,
    *,
    targets: TargetModels,
    held_out: GuardLoss | None,
) -> tuple[Predictions, Progress, int]:
    """Train to the end; returns the student's predictions, the progress, and the number of epochs done before."""
    prepared, callback = run.prepared, run.callback
    latest: Predictions | None = None
    progress = Progress()
    if (saved := load_checkpoint(run.folder.checkpoint)) is not None:
        progress, state = saved
        trainer.load_state(state)
        callback.resumed(progress.epoch, progress.step, progress.rows)
        run.tracking.epochs(progress.rows)
    resumed = progress.epoch

    def measure() -> dict[str, Any]:
        nonlocal latest
        latest = _measure_student(run, trainer, snapshot, f"measuring after epoch {progress.epoch + 1}")
        since = {} if run.origin is None else since_origin(run.origin, latest)
        return {**_guard_loss_row(run, snapshot, held_out), **epoch_measures(before, latest), **since}

    def save(progress: Progress) -> None:
        if prepared.is_main:
            run.folder.check_in_place()
            save_checkpoint(run.folder.checkpoint, progress=progress, trainer=trainer.state())
            run.folder.check_in_place()
            write_json_lines(run.folder.epochs, progress.rows)
        prepared.accelerator.wait_for_everyone()
        if progress.step == 0:
            callback.epoch(progress.rows[-1])
            run.tracking.epochs(progress.rows)

    def begin(progress: Progress) -> None:
        targets.prepare([progress.epoch])
        _announce(run, progress)

    _prepare_training(run, trainer, progress, targets=targets, resumed=saved is not None)
    train(
        trainer,
        prepared.views,
        progress,
        checkpoint_every=prepared.requested.checkpoint_every,
        begin=begin,
        save=save,
        measure=measure,
        on_images=callback.advance,
        on_sums=callback.running,
    )
    # A run that was killed after its last epoch comes here without having measured.
    if latest is None:
        latest = _measure_student(run, trainer, snapshot, "measuring the student")
    return latest, progress, resumed


def _prepare_training(
    run: RunContext, trainer: StudentTrainer, progress: Progress, *, targets: TargetModels, resumed: bool
) -> None:
    """Cache the crops that fit in memory, and find a micro-batch that fits."""
    prepared, settings = run.prepared, run.prepared.settings
    if prepared.views.fits and progress.epoch < run_length(settings, progress):
        run.callback.stage("reading the transfer images", len(prepared.train_images))
        prepared.views.load(run.callback.advance)
    if settings.micro_batch is not None and settings.micro_batch < settings.batch_size:
        note_parts(settings, trainer.student, settings.micro_batch)
    if prepared.requested.fits_itself and not resumed:
        targets.prepare([progress.epoch])  # a pass, as in the first step
        trainer.fit_in_memory(blank_batch(trainer, prepared.views))


def _measure_student(run: RunContext, trainer: StudentTrainer, snapshot: Classifier, stage: str) -> Predictions:
    """Predictions of the student as it is now, which `snapshot` then holds."""
    load_trained(run.prepared, snapshot, trainer.weights())
    found = run.predict(snapshot, run.prepared.val_images, stage)
    snapshot.offload()
    return found


def _guard_loss_row(run: RunContext, snapshot: Classifier, held_out: GuardLoss | None) -> dict[str, Any]:
    """A row's loss on guard images of the student in `snapshot`; none where the length of the run is fixed."""
    if run.prepared.settings.schedule != "plateau":
        return {}
    if held_out is None:
        return {"guard_loss": None}
    return {"guard_loss": held_out.of(run.predict(snapshot, held_out.images, "measuring the loss on guard images"))}


def _announce(run: RunContext, progress: Progress) -> None:
    # A stage that spans all epochs left, so that its time left is the run's.
    settings, images = run.prepared.settings, len(run.prepared.train_images)
    epochs = run_length(settings, progress)
    done = min(images, progress.step * settings.batch_size)
    left = (epochs - progress.epoch) * images - done
    run.callback.stage(f"training, epoch {progress.epoch + 1} of {epochs}", left)
    run.callback.epoch_begins(progress.epoch + 1, epochs, images, done)


def _temperatures(
    run: RunContext, probes: FrozenPredictions | None
) -> tuple[list[list[float]] | None, list[float] | None]:
    """Those of each model and class, for methods that pool; and those of each model, the mean over images of these."""
    method = run.prepared.settings.method
    if not method.calibrated or probes is None:
        return None, None
    logits = [probes.before.logits]
    for teacher, found in zip(run.prepared.teachers, probes.teachers, strict=True):
        if found is None:
            raise DataError(
                f"{teacher.reference}: method {method.name!r} compares models on "
                f"{run.probe_images.reference}, and the table lacks some of these images; predict them, too"
            )
        logits.append(found.logits)
    if method.pooling is None:
        return None, calibrated_temperatures(logits, probes.before.target)
    by_class_MC = class_temperatures(logits)
    means = [float(own_C[z_NC.argmax(dim=1)].mean()) for own_C, z_NC in zip(by_class_MC, logits, strict=True)]
    return by_class_MC.tolist(), means


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
