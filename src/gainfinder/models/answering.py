"""A copy of a frozen model that answers faster in mixed precision: the same answers, up to their rounding.

On a GPU most of a convolutional network's forward pass goes into what lies between its convolutions, and much of the
processor's time into casting weights that never change. So batch-norm, which in evaluation mode is a multiplication
and an addition for each channel, goes into the convolution before it, and the weights of what mixed precision computes
in half precision are cast once. Benchmarks: benchmarks/speed/README.md, "On a GPU".
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .classifier import Classifier, InputForm
from .modules import copy_module
from .outputs import logits_of
from .preprocessing import Preprocessing

_HALVED = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers whose weights mixed precision casts in each pass; their subclasses may do something else with them."""
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
_LARGEST_DIFFERENCE = 1e-4
"""By which outputs in float32 may differ once batch-norm is folded, of their largest one."""


def answering_copy(classifier: Classifier, dtype: torch.dtype) -> nn.Module:
    """A copy of the model's module to ask under autocast to `dtype`, in evaluation mode, on the CPU.

    Args:
        classifier: the model; it stays as it is.
        dtype: what autocast computes in, `torch.bfloat16` or `torch.float16`.

    Returns:
        A module whose linear layers and convolutions hold weights of that dtype, as autocast would cast them: without
        batch-norm its answers have the same bits. Batch-norm is folded where a layer alone reads what a convolution
        gives, and where a trial in float32 shows that the outputs stay what they are.

    Raises:
        ModelError: the module cannot be copied.
    """
    module = _without_batch_norm(classifier)
    if module is None:
        module = copy_module(classifier.module, reference=classifier.reference)
    cast_weights(module, dtype)
    return module.eval()


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights that autocast would cast in each pass, in place; none that a layer of another kind shares.

    >>> layers = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    >>> cast_weights(layers, torch.bfloat16)
    >>> [layer.weight.dtype for layer in layers]
    [torch.bfloat16, torch.float32]
    """
    layers = [layer for layer in module.modules() if type(layer) in _HALVED]
    own = Counter(id(weight) for layer in layers for weight in layer.parameters(recurse=False))
    uses = Counter(
        id(weight) for part in module.modules() for weight in part._parameters.values() if weight is not None
    )
    for layer in layers:
        for weight in layer.parameters(recurse=False):
            if weight.is_floating_point() and own[id(weight)] == uses[id(weight)]:
                weight.data = weight.data.to(dtype)


def _without_batch_norm(classifier: Classifier) -> nn.Module | None:
    """A copy with batch-norm folded into the convolutions before it, or None where there is none or it cannot be."""
    form = classifier.preprocessing
    if not isinstance(form, Preprocessing) or not any(type(layer) in _NORMS for layer in classifier.module.modules()):
        return None
    module = copy_module(classifier.module, reference=classifier.reference).eval()
    module.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    inputs = form.noise(torch.Generator().manual_seed(0))
    try:
        found, expected = _pairs(module, lambda: _outputs(module, form, inputs))
        if not found:
            return None
        for convolution, norm in found:
            _fold(module, convolution, norm)
        outputs = _outputs(module, form, inputs)
    except Exception:  # whatever a module of anybody's does; it is asked as it is, and that tells what is wrong
        return None
    close = (outputs - expected).abs().max() <= _LARGEST_DIFFERENCE * expected.abs().max()
    return module if bool(close) else None


def _outputs(module: nn.Module, form: InputForm, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        # a copy, since some modules change their input
        outputs: Tensor = logits_of(form.call(module, inputs.clone()))
        return outputs.float()


def _pairs(module: nn.Module, forward: Callable[[], Tensor]) -> tuple[list[tuple[nn.Conv2d, nn.Module]], Tensor]:
    """Convolutions with the batch-norm that reads their outputs unchanged, of layers that a pass calls once each.

    Args:
        module: the module.
        forward: runs it once.

    Returns:
        The pairs, and what the pass gave.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # the tensors are held: no other gets the same id
    calls: Counter[nn.Module] = Counter()
    found: list[tuple[nn.Conv2d, nn.Module]] = []

    def convolved(layer: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        calls[layer] += 1
        made[id(output)] = (layer, output, output._version)

    def normalises(layer: nn.Module, arguments: Any) -> None:
        calls[layer] += 1
        read = made.get(id(arguments[0]))
        if read is not None and read[1]._version == read[2]:
            found.append((read[0], layer))

    with _hooks() as hooks:
        for layer in module.modules():
            if type(layer) is nn.Conv2d:
                hooks.append(layer.register_forward_hook(convolved))
            elif type(layer) in _NORMS:
                hooks.append(layer.register_forward_pre_hook(normalises))
        outputs = forward()
    read_by = Counter(convolution for convolution, _ in found)
    return [(one, norm) for one, norm in found if calls[one] == calls[norm] == read_by[one] == 1], outputs


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    hooks: list[Any] = []
    try:
        yield hooks
    finally:
        for hook in hooks:
            hook.remove()


def _fold(module: nn.Module, convolution: nn.Conv2d, norm: nn.Module) -> None:
    """Give the convolution the weights of both, and leave of the batch-norm what comes after it."""
    assert isinstance(norm, _NORMS) and norm.running_mean is not None and norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if child is norm:
                setattr(owner, name, after.eval())
