"""Features of a classifier: the input of its classifier layer, the last layer, which yields the logits.

Source: appendix A.2 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653) compares features of student and
teacher; which tensor they are is left open there. Nothing is known of the module's class: one blank image shows which
layer makes the logits. Shapes: N samples, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import ModelError
from .classifier import Classifier
from .outputs import logits_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_classifier_layer(classifier: Classifier) -> str:
    """Name of the submodule that yields the logits, from one blank image in evaluation mode.

    In this order:

    1. the layer whose output is the tensor of logits itself, or a view of all of it (a flattened map of 1 x 1). Layers
       hold their parameters themselves, so containers, Flatten and Identity around them do not count; nor does a
       normalisation or scale of the logits, whose input has their shape;
    2. where no layer's output is the logits (an average of heads, a softmax, a pooled map of classes): the module that
       timm's `get_classifier()` returns, the first of several. Distilled DeiT, an average of two heads, is read at
       the head of its class token, VOLO at its main head;
    3. the last Linear or convolution to run whose outputs are as many as the logits.

    Args:
        classifier: the classifier; its module is run once and left in its modes; weights, statistics and random
            generators are not touched.

    Returns:
        A name for `classifier.module.get_submodule`.

    Raises:
        ModelError: there is no such layer (the logits come from a function, or a scripted module), or the module
            fails.

    Example:
        >>> from gainfinder.models import load_model
        >>> body = nn.Sequential(nn.Linear(12, 5), nn.ReLU())
        >>> net = nn.Sequential(nn.Flatten(), body, nn.Linear(5, 2), nn.Identity())
        >>> find_classifier_layer(load_model(net, size=2))
        '2'
    """
    name = _name_of_layer(_trace(classifier), classifier.module)
    if name is None:
        raise ModelError(
            f"{classifier.reference}: no layer yields its {classifier.num_classes} logits, so its features are "
            "unknown: give the model an nn.Linear or nn.Conv2d as its last layer, or a method get_classifier() that "
            "returns that layer; the layers of scripted modules cannot be seen"
        )
    return name


def feature_size(classifier: Classifier) -> int:
    """Number of features D that a `FeatureTap` on this classifier gives, from blank images.

    Raises:
        ModelError: as `find_classifier_layer` and `FeatureTap.take`.

    Example:
        >>> from gainfinder.models import load_model
        >>> feature_size(load_model(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)), size=2))
        5
    """
    with FeatureTap(classifier) as tap:
        _run_blank(classifier)
        return tap.take().shape[1]


class FeatureTap:
    """Forward hooks that capture the input of a classifier's last layer, in each forward pass of its module.

    The module may run inside a wrapper (of several processes), under autocast, in inference mode, and in any mode: a
    tap changes neither modes nor results. In training mode features are those after dropout, where a dropout stands
    before the layer. A copy of the module (`copy.deepcopy`), made before or after, is not tapped.

    Args:
        classifier: the classifier; run once on a blank image to find the layer, if none is given.
        layer: name of the layer, as `find_classifier_layer` gives it.

    Attributes:
        layer: name of the layer.
        reference: the classifier's reference.

    Raises:
        ModelError: as `find_classifier_layer`.

    Example:
        With weights of one, the feature of an image is the sum of its 12 values:

        >>> from gainfinder.models import load_model
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 1, bias=False), nn.Linear(1, 2))
        >>> _ = nn.init.ones_(net[1].weight)
        >>> classifier = load_model(net, size=2)
        >>> with FeatureTap(classifier) as tap:
        ...     _ = classifier.logits(torch.ones(3, 3, 2, 2))
        ...     tap.take().tolist()
        [[12.0], [12.0], [12.0]]
    """

    def __init__(self, classifier: Classifier, *, layer: str | None = None) -> None:
        self.layer = find_classifier_layer(classifier) if layer is None else layer
        self.reference = classifier.reference
        self._root = classifier.module
        self._tapped = classifier.module.get_submodule(self.layer)
        self._features: Tensor | None = None
        self._handles: list[RemovableHandle] = [
            self._root.register_forward_pre_hook(self._forget),
            self._tapped.register_forward_pre_hook(self._capture, with_kwargs=True),
        ]

    def take(self) -> Tensor:
        """Features of the latest forward pass, once: they are not kept.

        Returns:
            Floating point (N, D): float32, or float64 where the layer got that. With the gradient of the forward pass;
            a forward pass in inference mode gives features that a loss may save. Of an input (N, D, H, W) the mean
            over height and width, of (N, H, W, D) into a Linear the same, of tokens (N, T, D) the mean over tokens. Of
            several calls of the layer in one pass the last counts.

        Raises:
            ModelError: there was no forward pass since, or it did not come through the layer, or not with such a
                tensor.
        """
        features, self._features = self._features, None
        if features is None:
            mode = "training" if self._root.training else "evaluation"
            raise ModelError(
                f"{self.reference}: no features (N, D), (N, tokens, D) or (N, D, H, W) came to its classifier layer "
                f"{self.layer!r} in the latest forward pass ({mode} mode); does it use other layers in that mode?"
            )
        if features.is_inference() and not torch.is_inference_mode_enabled():
            return features.clone()
        return features

    def close(self) -> None:
        """Remove the hooks from the module; a second time does nothing."""
        for handle in self._handles:
            handle.remove()
        self._features = None

    def __enter__(self) -> "FeatureTap":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureTap":
        # A copied module brings its hooks along: they lead here, and the layer that calls them tells them apart.
        return self

    def _forget(self, root: nn.Module, args: tuple[Any, ...]) -> None:
        if root is self._root:
            self._features = None

    def _capture(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if layer is self._tapped:
            inputs = _first_tensor(args, kwargs)
            self._features = None if inputs is None else _pooled(layer, inputs)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call of a submodule; the tensors are kept, so that none takes another's place in memory."""

    name: str
    layer: nn.Module
    inputs: Tensor | None
    output: Any


def _name_of_layer(calls: list[_Call], module: nn.Module) -> str | None:
    if not calls:
        return None
    logits = _logits(calls[-1].output)  # the module itself is the last to return
    inner = [call for call in calls if call.name]
    yielding = [call for call in inner if _is_layer(call) and _is_view_of(call.output, logits)]
    if yielding:
        return yielding[-1].name
    named = _timm_classifier(module)
    if any(call.layer is named for call in inner):
        return next(call.name for call in inner if call.layer is named)
    wide = [call for call in inner if _outputs(call) == logits.shape[1]]
    return wide[-1].name if wide else None


def _trace(classifier: Classifier) -> list[_Call]:
    """All calls of submodules for one blank image, in the order in which they return."""
    calls: list[_Call] = []
    names = {layer: name for name, layer in classifier.module.named_modules()}

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(_Call(name=names[layer], layer=layer, inputs=_first_tensor(args, kwargs), output=output))

    visible = [layer for layer in names if not isinstance(layer, torch.jit.ScriptModule)]
    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in visible]
    try:
        _run_blank(classifier)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _run_blank(classifier: Classifier) -> None:
    module = classifier.module
    modes = [(layer, layer.training) for layer in module.modules()]
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    module.eval()
    try:
        # not inference_mode: what a module caches or makes in its first pass has to serve training later
        with torch.no_grad():
            classifier.logits(classifier.preprocessing.blank(1).to(device))
    finally:
        for layer, training in modes:  # from the outside in: a layer may stand in another mode than what holds it
            if layer.training != training:
                layer.train(training)


def _is_layer(call: _Call) -> bool:
    """Whether a module transforms features itself, rather than by the modules in it."""
    if isinstance(call.layer, (nn.Linear, *_CONVOLUTIONS)):
        return True
    if any(True for child in call.layer.children() for _ in child.parameters()):
        return False
    resized = call.inputs is not None and isinstance(call.output, Tensor) and call.inputs.shape != call.output.shape
    return resized and any(True for _ in call.layer.parameters())


def _is_view_of(output: Any, logits: Tensor) -> bool:
    if output is logits:
        return True
    if not isinstance(output, Tensor) or output.numel() != logits.numel():
        return False
    return output.data_ptr() == logits.data_ptr() and torch.equal(output.flatten(), logits.flatten())


def _logits(output: Any) -> Tensor:
    logits: Tensor = logits_of(output)
    return logits


def _timm_classifier(module: nn.Module) -> nn.Module | None:
    """The return value of `get_classifier()` of the module, or of a model in it; of several heads the first."""
    owner: Any = next((part for part in module.modules() if callable(getattr(part, "get_classifier", None))), None)
    head: Any = None if owner is None else owner.get_classifier()
    if isinstance(head, Sequence | nn.ModuleList) and len(head):
        head = head[0]
    return head if isinstance(head, nn.Module) else None


def _outputs(call: _Call) -> int | None:
    """Outputs at each position of a Linear or convolution; None for other modules."""
    if not isinstance(call.output, Tensor):
        return None
    if isinstance(call.layer, _CONVOLUTIONS):
        return call.output.shape[1]
    return call.output.shape[-1] if isinstance(call.layer, nn.Linear) else None


def _first_tensor(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def _pooled(layer: nn.Module, inputs: Tensor) -> Tensor | None:
    """Features (N, D) of a layer's input; None where it has no such form."""
    if not inputs.is_floating_point() or inputs.ndim not in {2, 3, 4}:
        return None
    features_last = isinstance(layer, nn.Linear) or (inputs.ndim == 3 and not isinstance(layer, _CONVOLUTIONS))
    positions = tuple(range(1, inputs.ndim - 1) if features_last else range(2, inputs.ndim))
    wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    return wide.mean(dim=positions) if positions else wide
