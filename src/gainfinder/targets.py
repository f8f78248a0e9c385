"""What the student learns from: the logits of M frozen models for the views of a batch.

A target source answers "the logits of these models for these views". The training loop does not know how: here the
models are run. Model 0 is the initial student where a method needs it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from .models.classifier import Classifier
from .models.preprocessing import prepare
from .views import Views


class TargetSource(Protocol):
    """Answers with the logits of frozen models."""

    def __call__(self, views: Views) -> Tensor:
        """Logits, float32 (N, M, C), for N views."""
        ...


class LiveTargets:
    """Runs the models on each batch, in evaluation mode and without gradients.

    Args:
        models: M frozen classifiers with the same classes in the same order; moved to `device`.
        device: where they run.
        autocast: context in which they run (mixed precision).
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        *,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.models = tuple(models)
        self.autocast = autocast
        for model in self.models:
            model.module.to(device).eval()

    def __call__(self, views: Views) -> Tensor:
        with torch.inference_mode(), self.autocast():
            logits = [
                model.logits(prepare(views.at(model.preprocessing.view_size), model.preprocessing)).float()
                for model in self.models
            ]
        # Stacked outside inference mode: the loss saves this tensor for its backward pass.
        return torch.stack(logits, dim=1)
