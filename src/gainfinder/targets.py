"""What the student learns from: the logits of M frozen models for the views of a batch.

A target source answers "the logits of these models for these views". The training loop does not know how: here the
models are run, and of a table of saved predictions the rows are looked up. Model 0 is the initial student where a
method needs it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from .models.classifier import Classifier
from .models.preprocessing import prepare
from .views import Views


class TargetSource(Protocol):
    """Answers with the logits of frozen models."""

    def __call__(self, views: Views, positions_N: Tensor) -> Tensor:
        """Logits, float32 (N, M, C), for the views of N samples at these positions among the transfer images."""
        ...


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """A model that is known by its predictions alone: it has one answer an image, whatever the view.

    Attributes:
        logits: float32 (n, C), for the n transfer images in their order.
    """

    logits: Tensor


Answering: TypeAlias = Classifier | TableRows


class LiveTargets:
    """Runs the models on each batch, in evaluation mode and without gradients.

    Args:
        models: M frozen models with the same classes in the same order; modules are moved to `device`.
        device: where they run.
        autocast: context in which they run (mixed precision).
    """

    def __init__(
        self,
        models: Sequence[Answering],
        *,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.models = tuple(models)
        self.device = device
        self.autocast = autocast
        for model in self.models:
            if isinstance(model, Classifier):
                model.module.to(device).eval()

    def __call__(self, views: Views, positions_N: Tensor) -> Tensor:
        with torch.inference_mode(), self.autocast():
            logits = [self._ask(model, views, positions_N) for model in self.models]
        # Stacked outside inference mode: the loss saves this tensor for its backward pass.
        return torch.stack(logits, dim=1)

    def _ask(self, model: Answering, views: Views, positions_N: Tensor) -> Tensor:
        if isinstance(model, TableRows):
            return model.logits[positions_N].to(self.device)
        return model.logits(prepare(views.at(model.preprocessing.view_size), model.preprocessing)).float()
