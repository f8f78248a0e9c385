"""One transfer in its result folder: train from the last checkpoint, measure, guard."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..config import Recipe, with_recipe
from ..errors import DataError, Diverged, NotFinite
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
from ..results import Divergence, TransferMetrics
from ..training import (
    Progress,
    StudentTrainer,
    TrainingLoop,
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
from .deciding import decided_once
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
    by_class, temperatures = _temperatures(learning, start.probes)
    scales = by_class or temperatures
    choice_n = decided_once(learning, temperatures)
    targets = TargetModels(learning.prepared, run.callback, choice_n=choice_n)
    held_out = guard_loss(run.prepared, run.shared, start.probes, temperatures=scales)
    recipe, trials = choose_recipe(learning, held_out, targets, start.probes, temperatures=scales)
    if recipe is not None:
        run, learning = _with_recipe(run, recipe), _with_recipe(learning, recipe)
    trainer = make_trainer(learning.prepared, targets.models, temperatures=scales, choice_n=choice_n)
    trained = _train(run, trainer, before, targets=targets, held_out=held_out)
    progress = trained.progress
    about = {
        "temperatures": None if temperatures is None else tuple(temperatures),
        "trials": trials,
        "start_reestimated": start.reestimated,
        "optimizer": run.prepared.settings.optimizer,
        "learning_rate": run.prepared.settings.lr,
        "bank": targets.bank_use(progress.epoch),
        "resumed_epochs": trained.resumed,
        "diverged": trained.diverged,
    }
    return _Learned(run=run, student=trained.student, latest=trained.latest, progress=progress, about=about)


def _learning_from(run: RunContext, start: Start) -> RunContext:
    """The run with the student that learns in the given one's place."""
    return replace(run, prepared=replace(run.prepared, student=start.student)) if start.reestimated else run


def _with_recipe(run: RunContext, recipe: Recipe) -> RunContext:
    return replace(run, prepared=replace(run.prepared, settings=with_recipe(run.prepared.settings, recipe)))


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """What training led to.

    Attributes:
        student: the student that trained, or where training diverged, as it was after the last finished epoch.
        latest: its predictions for the images measured on.
        progress: the finished epochs.
        resumed: number of epochs that were done before.
        diverged: where training left all bounds; None where it came to its end.
    """

    student: Classifier
    latest: Predictions
    progress: Progress
    resumed: int
    diverged: Divergence | None = None


def _train(
    run: RunContext,
    trainer: StudentTrainer,
    before: Predictions,
    *,
    targets: TargetModels,
    held_out: GuardLoss | None,
) -> _Trained:
    """Train to the end, or until training diverges."""
    prepared = run.prepared
    # Measured on a copy: mixed precision wraps the module that trains.
    student = prepared.student.copied()
    training = _Training(run, trainer, student, before, targets=targets, held_out=held_out)
    progress, resumed = training.progress, training.progress.epoch
    diverged = None
    try:
        training.run()
    except Diverged as error:
        diverged = Divergence(epoch=error.epoch, step=error.step, reason=error.reason, kept_epoch=progress.epoch)
        latest = training.last_finished()
    else:
        latest = training.latest_measured()
    return _Trained(student=student, latest=latest, progress=progress, resumed=resumed, diverged=diverged)


class _Training:
    """The training of a student, from its last checkpoint.

    Args:
        run: the run.
        trainer: the trainer, as it begins.
        student: a copy of the student, which holds the weights that were measured last.
        before: predictions of the initial student for the images measured on.
        targets: the frozen models as sources of logits.
        held_out: the loss on guard images, where the length of the run goes by it.

    Attributes:
        progress: the progress so far.
        latest: predictions after the last epoch that was measured by this process.
    """

    def __init__(
        self,
        run: RunContext,
        trainer: StudentTrainer,
        student: Classifier,
        before: Predictions,
        *,
        targets: TargetModels,
        held_out: GuardLoss | None,
    ) -> None:
        self.context, self.trainer, self.student, self.before = run, trainer, student, before
        self.targets, self.held_out = targets, held_out
        self.progress = Progress()
        self.latest: Predictions | None = None
        # Weights after the last finished epoch, on the CPU; None before the first.
        self._finished: dict[str, Any] | None = None
        saved = load_checkpoint(run.folder.checkpoint)
        self.is_resumed = saved is not None
        if saved is not None:
            self.progress, state = saved
            trainer.load_state(state)
            # Within an epoch there are none in checkpoints of before: those of the checkpoint are the nearest.
            self._finished = state.get("finished") or self._copied()

    def run(self) -> None:
        """Train to the end.

        Raises:
            Diverged: training leaves all bounds.
        """
        run, progress = self.context, self.progress
        if self.is_resumed:
            run.callback.resumed(progress.epoch, progress.step, progress.rows)
            run.tracking.epochs(progress.rows)
        _prepare_training(run, self.trainer, progress, targets=self.targets, resumed=self.is_resumed)
        loop = TrainingLoop(
            self.trainer,
            run.prepared.views,
            progress,
            begin=self._begin,
            measure=self._measure,
            on_images=run.callback.advance,
            on_sums=run.callback.running,
        )
        train(loop, checkpoint_every=run.prepared.requested.checkpoint_every, save=self._save)

    def latest_measured(self) -> Predictions:
        """Predictions after the last epoch, which `student` then holds."""
        if self.latest is not None:
            return self.latest
        # A run that was killed after its last epoch comes here without having measured.
        return _measure_student(self.context, self.trainer.weights(), self.student, "measuring the student")

    def last_finished(self) -> Predictions:
        """Predictions of the student after the last finished epoch, which `student` then holds; else of the given."""
        if self.progress.epoch == 0:
            self.student.module.load_state_dict(self.context.prepared.student.module.state_dict())
            return self.before
        assert self._finished is not None, "a checkpoint of a later epoch has it"
        stage = f"measuring the student of epoch {self.progress.epoch}"
        return _measure_student(self.context, self._finished, self.student, stage)

    def _begin(self, progress: Progress) -> None:
        self.targets.prepare([progress.epoch])
        _announce(self.context, progress)

    def _measure(self) -> dict[str, Any]:
        run, epoch = self.context, self.progress.epoch + 1
        try:
            self.latest = _measure_student(run, self.trainer.weights(), self.student, f"measuring after epoch {epoch}")
            loss = _guard_loss_row(run, self.student, self.held_out)
        except NotFinite as error:
            message = f"training diverges: after epoch {epoch} {error}"
            reason = "the student's logits are NaN or infinite"
            raise Diverged(message, epoch=epoch, step=None, reason=reason) from error
        since = {} if run.origin is None else since_origin(run.origin, self.latest)
        return {**loss, **epoch_measures(self.before, self.latest), **since}

    def _save(self, progress: Progress) -> None:
        run = self.context
        if progress.step == 0:
            self._finished = self._copied()
        if run.prepared.is_main:
            run.folder.check_in_place()
            # Within an epoch the weights of its beginning are kept, too: where it diverges they are the student's.
            state = {**self.trainer.state(), "finished": self._finished if progress.step else None}
            save_checkpoint(run.folder.checkpoint, progress=progress, trainer=state)
            run.folder.check_in_place()  # a checkpoint takes long enough for the folder to go
            write_json_lines(run.folder.epochs, progress.rows, within=run.folder.path)
        run.prepared.accelerator.wait_for_everyone()
        if progress.step == 0:
            run.callback.epoch(progress.rows[-1])
            run.tracking.epochs(progress.rows)

    def _copied(self) -> dict[str, Any]:
        return copied(self.trainer.weights(), device=torch.device("cpu"))


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


def _measure_student(run: RunContext, weights: Mapping[str, Any], student: Classifier, stage: str) -> Predictions:
    """Predictions with these weights, which `student` then holds."""
    load_trained(run.prepared, student, weights)
    found = run.predict(student, run.prepared.val_images, stage)
    student.offload()
    return found


def _guard_loss_row(run: RunContext, student: Classifier, held_out: GuardLoss | None) -> dict[str, Any]:
    """A row's loss on guard images of a student; none where the length of the run is fixed."""
    if run.prepared.settings.schedule != "plateau":
        return {}
    if held_out is None:
        return {"guard_loss": None}
    return {"guard_loss": held_out.of(run.predict(student, held_out.images, "measuring the loss on guard images"))}


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
