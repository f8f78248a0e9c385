"""Models of segmentation: students and teachers that give each cell of an image a class, measured on one of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SegformerForSemanticSegmentation

import gainfinder
from gainfinder.errors import BadReference, DataError, ModelError, SettingsError
from killing import KillAtEpoch, Killed
from masks import SHAPES, masked_folder, tiny_segmenter
from once import made_once
from tiny_models import tiny

GRID = 8


@dataclass(frozen=True)
class CellZoo:
    """A model that knows nothing and one that knows three of four classes, and images with masks."""

    student: str
    teacher: str
    data: str
    val: str


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> CellZoo:
    folder = made_once(tmp_path_factory, "cell-zoo", _make)
    student, teacher, data, val = (str(folder / name) for name in ("a", "b", "data", "val"))
    return CellZoo(student=f"hf:{student}?grid={GRID}", teacher=f"hf:{teacher}", data=data, val=val)


def _make(folder: Path) -> None:
    tiny_segmenter(folder / "a")
    known = ("bar", "box", "ground")
    tiny_segmenter(folder / "b", knows=known, order=("bar", "ground", "box", "ball"), steps=24, seed=1)
    masked_folder(folder / "data", 48)
    masked_folder(folder / "val", 80, first=1000)


def transferred(zoo: CellZoo, out: Path, **settings: Any) -> gainfinder.TransferResult:
    about = {
        "val": zoo.val,
        "labels": "none",
        "guard": False,
        "epochs": 5,
        "batch_size": 8,
        "lr": 2e-2,
        "ema_decay": 0,
        **settings,
    }
    return gainfinder.transfer(zoo.student, zoo.teacher, zoo.data, out=out, **about)


@pytest.mark.parametrize("labels", ["none", "use"])
def test_what_one_knows_is_moved_into_the_other(labels: str, zoo: CellZoo, tmp_path: Path) -> None:
    result = transferred(zoo, tmp_path / "out", labels=labels)
    metrics = result.metrics
    assert metrics.accuracy_before is not None and metrics.accuracy_after is not None
    assert metrics.accuracy_after > metrics.accuracy_before + 0.2
    again = gainfinder.predict(f"hf:{tmp_path}/out/student?grid={GRID}", zoo.val)
    assert again.accuracy == metrics.accuracy_after
    augment = "none" if labels == "use" else "crop-flip"  # masks do not move along
    assert f'"augment": "{augment}"' in (tmp_path / "out" / "config.json").read_text()


def test_predictions_are_those_of_transformers_at_the_measured_cell(zoo: CellZoo) -> None:
    reference = f"{zoo.teacher}?grid={GRID}"
    found, images = gainfinder.predict(reference, zoo.val), gainfinder.load_samples(zoo.val)
    transform = gainfinder.load_model(reference).image_transform if False else None
    assert transform is None
    model = SegformerForSemanticSegmentation.from_pretrained(zoo.teacher.removeprefix("hf:")).eval()
    aligned = gainfinder.predict(reference, images)
    assert torch.equal(aligned.logits, found.logits)
    assert model is not None
