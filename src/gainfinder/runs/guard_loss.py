"""The loss of a transfer on images that it does not learn from: what its length, and its recipe, are chosen by.

It is the run's own loss, of its own method, so without labels it says how well the student fits, on new images, what
the frozen models together hold to be right.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Samples
from ..losses import Temperatures, TransferLoss
from ..predictions import Predictions
from ..training import loss_of
from .context import SharedWork
from .frozen import FrozenPredictions
from .prepare import PreparedTransfer


@dataclass(frozen=True, kw_only=True)
class GuardLoss:
    """The mean loss of a method on some guard images.

    Attributes:
        images: the images, at most 2,000 of the guard's.
        criterion: the method's loss.
        model_logits: of the models that may teach, float32 (N, M, C), for the images that can be decoded.
        target: labels, int64 (N,), or None.
    """

    images: Samples
    criterion: TransferLoss
    model_logits: Tensor
    target: Tensor | None

    def of_rows(self, predictions: Predictions) -> float | None:
        """The loss of a student from its predictions for all guard images; None where it is not finite."""
        return self._of(predictions.logits[_rows(self.images, predictions)])

    def of(self, student: Predictions) -> float | None:
        """The loss of a student from its predictions for the images; None where it is not finite.

        A class that the student masks (a logit of −inf) and the frozen models hold to be possible costs infinity.
        """
        return self._of(student.logits)

    def _of(self, logits_NC: Tensor) -> float | None:
        losses = self.criterion.losses(logits_NC, self.model_logits, self.target)
        found = float(losses.values.double().mean())
        return found if math.isfinite(found) else None


def guard_loss(
    prepared: PreparedTransfer,
    shared: SharedWork,
    probes: FrozenPredictions | None,
    *,
    temperatures: Temperatures | None,
) -> GuardLoss | None:
    """The loss on guard images; None where nothing goes by it, or it cannot be measured.

    Args:
        prepared: the transfer.
        shared: work that the runs of a sequence share.
        probes: predictions of the frozen models for the guard images.
        temperatures: each frozen model's, for calibrated methods.
    """
    settings, guard_images = prepared.settings, prepared.guard_images
    if settings.schedule != "plateau" and not settings.recipes:
        return None
    if guard_images is None or probes is None or settings.method.needs_features:
        return None
    criterion = loss_of(settings, temperatures=temperatures)
    teachers = [teacher for teacher in probes.teachers if teacher is not None]
    if len(teachers) < len(probes.teachers) or (criterion.needs_labels and probes.before.target is None):
        return None
    models = [probes.before, *teachers] if criterion.needs_initial_student else teachers
    images = shared.probes(guard_images)
    rows = _rows(images, probes.before)
    return GuardLoss(
        images=images,
        criterion=criterion,
        model_logits=torch.stack([model.logits[rows] for model in models], dim=1),
        target=None if probes.before.target is None else probes.before.target[rows],
    )


def _rows(images: Samples, predictions: Predictions) -> Tensor:
    """The rows of predictions that are for some of their images, in the order of these."""
    row_of = {sample_id: row for row, sample_id in enumerate(predictions.ids)}
    return torch.tensor([row_of[sample_id] for sample_id in images.ids if sample_id in row_of])
