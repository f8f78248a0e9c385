"""A prepared transfer's student, ready to train."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..inference import TargetModel, TargetSource
from ..losses import Temperatures
from ..models import Classifier
from ..training import FeatureComparison, StudentTrainer
from .bank import frozen_models
from .frozen import reestimate_on_views
from .prepare import PreparedTransfer


def make_trainer(
    prepared: PreparedTransfer,
    target_models: Sequence[TargetModel],
    *,
    temperatures: Temperatures | None = None,
    choice_n: Tensor | None = None,
    changing: Collection[Classifier] = (),
) -> StudentTrainer:
    """A copy of the student, ready to train against the frozen models.

    Args:
        prepared: the transfer to train.
        target_models: the frozen models as sources of logits (`bank.TargetModels`).
        temperatures: each frozen model's temperatures, for calibrated methods; 1 where not given.
        choice_n: int64 (n,), the model that teaches each transfer image, where that is decided once; where it is and
            this is not given, as many images for each.
        changing: frozen models whose weights are renewed meanwhile, as in a two-way transfer.
    """
    if choice_n is None and prepared.settings.decides_once and target_models:
        choice_n = torch.arange(len(prepared.train_images)) % len(target_models)
    student = prepared.student.copied()
    if prepared.settings.student_mode == "reestimate":
        reestimate_on_views(prepared, student)
    # They were measured; those that are run for the views go back to the device.
    for model in (prepared.student, *prepared.teachers):
        if isinstance(model, Classifier):
            model.offload()
    targets = TargetSource(
        target_models,
        device=prepared.accelerator.device,
        autocast=prepared.accelerator.autocast,
        compiled=prepared.requested.compile,
        partition=prepared.settings.method.partition,
        choice_n=choice_n,
        names=[model.reference for model in frozen_models(prepared)],
        themselves=[*changing, *_watched(prepared, target_models)],
    )
    if prepared.settings.method.calibrated and temperatures is None:
        temperatures = [1.0] * len(target_models)
        if prepared.settings.method.pooling is not None:
            temperatures = [[1.0] * prepared.student.num_classes for _ in target_models]
    return StudentTrainer(
        student,
        targets,
        settings=prepared.settings,
        accelerator=prepared.accelerator,
        temperatures=temperatures,
        comparison=_comparison(prepared, student),
    )


def _watched(prepared: PreparedTransfer, target_models: Sequence[TargetModel]) -> list[Classifier]:
    """The frozen models whose features are taken as they answer."""
    watched = prepared.settings.method.needs_features
    return [model for model in target_models if watched and isinstance(model, Classifier)]


def _comparison(prepared: PreparedTransfer, student: Classifier) -> FeatureComparison | None:
    if not prepared.settings.method.needs_features:
        return None
    (teacher,) = prepared.teachers
    assert isinstance(teacher, Classifier), "prepare_transfer refuses tables for methods that compare features"
    labels = prepared.train_images.labels if prepared.settings.method.keeps_memory else None
    return FeatureComparison.between(
        student,
        teacher,
        labels_n=None if labels is None else torch.from_numpy(labels),
        negatives=prepared.settings.negatives,
        seed=prepared.settings.seed,
    )
