"""The loss of a transfer on images that it does not learn from: what its length, and its recipe, are chosen by.

It is the run's own loss, of its own method, so without labels it says how well the student fits, on new images, what
the frozen models together hold to be right.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Images
from ..losses import TransferLoss
from ..predictions import Predictions
from .context import RunContext
from .frozen import FrozenPredictions


@dataclass(frozen=True, kw_only=True)
class GuardLoss:
    """The mean loss of a method on some guard images.

    Attributes:
        images: the images, at most 2,000 of the guard's.
        criterion: the method's loss.
        model_logits: of the models that may teach, float32 (N, M, C), for the images that can be decoded.
        target: labels, int64 (N,), or None.
    """

    images: Images
    criterion: TransferLoss
    model_logits: Tensor
    target: Tensor | None

    def of(self, student: Predictions) -> float:
        """The loss of a student from its predictions for the images."""
        device = next(self.criterion.buffers(), self.model_logits).device
        target = None if self.target is None else self.target.to(device)
        losses = self.criterion.losses(student.logits.to(device), self.model_logits.to(device), target)
        return float(losses.values.double().mean())


def guard_loss(run: RunContext, criterion: TransferLoss | None, probes: FrozenPredictions | None) -> GuardLoss | None:
    """The loss on guard images; None where it cannot be measured.

    Args:
        run: the run.
        criterion: the method's loss; None for methods that compare features.
        probes: predictions of the frozen models for the guard images.
    """
    guard_images = run.prepared.guard_images
    if guard_images is None or criterion is None or probes is None:
        return None
    teachers = [teacher for teacher in probes.teachers if teacher is not None]
    if len(teachers) < len(probes.teachers) or (criterion.needs_labels and probes.before.target is None):
        return None
    models = [probes.before, *teachers] if criterion.needs_initial_student else teachers
    images = run.shared.probes(guard_images)
    row_of = {sample_id: row for row, sample_id in enumerate(probes.before.ids)}
    rows = torch.tensor([row_of[sample_id] for sample_id in images.ids if sample_id in row_of])
    return GuardLoss(
        images=images,
        criterion=criterion,
        model_logits=torch.stack([model.logits[rows] for model in models], dim=1),
        target=None if probes.before.target is None else probes.before.target[rows],
    )
