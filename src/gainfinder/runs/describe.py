"""The content of `config.json`: what a transfer depends on, as plain values with digests, and the machine it ran on."""

from dataclasses import asdict
from typing import Any

import torch

from ..data import Images
from ..devices import environment
from ..inference import Teacher
from ..models import Classifier, find_origin
from .prepare import PreparedTransfer


def describe(prepared: PreparedTransfer) -> dict[str, Any]:
    """All that the result depends on, with digests, and the environment, which it may not depend on."""
    resolved = {**asdict(prepared.settings), "method": prepared.settings.method.name}
    return {
        "student": describe_model(prepared.student),
        "teachers": [_describe_teacher(teacher) for teacher in prepared.teachers],
        **({"referees": [_describe_teacher(one) for one in prepared.referees]} if prepared.referees else {}),
        "data": describe_images(prepared.train_images),
        "val": {**describe_images(prepared.val_images), "held_out": prepared.val_held_out},
        "guard": None
        if prepared.guard_images is None
        else {**describe_images(prepared.guard_images), "held_out": prepared.guard_held_out},
        "settings": {
            **resolved,
            "labels": prepared.requested.labels,
            "preset": prepared.requested.preset,
            "at_most": prepared.requested.at_most,
            "limit": prepared.requested.limit,
            "subset": prepared.requested.subset,
            "strategy": prepared.requested.strategy if len(prepared.teachers) > 1 else None,
            "order": prepared.requested.order if len(prepared.teachers) > 1 else None,
            "bank": None if prepared.bank is None else prepared.requested.bank_storage,
            "precision": prepared.accelerator.mixed_precision,
            "compile": prepared.requested.compile,
            "device": prepared.accelerator.device.type,
        },
        "views": {"sizes": prepared.view_spec.sizes, "augment": prepared.view_spec.augment},
        "environment": _environment(prepared),
    }


def _environment(prepared: PreparedTransfer) -> dict[str, Any]:
    """Versions and machine; a resumed run may differ in them, though it is bit-identical only where it does not."""
    return {
        **environment(prepared.accelerator.device),
        "processes": prepared.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "workers": prepared.workers,
        "checkpoint_every": prepared.requested.checkpoint_every,
        "command": prepared.command,
        "track": list(prepared.requested.trackers),
        # no part of what is compared: a model card that comes later makes no other run
        "origins": {one.reference: asdict(find_origin(one)) for one in (prepared.student, *prepared.teachers)},
    }


def _describe_teacher(teacher: Teacher) -> dict[str, Any]:
    label_map = None if teacher.label_map is None else list(teacher.label_map.targets)
    if isinstance(teacher, Classifier):
        return {**describe_model(teacher), "label_map": label_map}
    about = {"reference": teacher.reference, "digest": teacher.digest, "classes": teacher.num_classes}
    return {**about, "label_map": label_map}


def describe_model(model: Classifier) -> dict[str, Any]:
    """A model's reference, digest, classes and preprocessing."""
    return {
        "reference": model.reference,
        "digest": model.weights_digest(),
        "classes": model.num_classes,
        "preprocessing": model.preprocessing.described(),
    }


def describe_images(images: Images) -> dict[str, Any]:
    """The reference, number and digests of some images."""
    return {
        "reference": images.reference,
        "samples": len(images),
        "labelled": images.labels is not None,
        "digest": images.digest(),
        "pixels": images.pixels_digest,
    }
