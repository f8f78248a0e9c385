"""Models of torchvision: preprocessing equal to its own, weights from its cache or a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from gainfinder.errors import BadReference, ModelError
from gainfinder.models import load_model
from gainfinder.models.from_torchvision import preset
from gainfinder.models.imagenet import as_wnids, imagenet_wnids
from hubs import put_torchvision

NAME = "squeezenet1_1"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch hub's folder, with random weights under the name that torchvision looks for."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    put_torchvision(tmp_path / "hub" / "checkpoints", NAME)
    return tmp_path / "hub" / "checkpoints"


def all_entries() -> list[Any]:
    names = torchvision.models.list_models(module=torchvision.models)
    return [entry for name in names for entry in torchvision.models.get_model_weights(name)]


def test_every_preset_is_expressed_exactly() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (41, 57, 3), dtype=np.uint8))
    presets = {repr(entry.transforms()): entry for entry in all_entries()}
    assert len(presets) > 10
    for entry in presets.values():
        theirs = entry.transforms()(image)
        ours = preset(entry).evaluation_transform()(image)
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-6


def test_every_imagenet_list_of_torchvision_becomes_wordnet_ids() -> None:
    lists = {tuple(entry.meta["categories"]) for entry in all_entries() if entry.meta["categories"]}
    assert {as_wnids(names) for names in lists} == {imagenet_wnids()}
    assert as_wnids(("cat", "dog")) == ("cat", "dog")
    shuffled = imagenet_wnids()[::-1]
    assert as_wnids(shuffled) == shuffled


@pytest.mark.parametrize("tag", ["", "/DEFAULT", "/IMAGENET1K_V1"])
def test_weights_come_from_the_cache(tag: str, cache: Path, tmp_path: Path) -> None:
    classifier = load_model(f"torchvision:{NAME}{tag}?size=64")
    assert classifier.num_classes == 1000
    assert classifier.class_names == imagenet_wnids()
    assert classifier.preprocessing.input_size == (3, 64, 64)
    reference = classifier.save(classifier, tmp_path / "saved")
    assert reference == f"torchvision:{NAME}/IMAGENET1K_V1@{tmp_path}/saved/model.safetensors?size=64"
    again = load_model(reference)
    assert again.weights_digest() == classifier.weights_digest()
    assert again.preprocessing == classifier.preprocessing
    assert again.save(again, tmp_path / "twice") == reference.replace("saved", "twice")


@pytest.mark.parametrize("name", [NAME, "shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_own_weights_bring_their_number_of_classes(name: str, tmp_path: Path) -> None:
    model = torchvision.models.get_model(name, num_classes=7)
    wrapped = {f"module.{key}".replace("classifier.", "classifier._orig_mod."): key for key in model.state_dict()}
    weights = {key: model.state_dict()[own] for key, own in wrapped.items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    classifier = load_model(f"torchvision:{name}@{tmp_path}/w.pth?size=64")
    assert classifier.num_classes == 7
    assert classifier.class_names is None
    saved = classifier.save(classifier, tmp_path)
    assert saved == f"torchvision:{name}@{tmp_path}/model.safetensors?size=64"
    with pytest.raises(ModelError, match="the weights do not fit"):
        load_model(f"torchvision:resnet18@{tmp_path}/w.pth")


def test_weights_without_a_classifier_are_refused() -> None:
    with pytest.raises(ModelError, match="no trained classifier"):
        load_model("torchvision:vgg16/IMAGENET1K_FEATURES")


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"from https://.*pth or the cache .*: OSError: no route to host$"):
        load_model(f"torchvision:{NAME}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("torchvision:resnet19", "no classification model 'resnet19'; near matches: resnet18"),
        ("torchvision:resnet50/IMAGENET1K_V3", "near matches: IMAGENET1K_V2.*; there are: .*DEFAULT"),
        ("torchvision:fcos_resnet50_fpn", "is not a float image classifier"),
        ("torchvision:quantized_resnet18", "is not a float image classifier"),
    ],
)
def test_names_that_torchvision_does_not_have(reference: str, message: str) -> None:
    with pytest.raises(BadReference, match=message):
        load_model(reference)
