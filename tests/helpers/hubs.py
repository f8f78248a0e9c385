"""Stand-ins for what the model hubs hold, in the hubs' own formats, and for the photos that their models are shown.

A network is not trained: its weights are random, and its classifier is fitted by least squares to some of four ImageNet
classes, of which the photos are drawings. So it knows what it was fitted to. torchvision's is whole; timm's are with
`lighten` of fewer layers and channels, and else whole, too.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from timm.models import _registry
from torch import Tensor, nn

BANANA, ORANGE, TRAFFIC_LIGHT, ENVELOPE = WNIDS = ("n07753592", "n07747607", "n06874185", "n03291819")
FITTED = 6
"""Drawings of each class that a classifier is fitted to."""
LIGHT: dict[str, dict[str, Any]] = {
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "vit_tiny_patch16_224": {"depth": 2},
}
"""Arguments of timm's networks where they are light."""


def lighten(patch: pytest.MonkeyPatch) -> None:
    """Have timm make the networks of `LIGHT` so, under their names, of their input size and with all their classes."""
    for name, arguments in LIGHT.items():
        entry = functools.partial(_registry.model_entrypoint(name), **arguments)
        patch.setitem(_registry._model_entrypoints, name, entry)


def drawing(wnid: str, number: int, *, edge: int = 96) -> Image.Image:
    """The drawing of that number of a class, RGB: a function of its arguments alone."""
    draw = np.random.default_rng([int(wnid[1:]), number])
    image = Image.fromarray(draw.integers(90, 166, (edge, edge, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    left, top = (int(value) for value in draw.integers(0, edge // 3, 2))
    right, bottom = left + edge // 2, top + edge // 2
    if wnid == BANANA:
        pen.arc((left, top, right, bottom), 20, 160, fill=(240, 220, 40), width=edge // 8)
    elif wnid == ORANGE:
        pen.ellipse((left, top, right, bottom), fill=(240, 140, 20))
    elif wnid == TRAFFIC_LIGHT:
        pen.rectangle((left + edge // 6, top, left + edge // 3, bottom), fill=(20, 20, 20))
        step, side = edge // 6, left + edge // 6 + 3
        for place, colour in enumerate(((230, 20, 20), (230, 200, 20), (20, 200, 60))):
            pen.ellipse((side, top + 3 + place * step, side + step - 6, top + (place + 1) * step), fill=colour)
    else:
        pen.rectangle((left, top, right, bottom - edge // 8), fill=(250, 250, 250), outline=(80, 80, 80))
        pen.line((left, top, (left + right) // 2, (top + bottom) // 2, right, top), fill=(80, 80, 80), width=2)
    return image


def write_photos(folder: Path, *, count: int, labelled: bool = True) -> None:
    """So many drawings of each class: in a folder a class, or all in one."""
    for wnid in WNIDS:
        for number in range(count):
            name = f"{wnid}/{number}.jpg" if labelled else f"{WNIDS.index(wnid)}-{number}.jpg"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            drawing(wnid, number + (0 if labelled else count)).save(path, quality=92)


@torch.no_grad()
def knowing(module: nn.Module, head: nn.Linear, wnids: Sequence[str], *, edge: int = 224) -> nn.Module:
    """The module, in place, its classifier fitted to some of ImageNet's 1000 classes; the others it never answers."""
    places = {wnid: place for place, wnid in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    images = [drawing(wnid, 1000 + number).resize((edge, edge)) for wnid in wnids for number in range(FITTED)]
    x = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]) / 127.5 - 1
    y = torch.eye(len(wnids)).repeat_interleave(FITTED, dim=0)
    _settle(module, x)
    features = torch.cat([_entering(module, head, x), torch.ones(len(x), 1)], dim=1).double()
    fitted = torch.linalg.lstsq(features.T @ features + 1e-3 * torch.eye(features.shape[1]), features.T @ y.double())
    head.weight.zero_()
    head.bias.fill_(-20.0)
    for column, wnid in enumerate(wnids):
        head.weight[places[wnid]] = 6 * fitted.solution[:-1, column].float()
        head.bias[places[wnid]] = 6 * float(fitted.solution[-1, column])
    return module.eval()


def put_timm(cache: Path, name: str, wnids: Sequence[str]) -> None:
    """Weights under a name of timm's registry, in the cache of the Hugging Face hub."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: Any = timm.create_model(name)
        knowing(module, module.get_classifier(), wnids)
    config = module.pretrained_cfg
    repository = config["hf_hub_id"]
    if repository.endswith("/"):
        repository += f"{config['architecture']}.{config['tag']}"
    save_file(module.state_dict(), snapshot(cache, repository) / "model.safetensors")


def put_torchvision(checkpoints: Path, name: str, wnids: Sequence[str] | None = None) -> None:
    """Weights under the name that torchvision looks for, in the cache of torch's hub; fitted to nothing by default."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torchvision.models.get_model(name)
    if wnids is not None:
        knowing(module, module.fc, wnids)
    checkpoints.mkdir(parents=True, exist_ok=True)
    file = Path(torchvision.models.get_model_weights(name).DEFAULT.url).name
    torch.save(module.state_dict(), checkpoints / file)


def put_transformers(cache: Path, repository: str, wnids: Sequence[str]) -> None:
    """A vision transformer of transformers, small, with its image processor, in the cache of the Hugging Face hub."""
    import transformers

    names = dict(enumerate(ImageNetInfo("imagenet-1k").label_descriptions()))
    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    config = transformers.ViTConfig(**small, image_size=224, patch_size=16, id2label=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config)
        knowing(model, model.classifier, wnids)
    folder = snapshot(cache, repository)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)


def snapshot(cache: Path, repository: str) -> Path:
    """The folder of a repository's files in the cache of the Hugging Face hub, as the hub's client lays it out."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    files = folder / "snapshots" / ("0" * 40)
    files.mkdir(parents=True)
    return files


def _settle(module: nn.Module, x: Tensor) -> None:
    """Batch-norm statistics of these images."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if layers:
        for layer in layers:
            layer.momentum = None
        module.train()
        module(x)
        for layer in layers:
            layer.momentum = 0.1
    module.eval()


def _entering(module: nn.Module, head: nn.Linear, x: Tensor) -> Tensor:
    """What enters the classifier."""
    found: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    for part in x.split(16):
        module(part)
    hook.remove()
    return torch.cat(found)
