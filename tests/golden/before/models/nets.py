"""Two small classifiers of handwritten digits."""

from torch import Tensor, nn

CONFIG = {
    "input_size": (3, 8, 8),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}


class Net(nn.Module):
    """Convolution, batch-norm, and a layer of classes."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.pretrained_cfg = CONFIG
        self.convolution = nn.Conv2d(3, channels, kernel, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.classes = nn.Linear(16 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.classes(self.norm(self.convolution(x)).relu().flatten(1))


def student() -> nn.Module:
    """The one that learns."""
    return Net(4, 4)


def teacher() -> nn.Module:
    """The one that teaches."""
    return Net(6, 3)
