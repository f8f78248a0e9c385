"""Licences and repositories, as files in the hub's own format and timm's registry say them; never a guess."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
from huggingface_hub import constants
from timm.models import save_for_hf

import hubs
from gainfinder.models import Classifier, Origin, PredictionTable, find_origin, load_model
from onnx_files import Net, write
from tiny_models import tiny

CARD = "---\nlicense: {}\n---\n# A model\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "resnet"
    save_for_hf(tiny("resnet"), str(folder), safe_serialization=True)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "net"))


def found(folder: Path) -> Origin:
    return find_origin(load_model(f"local-dir:{folder}"))


def named(model: Classifier, reference: str) -> Classifier:
    return Classifier(**{**vars(model), "reference": reference})


def test_a_folders_card_has_the_first_word(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["license"] = "cc-by-nc-4.0"
    (folder / "config.json").write_text(json.dumps(config))
    assert found(folder) == Origin(license="cc-by-nc-4.0", said_by="configuration")
    (folder / "README.md").write_text(CARD.format("mit"))
    assert found(folder) == Origin(license="mit", said_by="card")
    (folder / "README.md").write_text(CARD.format("other\nlicense_name: lab 1.0\nlicense_link: LICENSE"))
    assert found(folder) == Origin(
        license="other", license_name="lab 1.0", license_link="LICENSE", said_by="card"
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["no front matter", "---\na: [\n---\n", "---\nlicense:\n- mit\n- gpl\n---\n", "---\n- 1\n---\n"]
)
def test_a_card_that_says_nothing_leaves_it_open(folder: Path, text: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"].pop("license", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(text)
    assert found(folder) == Origin()


def test_timms_registry_knows_the_repository_and_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = timm.create_model("test_resnet")
    config = timm.get_pretrained_cfg("test_resnet").to_dict()
    module.pretrained_cfg = {**config, "hf_hub_id": "timm/", "architecture": "test_resnet", "tag": "r160_in1k"}
    model = named(load_model(module), "test_resnet.r160_in1k")
    assert find_origin(model) == Origin(
        repository="timm/test_resnet.r160_in1k", license=config["license"], said_by="registry"
    )  # fmt: skip
    assert config["license"], "else this shows nothing"
    assert find_origin(load_model(module)) == Origin(), "a module that was passed in may have any weights"


def test_a_hubs_card_is_read_in_its_cache_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    model = load_model(f"local-dir:{folder}")
    assert find_origin(named(model, "hf:lab/net")) == Origin(repository="lab/net")
    (hubs.snapshot(tmp_path / "cache", "lab/net") / "README.md").write_text(CARD.format("bsd-3-clause"))
    expected = Origin(repository="lab/net", license="bsd-3-clause", said_by="card")
    assert find_origin(named(model, "hf:lab/net")) == expected
    assert find_origin(named(model, "hf-hub:lab/net?size=16")) == expected
    assert find_origin(named(model, "hf-hub:lab/net@main")) == expected


def test_what_says_nothing_is_not_known(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", Net())
    assert find_origin(load_model(f"onnx:{tmp_path}/net.onnx")) == Origin()
    assert find_origin(named(load_model(tiny("resnet")), "torchvision:resnet18")) == Origin()
    table = object.__new__(PredictionTable)
    object.__setattr__(table, "reference", "table:teacher.parquet")
    assert find_origin(table) == Origin()
