"""From what was asked for to a plan: everything loaded, checked and decided, nothing written."""

import functools
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from . import __version__
from .alignment import align_images, align_model, named_after
from .data import ImageSource, load_images
from .data.images import Images
from .data.sampling import holdout, stratified
from .devices import check_batch_norm, default_workers, has_batch_norm, make_accelerator, resolve_device
from .errors import DataError, ModelError, SettingsError
from .models import ModelSource, load_own
from .models.classifier import Classifier
from .settings import Resolved, TransferSettings, resolve_settings
from .views import ViewSpec, view_spec

_log = logging.getLogger("gainfinder")

HOLDOUT_SHARE = 0.1
"""Share of the data set apart for measuring where no other images are given for it."""
FEW_IMAGES = 200
"""Fewer to measure on than these are worth a warning."""


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
        asked: the settings as they were asked for.
        held_out: whether the images measured on were set apart from the data.
    """

    student: Classifier
    teachers: tuple[Classifier, ...]
    train_images: Images
    val_images: Images
    settings: Resolved
    spec: ViewSpec
    accelerator: Accelerator
    workers: int
    asked: TransferSettings
    held_out: bool

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """All that the result depends on, with digests, and the environment; as `config.json` holds it."""
        resolved = {**asdict(self.settings), "method": self.settings.method.name}
        return {
            "student": _describe_model(self.student),
            "teachers": [_describe_model(teacher) for teacher in self.teachers],
            "data": _describe_images(self.train_images),
            "val": {**_describe_images(self.val_images), "held_out": self.held_out},
            "settings": {
                **resolved,
                "labels": self.asked.labels,
                "preset": self.asked.preset,
                "limit": self.asked.limit,
                "subset": self.asked.subset,
                "precision": self.accelerator.mixed_precision,
                "device": self.accelerator.device.type,
            },
            "views": {"sizes": self.spec.sizes, "augment": self.spec.augment},
            "environment": _environment(self),
        }


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
    train_images, val_images = _split(load_images(data, labels=settings.labels == "use"), data, val)
    models = _aligned_models([load_own(model) for model in (student, *teachers)], (val_images, train_images))
    train_images = align_images(train_images, models[0])
    val_images = _aligned_val(val_images, models[0], asked_for=val is not None or settings.labels == "use")
    spec = view_spec([model.preprocessing for model in models], "none")
    mirrorable = train_images.mirrorable
    transfer_images = _subset(train_images, settings)
    resolved = resolve_settings(
        settings,
        labelled=transfer_images.labels is not None,
        images=len(transfer_images),
        view_size=spec.sizes[0],
        mirrorable=mirrorable,
    )
    accelerator = make_accelerator(settings.device, settings.precision)
    _check_trainable(models[0], resolved, len(transfer_images), accelerator)
    return Plan(
        student=models[0],
        teachers=tuple(models[1:]),
        train_images=transfer_images,
        val_images=val_images,
        settings=resolved,
        spec=replace(spec, augment=resolved.augment),
        accelerator=accelerator,
        workers=default_workers(device) if settings.workers is None else settings.workers,
        asked=settings,
        held_out=val is None,
    )


def _split(train_images: Images, data: ImageSource, val: ImageSource | None) -> tuple[Images, Images]:
    """The images to learn from and the ones to measure on; of the latter, labels are read where there are any."""
    if val is not None:
        val_images = load_images(val)
        _note_overlap(train_images, val_images)
        return train_images, val_images
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


def _aligned_models(models: Sequence[Classifier], images: Sequence[Images]) -> list[Classifier]:
    """The models in the student's class order; a student without class names takes those of the images."""
    student = models[0]
    for source in images:
        student = named_after(student, source)
    return [student, *(align_model(model, student) for model in models[1:])]


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


def _check_trainable(student: Classifier, settings: Resolved, images: int, accelerator: Accelerator) -> None:
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
    if has_batch_norm(student.module) and smallest < 2 * processes:
        raise SettingsError(
            f"{student.reference} has batch-norm layers, which need two images or more a batch and process: got "
            f"batches of {smallest} image(s) from {images} images, --batch-size {settings.batch_size}; raise it"
        )


def _note_overlap(train_images: Images, val_images: Images) -> None:
    """Warn where images of one source are learned from and measured on."""
    bases = {images.reference.split("#")[0] for images in (train_images, val_images)}
    shared = len(set(train_images.ids) & set(val_images.ids)) if len(bases) == 1 else 0
    if shared:
        _log.warning("%d of the %d images measured on are also learned from", shared, len(val_images))


def _subset(images: Images, settings: TransferSettings) -> Images:
    """The share of the transfer images that was asked for: stratified, or by id alone where no label may be read."""
    if settings.subset is None and (settings.limit is None or settings.limit >= len(images)):
        return images
    return images.select(stratified(images, count=settings.limit, share=settings.subset, salt="transfer"))


def _environment(plan: Plan) -> dict[str, Any]:
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
        "checkpoint_every": plan.asked.checkpoint_every,
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
