"""A new head: for each source of models, that nothing else of the model changes, and that it loads again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from gainfinder.errors import BadReference, ModelError
from gainfinder.models import Classifier, FeatureTap, load_model, new_head
from onnx_files import Net, write
from tiny_models import tiny

NAMES = ("tea, black", "coffee", "milk & sugar", "water", "wine", "juice", "beer")
FACTORY = """
from torch import nn

def net():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    model.pretrained_cfg = {"input_size": (3, 16, 16), "label_names": ["a", "b", "c"]}
    return model
"""


def of_timm(folder: Path) -> str:
    return saved_timm(folder, tiny("resnet"))


def of_timm_transformer(folder: Path) -> str:
    return saved_timm(folder, tiny("vit"))


def of_timm_with_two_heads(folder: Path) -> str:
    arguments: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    return saved_timm(folder, timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, **arguments))


def of_timm_with_normalised_heads(folder: Path) -> str:
    module = timm.create_model(
        "levit_128s",
        num_classes=5,
        img_size=64,
        embed_dim=(16, 16, 16),
        key_dim=8,
        num_heads=(1, 1, 1),
        depth=(1, 1, 1),
    )
    return saved_timm(folder, module, size=64)


def saved_timm(folder: Path, module: nn.Module, *, size: int = 16) -> str:
    with torch.no_grad():  # statistics as of a trained model
        module.train()(torch.randn(8, 3, size, size))
    classifier = load_model(module.eval(), size=size)
    reference = classifier.save(classifier, folder)
    assert reference is not None
    return reference


def of_torchvision(folder: Path) -> str:
    module = torchvision.models.get_model("googlenet", num_classes=4, aux_logits=True, init_weights=False)
    folder.mkdir()
    save_file(module.state_dict(), folder / "w.safetensors")
    return f"torchvision:googlenet@{folder / 'w.safetensors'}?size=64"


def of_transformers(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    config = {"image_size": 16, "patch_size": 4, "num_labels": 3, "hidden_size": 24, "num_hidden_layers": 1}
    module = transformers.ViTForImageClassification(
        transformers.ViTConfig(**config, num_attention_heads=2, intermediate_size=24)
    )
    module.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return f"hf:{folder}"


def of_file(folder: Path) -> str:
    folder.mkdir()
    (folder / "net.py").write_text(FACTORY)
    return f"file:{folder / 'net.py'}:net?mean=0.5&classes=x,y,z"


@pytest.mark.parametrize(
    "make",
    [of_timm, of_timm_transformer, of_timm_with_two_heads, of_timm_with_normalised_heads, of_torchvision,
     of_transformers, of_file],
)  # fmt: skip
def test_all_but_the_head_stays_and_the_reference_loads_it(tmp_path: Path, make: Callable[[Path], str]) -> None:
    torch.manual_seed(0)
    classifier = load_model(make(tmp_path / "given"))
    digest = classifier.weights_digest()
    random = torch.random.get_rng_state()
    head = new_head(classifier, NAMES)
    assert torch.equal(torch.random.get_rng_state(), random), "no random number is drawn"
    weight, bias = torch.randn(7, head.features), torch.randn(7)
    head.fill(weight, bias)
    check_features(head.classifier, head.layer, weight, bias)
    before, after = classifier.module.state_dict(), head.classifier.module.state_dict()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert before.keys() == after.keys() and 2 <= len(changed) <= 6 and f"{head.layer}.weight" in changed
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - changed)
    assert classifier.weights_digest() == digest
    reference = head.classifier.save(head.classifier, tmp_path / "saved")
    assert reference is not None
    again = load_model(reference)
    assert again.class_names == NAMES and again.num_classes == 7
    assert again.weights_digest() == head.classifier.weights_digest()
    assert again.preprocessing == classifier.preprocessing
    # as a transfer does with what was loaded, and as another head does
    moved = load_model(again.save(again, tmp_path / "moved") or "")
    assert moved.class_names == NAMES and moved.weights_digest() == again.weights_digest()
    other = new_head(moved, ("left", "right"))
    other.fill(weight[:2], bias[:2])
    last = load_model(other.classifier.save(other.classifier, tmp_path / "other") or "")
    assert last.class_names == ("left", "right")
    check_features(last, head.layer, weight[:2], bias[:2])


def check_features(classifier: Classifier, layer: str, weight: Tensor, bias: Tensor) -> None:
    """The logits are the weights times the features."""
    x = torch.randn(3, *classifier.preprocessing.input_size)
    with FeatureTap(classifier, layer=layer) as tap, torch.no_grad():
        logits = classifier.logits(x)
        torch.testing.assert_close(logits, tap.take() @ weight.T + bias, rtol=1e-3, atol=1e-3)


def test_as_many_classes_as_before_and_other_names(tmp_path: Path) -> None:
    classifier = load_model(of_timm(tmp_path / "given"))
    head = new_head(classifier, [f"digit {i}" for i in range(10)])
    assert not head.classifier.module.get_submodule(head.layer).weight.any()
    assert classifier.module.get_submodule(head.layer).weight.any()
    again = load_model(head.classifier.save(head.classifier, tmp_path / "saved") or "")
    assert again.class_names == tuple(f"digit {i}" for i in range(10))


def test_a_module_of_ones_own_that_has_no_bias() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2, bias=False))
    head = new_head(load_model(module, size=4), NAMES)
    assert not head.has_bias and head.features == 5 and module[3].weight.shape == (2, 5)
    assert head.classifier.save is not None and head.classifier.class_names == NAMES


class Pairs(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        pairs: Tensor = super().forward(x).view(len(x), 3, 2)
        return pairs.sum(dim=2)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight), self.bias)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


BODY = (nn.Flatten(), nn.Linear(48, 5), nn.ReLU())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Pairs(*BODY, nn.Linear(5, 6)), r"Pairs: no layer yields its 3 logits, .*: give the model an nn.Linear"),
        (
            nn.Sequential(*BODY, nn.Linear(5, 3), nn.ReLU(inplace=True)),
            r"classifier layer '3' and the logits is not lin",
        ),
        (nn.Sequential(*BODY, Scaled(5, 3)), r"classifier layer '3' and the logits is not linear .*nn\.Linear"),
        (nn.Sequential(*BODY, Own()), r"its classifier layer '3' is a Own, which cannot be replaced: .*nn\.Linear"),
        (
            nn.Sequential(*BODY, nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))),
            r"layer '3' is a \w+, which can",
        ),
    ],
)
def test_what_cannot_be_replaced_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        new_head(load_model(module, size=4), NAMES)
    assert "\n" not in str(caught.value)


def test_an_onnx_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", Net())
    with pytest.raises(
        ModelError, match=r"net\.onnx.*: its classifier layer cannot be replaced, .*give the model itself"
    ):
        new_head(load_model(f"onnx:{tmp_path / 'net.onnx'}?mean=0.5&std=0.5"), NAMES)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("file:{}:net@w.pt?num_classes=0", r"num_classes.*0.*: expected a (whole )?number"),
        ("file:{}:net?num_classes=4", r"num_classes in .* goes with weights for so many classes: .*@WEIGHTS"),
        ("resnet18?num_classes=4", r"unknown setting 'num_classes' in 'resnet18\?num_classes=4'"),
    ],
)
def test_the_setting_num_classes_is_checked(tmp_path: Path, reference: str, message: str) -> None:
    of_file(tmp_path / "given")
    with pytest.raises(BadReference, match=message):
        load_model(reference.format(tmp_path / "given" / "net.py"))
