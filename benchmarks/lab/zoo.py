"""The zoo's models: their references, and the models as they run on images in memory."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gainfinder import load_model
from gainfinder.models import Classifier, Preprocessing

FROM_FILE = {
    "resnet20": "cifar_resnet",
    "resnet32": "cifar_resnet",
    "tiny_mixer": "tiny_mixer",
    "mixer_a": "mlp_zoo",
}
ZOO = ("resnet20", "resnet32", "convnext_32", "tiny_mixer", "vit_48", "resnet10_64")
SPECIALISTS = ("convnext_32-low", "convnext_32-high", "resnet10_64-high", "resnet10_64-low")
CONVOLUTIONAL = ("resnet", "convnext")


def reference(models: Path, name: str, *, specialists: Path | None = None) -> str:
    """The reference of a model: a file with a factory and weights, or timm's local-dir form.

    Args:
        models: the zoo's folder.
        name: of the model.
        specialists: the folder that lab/specialists.py wrote.
    """
    if name in FROM_FILE:
        return f"file:{models}/{FROM_FILE[name]}.py:{name}@{models}/{name}.safetensors"
    return f"local-dir:{specialists if name in SPECIALISTS else models}/{name}"


def name_in(reference: str) -> str:
    """The name of a model in its reference."""
    if reference.startswith("file:"):
        return reference.split("@", maxsplit=1)[0].rpartition(":")[2]
    return reference.rpartition(":")[2].rstrip("/").rpartition("/")[2]


def reference_in(folders: Sequence[Path], name: str) -> str:
    """The reference of a model in the first of several zoos that has it.

    Raises:
        SystemExit: none of them has it.
    """
    for folder in folders:
        if (folder / name).is_dir() or (folder / f"{name}.safetensors").is_file():
            return reference(folder, name)
    raise SystemExit(f"{name}: no such model in {', '.join(map(str, folders))}")


def models_in(folders: Sequence[Path]) -> list[str]:
    """The names of all models in several zoos: folders in timm's local-dir form, and files of weights."""
    names = {config.parent.name for folder in folders for config in folder.glob("*/config.json")}
    names |= {file.stem for folder in folders for file in folder.glob("*.safetensors") if file.stem in FROM_FILE}
    return sorted(names)


def classifier(models: Path, name: str, *, specialists: Path | None = None) -> Classifier:
    """The model, its weights laid out as its kind runs fastest on a CPU; what it computes is the same."""
    found = load_model(reference(models, name, specialists=specialists))
    if name.startswith(CONVOLUTIONAL):
        found.module.to(memory_format=torch.channels_last)
    return found


class Model(nn.Module):
    """A classifier of the zoo on uint8 images of 32 pixels."""

    def __init__(self, net: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net, self.preprocessing = net, preprocessing

    @classmethod
    def load(cls, models: Path, name: str, *, specialists: Path | None = None) -> "Model":
        found = classifier(models, name, specialists=specialists)
        return cls(found.module, found.image_preprocessing).eval()

    def prepare(self, x: Tensor) -> Tensor:
        x = x.float().div(255)
        if x.shape[-2:] != self.preprocessing.view_size:
            x = F.interpolate(x, self.preprocessing.view_size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.preprocessing.mean, self.preprocessing.std))
        return (x - mean) / std

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits
