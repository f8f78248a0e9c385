"""Features are what enters the classifier layer: against each library's own forward pass without that layer."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from gainfinder.errors import ModelError
from gainfinder.models import Classifier, load_model
from gainfinder.models.features import FeatureTap, feature_size, find_classifier_layer

C = 7
FeaturesOf = Callable[[Any, Tensor], Tensor]


def timm_model(name: str, **arguments: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=C, **arguments)
    return model


def by_timm(model: Any, x: Tensor) -> Tensor:
    features: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
    return features


TINY_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
TINY_DEIT = ("deit_tiny_distilled_patch16_224", TINY_VIT)
TINY_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 24)}
TIMM: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "vit": ("vit_tiny_patch16_224", TINY_VIT, "head", 24),
    "vit, mean of tokens": ("vit_tiny_patch16_224", {**TINY_VIT, "global_pool": "avg"}, "head", 24),
    "resnet": ("resnet18", TINY_RESNET, "fc", 24),
    "convnext": ("convnext_atto", {"patch_size": 1, "depths": (1,) * 4, "dims": (4, 8, 8, 20)}, "head.fc", 20),
    "mixer": ("mixer_s32_224", {"img_size": 64}, "head", 512),
    "resnetv2, a convolution as head": ("resnetv2_50", {"layers": (1,) * 4, "channels": (16,) * 4}, "head.fc", 16),
    "swin, channels last": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)},
        "head.fc",
        16,
    ),
}


@pytest.mark.parametrize("kind", TIMM)
def test_models_of_timm(kind: str) -> None:
    name, arguments, layer, size = TIMM[kind]
    model = timm_model(name, **arguments)
    check(load_model(model, size=arguments.get("img_size", 16)), by_timm, layer=layer, size=size)


class Squeezed(nn.Module):
    """A map of classes, averaged: no layer yields the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(5, C, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x)).flatten(1)
        return logits


class Tokens(nn.Module):
    """Logits of every token, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 4, stride=4)
        self.head = nn.Linear(5, C)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stem(x).flatten(2).mT).mean(dim=1)
        return logits


class Rows(nn.Module):
    """A Linear on a map whose channels come last, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 4, stride=4)
        self.head = nn.Linear(5, C)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(input=self.stem(x).permute(0, 2, 3, 1)).mean(dim=(1, 2))
        return logits


class Cosine(nn.Module):
    """A classifier layer of its own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, 5))
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(nn.functional.normalize(x)) @ self.weight.T


def sequential(*head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5), nn.ReLU(), *head)


def hidden(model: Any, x: Tensor) -> Tensor:
    features: Tensor = model[:3](x)
    return features


OWN: dict[str, tuple[Callable[[], nn.Module], FeaturesOf, str]] = {
    "plain": (lambda: sequential(nn.Linear(5, C)), hidden, "3"),
    "wrapped and passed on": (
        lambda: sequential(nn.Sequential(nn.Sequential(nn.Linear(5, C)), nn.Identity()), nn.Flatten()),
        hidden,
        "3.0.0",
    ),
    "parametrised": (lambda: sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, C))), hidden, "3"),
    "softmax after it": (lambda: sequential(nn.Linear(5, C), nn.LogSoftmax(dim=1)), hidden, "3"),
    "batch-norm after it": (lambda: sequential(nn.Linear(5, C), nn.BatchNorm1d(C)), hidden, "3"),
    "as many classes as features": (lambda: sequential(nn.Linear(5, C), nn.Linear(C, C)), lambda m, x: m[:4](x), "4"),
    "own kind": (lambda: sequential(Cosine()), hidden, "3"),
    "1 x 1 map": (
        lambda: nn.Sequential(nn.Conv2d(3, 5, 16), nn.Conv2d(5, C, 1), nn.Flatten()),
        lambda m, x: m[0](x).flatten(1),
        "1",
    ),
    "map of classes": (Squeezed, lambda m, x: m.features(x).mean(dim=(2, 3)), "classifier.1"),
    "tokens": (Tokens, lambda m, x: m.stem(x).mean(dim=(2, 3)), "head"),
    "channels last": (Rows, lambda m, x: m.stem(x).mean(dim=(2, 3)), "head"),
}


@pytest.mark.parametrize("kind", OWN)
def test_own_modules(kind: str) -> None:
    make, features, layer = OWN[kind]
    check(load_model(make(), size=16), features, layer=layer, size=C if "as many" in kind else 5)


def test_models_of_torchvision() -> None:
    resnet = torchvision.models.resnet18(num_classes=C)
    check(load_model(resnet, size=32), lambda m, x: nn.Sequential(*list(m.children())[:-1])(x).flatten(1), layer="fc")
    squeezenet = torchvision.models.squeezenet1_1(num_classes=C)
    check(load_model(squeezenet, size=64), lambda m, x: m.features(x).mean(dim=(2, 3)), layer="classifier.1", size=512)


def test_models_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=16, patch_size=4, num_labels=C, **small)
    vit = transformers.ViTForImageClassification(config)
    check(load_model(vit), lambda m, x: m.vit(x).last_hidden_state[:, 0], layer="classifier", size=24)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], num_labels=C)
    resnet = transformers.ResNetForImageClassification(config)
    check(load_model(resnet, size=32), lambda m, x: m.resnet(x).pooler_output.flatten(1), layer="classifier.1", size=12)


def test_of_several_heads_the_first_counts() -> None:
    """Distilled DeiT averages the head of its class token and that of its distillation token."""
    model = load_model(timm_model(TINY_DEIT[0], **TINY_DEIT[1]), size=16)
    check(model, lambda m, x: m.forward_features(x)[:, 0], layer="head", size=24)
    inside = load_model(nn.Sequential(timm_model(TINY_DEIT[0], **TINY_DEIT[1]), nn.Softmax(dim=1)), size=16)
    assert find_classifier_layer(inside) == "0.head"


def check(classifier: Classifier, expected: FeaturesOf, *, layer: str, size: int | None = None) -> None:
    x = torch.randn(2, *classifier.preprocessing.input_size, generator=torch.Generator().manual_seed(0))
    assert find_classifier_layer(classifier) == layer
    with FeatureTap(classifier) as tap:
        classifier.logits(x)
        features = tap.take()
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected(classifier.module, x))
    assert feature_size(classifier) == features.shape[1] == (size or features.shape[1])


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return load_model(timm_model("resnet18", drop_rate=0.5, **TINY_RESNET), size=32)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_modes_weights_statistics_and_generators_stay_as_they_are(classifier: Classifier, x: Tensor) -> None:
    """The published code leaves the teacher's backbone in training mode when it takes features."""
    for mode in (False, True):
        classifier.module.train(mode)
        classifier.module.get_submodule("bn1").train(not mode)
        modes = {name: layer.training for name, layer in classifier.module.named_modules()}
        before, generator = classifier.weights_digest(), torch.get_rng_state()
        assert feature_size(classifier) == 24
        tap = FeatureTap(classifier)
        assert {name: layer.training for name, layer in classifier.module.named_modules()} == modes
        assert classifier.weights_digest() == before
        assert torch.equal(torch.get_rng_state(), generator)
        assert all(parameter.grad is None for parameter in classifier.module.parameters())
        classifier.logits(x)
        tap.close()
        assert {name: layer.training for name, layer in classifier.module.named_modules()} == modes


def test_a_tap_changes_no_logits_and_leaves_nothing_behind(classifier: Classifier, x: Tensor) -> None:
    logits = classifier.logits(x)
    with FeatureTap(classifier) as tap:
        assert torch.equal(classifier.logits(x), logits)
    tap.close()
    hooks = [(layer._forward_hooks, layer._forward_pre_hooks) for layer in classifier.module.modules()]
    assert not any(after or before for after, before in hooks)
    with pytest.raises(ModelError, match="no features"):
        tap.take()


def test_the_gradient_goes_through_the_features(classifier: Classifier, x: Tensor) -> None:
    classifier.module.train()
    with FeatureTap(classifier) as tap:
        classifier.logits(x)
        tap.take().square().sum().backward()
    with_gradient = {name for name, p in classifier.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert "conv1.weight" in with_gradient
    assert not any(name.startswith("fc.") for name in with_gradient)


def test_in_training_mode_features_come_after_dropout(classifier: Classifier, x: Tensor) -> None:
    classifier.module.train()
    with FeatureTap(classifier) as tap:
        logits = classifier.logits(x)
        features = tap.take()
    torch.testing.assert_close(classifier.module.fc(features), logits)
    assert (features == 0).any()


def test_features_are_of_the_latest_pass_and_given_once(classifier: Classifier, x: Tensor) -> None:
    with FeatureTap(classifier, layer="fc") as tap:
        classifier.logits(x)
        classifier.logits(x[:1])
        assert tap.take().shape == (1, 24)
        with pytest.raises(ModelError, match=r"^ResNet: no features .* classifier layer 'fc' .*\(evaluation mode\)"):
            tap.take()


class Fickle(nn.Module):
    """Takes another head in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Flatten()
        self.head = nn.Linear(12, C)
        self.other = nn.Linear(12, C)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (self.other if self.training else self.head)(self.stem(x))
        return logits


def test_a_layer_that_is_left_out_gives_no_stale_features() -> None:
    classifier = load_model(Fickle(), size=2)
    with FeatureTap(classifier) as tap:
        classifier.logits(torch.zeros(1, 3, 2, 2))
        classifier.module.train()
        classifier.logits(torch.zeros(1, 3, 2, 2))
        with pytest.raises(ModelError, match=r"layer 'head' .*\(training mode\); does it use other layers"):
            tap.take()


def test_copies_are_not_tapped(classifier: Classifier, x: Tensor) -> None:
    before = replace(classifier, module=copy.deepcopy(classifier.module))
    with FeatureTap(classifier) as tap:
        classifier.logits(x)
        after = replace(classifier, module=copy.deepcopy(classifier.module))
        expected = tap.take()
        classifier.logits(x)
        with FeatureTap(before) as own:
            before.logits(x[:2])
            after.logits(x[:1])
            torch.testing.assert_close(own.take(), expected[:2])
        assert torch.equal(tap.take(), expected)


def test_under_autocast_features_are_float32_and_keep_their_gradient(classifier: Classifier, x: Tensor) -> None:
    with FeatureTap(classifier) as tap:
        classifier.logits(x)
        exact = tap.take()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert classifier.logits(x).dtype == torch.bfloat16
        features = tap.take()
    assert features.dtype == torch.float32
    assert features.requires_grad
    torch.testing.assert_close(features, exact, atol=0.05, rtol=0.05)


def test_features_of_a_pass_in_inference_mode_serve_a_loss(classifier: Classifier, x: Tensor) -> None:
    with FeatureTap(classifier) as tap:
        with torch.inference_mode():
            classifier.logits(x)
        teacher = tap.take()
    student = torch.ones_like(teacher, requires_grad=True)
    (student * teacher).sum().backward()
    assert student.grad is not None
    assert torch.equal(student.grad, teacher)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_wrapped_module_is_tapped(classifier: Classifier, x: Tensor) -> None:
    wrapped = nn.parallel.DistributedDataParallel(classifier.module)
    with FeatureTap(classifier) as tap:
        classifier.logits(x)
        expected = tap.take()
        classifier.logits(x, module=wrapped)
        features = tap.take()
    assert torch.equal(features, expected)
    assert features.requires_grad


class Functional(nn.Module):
    """Logits by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, 12))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.weight)


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@pytest.mark.parametrize("scripted", [False, True])
def test_no_layer_to_be_found(scripted: bool) -> None:
    module: Any = torch.jit.script(Functional()) if scripted else Functional()
    name = type(module).__name__
    with pytest.raises(ModelError, match=rf"^{name}: no layer yields its 7 logits.*give the model an nn\.Linear"):
        find_classifier_layer(load_model(module, size=2))


def test_an_input_without_features_is_told() -> None:
    module = nn.Sequential(nn.Conv3d(3, C, (1, 2, 2)), nn.Flatten(1))
    wrapped = nn.Sequential(nn.Unflatten(1, (3, 1)), module)
    with pytest.raises(ModelError, match=r"no features \(N, D\), \(N, tokens, D\) or \(N, D, H, W\) came"):
        feature_size(load_model(wrapped, size=2))


def test_reordered_classes_do_not_hide_the_layer(classifier: Classifier) -> None:
    assert find_classifier_layer(classifier.with_class_order((2, 0), None)) == "fc"
