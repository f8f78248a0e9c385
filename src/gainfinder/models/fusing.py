"""A convolutional network that only answers, with what follows its convolutions computed within them.

In evaluation mode batch-norm is a multiplication and an addition for each channel: both go into the convolution before
it. On a GPU the bias, the shortcut that is added and the ReLU then cost as much time as the convolution, since each of
them reads and writes all of its outputs: cuDNN computes all in one kernel. Benchmarks: benchmarks/speed/README.md, "On
a GPU".
"""

import operator
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

NORMS = (nn.BatchNorm2d, BatchNormAct2d)
_SKIPPED = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Layers that in evaluation mode give what they are given."""
_RELUS: set[Any] = {F.relu, torch.relu, torch.relu_, "relu", "relu_"}
_ADDITIONS: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}
_IN_PLACE: set[Any] = {operator.iadd, "add_"}
_LARGEST_DIFFERENCE = 0.02
"""By which a fused kernel may differ from its parts, of the largest of their outputs: each part rounds to 8 bits."""


class FusedConvolution(nn.Module):
    """The ReLU of a convolution's outputs, or of their sum with another tensor.

    On a GPU and in half precision it is one kernel, where cuDNN has one that agrees with the parts when it is first
    asked; elsewhere, and where it has none, the parts.

    Args:
        convolution: the convolution; without groups.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.fuses: bool | None = None
        """Whether cuDNN's kernel is used; None until it is tried."""

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """ReLU of the convolution of `x`, plus `z`.

        Args:
            x: inputs, (N, C, H, W).
            z: what is added, in the shape of the outputs.

        Raises:
            ValueError: `z` has another shape.
        """
        if self.fuses is not False and self._may_fuse(x):
            try:
                if self.fuses is None:
                    self.fuses = self._agrees(x, z)
                if self.fuses:
                    return self._in_one(x, z)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # cuDNN has no kernel for such sizes
                self.fuses = False
        return self._in_parts(x, z)

    def _may_fuse(self, x: Tensor) -> bool:
        return x.is_cuda and self.convolution.weight.dtype in (torch.bfloat16, torch.float16)

    def _in_parts(self, x: Tensor, z: Tensor | None) -> Tensor:
        outputs: Tensor = self.convolution(x)
        if z is None:
            return outputs.relu_()
        if z.shape != outputs.shape:
            raise ValueError(f"expected {tuple(outputs.shape)} to be added, got {tuple(z.shape)}")
        return (outputs + z).relu_()

    def _in_one(self, x: Tensor, z: Tensor | None) -> Tensor:
        layer = self.convolution
        x, padding = x.to(layer.weight.dtype), cast(tuple[int, ...], layer.padding)
        sizes = (layer.stride, padding, layer.dilation, layer.groups)
        if z is None:
            found: Tensor = torch.cudnn_convolution_relu(x, layer.weight, layer.bias, *sizes)
        else:
            found = torch.cudnn_convolution_add_relu(x, layer.weight, z.to(x.dtype), 1.0, layer.bias, *sizes)
        return found

    def _agrees(self, x: Tensor, z: Tensor | None) -> bool:
        expected = self._in_parts(x, z)
        # The kernel without `z` reads the memory that it is to write to, times 0, and is not to be hurt by it.
        spoiled = torch.full_like(expected, torch.nan)
        del spoiled
        difference = (self._in_one(x, z).float() - expected.float()).abs().max()
        return bool(difference <= _LARGEST_DIFFERENCE * expected.float().abs().max())  # false where it is not a number


def fused(module: nn.Module) -> nn.Module:
    """The module with batch-norm, ReLUs and additions computed within the convolutions before them.

    A layer is fused where nothing else reads what the convolution gives and where it is called once. What comes out
    shares the module's layers, whose weights are changed.

    Args:
        module: in evaluation mode, on the CPU.

    Raises:
        Exception: whatever it raises where what it does depends on the values or sizes of its inputs.
    """
    traced = fx.GraphModule(module, _Tracer().trace(module))
    for node in _layers(traced, _SKIPPED):
        _drop(traced, node)
    calls = Counter(id(_layer(traced, node)) for node in traced.graph.nodes)
    for node in _layers(traced, (nn.Conv2d,)):
        convolution = _layer(traced, node)
        if type(convolution) is nn.Conv2d and calls[id(convolution)] == 1 and len(node.all_input_nodes) == 1:
            _fold_norm(traced, node, convolution, calls)
            _fuse_relu(traced, node, convolution)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, NORMS) or super().is_leaf_module(m, module_qualified_name)


def _layers(traced: fx.GraphModule, kinds: tuple[type[nn.Module], ...]) -> Iterator[fx.Node]:
    yield from [node for node in traced.graph.nodes if type(_layer(traced, node)) in kinds]


def _layer(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _drop(traced: fx.GraphModule, node: fx.Node) -> None:
    node.replace_all_uses_with(node.all_input_nodes[0])
    traced.graph.erase_node(node)


def _reader(node: fx.Node) -> fx.Node | None:
    """What alone reads an output, and once."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and list(readers[0].args).count(node) == 1 else None


def _fold_norm(traced: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d, calls: Counter[int]) -> None:
    """Give a convolution the weights of the batch-norm that reads it, and leave of that what comes after it."""
    reader = _reader(node)
    norm = None if reader is None else _layer(traced, reader)
    if reader is None or type(norm) not in NORMS or calls[id(norm)] != 1:
        return
    assert isinstance(norm, NORMS)
    if norm.running_mean is None or norm.running_var is None:
        return
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    if isinstance(norm, BatchNormAct2d) and not isinstance(norm.act, nn.Identity):
        traced.set_submodule(str(reader.target), norm.act)
    else:
        _drop(traced, reader)


def _fuse_relu(traced: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d) -> None:
    """Compute the ReLU that reads a convolution, or its sum with something else, within it, where cuDNN may."""
    if convolution.groups > 1 or convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return
    reader, added = _reader(node), None
    if reader is not None and (added := _added(reader, node)) is not None:
        reader = _reader(reader)
    if reader is None or not (type(_layer(traced, reader)) is nn.ReLU or _does(reader, _RELUS)):
        return
    (x,) = node.all_input_nodes
    with traced.graph.inserting_before(reader):
        made = traced.graph.call_module(str(node.target), (x,) if added is None else (x, added))
    reader.replace_all_uses_with(made)
    for done in (reader, *(node.users if added is not None else ()), node):
        traced.graph.erase_node(done)
    traced.set_submodule(str(node.target), FusedConvolution(convolution))


def _does(node: fx.Node, what: set[Any]) -> bool:
    """Whether a node calls one of these functions or methods; layers may have such names, too."""
    return node.op in ("call_function", "call_method") and node.target in what


def _added(reader: fx.Node, node: fx.Node) -> fx.Node | None:
    """What a node adds to another's outputs; None where it does something else."""
    if not _does(reader, _ADDITIONS) or reader.kwargs or len(reader.args) != 2:
        return None
    first, second = reader.args
    if first is node:
        return second if isinstance(second, fx.Node) else None
    # Added in place to something else, that would be changed for its other readers, too.
    return first if isinstance(first, fx.Node) and reader.target not in _IN_PLACE else None
