"""The content of `config.json`: what a transfer depends on, as plain values with digests, and the machine it ran on."""

from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch

from ..config import REQUEST, SETTINGS, Method, ResolvedConfig, TransferConfig, request_of
from ..data import Samples
from ..devices import environment
from ..errors import SettingsError
from ..inference import Teacher
from ..models import Classifier, find_origin
from ..predictions import IMAGE
from .prepare import PreparedTransfer, pixels_of, resolved_for


def describe(prepared: PreparedTransfer) -> dict[str, Any]:
    """All that the result depends on, with digests; what was asked for; the environment, which it may not depend on."""
    resolved = {**asdict(prepared.settings), "method": prepared.settings.method.name}
    return {
        "student": describe_model(prepared.student),
        "teachers": [_describe_teacher(teacher) for teacher in prepared.teachers],
        **({"referees": [_describe_teacher(one) for one in prepared.referees]} if prepared.referees else {}),
        "data": describe_samples(prepared.train_images),
        "val": {**describe_samples(prepared.val_images), "held_out": prepared.val_held_out},
        "guard": None
        if prepared.guard_images is None
        else {**describe_samples(prepared.guard_images), "held_out": prepared.guard_held_out},
        "settings": {
            **resolved,
            "labels": prepared.requested.labels,
            "preset": prepared.requested.preset,
            "at_most": prepared.requested.at_most,
            "limit": prepared.requested.limit,
            "subset": prepared.requested.subset,
            "strategy": prepared.requested.strategy if len(prepared.teachers) > 1 else None,
            "order": prepared.requested.order if len(prepared.teachers) > 1 else None,
            "both": prepared.requested.both,
            "bank": None if prepared.bank is None else prepared.requested.bank_storage,
            "precision": prepared.accelerator.mixed_precision,
            "compile": prepared.requested.compile,
            "device": prepared.accelerator.device.type,
        },
        "views": {"sizes": prepared.view_spec.described_sizes, "augment": prepared.view_spec.augment},
        REQUEST: None if prepared.spec is None else request_of(prepared.spec).model_dump(exclude_defaults=True),
        "environment": _environment(prepared),
    }


def settings_by_rule(prepared: PreparedTransfer, *, tries: bool) -> dict[str, Any]:
    """The settings that are not given, as they were resolved; each could be given at that value and change nothing.

    Args:
        prepared: the transfer.
        tries: whether it is long enough to try recipes (`trials_at_most`); else a rate that is given changes nothing.
    """
    requested, found = prepared.requested, {}

    def run_by(settings: ResolvedConfig) -> ResolvedConfig:
        """What of the settings is used."""
        return settings if tries else replace(settings, recipes=())

    for one in SETTINGS:
        value = getattr(prepared.settings, one.name, None)
        value = value.name if isinstance(value, Method) else value
        if value is None or getattr(requested, one.name) != one.default:
            continue
        with suppress(SettingsError):  # what the method, the optimiser or the schedule does not read
            fixed = TransferConfig(**{**dict(requested), one.name: value})
            view_size = pixels_of(prepared.view_spec)
            again = resolved_for(fixed, prepared.train_images, teachers=prepared.teachers, view_size=view_size)
            if run_by(again) == run_by(prepared.settings):
                found[one.name] = value
    return found


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


def describe_samples(images: Samples) -> dict[str, Any]:
    """The reference, number and digests of some images."""
    return {
        "reference": images.reference,
        "samples": len(images),
        "labelled": images.labels is not None,
        "digest": images.digest(),
        "pixels": images.few_digest,
        **({} if images.noun == IMAGE else {"noun": images.noun}),
    }
