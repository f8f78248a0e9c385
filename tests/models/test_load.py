"""`load_model` and `classifier_from_module`: what they take, overrides, and what is no classifier."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.models import save_for_hf
from torch import Tensor, nn

from gainfinder.errors import BadReference, GainfinderError, ModelError, SettingsError
from gainfinder.models import classifier_from_module, load_model
from gainfinder.models.weights import load_weights


class Net(nn.Module):
    """One convolution and one linear layer."""

    def __init__(self, channels: int = 3, config: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.head = nn.Linear(4, 2)
        if config is not None:
            self.default_cfg = config

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def test_a_module_with_settings(tmp_path: Path) -> None:
    classifier = load_model(Net().half(), size=(8, 12), crop_pct=1, class_names=("a", "b"), interpolation="bilinear")
    assert classifier.reference == "Net"
    assert classifier.preprocessing.input_size == (3, 8, 12)
    assert classifier.preprocessing.mean == (0.485, 0.456, 0.406)
    assert classifier.class_names == ("a", "b")
    assert all(parameter.dtype == torch.float32 for parameter in classifier.module.parameters())
    assert not classifier.module.training
    assert classifier.save(classifier, tmp_path) is None
    assert load_weights(tmp_path / "model.safetensors").keys() == classifier.module.state_dict().keys()
    assert load_model(classifier) is classifier
    with pytest.raises(SettingsError, match="is loaded already: give size when it is loaded"):
        load_model(classifier, size=3)
    for value in (3, None, tmp_path):
        with pytest.raises(ModelError, match=f"expected a model: a reference as text, .* got {type(value).__name__}"):
            load_model(value)  # type: ignore[arg-type]


def test_an_assumed_normalisation_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    def net() -> Any:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    load_model(net(), size=8)
    assert caplog.messages == [
        "Sequential: the module does not say how its input is normalised; ImageNet's mean 0.485,0.456,0.406 and std "
        "0.229,0.224,0.225 are used: give load_model(module, mean=…, std=…) if it was trained otherwise "
        "(mean 0 and std 1 for inputs from 0 to 1, mean 0 and std 0.00392157 for 0 to 255)"
    ]
    caplog.clear()
    load_model(net(), size=8, mean=0.5)
    assert "ImageNet's std 0.229,0.224,0.225 are used: give load_model(module, std=…)" in caplog.text
    caplog.clear()
    load_model(net(), size=8, mean=0.5, std=0.5)
    known = net()
    known.pretrained_cfg = {"input_size": (3, 8, 8), "mean": 0.5, "std": 0.5}
    load_model(known)
    assert caplog.text == ""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
    )
    load_model(f"file:{tmp_path}/net.py:net?size=8")
    assert "are used: give ?mean=…&std=… if it was trained otherwise" in caplog.text


def test_a_modules_own_configuration() -> None:
    config = {"input_size": [3, 8, 8], "crop_pct": 0.5, "label_names": ("a", "b")}
    classifier = classifier_from_module(Net(config=config), name="mine", mean=[0.1, 0.2, 0.3])
    assert classifier.reference == "mine"
    assert classifier.preprocessing.crop_pct == 0.5
    assert classifier.preprocessing.mean == (0.1, 0.2, 0.3)
    assert classifier.class_names == ("a", "b")
    assert load_model(Net(config=SimpleNamespace(to_dict=lambda: config))).class_names == ("a", "b")


def test_one_channel() -> None:
    classifier = classifier_from_module(Net(channels=1), size=8, mean=0.5, std=0.5)
    assert classifier.preprocessing.input_size == (1, 8, 8)
    image = Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8))
    x = classifier.image_preprocessing.evaluation_transform()(image)
    assert torch.equal(x, torch.full((1, 8, 8), -1.0))


def test_a_torchvision_module() -> None:
    classifier = classifier_from_module(torchvision.models.squeezenet1_1(num_classes=5), size=64)
    assert classifier.num_classes == 5


@pytest.mark.parametrize(
    ("module", "settings", "kind", "message"),
    [
        (Net(), {}, ModelError, r"^Net: the model does not say its input size: use load_model\(module, size=EDGE\)"),
        (Net(), {"size": 2}, ModelError, r"fails on one blank image of size \(3, 2, 2\)"),
        (nn.Conv2d(3, 4, 3), {"size": 8}, ModelError, r"expected logits of shape \(1, classes\) for one image, got"),
        (Net(), {"size": 8, "class_names": ["a"]}, BadReference, "1 class names were given, but 'Net' has 2 logits"),
        (Net(), {"size": 8, "class_names": ["a", "a"]}, BadReference, "class name 'a' is given twice"),
        (Net(), {"size": 8, "std": 0}, BadReference, "expected one number a channel.* from 1e-06 to 10"),
        (Net(), {"size": 8, "interpolation": "cubic"}, BadReference, "near matches: bicubic"),
        (Net(), {"sise": 8}, SettingsError, "unknown override 'sise'; near matches: size"),
        (Net(config={"input_size": 8}), {}, ModelError, "input_size 8 in pretrained_cfg cannot be used"),
        (Net(config={"input_size": (3, 8, 8), "mean": "x"}), {}, ModelError, "pretrained_cfg cannot be read"),
        (Net(config={"input_size": (3, 8, 8), "label_names": 2}), {}, ModelError, "expected a list of names"),
    ],
)
def test_mistakes_are_told(module: nn.Module, settings: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_model(module, **settings)


def test_overrides_win_over_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\ndef f():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))\n")
    classifier = load_model(f"file:{path}:f?size=9&mean=0.5", size=8, class_names=["a", "b"])
    assert classifier.reference == f"file:{path}:f?size=8&mean=0.5&classes=a,b"
    assert classifier.preprocessing.view_size == (8, 8)
    with pytest.raises(SettingsError, match="give classes=@FILE"):
        load_model(f"file:{path}:f?size=9", class_names=["a,b", "c"])


def test_a_home_folder_is_understood_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))\n"
    )
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    first = load_model("file:~/net.py:net?size=2")
    first.save(first, tmp_path / "saved")
    again = load_model("file:~/net.py:net@~/saved/model.safetensors?size=2&classes=@~/names.txt")
    assert again.weights_digest() == first.weights_digest() and again.class_names == ("a", "b", "c", "d")
    assert again.reference.startswith("file:~/net.py")
    tiny = timm.create_model("resnet18", num_classes=4, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    save_for_hf(tiny, str(tmp_path / "timm"), safe_serialization=True)
    assert load_model("local-dir:~/timm").num_classes == 4


@pytest.mark.parametrize("query", ["mean=nan", "std=inf", "std=0", "size=1000000"])
def test_preprocessing_that_cannot_be_used(tmp_path: Path, query: str) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Flatten()\n")
    with pytest.raises(GainfinderError, match=r"cannot be used|fails on one blank image"):
        load_model(f"file:{tmp_path}/net.py:net?{'' if 'size' in query else 'size=2&'}{query}")
