"""Modules as users hand them over: taken out of wrappers that training leaves on, copied, told where they are empty.

A wrapper (of several processes, a compiler, an average) puts its own prefix before the names of the weights. Without it
a student is saved under the names of its architecture, and a copy of it takes the weights that were trained.
"""

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ModelError
from ..libraries import first_line

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "DeepSpeedEngine": "module",
    "_FabricModule": "module",
    "AveragedModel": "module",
    "ModelEma": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
}
"""Wrappers of torch, DeepSpeed, Lightning Fabric and timm, by the name of their class, and where each holds the module.

By name, so that none of their packages is imported to find out."""
_COMPILED = "OptimizedModule"
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")

_log = logging.getLogger("gainfinder")


def unwrapped(module: nn.Module, *, reference: str) -> nn.Module:
    """The module within its wrappers, in any stacking; itself where there are none.

    Args:
        module: the module.
        reference: the model reference, for messages.

    Raises:
        ModelError: its parameters are sharded over processes, so that none of them has the whole model.

    Example:
        >>> inner = nn.Linear(2, 3)
        >>> unwrapped(nn.DataParallel(inner), reference="it") is inner
        True
    """
    found: Any = module
    taken_off = []
    while True:
        names = [base.__name__ for base in type(found).__mro__]
        if any(name in _SHARDED for name in names):
            raise ModelError(
                f"{reference}: a {names[0]} has its parameters sharded over processes: give the module as it was "
                "before it was wrapped, with its weights loaded"
            )
        attribute = next((_WRAPPERS[name] for name in names if name in _WRAPPERS), None)
        inner = None if attribute is None else getattr(found, attribute, None)
        if not isinstance(inner, nn.Module):
            break
        taken_off.append(names[0])
        found = inner
    if taken_off:
        _log.info("%s: taken out of %s", reference, ", ".join(taken_off))
    whole: nn.Module = found
    return whole


def without_wrappers(module: nn.Module, *, reference: str) -> nn.Module:
    """The module within its wrappers, and in it, in place, its inner layers without those of `torch.compile`.

    Raises:
        ModelError: as for `unwrapped`.

    Example:
        >>> inner = nn.Linear(2, 3)
        >>> list(without_wrappers(nn.Sequential(torch.compile(inner)), reference="it").state_dict())
        ['0.weight', '0.bias']
    """
    found = unwrapped(module, reference=reference)
    places = [place for place in found.named_modules(remove_duplicate=False) if _is_compiled(place[1])]
    owners = [found.get_submodule(path.rpartition(".")[0]) for path, _ in places]
    for owner, (path, compiled) in zip(owners, places, strict=True):
        setattr(owner, path.rpartition(".")[2], _within_compiled(compiled))
    if places:
        _log.info("%s: %d inner layers taken out of torch.compile", reference, len(places))
    return found


def copy_module(module: nn.Module, *, reference: str) -> nn.Module:
    """A copy that shares no memory with the module, and can be trained where the module can.

    Inner layers that `torch.compile` wrapped are copied without it.

    Raises:
        ModelError: it holds something that cannot be copied.
    """
    # Left to itself, a deep copy of TorchScript has parameters that are results of a copy, which no optimiser takes,
    # and one of torch's older weight norm fails after a pass with gradients, whose result it holds.
    results = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in results if not value.is_leaf}
    try:
        with torch.no_grad():
            # children come after their parents, and what is within a compiled layer is copied before it
            for part in reversed([part for part in module.modules() if _is_compiled(part)]):
                memo[id(part)] = copy.deepcopy(_within_compiled(part), memo)
            copied = copy.deepcopy(module, memo)
    except Exception as error:
        raise ModelError(
            f"{reference}: the module cannot be copied ({first_line(error)}), and training and measuring need a copy: "
            "give it as file:PATH.py:FACTORY, or without what it holds besides layers and weights"
        ) from error
    for parameter, own in zip(copied.parameters(), module.parameters(), strict=True):
        parameter.requires_grad_(own.requires_grad)
    return copied


def _is_compiled(module: nn.Module) -> bool:
    return any(base.__name__ == _COMPILED for base in type(module).__mro__)


def _within_compiled(module: nn.Module) -> nn.Module:
    found: Any = module
    while _is_compiled(found):
        found = getattr(found, _WRAPPERS[_COMPILED])
    inner: nn.Module = found
    return inner


def has_lazy(module: nn.Module) -> bool:
    """Whether some of its weights get their shapes in its first forward pass."""
    return any(is_lazy(value) for value in (*module.parameters(), *module.buffers()))


def check_has_values(module: nn.Module, *, reference: str) -> None:
    """Refuse a module whose weights are not there: on torch's `meta` device, or never reached by a forward pass.

    Raises:
        ModelError: there is such a weight; the message names the first.
    """
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise ModelError(
                f"{reference}: {name!r} belongs to a lazy layer that its forward pass does not reach, so it has no "
                "shape: remove the layer"
            )
        if value.is_meta:
            raise ModelError(
                f"{reference}: {name!r} is on torch's meta device and has no values: load weights first, or give them "
                "as file:PATH.py:FACTORY@WEIGHTS"
            )
