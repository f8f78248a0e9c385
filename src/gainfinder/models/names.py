"""Names of weights: which tensors of a file are a model's, whatever a training script put before or beside them."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import ModelError

_COMPILED = "_orig_mod."
_OF_TORCH = "_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module"
"""What torch's compiled, checkpointed and sharded layers leave in names; no model has parts called so."""
_MARKED = re.compile(rf"(?<![^.])(?:{_OF_TORCH})\.")
_WRAPPED = re.compile(rf"(?<![^.])(?:{_OF_TORCH}|module)\.")
"""What wrappers leave in front of names or in the middle of them."""
_PREFIXES = ("module.", _COMPILED, "model.", "net.")
_USUAL = re.compile(r"((module|_orig_mod|model|net)\.)*")
_BESIDE = re.compile(r"(^|_)(loss|criterion|metrics?|acc|accuracy|auroc|precision|recall|f1|ece)s?(_|\d|$)")
_COUNTERS = ("num_batches_tracked",)
_AVERAGE = "n_averaged"  # torch.optim.swa_utils counts
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class FittedNames:
    """A file's tensors under a model's names.

    Attributes:
        weights: tensors by name, those that the model does not have among them.
        beside: names of tensors that belong to something beside the model, such as a loss.
    """

    weights: dict[str, Tensor]
    beside: tuple[str, ...] = ()


def fit_names(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, reference: str) -> FittedNames:
    """Find a model's tensors in a file.

    Where all of them stand behind one prefix (`module.`, `model.`, `student.`, …), it is removed, and what stands
    elsewhere lies beside the model. What wrappers of inner layers leave within names (`features.module.0.weight`,
    `head._orig_mod.bias`, `blocks.0._checkpoint_wrapped_module.bias`) makes no difference. Else the prefixes that
    wrappers leave are removed as long as more names fit.

    Args:
        weights: the file's tensors by name.
        expected: the model's.
        reference: the model reference, for messages.

    Raises:
        ModelError: several such models are in the file.
    """
    for bare in (str, _unmarked, without_wrapped):
        names, called = {bare(name): name for name in weights}, {bare(name): name for name in expected}
        if len(names) < len(weights) or len(called) < len(expected):
            continue  # a part that is called so by itself
        prefix = _prefix(names, {name: expected[own] for name, own in called.items()}, reference)
        if prefix is None:
            continue
        behind = {name.removeprefix(prefix): given for name, given in names.items() if name.startswith(prefix)}
        own = {called.get(name, name): weights[given] for name, given in behind.items()}
        if _AVERAGE not in expected:
            own.pop(_AVERAGE, None)
        beside = [given for name, given in names.items() if not name.startswith(prefix)]
        if not prefix:
            beside = [name for name in own if name not in expected and _is_beside(name, expected)]
            own = {name: value for name, value in own.items() if name not in beside}
        return FittedNames(weights=own, beside=tuple(name for name in beside if name != _AVERAGE))
    return FittedNames(weights=_without_wrappers(weights, expected))


def storage_key(tensor: Tensor) -> tuple[Any, ...]:
    """A key that tensors have in common where they are the same memory."""
    if tensor.is_meta or tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _prefix(names: Collection[str], expected: Mapping[str, Tensor], reference: str) -> str | None:
    """The prefix before all of the model's names; None where there is none."""
    shared = Counter(storage_key(value) for value in expected.values())
    # files have tensors that share memory once, and those older than PyTorch 0.4.1 have no counters
    needed = [
        name for name, value in expected.items() if shared[storage_key(value)] == 1 and not name.endswith(_COUNTERS)
    ]
    if not needed:
        return None
    longest = max(needed, key=len)
    found = [name.removesuffix(longest) for name in names if name.endswith(longest)]
    found = [prefix for prefix in found if prefix[-1:] in ("", ".") and all(prefix + name in names for name in needed)]
    if len(found) > 1:
        found = [prefix for prefix in found if _USUAL.fullmatch(prefix)] or found
    if len(found) > 1 and "" in found:
        return ""
    if len(found) > 1:
        shown = ", ".join(repr(f"{prefix}*") for prefix in sorted(found)[:_SHOWN])
        raise ModelError(
            f"{reference}: the file holds weights of {len(found)} such models ({shown}): save those of one of them"
        )
    return found[0] if found else None


def _unmarked(name: str) -> str:
    return _MARKED.sub("", name)


def without_wrapped(name: str) -> str:
    """A name without what wrappers leave in it, in front or in the middle.

    Example:
        >>> without_wrapped("module.features._orig_mod.0.weight"), without_wrapped("submodule.bias")
        ('features.0.weight', 'submodule.bias')
    """
    return _WRAPPED.sub("", name)


def _is_beside(name: str, expected: Mapping[str, Tensor]) -> bool:
    first = name.partition(".")[0]
    return _BESIDE.search(first) is not None and not any(own.partition(".")[0] == first for own in expected)


def _without_wrappers(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    best = dict(weights)
    current = {_unmarked(name): value for name, value in weights.items()}
    while True:
        inner = {without_wrapped(name): value for name, value in current.items()}
        if len(inner.keys() & expected.keys()) > len(current.keys() & expected.keys()):
            current = inner
        if len(current.keys() & expected.keys()) > len(best.keys() & expected.keys()):
            best = current
        prefix = next((p for p in _PREFIXES if 2 * sum(name.startswith(p) for name in current) > len(current)), None)
        if prefix is None:
            break
        current = {name.removeprefix(prefix): value for name, value in current.items()}
    if _AVERAGE not in expected:
        best = {name: value for name, value in best.items() if name != _AVERAGE}
    return best
