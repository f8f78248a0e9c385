"""From what was asked for to a plan: everything loaded, checked and decided, nothing written."""

import copy
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from . import __version__
from .alignment import align, align_images
from .data import ImageSource, load_images
from .data.images import Images
from .data.sampling import holdout, stratified
from .devices import default_workers, make_accelerator, resolve_device, resolve_precision
from .errors import DataError, ModelError, SettingsError
from .models import ModelSource, load_model
from .models.classifier import Classifier
from .settings import Resolved, TransferSettings, resolve_settings
from .views import ViewSpec, view_spec

_log = logging.getLogger("gainfinder")

HOLDOUT_SHARE = 0.1
"""Share of the data set apart for measuring where no other images are given for it."""


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
    if not any(parameter.requires_grad for parameter in models[0].module.parameters()):
        raise ModelError(
            f"{models[0].reference}: the student has no weight that can be trained: all are frozen (requires_grad is "
            "False), or it has none"
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


def _copied(source: ModelSource) -> Classifier:
    """The classifier; of a module or classifier that was passed in, a copy, so that its owner's stays as it is."""
    if isinstance(source, nn.Module):
        return load_model(copy.deepcopy(source))
    if isinstance(source, Classifier):
        return replace(source, module=copy.deepcopy(source.module))
    return load_model(source)


def _split(
    train_images: Images, data: ImageSource, val: ImageSource | None, student: Classifier
) -> tuple[Images, Images]:
    """The images to learn from and the ones to measure on; labels of the latter are always read."""
    if val is not None:
        return train_images, align_images(load_images(val), student)
    rest, held = holdout(train_images, share=HOLDOUT_SHARE, by_id_alone=train_images.labels is None)
    if train_images.labels is None:
        try:
            labelled = align_images(load_images(data), student)
        except DataError as error:
            # Whoever asks to learn without labels may have some that are missing, hidden or of other classes.
            _log.warning(f"measuring without labels: {error}")
            return rest, held
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
