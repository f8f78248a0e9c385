"""Models of segmentation: students and teachers that give each cell of an image a class, measured on one of each."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, SegformerForSemanticSegmentation

import gainfinder
from gainfinder.errors import BadReference, DataError, ModelError, SettingsError
from gainfinder.inference import align_samples
from gainfinder.models import write_onnx
from gainfinder.report.card import model_card
from gainfinder.report.records import TransferRecord, read_record
from killing import KillAtEpoch, Killed
from masks import SHAPES, masked_folder, tiny_segmenter
from once import made_once
from tiny_models import tiny
from transfers import asked_in_each_step, assert_taught_alike

GRID = 8


@dataclass(frozen=True)
class CellZoo:
    """A model that knows nothing and one that knows three of four classes, and images with masks."""

    student: str
    teacher: str
    data: str
    val: str | None


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
        "epochs": 4,
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
    record = read_record(tmp_path / "out")
    assert isinstance(record, TransferRecord)
    card = model_card(record)
    assert "AutoModelForSemanticSegmentation" in card and "pipeline_tag: image-segmentation" in card
    augment = "none" if labels == "use" else "crop-flip"  # masks do not move along
    assert f'"augment": "{augment}"' in (tmp_path / "out" / "config.json").read_text()


def test_predictions_are_those_of_transformers_at_the_measured_cell(zoo: CellZoo) -> None:
    reference = f"{zoo.teacher}?grid={GRID}"
    found = gainfinder.predict(reference, zoo.val, device="cpu")
    images = align_samples(gainfinder.load_samples(zoo.val), gainfinder.load_model(reference))
    assert found.target is not None and images.measured_places is not None
    folder = zoo.teacher.removeprefix("hf:")
    model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    for at in range(20):
        row, column = divmod(int(images.measured_places[at]), GRID)
        with torch.no_grad():
            logits = model(**processor(images.read(at), return_tensors="pt")).logits
        cells = torch.nn.functional.interpolate(logits, size=(GRID, GRID), mode="bilinear")
        assert torch.allclose(found.logits[at], cells[0, :, row, column], atol=1e-3)
        mask = Image.open(Path(str(zoo.val)) / "masks" / images.ids[at])
        assert found.target[at] == mask.getpixel((column * 4 + 2, row * 4 + 2))


def test_a_killed_run_goes_on_as_it_would_have(zoo: CellZoo, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        transferred(zoo, tmp_path / "killed", epochs=2, callbacks=[KillAtEpoch(2)])
    again, whole = (transferred(zoo, tmp_path / name, epochs=2) for name in ("killed", "whole"))
    assert again.metrics.resumed_epochs == 1
    for one, other in zip(*(run.student.module.state_dict().values() for run in (again, whole)), strict=True):
        assert torch.equal(one, other)


def test_the_bank_gives_what_the_models_would(zoo: CellZoo, tmp_path: Path) -> None:
    live = transferred(zoo, tmp_path / "live", epochs=1)
    banked = transferred(zoo, tmp_path / "banked", epochs=1, bank=tmp_path / "bank", bank_storage="exact")
    assert banked.metrics.bank is not None and banked.metrics.bank.entries == 2
    for one, other in zip(*(run.student.module.state_dict().values() for run in (live, banked)), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_models_that_are_asked_once_teach_the_same(zoo: CellZoo, tmp_path: Path) -> None:
    about: dict[str, Any] = {"epochs": 2, "method": "kl-dp", "labels": "use"}
    kept = transferred(zoo, tmp_path / "kept", **about)
    with asked_in_each_step():
        asked = transferred(zoo, tmp_path / "asked", **about)
    assert_taught_alike(kept, asked)


def test_images_without_masks_are_learned_from(zoo: CellZoo, tmp_path: Path) -> None:
    plain = masked_folder(tmp_path / "plain", 24, masks=False) / "images"
    result = gainfinder.transfer(
        zoo.student, zoo.teacher, plain, val=zoo.val, labels="none", guard=True, epochs=1, lr=2e-2, out=tmp_path / "out"
    )
    assert result.metrics.guard is not None and result.metrics.samples == 80
    unmeasured = gainfinder.predict(zoo.student, plain)
    assert unmeasured.target is None and len(unmeasured.ids) == 24


def test_what_is_for_whole_images_alone_is_refused(zoo: CellZoo, tmp_path: Path) -> None:
    out, few = tmp_path / "out", replace(zoo, data=str(masked_folder(tmp_path / "few")), val=None)
    for settings, message in (
        ({"method": "dist-dp-u"}, "compares the samples of a batch, and each cell has a class"),
        ({"method": "kl-dp-u", "decide_on": "image"}, "each cell of an image has a teacher of its own"),
        ({"mixup": 0.5}, "mixup is 0.5, and cells of images laid over each other have two classes"),
        ({"labels": "use", "augment": "paper"}, "augment is 'paper', and labels of cells are read, which would not"),
        ({"control": ["labels"]}, "control is 'labels', and the labels of cells would not move along"),
    ):
        with pytest.raises(SettingsError, match=message):
            transferred(few, out, **settings)
    with pytest.raises(ModelError, match="for which no head is fitted: expected a classifier of whole images"):
        gainfinder.fit_head(zoo.student, few.data, out=out)
    with pytest.raises(ModelError, match=r"classifies images, and .* cells: both have to classify the same"):
        gainfinder.transfer(zoo.student, tiny("resnet"), few.data, out=out)
    with pytest.raises(DataError, match=r"digits holds images, and .* classifies cells: .* read them without labels"):
        gainfinder.predict(zoo.student, "digits")
    with pytest.raises(DataError, match=r"holds images of labelled cells, and .* classifies images"):
        gainfinder.predict(tiny("resnet"), few.data)
    with pytest.raises(ModelError, match="classifiers of cells are not exported"):
        write_onnx(gainfinder.load_model(zoo.student), tmp_path / "x.onnx")
    assert not out.exists()


def test_models_that_do_not_fit(zoo: CellZoo, tmp_path: Path) -> None:
    fine = zoo.student.replace(f"grid={GRID}", "grid=32")
    with pytest.raises(ModelError, match=r"it has to answer for the 32×32 cells of .* give the student fewer cells"):
        gainfinder.transfer(fine, f"{zoo.teacher}?size=16", zoo.data, out=tmp_path / "out")
    few = tiny_segmenter(tmp_path / "few", order=SHAPES[:3])
    with pytest.raises(DataError, match=r"label 3 of sample '\d+\.png' is out of range: .* add \?count_from=1"):
        gainfinder.predict(few, masked_folder(tmp_path / "images"))
    for setting, message in (
        ("grid=33", "expected 1 to 32"),
        ("grid=0", "a number of cells a side"),
        ("output=probs", "unknown setting"),
    ):
        with pytest.raises(BadReference, match=message):
            gainfinder.load_model(f"{zoo.teacher}?{setting}")
    with pytest.raises(ModelError, match=r"it sees a crop .* give \?crop_mode=squash&crop_pct=1"):
        gainfinder.load_model(f"{zoo.teacher}?crop_pct=0.9")
    with pytest.raises(BadReference, match="unknown setting 'grid'"):
        gainfinder.load_model(tiny("resnet"), grid=4)
