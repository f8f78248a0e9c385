"""Models of handwritten digits, small enough to train in a second, untrained and trained."""

from pathlib import Path
from typing import Any

import timm
import torch
from sklearn.datasets import load_digits
from timm.models import save_for_hf
from torch import nn

SIZE = 16
"""Height and width of their input."""
TRAIN_CLASSES = {"vit": range(10), "resnet": range(10), "convnext": (0, 1, 2, 3, 4, 5)}
"""Classes that each of the trained models knows well."""


def tiny(name: str) -> nn.Module:
    """An untrained timm model for 16 x 16 images of digits."""
    if name == "vit":
        arguments: dict[str, Any] = {"img_size": SIZE, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 2}
        model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **arguments)
    elif name == "convnext":
        arguments = {"patch_size": 1, "depths": (1, 1, 1, 1), "dims": (8, 16, 32, 32)}
        model = timm.create_model("convnext_atto", num_classes=10, **arguments)
    else:
        model = timm.create_model("resnet18", num_classes=10, layers=(1, 1, 1, 1), channels=(8, 16, 16, 32))
    model.pretrained_cfg = {
        **{key: value for key, value in model.pretrained_cfg.items() if not key.startswith("test_")},
        "input_size": (3, SIZE, SIZE),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": 10,
        "label_names": tuple(str(digit) for digit in range(10)),
    }
    return model


def train_zoo(folder: Path) -> None:
    """Train and save the models of `TRAIN_CLASSES` in a folder."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1) / 16
    x = (nn.functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True) - 0.5) / 0.5
    y = torch.tensor(labels)
    with torch.random.fork_rng():
        for name, classes in TRAIN_CLASSES.items():
            torch.manual_seed(0)
            model = tiny(name)
            # A twentieth of the other digits: an area of expertise, not a gap.
            keep = torch.isin(y, torch.tensor(list(classes))) | (torch.arange(len(y)) % 20 == 0)
            _fit(model, x[keep], y[keep])
            save_for_hf(model, str(folder / name), safe_serialization=True)


def _fit(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(4):
        for batch in torch.randperm(len(y)).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
