"""Frozen models that answer the inputs of another library's loop, which are normalised for the student already.

Shapes: N images, C channels, H and W height and width, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from ..models import Classifier, Preprocessing

_FILTERS = {"nearest": "nearest", "bilinear": "bilinear"}
"""torch's filters for tensors, by a model's own; any other is closest to `bicubic`."""


class FrozenModel(nn.Module):
    """A classifier in evaluation mode and without gradients, which answers the student's inputs.

    Args:
        classifier: the classifier; its module is moved and frozen in place.
        inputs: normalisation and channels of the student's inputs, which are made the classifier's own: its size,
            channels, mean and standard deviation. None: it sees them as they are.
        device: device it runs on.
        dtype: floating point type of its weights.
    """

    own_mean: Tensor
    own_std: Tensor
    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self, classifier: Classifier, *, inputs: Preprocessing | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.inputs = inputs
        self.module: Any = classifier.to(device).to(dtype).requires_grad_(False)
        own = classifier.image_preprocessing
        for name, values in _constants(own, inputs or own).items():
            self.register_buffer(name, torch.tensor(values, device=device).view(1, -1, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenModel":
        """It stays in evaluation mode, whatever the task around it does."""
        return super().train(False)

    def run_compiled(self, **arguments: Any) -> None:
        """Run it compiled from now on; the arguments are those of `torch.compile`."""
        self.module = torch.compile(self.module, **arguments)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits of the student's inputs.

        Args:
            x: floating point (N, C, H, W), normalised for the student.

        Returns:
            float32 (N, K), without gradient.
        """
        parameter = next(self.classifier.module.parameters(), None)
        own = self.renormalised(x)
        return self.classifier.logits(own if parameter is None else own.to(parameter.dtype), module=self.module).float()

    def renormalised(self, x: Tensor) -> Tensor:
        """The student's inputs as the classifier's: resized with antialiasing by its own filter, and normalised.

        The student's loader has cropped them already, so that it is the same part of the image for all models.

        Args:
            x: floating point (N, C, H, W), normalised for the student.

        Returns:
            Inputs of the classifier; `x` itself where these are the same.
        """
        own, inputs = self.classifier.image_preprocessing, self.inputs
        if inputs is None or (_alike(own, inputs) and x.shape[-2:] == own.view_size):
            return x
        pixels = x.float() * self.input_std + self.input_mean
        if x.shape[-2:] != own.view_size:
            pixels = _resized(pixels, own)
        if own.input_size[0] != inputs.input_size[0]:
            pixels = TF.rgb_to_grayscale(pixels) if own.input_size[0] == 1 else pixels.expand(-1, 3, -1, -1)
        return (pixels - self.own_mean) / self.own_std


def _constants(own: Preprocessing, inputs: Preprocessing) -> dict[str, tuple[float, ...]]:
    return {"own_mean": own.mean, "own_std": own.std, "input_mean": inputs.mean, "input_std": inputs.std}


def _alike(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both normalise alike; sizes aside."""
    return (one.mean, one.std) == (other.mean, other.std)


def _resized(pixels: Tensor, own: Preprocessing) -> Tensor:
    mode = _FILTERS.get(own.interpolation, "bicubic")
    if mode == "nearest":
        return F.interpolate(pixels, own.view_size, mode=mode)
    resized = F.interpolate(pixels, own.view_size, mode=mode, align_corners=False, antialias=True)
    return resized.clamp(0, 1)  # a bicubic filter overshoots at edges
