"""One transfer in its result folder: train from wherever a killed run left it, measure, guard."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ..data import Images
from ..errors import DataError
from ..files import write_json_lines
from ..inference import Answering, TargetSource
from ..metrics import (
    TransferMeasures,
    accuracy_change,
    calibrated_temperatures,
    epoch_measures,
    measure_transfer,
    since_origin,
)
from ..models import Classifier, PredictionTable
from ..predictions import Predictions
from ..results import RunFolder, TransferMetrics
from ..training import (
    FeatureComparison,
    Learner,
    Progress,
    blank_batch,
    copied,
    load_checkpoint,
    note_parts,
    save_checkpoint,
    train,
)
from .bank import replay
from .callbacks import Callback
from .frozen import (
    constant_predictions,
    reestimate_on_views,
    shared_predictions,
    table_predictions,
)
from .guard import Guarded, Line, guard
from .planning import Plan
from .result import TransferResult, conclude, finished
from .tracking import Tracking, tracking

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the frozen models say of some images.

    Attributes:
        before: predictions of the initial student.
        teachers: of the teachers; None for a table that does not hold all of these images.
    """

    before: Predictions
    teachers: tuple[Predictions | None, ...]


Known: TypeAlias = Mapping[str, Predictions]
NOTHING_KNOWN: Known = {}


def run_transfer(
    plan: Plan,
    out: Path,
    *,
    callback: Callback,
    known: Known = NOTHING_KNOWN,
    origin: Predictions | None = None,
    name: str | None = None,
) -> TransferResult:
    """Carry a plan out in its folder in one go, from the start or from where it was left.

    Several teachers teach side by side (the strategy `parallel`).

    Args:
        plan: what to do.
        out: result folder.
        callback: is told of progress.
        known: predictions of frozen models that were made before, by their file's name without its ending.
        origin: predictions of the student that a sequence of transfers began with, for the images measured on; the
            rows of the epochs then tell the change since there, too.
        name: of the run, for trackers; by default the folder's.

    Raises:
        RunFolderError: the folder holds something else, is in use or is damaged.
        GainfinderError: whatever else goes wrong with models or images.
    """
    folder = RunFolder(out)
    with held(folder, plan), tracked(plan, folder, name=name or out.name) as trackers:
        metrics = folder.read_result()
        if metrics is not None:
            trackers.epochs([row.to_dict() for row in folder.read_epochs()])
            trackers.metrics(metrics, epochs=plan.settings.epochs)
            return finished(plan, folder, metrics, callback=callback)
        trackers.begin()
        with forked_generators(plan):
            result = _train_and_measure(plan, folder, callback, trackers, known=known, origin=origin)
        trackers.metrics(result.metrics, epochs=plan.settings.epochs)
        return result


def tracked(plan: Plan, folder: RunFolder, *, name: str) -> AbstractContextManager[Tracking]:
    """The trackers of a run, in the process that writes; none in the others."""
    names = plan.asked.trackers if plan.is_main else ()
    return tracking(names, folder.tracking, run=name, config=plan.config if names else {})


@contextmanager
def forked_generators(plan: Plan) -> Iterator[None]:
    """Training seeds torch's generators for dropout; afterwards they stand where they stood."""
    cuda = [plan.accelerator.device] if plan.accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        yield


@contextmanager
def held(folder: RunFolder, plan: Plan) -> Iterator[None]:
    """The folder is this run's, among all processes."""
    # Only one process writes and checks; the others wait until it has found the folder in order.
    with folder if plan.is_main else nullcontext():
        if plan.is_main:
            folder.claim(plan.config)
        plan.accelerator.wait_for_everyone()
        yield


def _train_and_measure(
    plan: Plan, folder: RunFolder, callback: Callback, trackers: Tracking, *, known: Known, origin: Predictions | None
) -> TransferResult:
    answers = ask_frozen(plan, folder, plan.val_images, "", known=known, callback=callback)
    before = answers.before
    probes = None
    if plan.needs_probes:
        probes = ask_frozen(plan, folder, plan.probe_images, "probe-", known=known, callback=callback)
    replayed = replay(plan, callback)
    temperatures = _temperatures(plan, probes)
    learner = make_learner(plan, replayed.answering, temperatures=temperatures)
    # Measured on a copy: mixed precision wraps the module that trains.
    snapshot = replace(plan.student, module=copy.deepcopy(plan.student.module))
    latest, progress, resumed = _train(
        plan, folder, learner, snapshot, starts=(before, origin), callback=callback, trackers=trackers
    )
    after, guarded = latest, None
    if plan.guard_images is not None and probes is not None:
        line = Line(
            initial=plan.student.module.state_dict(), transferred=copied(learner.weights(), device=torch.device("cpu"))
        )
        after, guarded = keep_best(
            plan, line, snapshot, folder, probes=probes, ends=(before, latest), callback=callback
        )
    metrics = _metrics(plan, progress, measure_transfer(before, after, answers.teachers), broken=before.broken)
    found = {
        "temperatures": None if temperatures is None else tuple(temperatures),
        "guard": None if guarded is None else guarded.decision(accuracy_change(before, latest)),
        "bank": replayed.bank_use,
        "resumed_epochs": resumed,
    }
    metrics = metrics.model_copy(update=found)
    return conclude(plan, folder, snapshot, metrics, ends=(before, after), rows=progress.rows, callback=callback)


def ask_frozen(
    plan: Plan, folder: RunFolder, images: Images, prefix: str, *, known: Known, callback: Callback
) -> Answers:
    """Predictions of the initial student and of the teachers, kept in the folder."""

    def ask(model: Classifier, name: str) -> Predictions:
        path = folder.predictions / f"{prefix}{name}.parquet"
        return constant_predictions(plan, model, images, path, known=known.get(prefix + name), callback=callback)

    before = ask(plan.student, "before")
    teachers = tuple(
        _ask_table(plan, folder, teacher, before, number=number, prefix=prefix)
        if isinstance(teacher, PredictionTable)
        else ask(teacher, f"teacher-{number}")
        for number, teacher in enumerate(plan.teachers, start=1)
    )
    return Answers(before=before, teachers=teachers)


def _ask_table(
    plan: Plan, folder: RunFolder, table: PredictionTable, like: Predictions, *, number: int, prefix: str
) -> Predictions | None:
    """What a table says of the images, kept in the folder as a model's predictions are."""
    found = table_predictions(table, like)
    if found is not None and plan.is_main:
        found.write(folder.predictions / f"{prefix}teacher-{number}.parquet")
    return found


def keep_best(
    plan: Plan,
    line: Line,
    model: Classifier,
    folder: RunFolder,
    *,
    probes: Answers,
    ends: tuple[Predictions, Predictions],
    callback: Callback,
) -> tuple[Predictions, Guarded]:
    """Guard the student: `model` becomes the one that is kept.

    Args:
        plan: of the run.
        line: from the initial to the transferred student.
        model: a copy of the student.
        folder: of the run.
        probes: what the frozen models say of the guard images.
        ends: predictions of the two ends of the line for the images measured on.
        callback: is told of progress.

    Returns:
        The kept student's predictions for the images measured on, and what the guard decided.
    """
    teachers = [teacher for teacher in probes.teachers if teacher is not None]
    found = guard(
        plan, line, model, folder=folder.predictions, before=probes.before, teachers=teachers, callback=callback
    )
    line.load(found.kept, model, plan)
    if found.kept is None:
        return ends[0], found
    if found.kept.alpha == 1:
        return ends[1], found
    after = shared_predictions(plan, model, plan.val_images, "measuring the student that is kept", callback=callback)
    return after, found


def _train(
    plan: Plan,
    folder: RunFolder,
    learner: Learner,
    snapshot: Classifier,
    *,
    starts: tuple[Predictions, Predictions | None],
    callback: Callback,
    trackers: Tracking,
) -> tuple[Predictions, Progress, int]:
    """Train to the end: the student's predictions, its progress, and how many epochs were found done."""
    latest: Predictions | None = None
    progress = Progress()
    if (saved := load_checkpoint(folder.checkpoint)) is not None:
        progress, state = saved
        learner.load_state(state)
        callback.resumed(progress.epoch, progress.step, progress.rows)
        trackers.epochs(progress.rows)
    resumed = progress.epoch

    def measure() -> dict[str, Any]:
        nonlocal latest
        latest = _measure_learner(plan, learner, snapshot, f"measuring after epoch {progress.epoch + 1}", callback)
        before, origin = starts
        return {**epoch_measures(before, latest), **({} if origin is None else since_origin(origin, latest))}

    def save(progress: Progress) -> None:
        if plan.is_main:
            save_checkpoint(folder.checkpoint, progress=progress, learner=learner.state())
            write_json_lines(folder.epochs, progress.rows)
        plan.accelerator.wait_for_everyone()
        if progress.step == 0:
            callback.epoch(progress.rows[-1])
            trackers.epochs(progress.rows)
            _announce(plan, progress, callback)

    if plan.views.fits and progress.epoch < plan.settings.epochs:
        callback.stage("reading the transfer images", len(plan.train_images))
        plan.views.load(callback.advance)
    if plan.settings.micro_batch is not None and plan.settings.micro_batch < plan.settings.batch_size:
        note_parts(plan.settings, learner.student, plan.settings.micro_batch)
    if plan.asked.fits_itself and saved is None:
        learner.fit_in_memory(blank_batch(learner, plan.views))
    _announce(plan, progress, callback)
    train(
        learner,
        plan.views,
        progress,
        checkpoint_every=plan.asked.checkpoint_every,
        save=save,
        measure=measure,
        on_images=callback.advance,
        on_sums=callback.running,
    )
    # A run that was killed after its last epoch comes here without having measured.
    if latest is None:
        latest = _measure_learner(plan, learner, snapshot, "measuring the student", callback)
    return latest, progress, resumed


def _measure_learner(plan: Plan, learner: Learner, snapshot: Classifier, stage: str, callback: Callback) -> Predictions:
    """Predictions of the student as it stands, through a copy that holds its weights from then on."""
    snapshot.module.load_state_dict(learner.weights())
    found = shared_predictions(plan, snapshot, plan.val_images, stage, callback=callback)
    snapshot.withdraw()
    return found


def _announce(plan: Plan, progress: Progress, callback: Callback) -> None:
    # A stage that spans all epochs left, so that its time left is the run's.
    if progress.epoch < plan.settings.epochs:
        images, epochs = len(plan.train_images), plan.settings.epochs
        done = min(images, progress.step * plan.settings.batch_size)
        left = (epochs - progress.epoch) * images - done
        callback.stage(f"training, epoch {progress.epoch + 1} of {epochs}", left)
        callback.epoch_begins(progress.epoch + 1, epochs, images, done)


def make_learner(plan: Plan, answering: Sequence[Answering], *, temperatures: Sequence[float] | None = None) -> Learner:
    """A copy of the plan's student, ready to train against the plan's frozen models.

    Args:
        plan: of the run.
        answering: the plan's frozen models as they answer (`run_bank.replay`).
        temperatures: of the models that answer, for calibrated methods; without, they count as calibrated.
    """
    student = replace(plan.student, module=copy.deepcopy(plan.student.module))
    if plan.settings.student_mode == "reestimate":
        reestimate_on_views(plan, student)
    # They were measured; those that are run for the views go back to the device.
    for model in (plan.student, *plan.teachers):
        if isinstance(model, Classifier):
            model.withdraw()
    targets = TargetSource(
        answering,
        device=plan.accelerator.device,
        autocast=plan.accelerator.autocast,
        compiled=plan.asked.compile,
        partition=plan.settings.method.partition,
    )
    if plan.settings.method.calibrated and temperatures is None:
        temperatures = [1.0] * len(answering)
    return Learner(
        student,
        targets,
        settings=plan.settings,
        accelerator=plan.accelerator,
        temperatures=temperatures,
        comparison=_comparison(plan, student),
    )


def _comparison(plan: Plan, student: Classifier) -> FeatureComparison | None:
    if not plan.settings.method.needs_features:
        return None
    (teacher,) = plan.teachers
    assert isinstance(teacher, Classifier), "plan_transfer refuses tables for methods that compare features"
    labels = plan.train_images.labels if plan.settings.method.objective == "crd" else None
    return FeatureComparison.between(
        student,
        teacher,
        labels_n=None if labels is None else torch.from_numpy(labels),
        negatives=plan.settings.negatives,
        seed=plan.settings.seed,
    )


def _temperatures(plan: Plan, probes: Answers | None) -> list[float] | None:
    if not plan.settings.method.calibrated or probes is None:
        return None
    logits = [probes.before.logits]
    for teacher, found in zip(plan.teachers, probes.teachers, strict=True):
        if found is None:
            raise DataError(
                f"{teacher.reference}: method {plan.settings.method.name!r} compares models on "
                f"{plan.probe_images.reference}, and the table lacks some of these images; predict them, too"
            )
        logits.append(found.logits)
    return calibrated_temperatures(logits, probes.before.target)


def _metrics(plan: Plan, progress: Progress, measures: TransferMeasures, *, broken: Sequence[str]) -> TransferMetrics:
    partitioned = plan.settings.method.partition is not None
    return TransferMetrics(
        student=plan.student.reference,
        teachers=tuple(teacher.reference for teacher in plan.teachers),
        method=plan.settings.method.name,
        **measures.model_dump(),
        teacher_share=progress.taught / progress.seen if partitioned and progress.seen else None,
        unaugmented_teachers=tuple(
            teacher.reference for teacher in plan.teachers if isinstance(teacher, PredictionTable)
        ),
        broken_images=tuple(sorted({*progress.broken, *broken})),
    )
