"""Models of timm: loaded, asked, saved and loaded by timm itself; mistakes in names and folders."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from torch import nn

from gainfinder import libraries
from gainfinder.errors import BadReference, ModelError
from gainfinder.models import classifier_from_module, load_model
from gainfinder.models.imagenet import imagenet_wnids
from gainfinder.models.preprocessing import Preprocessing

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (41, 57, 3), dtype=np.uint8))


def stored(folder: Path, name: str = "resnet18", *, config: dict[str, Any] | None = None, **arguments: Any) -> str:
    """A tiny timm model of random weights in a folder, as timm saves it."""
    arguments = {**(VIT if name.startswith("vit") else RESNET), "num_classes": 3, **arguments}
    model = timm.create_model(name, **arguments)
    edge = 16 if name.startswith("vit") else 32
    # timm drops the names of a configuration whose number of classes is not the model's
    model.pretrained_cfg.update(
        num_classes=model.num_classes, input_size=(arguments.get("in_chans", 3), edge, edge), **(config or {})
    )
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return f"local-dir:{folder}"


def timm_logits(reference: str, image: Image.Image) -> torch.Tensor:
    model = timm.create_model(reference, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg), is_training=False)
    logits: torch.Tensor = model(transform(image)[None])
    return logits


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet18", {"crop_pct": 0.9, "interpolation": "bilinear", "label_names": ["a", "b", "c"]}),
        ("resnet18", {"crop_mode": "squash", "test_input_size": (3, 48, 48), "test_crop_pct": 1.0}),
        ("resnet18", {"crop_mode": "border", "mean": (0.1, 0.2, 0.3)}),
        ("vit_tiny_patch16_224", {"label_names": {"0": "a", "1": "b", "2": "c"}}),
    ],
)
def test_an_image_meets_exactly_timms_evaluation(
    name: str, config: dict[str, Any], image: Image.Image, tmp_path: Path
) -> None:
    reference = stored(tmp_path, name, config=config)
    classifier = load_model(reference)
    logits = classifier.logits(classifier.image_preprocessing.evaluation_transform()(image)[None])
    assert torch.equal(logits, timm_logits(reference, image))
    assert classifier.num_classes == 3
    assert classifier.class_names == (("a", "b", "c") if "label_names" in config else None)
    assert not classifier.module.training


@pytest.mark.parametrize(
    "settings", ["", "?size=24&mean=0.5,0.4,0.3&std=0.2&crop_pct=1&crop_mode=squash&classes=x,y,z"]
)
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_saved_model_is_the_same_to_timm(name: str, settings: str, image: Image.Image, tmp_path: Path) -> None:
    classifier = load_model(stored(tmp_path / "a", name, config={"label_names": ["a", "b", "c"]}) + settings)
    logits = classifier.logits(classifier.image_preprocessing.evaluation_transform()(image)[None])
    reference = classifier.save(classifier, tmp_path / "b")
    assert reference == f"local-dir:{tmp_path / 'b'}"
    assert torch.equal(timm_logits(reference, image), logits)
    again = load_model(reference)
    assert again.preprocessing == classifier.preprocessing
    assert again.class_names == classifier.class_names == (("x", "y", "z") if settings else ("a", "b", "c"))
    assert again.weights_digest() == classifier.weights_digest()


def test_a_crop_rounded_down_is_said_in_the_saved_reference(image: Image.Image, tmp_path: Path) -> None:
    """In each mode a pixel further left or up than timm's, whose configuration has no word for it."""
    for mode, size in (("center", (40, 43)), ("squash", (43, 43)), ("border", (43, 43))):
        settings = f"size=32&crop_pct={32 / size[0]}&crop_mode={mode}&interpolation=nearest&mean=0&std=1"
        own, timms = (load_model(f"{stored(tmp_path / mode)}?{settings}{more}") for more in ("&crop_rounding=down", ""))
        picture = Image.new("RGB", (size[1], size[0]))
        picture.putdata([(row, column, 0) for row in range(size[0]) for column in range(size[1])])
        found, usual = ((one.image_preprocessing.evaluation_transform()(picture) * 255).round() for one in (own, timms))
        moved = [int(usual[channel, 0, 0] - found[channel, 0, 0]) for channel in (0, 1)]
        assert moved == ([0, 1] if mode == "center" else [1, 1]), mode
        saved = own.save(own, tmp_path / "saved")
        assert saved == f"local-dir:{tmp_path}/saved?crop_rounding=down"
        assert load_model(saved).preprocessing == own.preprocessing


def test_a_crop_keeps_its_padding_where_the_corner_is_rounded_down(image: Image.Image) -> None:
    for size in ((41, 57), (20, 64), (64, 20), (7, 7)):
        for mode in ("center", "border"):
            plain = Preprocessing(input_size=(3, 33, 33), crop_pct=1.6, crop_mode=mode, mean=(0.4, 0.5, 0.6))
            ours = replace(plain, crop_rounding="down").evaluation_transform()(image.resize(size))
            usual = plain.evaluation_transform()(image.resize(size))
            shifts = [ours, ours.roll(-1, 1), ours.roll(-1, 2), ours.roll((-1, -1), (1, 2))]
            assert any(torch.equal(one[:, :-1, :-1], usual[:, :-1, :-1]) for one in shifts)


def test_reordered_and_strided_models_are_saved_in_their_own_order(tmp_path: Path) -> None:
    classifier = load_model(stored(tmp_path / "a", config={"label_names": ["a", "b", "c"]}))
    classifier.module.to(memory_format=torch.channels_last)
    ordered = classifier.with_class_order((2, 0, 1), ("c", "a", "b"))
    assert load_model(ordered.save(ordered, tmp_path / "b") or "").class_names == ("a", "b", "c")
    part = classifier.with_class_order((2, 0), ("c", "a"))
    assert load_model(part.save(part, tmp_path / "c") or "").class_names == ("a", "b", "c")


def test_one_channel(image: Image.Image, tmp_path: Path) -> None:
    classifier = load_model(stored(tmp_path, in_chans=1))
    assert classifier.preprocessing.input_size == (1, 32, 32)
    assert len(classifier.preprocessing.mean) == 1
    assert classifier.logits(classifier.image_preprocessing.evaluation_transform()(image)[None]).shape == (1, 3)


def test_a_wrong_number_of_stored_names_is_dropped_and_of_given_ones_refused(tmp_path: Path) -> None:
    reference = stored(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "label_names": ["a", "b"]}))
    assert load_model(reference).class_names is None
    with pytest.raises(BadReference, match=r"^2 class names were given, but .* has 3 logits; expected a name for each"):
        load_model(f"{reference}?classes=a,b")
    (tmp_path / "names.txt").write_text("cat\ndog\nfrog, green\n")
    assert load_model(f"{reference}?classes=@{tmp_path}/names.txt").class_names == ("cat", "dog", "frog, green")
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\ndog\r\nfrog, green\r\n".encode())  # as Windows' Notepad saves it
    assert load_model(f"{reference}?classes=@{tmp_path}/names.txt").class_names == ("cat", "dog", "frog, green")
    with pytest.raises(BadReference, match=r"classes file '~nosuchuser/x': there is no home folder"):
        load_model(f"{reference}?classes=@~nosuchuser/x")
    with pytest.raises(BadReference, match=r"does not exist; near matches: names\.txt"):
        load_model(f"{reference}?classes=@{tmp_path}/name.txt")
    with pytest.raises(BadReference, match="class name 'a' is given twice"):
        load_model(f"{reference}?classes=a,b,a")


def test_imagenet_models_carry_wordnet_ids(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {**RESNET, "num_classes": 1000}
    assert load_model(stored(tmp_path, **arguments)).class_names == imagenet_wnids()
    assert load_model(stored(tmp_path, config={"tag": "mine"}, **arguments)).class_names is None


def test_a_registered_name_loads_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole way of `timm.create_model(NAME, pretrained=True)`, its hub client answered from a folder."""
    model = timm.create_model("test_resnet")
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    monkeypatch.setattr(libraries, "_hub_reachable", lambda: True)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *_, filename, **__: str(tmp_path / filename))
    classifier = load_model("test_resnet.r160_in1k")
    assert classifier.class_names == imagenet_wnids()
    assert classifier.preprocessing.input_size == (3, 160, 160)
    assert torch.equal(next(classifier.module.parameters()), next(model.parameters()))


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("resnet81", BadReference, "no architecture 'resnet81'; near matches: resnet18"),
        ("resnet18.a1_ink", BadReference, "no weights 'a1_ink' for 'resnet18'; near matches: a1_in1k.*gluon_in1k"),
        ("org/name", BadReference, "hf-hub:org/name"),
        ("vit_small_patch16_18x2_224", ModelError, "no pretrained weights for 'vit_small_patch16_18x2_224'"),
        ("vit_base_patch14_dinov2", ModelError, "no classifier"),
    ],
)
def test_names_that_timm_does_not_have(reference: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_model(reference)


def test_without_a_network_the_hub_is_given_up_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # refused at once
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    level = logging.getLogger("timm").level
    for reference in ("resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"):
        with pytest.raises(ModelError, match=r"not in the cache, and the hub at http://127.0.0.1:9 cannot be reached"):
            load_model(reference)
    assert not caplog.records
    assert constants.HF_HUB_OFFLINE is False
    assert logging.getLogger("timm").level == level


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    def refuse(reference: str, message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            load_model(reference)
        assert "\n" not in str(caught.value)

    reference = stored(tmp_path / "model")
    refuse(f"local-dir:{tmp_path}/modle", "does not exist; near matches: model")
    refuse(f"local-dir:{tmp_path}", "has no config.json")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    refuse(reference, "timm cannot load this model: SafetensorError")
    weights.unlink()
    refuse(reference, "the folder has no weights")
    config = tmp_path / "model" / "config.json"
    config.write_text('{"architecture": "resnet81"}')
    refuse(reference, "names the architecture 'resnet81', which timm .* near matches: resnet18")
    config.write_text("{")
    refuse(reference, "config.json cannot be read as JSON: .*line 1")
    config.write_text('{"architectures": ["ViTForImageClassification"]}')
    refuse(reference, "loaded as hf:FOLDER")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = timm.create_model("resnet18", num_classes=3, **RESNET)
    nn.init.constant_(model.fc.bias, float("inf"))
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    with pytest.raises(ModelError, match=r"the weights 'fc\.bias' hold values that are not finite"):
        load_model(f"local-dir:{tmp_path}")


def test_a_timm_module_is_saved_like_timms_own(image: Image.Image, tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT)
    classifier = classifier_from_module(model, size=16, class_names=["a", "b", "c"])
    reference = classifier.save(classifier, tmp_path)
    logits = classifier.logits(classifier.image_preprocessing.evaluation_transform()(image)[None])
    assert torch.equal(timm_logits(reference or "", image), logits)
    assert load_model(reference or "").class_names == ("a", "b", "c")


def test_a_replaced_head_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module: Any = timm.create_model("test_resnet", num_classes=3)
    module.reset_classifier(5)
    found = classifier_from_module(module)
    assert caplog.text == "" and load_model(str(found.save(found, tmp_path / "five"))).num_classes == 5
    module.fc = nn.Sequential(nn.Linear(module.num_features, 8), nn.ReLU(), nn.Linear(8, 3))
    found = classifier_from_module(module)
    assert "no reference will load it again: a model whose head or other layers were replaced" in caplog.text
    assert found.save(found, tmp_path / "out") is None
    timm.models.save_for_hf(module, str(tmp_path / "model"), safe_serialization=True)
    with pytest.raises(
        ModelError, match=r"timm cannot load this model: .* give file:PATH\.py:FACTORY@WEIGHTS"
    ) as error:
        load_model(f"local-dir:{tmp_path}/model")
    assert "\n" not in str(error.value)
