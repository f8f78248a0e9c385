"""A transfer from references to a result folder: plan, train, measure, account.

plan_transfer   resolves everything that was asked for, without writing
run_transfer    carries a plan out in a folder, from wherever an earlier, killed run left it
transfer        both
"""

import copy
import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from . import __version__
from .alignment import align, align_images
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .data import ImageSource, load_images
from .data.images import Images
from .data.sampling import holdout, stratified
from .devices import default_workers, make_accelerator, resolve_device, resolve_precision
from .errors import DataError, SettingsError
from .evaluation import epoch_measures, measure_transfer
from .files import write_atomically, write_json, write_json_lines
from .models import ModelSource, load_model
from .models.classifier import Classifier
from .models.weights import load_into, load_weights
from .predictions import Predictions, merge_shards, predict_images
from .run_folder import RunFolder
from .settings import Resolved, TransferSettings, resolve_settings, settings_from
from .targets import LiveTargets
from .training import Learner, train
from .views import ViewSpec, default_augment, view_spec

HOLDOUT_SHARE = 0.1
"""Share of the data set apart for measuring where no other images are given for it."""


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
class Plan:
    """A transfer with everything resolved, ready to run.

    Attributes:
        student: the initial student.
        teachers: their outputs in the student's class order.
        train_images: the transfer images, with labels only where training may read them.
        val_images: the images measured on.
        settings: of the training loop.
        spec: how views are made.
        accelerator: device, precision and processes.
        workers: processes that decode.
        checkpoint_every: steps between checkpoints within an epoch, or None.
        config: all of it as plain values with digests, as `config.json` holds it.
    """

    student: Classifier
    teachers: tuple[Classifier, ...]
    train_images: Images
    val_images: Images
    settings: Resolved
    spec: ViewSpec
    accelerator: Accelerator
    workers: int
    checkpoint_every: int | None
    config: dict[str, Any]

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What a transfer gives back.

    Attributes:
        student: the transferred student, in evaluation mode.
        account: the measures and their context, as `result.json` holds them and `--json` prints them; see
            `evaluation.measure_transfer` for definitions and units.
        epochs: measures after each epoch, a row each.
        out: the result folder, or None where none was asked for.
    """

    student: Classifier
    account: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    out: Path | None


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
        data: the transfer images: a reference, `Images`, or a data set that yields images or (image, label).
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


def plan_transfer(
    student: ModelSource,
    teachers: Sequence[ModelSource],
    data: ImageSource,
    *,
    val: ImageSource | None,
    settings: TransferSettings,
) -> Plan:
    """Load and check everything, decide every setting; write nothing.

    Raises:
        GainfinderError: whatever is wrong with models, images or settings.
    """
    if len(teachers) != 1:
        raise SettingsError(f"expected one teacher, got {len(teachers)}; run one transfer after another for several")
    device = resolve_device(settings.device)
    models, train_images = align(
        [_copied(model) for model in (student, *teachers)], load_images(data, labels=settings.labels == "use")
    )
    train_images, val_images = _split(train_images, data, val, models[0])
    spec = view_spec([model.preprocessing for model in models], "none")
    mirrorable = train_images.mirrorable
    transfer_images = _subset(train_images, settings)
    resolved = resolve_settings(
        settings,
        labelled=transfer_images.labels is not None,
        images=len(transfer_images),
        view_size=spec.size,
        mirrorable=mirrorable,
    )
    accelerator = make_accelerator(settings.device, settings.precision)
    if resolved.batch_size < accelerator.num_processes or len(transfer_images) < accelerator.num_processes:
        raise SettingsError(
            f"batch-size {resolved.batch_size} and {len(transfer_images)} images cannot be shared out among "
            f"{accelerator.num_processes} processes: expected at least one image a process"
        )
    plan = Plan(
        student=models[0],
        teachers=tuple(models[1:]),
        train_images=transfer_images,
        val_images=val_images,
        settings=resolved,
        spec=replace(spec, augment=resolved.augment),
        accelerator=accelerator,
        workers=default_workers(device) if settings.workers is None else settings.workers,
        checkpoint_every=settings.checkpoint_every,
        config={},
    )
    return replace(plan, config=_describe(plan, settings, held_out=val is None))


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
        finished = folder.read_result()
        if finished is not None:
            return _finished(plan, folder, finished)
        with torch.random.fork_rng(devices=cuda):  # training seeds torch's generators for dropout
            return _train_and_account(plan, folder, watcher)


def _copied(source: ModelSource) -> Classifier:
    """The classifier; one that was passed in as an object is copied, so that its owner's stays as it is."""
    classifier = load_model(source)
    if isinstance(source, str):
        return classifier
    return replace(classifier, module=copy.deepcopy(classifier.module))


def _split(
    train_images: Images, data: ImageSource, val: ImageSource | None, student: Classifier
) -> tuple[Images, Images]:
    """The images to learn from and the ones to measure on; labels of the latter are always read."""
    if val is not None:
        return train_images, align_images(load_images(val), student)
    rest, held = holdout(train_images, share=HOLDOUT_SHARE, by_id_alone=train_images.labels is None)
    if train_images.labels is None:
        labelled = align_images(load_images(data), student)
        place = {sample_id: i for i, sample_id in enumerate(labelled.ids)}
        held = labelled.select([place[sample_id] for sample_id in held.ids])
    return rest, held


def _subset(images: Images, settings: TransferSettings) -> Images:
    """The share of the transfer images that was asked for: stratified, or by id alone where no label may be read."""
    if settings.subset is None and (settings.limit is None or settings.limit >= len(images)):
        return images
    return images.select(stratified(images, count=settings.limit, share=settings.subset, salt="transfer"))


def _describe(plan: Plan, settings: TransferSettings, *, held_out: bool) -> dict[str, Any]:
    """The resolved run as plain values: all that its result depends on, and the environment beside it."""
    resolved = {**asdict(plan.settings), "method": plan.settings.method.name}
    device = plan.accelerator.device.type
    return {
        "student": _describe_model(plan.student),
        "teachers": [_describe_model(teacher) for teacher in plan.teachers],
        "data": _describe_images(plan.train_images),
        "val": {**_describe_images(plan.val_images), "held_out": held_out},
        "settings": {
            **resolved,
            "labels": settings.labels,
            "preset": settings.preset,
            "limit": settings.limit,
            "subset": settings.subset,
            "precision": resolve_precision(settings.precision, plan.accelerator.device),
            "device": device,
        },
        "views": {"size": plan.spec.size, "augment": plan.spec.augment},
        "environment": environment(plan),
    }


def environment(plan: Plan) -> dict[str, Any]:
    """Versions and machine; a resumed run may differ in them, though it is bit-identical only where it does not."""
    packages = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
    return {
        "gainfinder": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "device_name": torch.cuda.get_device_name() if plan.accelerator.device.type == "cuda" else platform.processor(),
        "processes": plan.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "workers": plan.workers,
        "checkpoint_every": plan.checkpoint_every,
    }


def _describe_model(model: Classifier) -> dict[str, Any]:
    return {
        "reference": model.reference,
        "digest": model.weights_digest(),
        "classes": model.num_classes,
        "preprocessing": asdict(model.preprocessing),
    }


def _describe_images(images: Images) -> dict[str, Any]:
    return {
        "reference": images.reference,
        "samples": len(images),
        "labelled": images.labels is not None,
        "digest": images.digest(),
    }


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
    after_student, progress, resumed = _train(plan, folder, before, watcher)
    after = _predict(plan, after_student, "measuring the student", watcher)
    account = _account(plan, progress, measure_transfer(before, after, teachers), broken=before.broken)
    account.update(resumed_epochs=resumed, out=str(folder.path), student_reference=None)
    if plan.is_main:
        after.write(folder.predictions / "after.parquet")
        account["student_reference"] = _save_student(after_student, folder)
        write_json(folder.result, account)
        folder.checkpoint.unlink(missing_ok=True)
    plan.accelerator.wait_for_everyone()
    return TransferResult(student=after_student, account=account, epochs=tuple(progress.rows), out=folder.path)


def _train(plan: Plan, folder: RunFolder, before: Predictions, watcher: Watcher) -> tuple[Classifier, Progress, int]:
    """The trained student, its progress, and how many epochs an earlier session had done."""
    learner = make_learner(plan)
    # Measured on a copy: mixed precision wraps the module that trains.
    snapshot = replace(plan.student, module=copy.deepcopy(plan.student.module))
    progress = Progress()
    if (saved := load_checkpoint(folder.checkpoint)) is not None:
        progress, state = saved
        learner.load_state(state)
        watcher.resumed(progress.epoch, progress.step)
    resumed = progress.epoch
    images, epochs = len(plan.train_images), plan.settings.epochs

    def announce() -> None:
        # A stage an epoch would lose the estimate of the time left; one for all epochs keeps it.
        done = progress.epoch * images + min(images, progress.step * plan.settings.batch_size)
        watcher.stage(f"training, epoch {progress.epoch + 1} of {epochs}", epochs * images - done)

    def measure() -> dict[str, Any]:
        snapshot.module.load_state_dict(learner.weights())
        now = _predict(plan, snapshot, f"measuring after epoch {progress.epoch + 1}", watcher)
        return epoch_measures(before, now)

    def save(progress: Progress) -> None:
        if plan.is_main:
            save_checkpoint(folder.checkpoint, progress=progress, **learner.state())
            write_json_lines(folder.epochs, progress.rows)
        plan.accelerator.wait_for_everyone()
        if progress.step == 0:
            watcher.epoch(progress.rows[-1])
            if progress.epoch < epochs:
                announce()

    if progress.epoch < epochs:
        announce()
    train(
        learner,
        plan.train_images,
        plan.spec,
        progress,
        workers=plan.workers,
        checkpoint_every=plan.checkpoint_every,
        save=save,
        measure=measure,
        on_images=watcher.advance,
    )
    snapshot.module.load_state_dict(learner.weights())
    return snapshot, progress, resumed


def make_learner(plan: Plan) -> Learner:
    """A copy of the plan's student, ready to train against the plan's frozen models."""
    frozen = [*([plan.student] if plan.settings.method.needs_initial_student else []), *plan.teachers]
    targets = LiveTargets(frozen, device=plan.accelerator.device, autocast=plan.accelerator.autocast)
    student = replace(plan.student, module=copy.deepcopy(plan.student.module))
    return Learner(student, targets, settings=plan.settings, accelerator=plan.accelerator)


def _constant_predictions(plan: Plan, folder: RunFolder, model: Classifier, name: str, watcher: Watcher) -> Predictions:
    """Predictions of a frozen model, made once a run: a resumed one reads what the first session wrote."""
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
        max_broken=plan.settings.max_broken,
        on_images=lambda count: watcher.advance(count * shard[1]),
    )
    parts = [part] if shard[1] == 1 else gather_object([part])
    return merge_shards(parts, plan.val_images)


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
    """The result of a run that was finished before, its student read back."""
    module = copy.deepcopy(plan.student.module)
    load_into(module, load_weights(folder.student / "model.safetensors"), reference=str(folder.student))
    lines = folder.epochs.read_text(encoding="utf-8").splitlines()
    return TransferResult(
        student=replace(plan.student, module=module),
        account={**account, "resumed_epochs": plan.settings.epochs, "out": str(folder.path)},
        epochs=tuple(json.loads(line) for line in lines),
        out=folder.path,
    )
