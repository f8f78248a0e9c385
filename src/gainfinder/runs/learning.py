"""A student that learns: where it starts and by which recipe, its training from the last checkpoint, what that led to.

`prepare_learning` makes all choices; a `Training` is what is advanced, by `train` or in step with another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config import Recipe, with_recipe
from ..errors import DataError, Diverged, NotFinite
from ..files import write_json_lines
from ..losses import Temperatures
from ..metrics import calibrated_temperatures, class_temperatures, epoch_measures, since_origin
from ..models import Classifier
from ..predictions import Predictions
from ..results import Divergence, Trial
from ..training import (
    CheckpointPace,
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
from .context import RunContext
from .deciding import decided_once
from .frozen import FrozenPredictions, load_trained, predict_frozen
from .guard_loss import GuardLoss, guard_loss
from .start import Start, choose_start
from .trainers import make_trainer
from .trials import choose_recipe


@dataclass(frozen=True, kw_only=True)
class Learning:
    """A student that is about to learn.

    Attributes:
        run: the run with the recipe that was chosen.
        learner: the same with the student that learns in the given one's place, if that is another.
        frozen: predictions of the frozen models for the images measured on.
        probes: theirs for the guard images; None where models are not compared.
        start: where it starts.
        targets: the models that it learns from, as sources of logits.
        held_out: the loss on guard images; None where nothing goes by it.
        temperatures: each frozen model's mean temperature; None for methods that are not calibrated.
        scales: temperatures as the loss takes them.
        trials: the trials that chose the recipe.
    """

    run: RunContext
    learner: RunContext
    frozen: FrozenPredictions
    probes: FrozenPredictions | None
    start: Start
    targets: TargetModels
    held_out: GuardLoss | None
    temperatures: list[float] | None
    scales: Temperatures | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A student that has learned, before any guard.

    Attributes:
        learning: how it began.
        student: the student that trained, or where training diverged, as it was after the last finished epoch.
        latest: its predictions for the images measured on.
        progress: the finished epochs.
        resumed: number of epochs that were done before.
        diverged: where training left all bounds; None where it came to its end.
    """

    learning: Learning
    student: Classifier
    latest: Predictions
    progress: Progress
    resumed: int
    diverged: Divergence | None = None

    @property
    def about(self) -> dict[str, Any]:
        """Metrics that tell how it learned, by their names."""
        learning, settings = self.learning, self.learning.run.prepared.settings
        return {
            "temperatures": None if learning.temperatures is None else tuple(learning.temperatures),
            "trials": learning.trials,
            "start_reestimated": learning.start.reestimated,
            "optimizer": settings.optimizer,
            "learning_rate": settings.lr,
            "bank": learning.targets.bank_use(self.progress.epoch),
            "resumed_epochs": self.resumed,
            "diverged": self.diverged,
        }


def prepare_learning(run: RunContext) -> Learning:
    """Predict with the frozen models, and choose start and recipe; a resumed run reads what it found before."""
    frozen = predict_frozen(run, run.prepared.val_images)
    probes = predict_frozen(run, run.probe_images, prefix="probe-") if run.prepared.needs_probes else None
    start = choose_start(run, probes)
    learner = _learning_from(run, start)
    by_class, temperatures = _temperatures(learner, start.probes)
    scales = by_class or temperatures
    targets = TargetModels(learner.prepared, run.callback, choice_n=decided_once(learner, temperatures))
    held_out = guard_loss(run.prepared, run.shared, start.probes, temperatures=scales)
    recipe, trials = choose_recipe(learner, held_out, targets, start.probes, temperatures=scales)
    if recipe is not None:
        run, learner = _with_recipe(run, recipe), _with_recipe(learner, recipe)
    return Learning(
        run=run,
        learner=learner,
        frozen=frozen,
        probes=probes,
        start=start,
        targets=targets,
        held_out=held_out,
        temperatures=temperatures,
        scales=scales,
        trials=trials,
    )


def learn(learning: Learning) -> Learned:
    """Train from the last checkpoint to the end, or until training diverges."""
    training = Training(learning, saved=load_checkpoint(learning.run.folder.checkpoint))
    try:
        training.run()
    except Diverged as error:
        return training.given_up(error.epoch, error.step, error.reason)
    return training.ended()


def _learning_from(run: RunContext, start: Start) -> RunContext:
    """The run with the student that learns in the given one's place."""
    return replace(run, prepared=replace(run.prepared, student=start.student)) if start.reestimated else run


def _with_recipe(run: RunContext, recipe: Recipe) -> RunContext:
    return replace(run, prepared=replace(run.prepared, settings=with_recipe(run.prepared.settings, recipe)))


class Training:
    """The training of a student, from its last checkpoint.

    Args:
        learning: how it begins.
        saved: progress and state of its last checkpoint; None from the start.
        notify_epoch: called with the row of an epoch that is measured and saved; by default the run's callback.

    Attributes:
        progress: the progress so far.
        trainer: the student under training.
        student: a copy of it, which holds the weights that were measured last.
        loop: advances it.
        shown: whether its steps are shown as progress; of two in step one is.
    """

    def __init__(
        self,
        learning: Learning,
        *,
        saved: tuple[Progress, dict[str, Any]] | None,
        notify_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        run = learning.run
        self.learning, self.context = learning, run
        self.trainer = make_trainer(
            learning.learner.prepared,
            learning.targets.models,
            temperatures=learning.scales,
            choice_n=learning.targets.choice_n,
            changing=learning.targets.changing,
        )
        # Measured on a copy: mixed precision wraps the module that trains.
        self.student = run.prepared.student.copied()
        self.progress = Progress()
        self.shown = True
        self._notify_epoch = notify_epoch or run.callback.epoch
        self._pace = CheckpointPace(always=run.prepared.requested.checkpoint_every is not None)
        # Predictions after the last epoch that was measured by this process.
        self._latest: Predictions | None = None
        # Weights after the last finished epoch, on the CPU; None before the first.
        self._finished: dict[str, Any] | None = None
        self.is_resumed = saved is not None
        if saved is not None:
            self.progress, state = saved
            self.trainer.load_state(state)
            # Within an epoch there are none in checkpoints of before: those of the checkpoint are the nearest.
            self._finished = state.get("finished") or self._copied()
        self.resumed = self.progress.epoch
        self.loop = TrainingLoop(
            self.trainer,
            run.prepared.views,
            self.progress,
            begin=self._begin,
            measure=self._measure,
            on_images=self._advanced,
            on_sums=self._running,
        )

    def run(self) -> None:
        """Train to the end.

        Raises:
            Diverged: training leaves all bounds.
        """
        self.get_ready()
        train(self.loop, checkpoint_every=self.context.prepared.requested.checkpoint_every, save=self._save)

    def get_ready(self) -> None:
        """Say where it goes on, and have at hand what the first step needs."""
        run, progress = self.context, self.progress
        if self.is_resumed:
            run.callback.resumed(progress.epoch, progress.step, progress.rows)
            run.tracking.epochs(progress.rows)
        _prepare_training(run, self.trainer, progress, targets=self.learning.targets, resumed=self.is_resumed)

    def ended(self) -> Learned:
        """What training to the end has led to."""
        return self._learned(self._latest_measured(), None)

    def given_up(self, epoch: int, step: int | None, reason: str) -> Learned:
        """What it had led to by the last finished epoch, where training has left all bounds since."""
        found = Divergence(epoch=epoch, step=step, reason=reason, kept_epoch=self.progress.epoch)
        return self._learned(self._last_finished(), found)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the progress, which is written; see `TrainingLoop.write_progress`."""
        if self.progress.step == 0:
            self._finished = self._copied()
        # Within an epoch the weights of its beginning are kept, too: where it diverges they are the student's.
        return {**self.trainer.state(), "finished": self._finished if self.progress.step else None}

    def saved(self) -> None:
        """Write the rows of the finished epochs, which may be more than those of the last checkpoint."""
        folder = self.context.folder
        folder.check_in_place()  # a checkpoint takes long enough for the folder to go
        write_json_lines(folder.epochs, self.progress.rows, within=folder.path)

    def notify(self) -> None:
        """Tell of the epoch that is measured and saved."""
        self._notify_epoch(self.progress.rows[-1])
        self.context.tracking.epochs(self.progress.rows)

    def _learned(self, latest: Predictions, diverged: Divergence | None) -> Learned:
        return Learned(
            learning=self.learning,
            student=self.student,
            latest=latest,
            progress=self.progress,
            resumed=self.resumed,
            diverged=diverged,
        )

    def _latest_measured(self) -> Predictions:
        """Predictions after the last epoch, which `student` then holds."""
        if self._latest is not None:
            return self._latest
        # A run that was killed after its last epoch comes here without having measured.
        return _measure_student(self.context, self.trainer.weights(), self.student, "measuring the student")

    def _last_finished(self) -> Predictions:
        """Predictions of the student after the last finished epoch, which `student` then holds; else of the given."""
        if self.progress.epoch == 0:
            self.student.module.load_state_dict(self.context.prepared.student.module.state_dict())
            return self.learning.frozen.before
        finished = self._finished if self.progress.step else self._copied()  # without a step since it is as it was
        assert finished is not None, "a checkpoint of a later epoch has it"
        stage = f"measuring the student of epoch {self.progress.epoch}"
        return _measure_student(self.context, finished, self.student, stage)

    def _begin(self, progress: Progress) -> None:
        self.learning.targets.prepare([progress.epoch])
        if self.shown:
            _announce(self.context, progress)

    def _advanced(self, images: int) -> None:
        if self.shown:
            self.context.callback.advance(images)

    def _running(self, row: dict[str, Any]) -> None:
        if self.shown:
            self.context.callback.running(row)

    def _measure(self) -> dict[str, Any]:
        run, epoch = self.context, self.progress.epoch + 1
        try:
            self._latest = _measure_student(run, self.trainer.weights(), self.student, f"measuring after epoch {epoch}")
            loss = _guard_loss_row(run, self.student, self.learning.held_out)
        except NotFinite as error:
            message = f"training diverges: after epoch {epoch} {error}"
            reason = "the student's logits are NaN or infinite"
            raise Diverged(message, epoch=epoch, step=None, reason=reason) from error
        since = {} if run.origin is None else since_origin(run.origin, self._latest)
        return {**loss, **epoch_measures(self.learning.frozen.before, self._latest), **since}

    def _save(self, progress: Progress) -> None:
        run, state = self.context, self.state()
        if run.prepared.is_main:
            run.folder.check_in_place()
            if self._pace.due(ended=self.loop.ended):
                with self._pace.writing():
                    save_checkpoint(run.folder.checkpoint, progress=progress, trainer=state)
                run.note_worked()
            self.saved()
        run.prepared.accelerator.wait_for_everyone()
        if progress.step == 0:
            self.notify()

    def _copied(self) -> dict[str, Any]:
        return copied(self.trainer.weights(), device=torch.device("cpu"))


def _prepare_training(
    run: RunContext, trainer: StudentTrainer, progress: Progress, *, targets: TargetModels, resumed: bool
) -> None:
    """Cache the crops that fit in memory, and find a micro-batch that fits."""
    prepared, settings = run.prepared, run.prepared.settings
    if prepared.views.fits and progress.epoch < run_length(settings, progress):
        run.callback.stage(f"reading the transfer {prepared.train_images.noun}s", len(prepared.train_images))
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
    stage = f"measuring the loss on guard {held_out.images.noun}s"
    return {"guard_loss": held_out.of(run.predict(student, held_out.images, stage))}


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
                f"{run.probe_images.reference}, and the table lacks some of these {run.probe_images.noun}s; predict "
                "them, too"
            )
        logits.append(found.logits)
    if method.pooling is None:
        return None, calibrated_temperatures(logits, probes.before.target)
    by_class_MC = class_temperatures(logits)
    means = [float(own_C[z_NC.argmax(dim=1)].mean()) for own_C, z_NC in zip(by_class_MC, logits, strict=True)]
    return by_class_MC.tolist(), means
