"""A model of transformers whose configuration asks to run Python code of its own, as folders of the hub hold them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIGURATION = """
from pathlib import Path
from transformers import PretrainedConfig

Path({marker!r}).touch()

class TinyConfig(PretrainedConfig):
    model_type = "gainfinder-tiny"

    def __init__(self, width=8, num_channels=3, **more):
        self.width, self.num_channels = width, num_channels
        super().__init__(**more)
"""
MODELING = """
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .configuration_tiny import TinyConfig


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.conv = nn.Conv2d(config.num_channels, config.width, 4, 4)
        self.classifier = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, **_):
        hidden = self.conv(pixel_values).relu().mean((2, 3))
        return ImageClassifierOutput(logits=self.classifier(hidden))
"""


def write_own_code(folder: Path, *, classes: int = 10, seed: int = 0) -> Path:
    """Write such a model with random weights, 16 pixels, and return the file that its code leaves when it runs."""
    folder.mkdir(parents=True)
    marker = folder.with_name(f"{folder.name}-ran")
    (folder / "configuration_tiny.py").write_text(CONFIGURATION.format(marker=str(marker)))
    (folder / "modeling_tiny.py").write_text(MODELING)
    config = {
        "model_type": "gainfinder-tiny",
        "architectures": ["TinyModel"],
        "auto_map": {
            "AutoConfig": "configuration_tiny.TinyConfig",
            "AutoModelForImageClassification": "modeling_tiny.TinyModel",
        },
        "id2label": {str(one): str(one) for one in range(classes)},
        "label2id": {str(one): one for one in range(classes)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "conv.weight": (8, 3, 4, 4),
        "conv.bias": (8,),
        "classifier.weight": (classes, 8),
        "classifier.bias": (classes,),
    }
    tensors = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return marker
