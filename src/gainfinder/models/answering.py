"""A copy of a frozen model that answers faster in mixed precision: the same answers, up to their rounding.

On a GPU most of a convolutional network's forward pass goes into what lies between its convolutions, and much of the
processor's time into casting weights that never change. So what follows a convolution is computed within it
(`models/fusing.py`), and the weights of what mixed precision computes in half precision are cast once. Benchmarks:
benchmarks/speed/README.md, "On a GPU".
"""

from collections import Counter

import torch
from torch import Tensor, nn

from .classifier import Classifier, InputForm
from .fusing import NORMS, fused
from .modules import copy_module
from .outputs import logits_of
from .preprocessing import Preprocessing

_HALVED = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers whose weights mixed precision casts in each pass; their subclasses may do something else with them."""
_LARGEST_DIFFERENCE = 1e-4
"""By which outputs in float32 may differ once layers are fused, of their largest one."""


def answering_copy(classifier: Classifier, dtype: torch.dtype) -> nn.Module:
    """A copy of the model's module to ask under autocast to `dtype`, in evaluation mode, on the CPU.

    Args:
        classifier: the model; it stays as it is.
        dtype: what autocast computes in, `torch.bfloat16` or `torch.float16`.

    Returns:
        A module whose linear layers and convolutions hold weights of that dtype, as autocast would cast them: without
        batch-norm its answers have the same bits. Layers are fused where a trial in float32 shows that the outputs stay
        what they are.

    Raises:
        ModelError: the module cannot be copied.
    """
    module = _fused_copy(classifier)
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


def _fused_copy(classifier: Classifier) -> nn.Module | None:
    """A copy with its layers fused, or None where it has no batch-norm or cannot be fused."""
    form = classifier.preprocessing
    if not isinstance(form, Preprocessing) or not any(type(layer) in NORMS for layer in classifier.module.modules()):
        return None
    module = copy_module(classifier.module, reference=classifier.reference).eval()
    module.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    inputs = form.noise(torch.Generator().manual_seed(0))
    try:
        expected = _outputs(module, form, inputs)
        module = fused(module)
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
