"""A new classifier layer for other classes, on a copy of a classifier whose other weights stay as they are, bit by bit.

Which layers have an output a class is the source's knowledge (`Classifier.rehead`): a model may have several, such as
the two heads of distilled DeiT and VOLO's auxiliary one. One of them is fitted, the others stay zero.
Shapes: C classes, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..libraries import first_line, quiet
from .classifier import Classifier
from .features import FeatureTap, find_classifier_layer

MARK = 1013
"""Classes of a blueprint: unlike any real number, so that it shows which tensors belong to the classifier."""
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
REPLACED = (
    "a model whose head or other layers were replaced is no longer the architecture that its configuration names: "
    "build it in a Python file, as it was trained, and give file:PATH.py:FACTORY@WEIGHTS"
)
_TOLERANCE = 1e-3
"""Largest relative error of logits that count as linear in the features; float32 leaves some 1e-6."""


@dataclass(frozen=True, kw_only=True)
class NewHead:
    """A classifier with a new classifier layer, all zero until `fill` is called.

    Attributes:
        classifier: the classifier, of the new classes.
        layer: name of the layer, for `FeatureTap`, whose features it maps to logits.
        features: D, the number of its features.
        has_bias: whether the layer has a bias.
        scale: s in logits = s · (W · features + b); 0.5 where a model averages two heads, of which the other is zero.
    """

    classifier: Classifier
    layer: str
    features: int
    has_bias: bool
    scale: float = 1.0

    def fill(self, weight_CD: Tensor, bias_C: Tensor | None) -> None:
        """Set the layer, in place, so that the logits are `weight_CD` · features + `bias_C`.

        Args:
            weight_CD: floating point (C, D).
            bias_C: floating point (C,); None where the layer has none.
        """
        layer = self.classifier.module.get_submodule(self.layer)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight.copy_((weight_CD / self.scale).reshape(weight.shape))
            if bias_C is not None:
                assert isinstance(bias, Tensor)
                bias.copy_(bias_C / self.scale)


def new_head(classifier: Classifier, names: Sequence[str]) -> NewHead:
    """Give a copy of a classifier a classifier layer for other classes; noise images show that it is linear.

    Args:
        classifier: the classifier; left as it is.
        names: C names of the new classes, in the order of the logits.

    Raises:
        ModelError: the classifier layer cannot be found or replaced, or something between it and the logits is not
            linear.
    """
    if classifier.in_places:
        raise ModelError(
            f"{classifier.reference}: it gives each {classifier.classifies} a class, for which no head is fitted: "
            f"expected a classifier of whole {classifier.reads}s"
        )
    if classifier.rehead is None:
        raise ModelError(
            f"{classifier.reference}: its classifier layer cannot be replaced, for its weights cannot be trained: give "
            "the model itself, of timm, torchvision, transformers or a Python file (file:PATH.py:FACTORY)"
        )
    found = find_classifier_layer(classifier)
    renewed = classifier.rehead(classifier, tuple(names))
    name = _linear_in(renewed.module, found, len(names))
    if name is None:
        raise ModelError(f"{classifier.reference}: {_no_linear(renewed.module, found)}")
    layer = renewed.module.get_submodule(name)
    assert isinstance(layer.weight, Tensor)
    head = NewHead(
        classifier=renewed,
        layer=name,
        features=layer.weight[0].numel(),
        has_bias=layer.bias is not None,
    )
    return NewHead(**{**vars(head), "scale": _scale(head)})


def class_layers(build: Callable[[int], nn.Module], *, reference: str) -> list[str]:
    """Names of the layers that have an output a class, from a blueprint of the architecture.

    Args:
        build: builds the architecture for so many classes; called on torch's `meta` device, where it costs nothing.
        reference: the model reference, for messages.

    Raises:
        ModelError: it cannot be built so.
    """
    try:
        with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            tensors = build(MARK).state_dict()
    except Exception as error:
        raise ModelError(
            f"{reference}: its library does not build it for other classes ({first_line(error)}), so its classifier "
            "layer cannot be replaced"
        ) from error
    owners = (name.rpartition(".")[0] for name, tensor in tensors.items() if tensor.ndim and tensor.shape[0] == MARK)
    return list(dict.fromkeys(owners))


def is_built_by(module: nn.Module, build: Callable[[], nn.Module]) -> bool:
    """Whether a module still has the layers of its architecture; where that cannot be built, nothing says otherwise.

    Args:
        module: the module.
        build: builds the architecture; called on torch's `meta` device.
    """
    try:
        with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            built = build().state_dict()
    except Exception:  # libraries raise whatever they come across
        return True
    own = {name: value.shape for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return own == {name: value.shape for name, value in built.items() if isinstance(value, Tensor)}


def resize_layers(module: nn.Module, names: Sequence[str], num_classes: int, *, reference: str) -> None:
    """Give layers so many outputs, in place, with weights of zero; no random number is drawn.

    Args:
        module: the module that holds them.
        names: names of the layers.
        num_classes: number of their outputs.
        reference: the model reference, for messages.

    Raises:
        ModelError: one is neither an `nn.Linear` nor a convolution of plain weights.
    """
    for name in names:
        layer = module.get_submodule(name)
        if not isinstance(layer, LINEAR) or "weight" not in dict(layer.named_parameters(recurse=False)):
            raise ModelError(f"{reference}: {_no_linear(module, name)}")
        for key, parameter in list(layer.named_parameters(recurse=False)):
            blank = torch.zeros(num_classes, *parameter.shape[1:], dtype=parameter.dtype, device=parameter.device)
            setattr(layer, key, nn.Parameter(blank, requires_grad=parameter.requires_grad))
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", num_classes)


def _no_linear(module: nn.Module, name: str) -> str:
    return (
        f"its classifier layer {name!r} is a {type(module.get_submodule(name)).__name__}, which cannot be replaced: "
        "give the model an nn.Linear or nn.Conv2d of plain weights as its last layer"
    )


def _linear_in(module: nn.Module, name: str, num_classes: int) -> str | None:
    """The name of the layer itself, or of the last one in it, that is linear and has an output a class."""
    prefix = f"{name}." if name else ""
    inside = [(name, module.get_submodule(name))]
    inside += [(prefix + inner, layer) for inner, layer in module.get_submodule(name).named_modules() if inner]
    fitting = [own for own, layer in inside if isinstance(layer, LINEAR) and len(layer.weight) == num_classes]
    return fitting[-1] if fitting else None


def _scale(head: NewHead) -> float:
    """The factor between the layer's output and the logits, from random weights and samples of noise."""
    classifier, generator = head.classifier, torch.Generator().manual_seed(0)
    weight_CD = torch.randn(classifier.num_classes, head.features, generator=generator)
    bias_C = torch.randn(classifier.num_classes, generator=generator) if head.has_bias else None
    noise = classifier.preprocessing.noise(generator)
    device = next(classifier.module.parameters()).device
    classifier.module.eval()
    head.fill(weight_CD, bias_C)
    try:
        with FeatureTap(classifier, layer=head.layer) as tap, torch.no_grad():
            logits_NC = classifier.logits(noise.to(device)).float().cpu()
            features_ND = tap.take().float().cpu()
    finally:
        head.fill(torch.zeros_like(weight_CD), None if bias_C is None else torch.zeros_like(bias_C))
    if features_ND.shape[1] == head.features:
        expected_NC = features_ND @ weight_CD.T + (0 if bias_C is None else bias_C)
        scale = float((logits_NC * expected_NC).sum() / expected_NC.square().sum())
        error = float((logits_NC - scale * expected_NC).norm() / logits_NC.norm())
        if scale > 0 and error < _TOLERANCE:
            return 1.0 if abs(scale - 1) < _TOLERANCE else scale
    raise ModelError(
        f"{classifier.reference}: something between its classifier layer {head.layer!r} and the logits is not linear "
        "(an activation, a softmax, a norm), so the layer cannot be fitted on features: give a model whose logits are "
        "the output of an nn.Linear or nn.Conv2d"
    )
