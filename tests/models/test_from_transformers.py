"""Image classifiers of transformers: translated processors agree with the originals."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from gainfinder.errors import MissingExtra, ModelError
from gainfinder.models import classifier_from_module, load_model
from gainfinder.models.image_processors import preprocessing_of_processor
from gainfinder.views.spec import evaluation_crop, view_spec

transformers = pytest.importorskip("transformers")

# of normalised inputs: processors resize uint8 tensors and timm resizes images, so single values differ by two steps
# of 1/255 at the most, which a std of 0.26 makes 0.031
TOLERANCE = 0.032


def vit(**settings: Any) -> Any:
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**{"image_size": 16, "patch_size": 4, "num_labels": 3, **small, **settings})
    )


def convnext(**settings: Any) -> Any:
    small = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(**{"num_labels": 3, **small, **settings})
    )


def stored(folder: Path, model: Any, processor: Any) -> str:
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("processor", "settings"),
    [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 48}, "do_normalize": False, "resample": 3}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.95}),
        ("DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
    ],
)
def test_processors_are_translated(processor: str, settings: Any, image: Image.Image, tmp_path: Path) -> None:
    original = getattr(transformers, processor)(**settings)
    classifier = load_model(stored(tmp_path / "a", convnext(), original))
    theirs = original(image, return_tensors="pt")["pixel_values"][0]
    ours = classifier.image_preprocessing.evaluation_transform()(image)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < TOLERANCE
    again = load_model(classifier.save(classifier, tmp_path / "b") or "")
    assert again.preprocessing == classifier.preprocessing
    assert torch.equal(again.logits(ours[None]), classifier.logits(ours[None]))


def positions(height: int, width: int) -> Image.Image:
    """An image whose first two channels are its rows and columns, as far as 256 of them go."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8))


def corner(pixels: torch.Tensor) -> tuple[int, int]:
    """Row and column of the image at the corner of a crop, of which all others follow."""
    found = (pixels * 255).round().int()
    row, column = int(found[0, 0, 0]), int(found[1, 0, 0])
    height, width = pixels.shape[1:]
    assert torch.equal(found[0], torch.arange(row, row + height)[:, None].expand(height, width).int())
    assert torch.equal(found[1], torch.arange(column, column + width).expand(height, width).int())
    return row, column


PLAIN = {"do_normalize": False, "resample": 0}
CENTRED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, **PLAIN}
ODD = {"size": {"shortest_edge": 39}, "crop_size": {"height": 32, "width": 32}, **PLAIN}  # 7 pixels
CENTRED_KINDS = ("CLIP", "Bit", "MobileNetV1", "MobileNetV2")


@pytest.mark.parametrize("backend", ["", "Pil"])
@pytest.mark.parametrize(
    ("kind", "settings", "edge"),
    [
        *((kind, CENTRED, 40) for kind in CENTRED_KINDS),
        *((kind, ODD, 39) for kind in CENTRED_KINDS),
        ("ConvNext", {"size": {"shortest_edge": 32}, **PLAIN}, 36),  # of ConvNeXt, ResNet, RegNet and CvT
        ("ConvNext", {"size": {"shortest_edge": 33}, **PLAIN}, 37),
        ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.82, **PLAIN}, 39),
        ("PoolFormer", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, **PLAIN}, 35),
    ],
)
def test_a_crop_lies_where_the_processors_does(
    kind: str, settings: Any, edge: int, backend: str, tmp_path: Path
) -> None:
    original = getattr(transformers, f"{kind}ImageProcessor{backend}")(**settings)
    preprocessing = preprocessing_of_processor(original, channels=3, reference="it")
    loaded = load_model(stored(tmp_path / "model", convnext(), original))
    assert loaded.preprocessing == preprocessing and preprocessing.crop_rounding == "down"
    crop = view_spec([preprocessing], "none").crop_at(preprocessing.view_size)
    found = set()
    for more in range(12):
        for height, width in ((edge, edge + more), (edge + more, edge)):
            image = positions(height, width)
            theirs = original(image, return_tensors="pt")["pixel_values"][0]
            ours = preprocessing.evaluation_transform()(image)
            assert corner(ours) == corner(torch.as_tensor(theirs)), (height, width)
            assert torch.equal(evaluation_crop(crop)(image).float() / 255, ours)
            found.add(
                corner(ours) == corner(replace(preprocessing, crop_rounding="even").evaluation_transform()(image))
            )
    assert False in found  # timm's rounding is elsewhere in some of them


@pytest.mark.parametrize("backend", ["", "Pil"])
@pytest.mark.parametrize(
    ("edges", "crop", "rounding"),
    [
        ((36, 36), (32, 32), "even"),
        ((33, 33), (32, 32), "even"),  # half a pixel is rounded to 0 either way
        ((35, 35), (32, 32), "down"),
        ((35, 70), (32, 64), "down"),  # of the height alone
        ((70, 35), (64, 32), "down"),  # of the width alone
        ((39, 39), (32, 32), "down"),
    ],
)
def test_a_crop_of_fixed_margins_does_too(
    edges: tuple[int, int], crop: tuple[int, int], rounding: str, backend: str
) -> None:
    names = ("height", "width")
    settings: Any = {"size": dict(zip(names, edges, strict=True)), "crop_size": dict(zip(names, crop, strict=True))}
    original = getattr(transformers, f"DeiTImageProcessor{backend}")(**settings, **PLAIN)
    preprocessing = preprocessing_of_processor(original, channels=3, reference="it")
    assert preprocessing.crop_rounding == rounding  # what is the same in both keeps its digest
    image = positions(*edges)
    theirs = original(image, return_tensors="pt")["pixel_values"][0]
    assert corner(preprocessing.evaluation_transform()(image)) == corner(torch.as_tensor(theirs))


def test_a_student_is_cropped_as_its_processor_crops(tmp_path: Path) -> None:
    original = transformers.ConvNextImageProcessor(size={"shortest_edge": 32})
    classifier = load_model(stored(tmp_path / "a", convnext(), original))
    again = load_model(classifier.save(classifier, tmp_path / "b") or "")
    assert again.preprocessing == classifier.preprocessing and again.preprocessing.crop_rounding == "down"
    assert again.fingerprint(precision="no") == classifier.fingerprint(precision="no")
    other = load_model(f"hf:{tmp_path}/a?crop_rounding=even")
    assert other.image_preprocessing == replace(classifier.image_preprocessing, crop_rounding="even")
    assert other.fingerprint(precision="no") != classifier.fingerprint(precision="no")


def test_names_and_settings_survive_saving(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = vit(id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    reference = stored(tmp_path / "a", model, transformers.ViTImageProcessor(size={"height": 16, "width": 16}))
    capfd.readouterr()
    assert load_model(reference).class_names == ("a", "b", "c")
    classifier = load_model(f"{reference}?mean=0.1&classes=x,y,z")
    saved = classifier.save(classifier, tmp_path / "b")
    assert saved == f"hf:{tmp_path}/b?mean=0.1&classes=@{tmp_path}/b/classes.txt"
    again = load_model(saved)
    assert again.class_names == ("x", "y", "z")
    assert again.preprocessing == classifier.preprocessing
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_processors_that_do_something_else_are_refused(tmp_path: Path) -> None:
    for processor, settings, message in (
        ("ViTImageProcessor", {"rescale_factor": 1 / 127.5}, "does not scale pixels by 1/255"),
        ("ViTImageProcessor", {"do_rescale": False}, "does not scale pixels by 1/255"),
        ("ViTImageProcessor", {"do_resize": False}, "does not resize"),
        ("CLIPImageProcessor", {"do_center_crop": False}, "does not crop"),
        ("MobileViTImageProcessor", {"size": {"shortest_edge": 288}}, "does something of its own"),
    ):
        reference = stored(tmp_path, convnext(), getattr(transformers, processor)(**settings))
        with pytest.raises(ModelError, match=f"{processor}(Fast)? .*{message}.*add .size="):
            load_model(reference)
        assert load_model(f"{reference}?size=32").preprocessing.view_size == (32, 32)


def test_folders_and_repositories_that_hold_no_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = stored(tmp_path / "model", vit(), None)
    with pytest.raises(ModelError, match=r"no image processor .*: add \?size="):
        load_model(reference)
    assert load_model(f"{reference}?size=16").num_classes == 3
    with pytest.raises(ModelError, match="does not exist; near matches: model"):
        load_model(f"hf:{tmp_path}/modle")
    backbone = transformers.ViTModel(vit().config, add_pooling_layer=False)
    with pytest.raises(ModelError, match=r"the weights lack 2 tensor\(s\) of the classifier \(classifier.bias"):
        load_model(stored(tmp_path / "backbone", backbone, None))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"not in the cache, and the hub at http://127\.0\.0\.1:9 cannot be reached"):
        load_model("hf:org/name@main")


OWN = """
from pathlib import Path
from transformers import ViTForImageClassification

Path(__file__).with_name("ran").touch()

class Own(ViTForImageClassification):
    pass
"""


@pytest.mark.parametrize("kind", ["vit", "own"])
def test_code_of_a_model_is_not_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anyone asked on stdin whether it is to be run."""
    reference = stored(tmp_path / "model", vit(), None)
    folder = tmp_path / "model"
    (folder / "own.py").write_text(OWN.replace('Path(__file__).with_name("ran")', f"Path({str(folder)!r}, 'ran')"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": kind, "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("someone is asked"))
    if kind == "vit":  # the library has a class of its own for it
        assert load_model(f"{reference}?size=16").num_classes == 3
    else:
        with pytest.raises(
            ModelError, match=r"asks to run Python code of its own .*refused: .*`trust_remote_code=.*model`"
        ) as found:
            load_model(f"{reference}?size=16")
        assert "\n" not in str(found.value)
    assert not (folder / "ran").exists()


def test_a_replaced_head_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = vit()
    classifier_from_module(module, mean=0.5, std=0.5)
    assert caplog.text == ""
    module.classifier = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    found = classifier_from_module(module, mean=0.5, std=0.5)
    assert "no reference will load it again: a model whose head or other layers were replaced" in caplog.text
    assert found.save(found, tmp_path / "out") is None
    with pytest.raises(ModelError, match=r"Else, a model whose head .* give file:PATH\.py:FACTORY@WEIGHTS"):
        load_model(f"{stored(tmp_path / 'model', module, None)}?size=16")


def test_modules(tmp_path: Path) -> None:
    classifier = classifier_from_module(vit(num_channels=1), mean=0.5, std=0.25, class_names=["x", "y", "z"])
    assert classifier.preprocessing.input_size == (1, 16, 16)
    again = load_model(classifier.save(classifier, tmp_path / "a") or "")
    assert again.preprocessing == classifier.preprocessing
    assert again.class_names == ("x", "y", "z")
    assert again.weights_digest() == classifier.weights_digest()
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1, 0.2, 0.3])
    stored(tmp_path / "b", vit(), processor)
    module = transformers.ViTForImageClassification.from_pretrained(tmp_path / "b")
    assert classifier_from_module(module).preprocessing.mean == (0.1, 0.2, 0.3)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    with pytest.raises(MissingExtra, match=r"^hf:x needs the package 'transformers': .*gainfinder\[hf\]"):
        load_model("hf:x")


def test_what_is_assumed_without_a_processor_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = stored(tmp_path / "a", vit(), None)
    load_model(f"{reference}?size=16")
    assert "does not say how its input is normalised" in caplog.text
    caplog.clear()
    load_model(f"{reference}?size=16&mean=0.5&std=0.5")
    assert not caplog.messages


def test_a_model_of_several_classes_an_image_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = stored(tmp_path / "a", vit(problem_type="multi_label_classification"), None)
    load_model(f"{reference}?size=16&mean=0.5&std=0.5")
    assert "trained to give an image several classes" in caplog.text
    caplog.clear()
    load_model(f"{reference}?size=16&mean=0.5&std=0.5&output=logits")
    assert not caplog.messages
