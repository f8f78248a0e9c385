"""Who teaches each transfer image, decided once: by the plain images, before training (`decide_on="image"`).

By default it is decided for each view (Eq. 4), which asks all frozen models for every view. Decided once, one model is
asked for a view: with one teacher of the student's size a step takes about four passes for five.

Shapes: N images that could be decoded, n transfer images, C classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import Classifier, PredictionTable
from ..partition import argmax_confidence, log_confidences
from ..results import read_partition, write_partition
from .bank import frozen_models
from .context import RunContext
from .frozen import predict_given


def decided_once(run: RunContext, temperatures: Sequence[float] | None) -> Tensor | None:
    """Which model teaches each transfer image; a resumed run reads what it decided before.

    Args:
        run: the run, with the models that teach.
        temperatures: each frozen model's, for calibrated methods.

    Returns:
        int64 (n,), as `partition.most_confident` gives it of the plain images, 0 for images that cannot be decoded;
        None where each view decides.

    Raises:
        DataError: too many images are broken.
    """
    prepared = run.prepared
    if not prepared.settings.decides_once:
        return None
    ids, models = prepared.train_images.ids, frozen_models(prepared)
    found = read_partition(run.folder.partition, ids, models=len(models))
    prepared.accelerator.wait_for_everyone()  # all have looked before one of them writes it
    if found is not None:
        return torch.tensor(found)
    own = temperatures or [1.0] * len(models)
    confidence_nM = torch.stack(
        [_confidences(run, model, temperature) for model, temperature in zip(models, own, strict=True)], dim=1
    )
    choice_n = argmax_confidence(confidence_nM)
    if prepared.is_main:
        run.folder.check_in_place()
        write_partition(run.folder.partition, ids, choice_n.tolist())
    return choice_n


def _confidences(run: RunContext, model: Classifier | PredictionTable, temperature: float) -> Tensor:
    """A model's confidence in each transfer image, float32 (n,); −inf where it cannot be decoded."""
    images = run.prepared.train_images
    if isinstance(model, PredictionTable):
        ids, logits_NC = images.ids, model.lookup(images.ids)
    else:
        found = predict_given(run, model, images)
        ids, logits_NC = found.ids, found.logits
    position_of = {sample_id: position for position, sample_id in enumerate(images.ids)}
    positions_N = torch.tensor([position_of[sample_id] for sample_id in ids], dtype=torch.int64)
    target_N = None
    if run.prepared.settings.method.partition == "label":
        assert images.labels is not None, "resolve_settings refuses methods that need labels where there are none"
        target_N = torch.from_numpy(images.labels)[positions_N]
    confidence_n = torch.full((len(images),), -torch.inf)
    # as the loss compares: confidences that are equal in float32 tie
    confidence_n[positions_N] = log_confidences(logits_NC[:, None] / temperature, target_N)[:, 0].exp()
    return confidence_n
