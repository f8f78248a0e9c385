"""No file runs code where it is read, whatever its form and whoever reads it."""

import os
import pickle
import shutil
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from gainfinder.errors import GainfinderError, ModelError
from gainfinder.inference.bank import BankEntry
from gainfinder.models import load_model
from gainfinder.models.weights import load_weights
from gainfinder.training.checkpoint import load_checkpoint
from gainfinder.zoo.embeddings import read_embeddings


class Command:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def as_zip(command: Command, path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "x": command}, path)


def as_legacy(command: Command, path: Path) -> None:
    content = {"state_dict": nn.Linear(2, 2).state_dict(), "x": command}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_bare_pickle(command: Command, path: Path) -> None:
    path.write_bytes(pickle.dumps(command))


def as_tar(command: Command, path: Path) -> None:
    inner = path.with_name("pickle")
    inner.write_bytes(pickle.dumps(command))
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.add(inner, name)


def as_namespace(command: Command, path: Path) -> None:
    import argparse

    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "args": argparse.Namespace(x=command)}, path)


FORMS: tuple[Callable[[Command, Path], None], ...] = (as_zip, as_legacy, as_bare_pickle, as_tar, as_namespace)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".PT"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_files(form: Callable[[Command, Path], None], ending: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / f"w{ending}"
    form(Command(mark), path)
    with pytest.raises(ModelError) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_bin_file_in_a_folder_of_timm(
    form: Callable[[Command, Path], None], tmp_path: Path, mark: Path, zoo: dict[str, str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(Path(zoo["resnet"].partition(":")[2]) / "config.json", folder)
    form(Command(mark), folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_model(f"local-dir:{folder}")
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_bin_file_in_a_folder_of_transformers(
    form: Callable[[Command, Path], None], tmp_path: Path, mark: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16}
    transformers.ViTConfig(**sizes, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path / "model")
    form(Command(mark), tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_model(f"hf:{tmp_path}/model")
    assert not mark.exists()


@pytest.mark.parametrize("unsafe", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_torchs_cache_of_torchvisions_weights(
    form: Callable[[Command, Path], None], unsafe: bool, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if unsafe:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    form(Command(mark), folder / url.rpartition("/")[2])
    with pytest.raises(ModelError):
        load_model("torchvision:resnet18")
    assert not mark.exists()
    assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == ("1" if unsafe else None)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_a_run(form: Callable[[Command, Path], None], tmp_path: Path, mark: Path) -> None:
    form(Command(mark), tmp_path / "checkpoint.pt")
    with pytest.raises(GainfinderError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not mark.exists()


def test_torchscript_is_no_weights_file(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match="holds a TorchScript program beside its tensors, which safe loading refuses"):
        load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("values", ["object", "void", "array", "str"])
def test_values_of_numpy_that_are_no_numbers(values: str, tmp_path: Path, mark: Path) -> None:
    odd = {
        "object": np.array([Command(mark)], dtype=object),
        "void": np.zeros(1, dtype=[("a", "f4")])[0],
        "array": np.zeros(3),
        "str": np.str_("x"),
    }
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "x": odd[values]}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"holds|damaged"):
        load_weights(tmp_path / "w.pt")
    assert not mark.exists()


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_arrays_of_objects(ending: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / f"embeddings{ending}"
    objects = np.array([Command(mark)] * 3, dtype=object)
    if ending == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, names=np.array(["a", "b", "c"]), embeddings=objects)
    with pytest.raises(GainfinderError):
        read_embeddings(path)
    entry = tmp_path / "entry"
    entry.mkdir()
    np.save(entry / "exact.npy", objects, allow_pickle=True)
    meta = {"images": 3, "classes": 2, "labelled": False, "about": {}, "files": ["exact.npy"]}
    with pytest.raises(ValueError, match=r"object|allow_pickle"):
        BankEntry(entry, meta)
    assert not mark.exists()
