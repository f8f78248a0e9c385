"""What the pages find where they are followed: photos, stand-ins for the hubs' models, what the demo leaves."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import hubs
from forked import fork_workers
from gainfinder.config import resolution
from masks import masked_folder, tiny_segmenter
from once import made_once
from onnx_files import Net, write
from pages import Ran, gainfinder
from texts import text_file, tiny_text_model

PHOTOS = 3
"""Of each of four classes."""
MOST_EPOCHS = 2
"""Of a run for which a page gives none; a reader's has up to 100."""


@pytest.fixture(scope="session")
def hub_caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of the hubs, as if the models that the pages name had been fetched before."""
    return made_once(tmp_path_factory, "hubs", _fetch)


def _fetch(folder: Path) -> None:
    first, second = hubs.WNIDS[:3], hubs.WNIDS[1:]
    with pytest.MonkeyPatch.context() as patch:
        hubs.lighten(patch)
        hubs.put_timm(folder / "hf", "resnet18.a1_in1k", first)
        hubs.put_timm(folder / "hf", "vit_tiny_patch16_224", second)
    hubs.put_transformers(folder / "hf", "google/vit-base-patch16-224", second)
    hubs.put_torchvision(folder / "torch" / "hub" / "checkpoints", "resnet18", first)


@pytest.fixture(scope="session")
def text_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of texts in folders of their own, as a reader would have saved them."""
    return made_once(tmp_path_factory, "text-models", _train_texts)


def _train_texts(folder: Path) -> None:
    tiny_text_model(folder / "mine", knows=("birds", "fish"))
    tiny_text_model(folder / "other", knows=("trees", "fish"), seed=1)


@pytest.fixture(scope="session")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of segmentation, images with masks, and images without."""
    return made_once(tmp_path_factory, "segmentation", _make_segmentation)


def _make_segmentation(folder: Path) -> None:
    tiny_segmenter(folder / "mine", knows=("ground", "ball"), steps=12)
    tiny_segmenter(folder / "other", steps=24, seed=1)
    masked_folder(folder / "streets", 60)
    masked_folder(folder / "unlabelled", 48, first=500, masks=False)


@pytest.fixture(scope="session")
def after_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """The folder in which `gainfinder demo` was run, and what it printed; pages share it, for it takes a while."""
    folder = made_once(tmp_path_factory, "demo", _run_demo)
    return folder, Ran(**json.loads((folder / "ran.json").read_text()))


def _run_demo(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran = gainfinder(["demo"])
    assert ran.code == 0, ran.err
    (folder / "ran.json").write_text(json.dumps(asdict(ran)))


@pytest.fixture
def reader_folder(
    tmp_path: Path, hub_caches: Path, text_models: Path, segmentation: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder in which a page is followed: empty but for images, texts with two classifiers of them, images with
    masks and two models of segmentation, and an ONNX file, and the hubs' caches at hand."""
    hubs.lighten(monkeypatch)
    fork_workers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(hub_caches / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_caches / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(resolution, "EPOCHS", (resolution.EPOCHS[0], MOST_EPOCHS))
    hubs.write_photos(tmp_path / "photos", count=PHOTOS)
    hubs.write_photos(tmp_path / "photos-unlabelled", count=PHOTOS, labelled=False)
    write(tmp_path / "net.onnx", Net())
    shutil.copytree(text_models, tmp_path / "texts")
    shutil.copytree(segmentation, tmp_path / "segmentation")
    text_file(tmp_path / "texts" / "notes.csv", 90)
    text_file(tmp_path / "texts" / "unlabelled.csv", 120, first=500, labels=False)
    return tmp_path


@pytest.fixture
def left_to_reader(hub_caches: Path) -> dict[str, Any]:
    """Names that a page does not define, since every reader has others."""
    module = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.Linear(3 * 7 * 7, 1000))
    dataset = [(hubs.drawing(wnid, number), label) for label, wnid in enumerate(hubs.WNIDS) for number in range(PHOTOS)]
    return {"my_module": module, "my_dataset": dataset}
