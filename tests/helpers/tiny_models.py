"""Untrained models of handwritten digits, small enough to train in a second."""

from typing import Any

import timm
from torch import nn

SIZE = 16
"""Height and width of their input."""


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
