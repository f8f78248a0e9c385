"""A transfer in its result folder: train from wherever an earlier, killed run left it, measure, account."""

import copy
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .data import ImageSource
from .data.loading import check_broken
from .errors import DataError
from .evaluation import epoch_measures, measure_transfer
from .files import write_atomically, write_json, write_json_lines
from .models import ModelSource, load_model
from .models.classifier import Classifier
from .models.weights import load_into, load_weights
from .planning import Plan, plan_transfer
from .predictions import Predictions, merge_shards, predict_images
from .run_folder import RunFolder
from .settings import settings_from
from .targets import LiveTargets
from .training import Learner, TrainingData, train


class Watcher:
    """Whoever wants to see a run's progress overrides these; the library itself prints nothing."""

    def stage(self, name: str, images: int) -> None:
        """A stage begins that will work through so many images."""

    def advance(self, images: int) -> None:
        """So many more images of the stage are done."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is measured."""

    def resumed(self, epochs: int, steps: int) -> None:
        """The run goes on from a checkpoint after so many epochs and steps of the next."""


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What a transfer gives back.

    Attributes:
        account: the measures and their context, as `result.json` holds them and `--json` prints them; see
            `evaluation.measure_transfer` for definitions and units.
        epochs: measures after each epoch, a row each.
        out: the result folder, or None where none was asked for.
        load_student: gives the transferred student.
    """

    account: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    out: Path | None
    load_student: Callable[[], Classifier] = field(repr=False)

    @functools.cached_property
    def student(self) -> Classifier:
        """The transferred student, in evaluation mode; of a run that was finished before, read from its folder."""
        return self.load_student()


def transfer(
    student: ModelSource,
    teacher: ModelSource,
    data: ImageSource,
    *,
    val: ImageSource | None = None,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
    **settings: Any,
) -> TransferResult:
    """Move what the teacher knows and the student does not into the student.

    Nothing passed in is changed: the student is copied before it is trained.

    Args:
        student: reference, classifier or module that is to learn.
        teacher: reference, classifier or module that is to teach.
        data: the transfer images: a reference, `Images`, or a data set that yields images or (image, label), each
            image a PIL image, uint8, or float in [0, 1]; not normalised, for each model normalises for itself.
        val: images to measure on, in full; by default a tenth of `data` is set apart.
        out: result folder. A run killed there goes on when it is called again with the same arguments; a finished
            one returns its result. None: nothing is kept on disk.
        watcher: is told of progress.
        **settings: fields of `settings.TransferSettings`.

    Raises:
        GainfinderError: whatever is wrong with models, images, settings or folder.
    """
    plan = plan_transfer(student, [teacher], data, val=val, settings=settings_from(settings))
    if out is not None:
        return run_transfer(plan, Path(out), watcher=watcher)
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as scratch:
        result = run_transfer(plan, Path(scratch) / "run", watcher=watcher)
        return replace(result, out=None, account={**result.account, "out": None, "student_reference": None})


def run_transfer(plan: Plan, out: Path, *, watcher: Watcher | None = None) -> TransferResult:
    """Carry a plan out in its folder, from the start or from where it was left.

    Raises:
        RunFolderError: the folder holds something else, is in use or is damaged.
        GainfinderError: whatever else goes wrong with models or images.
    """
    watcher = watcher or Watcher()
    folder = RunFolder(out)
    cuda = [plan.accelerator.device] if plan.accelerator.device.type == "cuda" else []
    with _held(folder, plan):
        account = folder.read_result()
        if account is not None:
            return _finished(plan, folder, account)
        with torch.random.fork_rng(devices=cuda):  # training seeds torch's generators for dropout
            return _train_and_account(plan, folder, watcher)


@contextmanager
def _held(folder: RunFolder, plan: Plan) -> Iterator[None]:
    # Only one process writes and checks; the others wait until it has found the folder in order.
    with folder if plan.is_main else nullcontext():
        if plan.is_main:
            folder.claim(plan.config)
        plan.accelerator.wait_for_everyone()
        yield


def _train_and_account(plan: Plan, folder: RunFolder, watcher: Watcher) -> TransferResult:
    before = _constant_predictions(plan, folder, plan.student, "before", watcher)
    teachers = [
        _constant_predictions(plan, folder, teacher, f"teacher-{number}", watcher)
        for number, teacher in enumerate(plan.teachers, start=1)
    ]
    student, after, progress, resumed = _train(plan, folder, before, watcher)
    account = _account(plan, progress, measure_transfer(before, after, teachers), broken=before.broken)
    account.update(resumed_epochs=resumed, out=str(folder.path), student_reference=None)
    if plan.is_main:
        after.write(folder.predictions / "after.parquet")
        write_json_lines(folder.epochs, progress.rows)
        account["student_reference"] = _save_student(student, folder)
        write_json(folder.result, account)
        folder.checkpoint.unlink(missing_ok=True)
    plan.accelerator.wait_for_everyone()
    named = replace(student, reference=account["student_reference"] or f"{student.reference} (transferred)")
    return TransferResult(account=account, epochs=tuple(progress.rows), out=folder.path, load_student=lambda: named)


def _train(
    plan: Plan, folder: RunFolder, before: Predictions, watcher: Watcher
) -> tuple[Classifier, Predictions, Progress, int]:
    """The trained student, its predictions, its progress, and how many epochs it found done."""
    learner = make_learner(plan)
    # Measured on a copy: mixed precision wraps the module that trains.
    snapshot = replace(plan.student, module=copy.deepcopy(plan.student.module))
    latest: Predictions | None = None
    progress = Progress()
    if (saved := load_checkpoint(folder.checkpoint)) is not None:
        progress, state = saved
        learner.load_state(state)
        watcher.resumed(progress.epoch, progress.step)
    resumed = progress.epoch

    def measure() -> dict[str, Any]:
        nonlocal latest
        latest = _measure_learner(plan, learner, snapshot, f"measuring after epoch {progress.epoch + 1}", watcher)
        return epoch_measures(before, latest)

    def save(progress: Progress) -> None:
        if plan.is_main:
            save_checkpoint(folder.checkpoint, progress=progress, **learner.state())
            write_json_lines(folder.epochs, progress.rows)
        plan.accelerator.wait_for_everyone()
        if progress.step == 0:
            watcher.epoch(progress.rows[-1])
            _announce(plan, progress, watcher)

    _announce(plan, progress, watcher)
    train(
        learner,
        TrainingData(images=plan.train_images, spec=plan.spec, workers=plan.workers),
        progress,
        checkpoint_every=plan.asked.checkpoint_every,
        save=save,
        measure=measure,
        on_images=watcher.advance,
    )
    # A run that was killed after its last epoch comes here without having measured.
    if latest is None:
        latest = _measure_learner(plan, learner, snapshot, "measuring the student", watcher)
    return snapshot, latest, progress, resumed


def _measure_learner(plan: Plan, learner: Learner, snapshot: Classifier, stage: str, watcher: Watcher) -> Predictions:
    """Predictions of the student as it stands, through a copy that holds its weights from then on."""
    snapshot.module.load_state_dict(learner.weights())
    found = _predict(plan, snapshot, stage, watcher)
    snapshot.module.cpu()
    return found


def _announce(plan: Plan, progress: Progress, watcher: Watcher) -> None:
    # A stage that spans all epochs left, so that its time left is the run's.
    if progress.epoch < plan.settings.epochs:
        images, epochs = len(plan.train_images), plan.settings.epochs
        done = progress.epoch * images + min(images, progress.step * plan.settings.batch_size)
        watcher.stage(f"training, epoch {progress.epoch + 1} of {epochs}", epochs * images - done)


def make_learner(plan: Plan) -> Learner:
    """A copy of the plan's student, ready to train against the plan's frozen models."""
    frozen = [*([plan.student] if plan.settings.method.needs_initial_student else []), *plan.teachers]
    plan.student.module.cpu()  # it was measured; LiveTargets takes it back to the device where the method needs it
    targets = LiveTargets(frozen, device=plan.accelerator.device, autocast=plan.accelerator.autocast)
    student = replace(plan.student, module=copy.deepcopy(plan.student.module))
    return Learner(student, targets, settings=plan.settings, accelerator=plan.accelerator)


def _constant_predictions(plan: Plan, folder: RunFolder, model: Classifier, name: str, watcher: Watcher) -> Predictions:
    """Predictions of a frozen model, made once a run: a resumed one reads what was written before."""
    path = folder.predictions / f"{name}.parquet"
    if path.exists():
        try:
            return Predictions.load(path)
        except DataError:
            pass  # damaged from outside; it can be made again
    predictions = _predict(plan, model, f"measuring {model.reference}", watcher)
    if plan.is_main:
        predictions.write(path)
    plan.accelerator.wait_for_everyone()
    return predictions


def _predict(plan: Plan, model: Classifier, stage: str, watcher: Watcher) -> Predictions:
    """Predictions for the images measured on, shared out between processes."""
    accelerator = plan.accelerator
    shard = (accelerator.process_index, accelerator.num_processes)
    watcher.stage(stage, len(plan.val_images))
    part = predict_images(
        model,
        plan.val_images,
        device=accelerator.device,
        batch_size=plan.settings.batch_size,
        workers=plan.workers,
        shard=shard,
        max_broken=1.0,  # a process sees its share only; all of them are counted below
        on_images=lambda count: watcher.advance(count * shard[1]),
    )
    whole = merge_shards([part] if shard[1] == 1 else gather_object([part]), plan.val_images)
    check_broken(
        whole.broken,
        total=len(plan.val_images),
        max_share=plan.settings.max_broken,
        reference=plan.val_images.reference,
    )
    return whole


def _account(plan: Plan, progress: Progress, measures: dict[str, Any], *, broken: Sequence[str]) -> dict[str, Any]:
    partitioned = plan.settings.method.partition is not None
    return {
        "student": plan.student.reference,
        "teachers": [teacher.reference for teacher in plan.teachers],
        "method": plan.settings.method.name,
        **measures,
        "teacher_share": progress.taught / progress.seen if partitioned and progress.seen else None,
        "broken_images": sorted({*progress.broken, *broken}),
    }


def _save_student(student: Classifier, folder: RunFolder) -> str | None:
    """Write the student's folder atomically; the reference that loads it, where its source has one."""
    found: list[str | None] = []

    def write(partial: Path) -> None:
        partial.mkdir()
        reference = student.save(student, partial)
        # The folder gets its own name only once it is complete.
        found.append(None if reference is None else reference.replace(str(partial), str(folder.student)))

    write_atomically(folder.student, write)
    return found[0]


def _finished(plan: Plan, folder: RunFolder, account: dict[str, Any]) -> TransferResult:
    """The result of a run that was finished before."""

    def load_student() -> Classifier:
        if account["student_reference"] is not None:
            loaded = load_model(account["student_reference"])
            return replace(plan.student, reference=loaded.reference, module=loaded.module)
        module = copy.deepcopy(plan.student.module)
        load_into(module, load_weights(folder.student / "model.safetensors"), reference=str(folder.student))
        return replace(plan.student, reference=f"{plan.student.reference} (transferred)", module=module)

    if plan.is_main:
        folder.checkpoint.unlink(missing_ok=True)  # left where a kill came right after the result
    return TransferResult(
        account={**account, "resumed_epochs": plan.settings.epochs, "out": str(folder.path)},
        epochs=tuple(folder.read_epochs()),
        out=folder.path,
        load_student=load_student,
    )
