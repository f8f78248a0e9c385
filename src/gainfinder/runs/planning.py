"""From what was asked for to a plan: everything loaded, checked and decided, nothing written."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..config import ResolvedConfig, TransferConfig, resolve_settings, size_in_bytes
from ..data import Images, ImageSource, holdout, load_images, stratified
from ..devices import check_batch_norm, default_workers, environment, make_accelerator, resolve_device
from ..errors import DataError, ModelError, SettingsError
from ..inference import Bank, Teacher, align_images, align_model, evaluation_crops, named_after
from ..models import Classifier, ModelSource, PredictionTable, TeacherSource, has_batch_norm, load_own, load_teacher
from ..views import ViewSource, ViewSpec, view_spec
from .tracking import require

_log = logging.getLogger("gainfinder")

HOLDOUT_SHARE = 0.1
"""Share of the data set apart for measuring, and as much for the guard, where no other images are given for them."""
FEW_IMAGES = 200
"""Fewer to measure on, or to guard with, than these are worth a warning."""
PROBE_IMAGES = 2000
"""Transfer images on which models are compared where there are no guard images."""
MAX_GUARD_IMAGES = 5000
"""Most images set apart for the guard."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A transfer with everything resolved, ready to run.

    Attributes:
        student: the initial student.
        teachers: their outputs in the student's class order.
        train_images: the transfer images, with labels only where training may read them.
        val_images: the images measured on.
        guard_images: the images that guard the student, with labels only where they may be read; None without a guard.
        settings: of the training loop.
        spec: how views are made.
        views: of the transfer images.
        bank: keeps what frozen models answer for these views; None without.
        accelerator: device, precision and processes.
        workers: processes that decode.
        asked: the settings as they were asked for.
        held_out: whether the images measured on were set apart from the data.
        guard_held_out: whether the guard images were.
        command: that asked for it, for people to repeat; None from Python.
        student_is_given: whether the initial student is the one that was given, not one that an earlier teacher of a
            sequence left.
    """

    student: Classifier
    teachers: tuple[Teacher, ...]
    train_images: Images
    val_images: Images
    guard_images: Images | None
    settings: ResolvedConfig
    spec: ViewSpec
    views: ViewSource = field(repr=False)
    bank: Bank | None = field(repr=False)
    accelerator: Accelerator
    workers: int
    asked: TransferConfig
    held_out: bool
    guard_held_out: bool
    command: str | None = None
    student_is_given: bool = True

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @functools.cached_property
    def _crops(self) -> dict[int, ViewSource | None]:
        return {}

    def crops(self, images: Images, model: Classifier) -> ViewSource | None:
        """Images that students are measured on again and again, decoded once; None where they are not kept."""
        if model.preprocessing != self.student.preprocessing:
            return None
        if id(images) not in self._crops:
            self._crops[id(images)] = evaluation_crops(images, model.preprocessing, workers=self.workers)
        source = self._crops[id(images)]
        if source is not None:
            source.load()
        return source

    def is_given(self, model: Classifier) -> bool:
        """Whether a model was given, so that other transfers may ask for what it answers."""
        return model is not self.student or self.student_is_given

    @property
    def needs_probes(self) -> bool:
        """Whether a transfer compares models on `probe_images`: to guard the student, or to calibrate confidences."""
        return self.guard_images is not None or self.settings.method.calibrated

    @functools.cached_property
    def probe_images(self) -> Images:
        """Images on which models are compared before any training: the guard's, else some of the transfer images."""
        if self.guard_images is not None:
            return self.guard_images
        count = min(PROBE_IMAGES, len(self.train_images))
        return self.train_images.select(stratified(self.train_images, count=count, salt="probe"))

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """All that the result depends on, with digests, and the environment; as `config.json` holds it."""
        resolved = {**asdict(self.settings), "method": self.settings.method.name}
        return {
            "student": _describe_model(self.student),
            "teachers": [_describe_teacher(teacher) for teacher in self.teachers],
            "data": _describe_images(self.train_images),
            "val": {**_describe_images(self.val_images), "held_out": self.held_out},
            "guard": None
            if self.guard_images is None
            else {**_describe_images(self.guard_images), "held_out": self.guard_held_out},
            "settings": {
                **resolved,
                "labels": self.asked.labels,
                "preset": self.asked.preset,
                "limit": self.asked.limit,
                "subset": self.asked.subset,
                "strategy": self.asked.strategy if len(self.teachers) > 1 else None,
                "order": self.asked.order if len(self.teachers) > 1 else None,
                "bank": None if self.bank is None else self.asked.bank_storage,
                "precision": self.accelerator.mixed_precision,
                "compile": self.asked.compile,
                "device": self.accelerator.device.type,
            },
            "views": {"sizes": self.spec.sizes, "augment": self.spec.augment},
            "environment": _environment(self),
        }


def plan_transfer(
    student: ModelSource,
    teachers: Sequence[TeacherSource],
    data: ImageSource,
    *,
    val: ImageSource | None,
    guard_data: ImageSource | None = None,
    label_maps: Sequence[Path] = (),
    settings: TransferConfig,
    command: str | None = None,
) -> Plan:
    """Load and check everything, decide every setting; write nothing.

    Args:
        student: that is to learn.
        teachers: that are to teach.
        data: the transfer images.
        val: images to measure on, or None to set some of the data apart.
        guard_data: images for the guard, or None likewise.
        label_maps: files that say which of a teacher's classes is which of the student's: none, one for all teachers,
            or one each.
        settings: as asked for.
        command: that asked for it, kept with the result.

    Raises:
        GainfinderError: whatever is wrong with models, images or settings.
    """
    device = resolve_device(settings.device)
    require(settings.trackers)
    _check_guard(settings, guard_data)
    if not teachers:
        raise SettingsError("expected at least one teacher, got none")
    split = _split(data, val, guard_data, settings)
    learner = _named_student(load_own(student), (split.val, split.train))
    knowers = _aligned_teachers([load_teacher(teacher) for teacher in teachers], learner, label_maps)
    train_images = align_images(split.train, learner)
    val_images = _aligned_val(split.val, learner, asked_for=val is not None or settings.labels == "use")
    guard_images = None if split.guard is None else align_images(split.guard, learner)
    bank = _bank(settings)
    # Models whose answers the bank keeps do not see the views that the student sees.
    watching = [] if bank is not None else [teacher for teacher in knowers if isinstance(teacher, Classifier)]
    spec = view_spec([model.preprocessing for model in (learner, *watching)], "none")
    transfer_images = _subset(train_images, settings)
    resolved = resolve_settings(
        settings,
        labelled=transfer_images.labels is not None,
        images=len(transfer_images),
        view_size=spec.sizes[0],
        mirrorable=train_images.mirrorable,
    )
    _check_strategy(resolved, settings, len(teachers))
    _check_bank(resolved, bank)
    _check_compiled(resolved, settings)
    accelerator = make_accelerator(settings.device, settings.precision, compiled=settings.compile)
    _check_trainable(learner, resolved, len(transfer_images), accelerator)
    _check_teachers(knowers, resolved, transfer_images, accelerator)
    _note_guard(guard_images, held_out=guard_data is None)
    workers = default_workers(device) if settings.workers is None else settings.workers
    spec = replace(spec, augment=resolved.augment, seed=resolved.view_seed, count=resolved.views)
    return Plan(
        student=learner,
        teachers=knowers,
        train_images=transfer_images,
        val_images=val_images,
        guard_images=guard_images,
        settings=resolved,
        spec=spec,
        views=ViewSource(transfer_images, spec, workers=workers, device=accelerator.device),
        bank=bank,
        accelerator=accelerator,
        workers=workers,
        asked=settings,
        held_out=val is None,
        guard_held_out=guard_data is None,
        command=command,
    )


@dataclass(frozen=True, kw_only=True)
class _Split:
    train: Images
    val: Images
    guard: Images | None


def _split(
    data: ImageSource, val: ImageSource | None, guard_data: ImageSource | None, settings: TransferConfig
) -> _Split:
    """The images to learn from, to measure on and to guard with; no image has two roles unless it was asked for."""
    rest = load_images(data, labels=settings.labels == "use")
    if val is None:
        rest, val_images = _set_apart(rest, data)
    else:
        val_images = load_images(val)
        _note_overlap(rest, val_images, "measured on", "learned from")
    guard_images = None
    if guard_data is not None:
        guard_images = load_images(guard_data, labels=settings.labels == "use")
        _note_overlap(rest, guard_images, "that guard", "learned from")
        _note_overlap(val_images, guard_images, "that guard", "measured on")
    elif settings.guard:
        rest, guard_images = _set_apart_for_guard(rest)
    return _Split(train=rest, val=val_images, guard=guard_images)


def _set_apart(train_images: Images, data: ImageSource) -> tuple[Images, Images]:
    """A tenth to measure on; of these, labels are read where there are any."""
    rest, held = holdout(train_images, share=HOLDOUT_SHARE, by_id_alone=train_images.labels is None)
    if len(held) < FEW_IMAGES:
        _log.warning("measured on %d images only, one is %.1f pp: give --val for more", len(held), 100 / len(held))
    if train_images.labels is not None:
        return rest, held
    try:
        labelled = load_images(data)
    except DataError as error:
        _log.warning("measuring without labels: %s", error)
        return rest, held
    place = {sample_id: i for i, sample_id in enumerate(labelled.ids)}
    return rest, labelled.select([place[sample_id] for sample_id in held.ids])


def _set_apart_for_guard(images: Images) -> tuple[Images, Images]:
    share = min(HOLDOUT_SHARE, MAX_GUARD_IMAGES / len(images))
    return holdout(images, share=share, salt="guard", by_id_alone=images.labels is None)


def _note_guard(images: Images | None, *, held_out: bool) -> None:
    if images is None:
        return
    if held_out:
        _log.warning(
            "%d images of --data are set apart for the guard; if a model was trained on them, the guard is shy: give "
            "--guard-data with images that none of the models was trained on",
            len(images),
        )
    if len(images) < FEW_IMAGES:
        _log.warning("the guard has %d images only and will mostly keep the student as it was: give more", len(images))


def _check_guard(settings: TransferConfig, guard_data: ImageSource | None) -> None:
    if guard_data is not None and not settings.guard:
        raise SettingsError("--guard-data is given together with --no-guard: give one of them")


def _bank(settings: TransferConfig) -> Bank | None:
    if settings.bank is None:
        return None
    limit = None if settings.bank_limit is None else size_in_bytes(settings.bank_limit)
    return Bank(Path(settings.bank), limit=limit)


def _check_compiled(resolved: ResolvedConfig, settings: TransferConfig) -> None:
    if settings.compile and resolved.method.needs_features:
        raise SettingsError(
            f"method {resolved.method.name!r} looks into the models, which cannot be done once they are compiled: "
            "leave --compile out"
        )


def _check_bank(resolved: ResolvedConfig, bank: Bank | None) -> None:
    if bank is not None and resolved.method.needs_features:
        raise SettingsError(
            f"method {resolved.method.name!r} compares features, and the bank keeps predictions alone: leave --bank out"
        )


def _check_strategy(resolved: ResolvedConfig, settings: TransferConfig, teachers: int) -> None:
    if teachers > 1 and settings.strategy == "parallel" and resolved.method.partition is None:
        raise SettingsError(
            f"strategy parallel shares the samples out among the teachers, and method {resolved.method.name!r} has no "
            "partition for that: use a method such as kl-dp-u, or strategy sequential"
        )


def _named_student(student: Classifier, images: Sequence[Images]) -> Classifier:
    """The student; one without class names takes those of the images."""
    for source in images:
        student = named_after(student, source)
    return student


def _aligned_teachers(
    teachers: Sequence[Teacher], student: Classifier, label_maps: Sequence[Path]
) -> tuple[Teacher, ...]:
    """The teachers with their logits in the student's classes."""
    if len(label_maps) not in (0, 1, len(teachers)):
        raise SettingsError(
            f"{len(label_maps)} label maps are given for {len(teachers)} teachers: expected one for all, or one each"
        )
    maps: list[Path | None] = [None] * len(teachers)
    if label_maps:
        maps = [*label_maps] if len(label_maps) == len(teachers) else [label_maps[0]] * len(teachers)
    return tuple(align_model(teacher, student, label_map) for teacher, label_map in zip(teachers, maps, strict=True))


def _aligned_val(val_images: Images, student: Classifier, *, asked_for: bool) -> Images:
    """The images measured on, in the student's class order.

    Labels that nobody asked for (of the tenth held out of images that are learned from without labels) may be of other
    classes; then nothing is measured with them.
    """
    try:
        return align_images(val_images, student)
    except DataError as error:
        if asked_for:
            raise
        _log.warning("measuring without labels: %s", error)
        return val_images.without_labels()


def _check_trainable(student: Classifier, settings: ResolvedConfig, images: int, accelerator: Accelerator) -> None:
    processes = accelerator.num_processes
    if settings.batch_size < processes or images < processes:
        raise SettingsError(
            f"batch-size {settings.batch_size} and {images} images cannot be shared out among {processes} processes: "
            "expected at least one image a process"
        )
    if not any(parameter.requires_grad for parameter in student.module.parameters()):
        raise ModelError(
            f"{student.reference}: the student has no weight that can be trained: all are frozen (requires_grad is "
            "False), or it has none"
        )
    check_batch_norm(student.module, accelerator)
    smallest = images // -(-images // settings.batch_size)
    if has_batch_norm(student.module) and settings.student_mode == "train" and settings.micro_batch == 1:
        raise SettingsError(
            f"{student.reference} has batch-norm layers, which need two images or more at once: got --micro-batch 1"
        )
    if has_batch_norm(student.module) and smallest < 2 * processes:
        raise SettingsError(
            f"{student.reference} has batch-norm layers, which need two images or more a batch and process: got "
            f"batches of {smallest} image(s) from {images} images, --batch-size {settings.batch_size}; raise it"
        )


def _check_teachers(
    teachers: Sequence[Teacher], settings: ResolvedConfig, images: Images, accelerator: Accelerator
) -> None:
    for teacher in teachers:
        if not isinstance(teacher, PredictionTable):
            continue
        if settings.method.needs_features:
            raise SettingsError(
                f"method {settings.method.name!r} compares features, and {teacher.reference} has predictions alone: "
                "use a method such as kl-dp"
            )
        teacher.require(images.ids)
        if settings.augment != "none":
            _log.warning(
                "%s answers for images as they are, while the student sees them augmented (%s)",
                teacher.reference,
                settings.augment,
            )
    if settings.method.objective == "crd" and accelerator.num_processes > 1:
        raise SettingsError(
            f"method 'crd' keeps a memory that {accelerator.num_processes} processes cannot share: run it in one"
        )


def _note_overlap(others: Images, images: Images, role: str, other_role: str) -> None:
    """Warn where images of one source have two roles."""
    bases = {source.reference.split("#")[0] for source in (others, images)}
    shared = len(set(others.ids) & set(images.ids)) if len(bases) == 1 else 0
    if shared:
        _log.warning("%d of the %d images %s are also %s", shared, len(images), role, other_role)


def _subset(images: Images, settings: TransferConfig) -> Images:
    """The share of the transfer images that was asked for: stratified, or by id alone where no label may be read."""
    if settings.subset is None and (settings.limit is None or settings.limit >= len(images)):
        return images
    return images.select(stratified(images, count=settings.limit, share=settings.subset, salt="transfer"))


def _environment(plan: Plan) -> dict[str, Any]:
    """Versions and machine; a resumed run may differ in them, though it is bit-identical only where it does not."""
    return {
        **environment(plan.accelerator.device),
        "processes": plan.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "workers": plan.workers,
        "checkpoint_every": plan.asked.checkpoint_every,
        "command": plan.command,
        "track": list(plan.asked.trackers),
    }


def _describe_teacher(teacher: Teacher) -> dict[str, Any]:
    label_map = None if teacher.label_map is None else list(teacher.label_map.targets)
    if isinstance(teacher, Classifier):
        return {**_describe_model(teacher), "label_map": label_map}
    about = {"reference": teacher.reference, "digest": teacher.digest, "classes": teacher.num_classes}
    return {**about, "label_map": label_map}


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
