"""Weights in files: read as plain tensors, found wherever a training script nested them, and loaded strictly."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..files import file_problem, user_path
from ..libraries import first_line
from .names import FittedNames, fit_names, storage_key
from .pickles import ENDINGS, read_pickle

# averaged weights come first: they are the ones that were evaluated
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "params_ema", "ema_model", "ema")
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "shadow")
_OF_TRAINING = re.compile(r"optim|sched|scaler|criterion|loss|metric|rng|callback|loop|config|args", re.IGNORECASE)
_DEPTH = 4
_SHOWN = 3
_KEYS_SHOWN = 12

_log = logging.getLogger("gainfinder")


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of one model from a file.

    Args:
        path: a `.safetensors` file, or a pickle with one of the endings `pickles.ENDINGS`, in capitals or not. Nested
            checkpoints are searched, averaged (EMA) weights are preferred; weights under another key are taken, with a
            note, where they are the only ones. Names are as in the file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ModelError: the file is missing, has another format, is damaged, holds objects that only unsafe loading
            accepts, or holds no weights.
    """
    file = user_path(path, what="weights file", error=ModelError)
    if (problem := file_problem(file)) is not None:
        raise ModelError(f"weights file {str(path)!r} {problem}")
    if file.name.lower().endswith(".safetensors"):
        return _read_safetensors(file)
    if not file.name.lower().endswith(ENDINGS):
        raise ModelError(
            f"weights file {str(path)!r} has an ending that is not known: expected .safetensors or {', '.join(ENDINGS)}"
        )
    content = read_pickle(file)
    found = _find_weights(content, depth=_DEPTH)
    if found is None:
        return _only_weights(content, file)
    if found.left:
        _log.warning(
            "%s: the weights under %r are taken, not those under %s; to take these save them alone",
            file,
            found.key,
            " and ".join(map(repr, found.left)),
        )
    return found.weights


def load_into(module: nn.Module, weights: Mapping[str, Tensor], *, reference: str) -> None:
    """Load weights into a module, strictly, in place; one on torch's `meta` device gets its memory, on the CPU.

    Prefixes that wrappers leave in the names (`module.`, `_orig_mod.`, `model.`, `net.`, in any stacking, or any other
    one before all of the module's names) are removed, those of wrapped inner layers too. Tensors beside the module's,
    of a loss or a metric, are passed over with a note.

    Raises:
        ModelError: names or shapes differ, or a weight is not finite.
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    found = fit_names(weights, expected, reference=reference)
    fitted = _fill_shared(found.weights, expected)
    _check_fit(module, fitted, expected, reference)
    _note_beside(found, reference)
    counters = {
        name: torch.zeros_like(value, device="cpu") if value.is_meta else value
        for name, value in expected.items()
        if name.endswith("num_batches_tracked")
    }
    try:
        _materialise(module, expected, reference)
        module.load_state_dict({**counters, **fitted})
    except RuntimeError as error:
        raise ModelError(
            f"{reference}: the weights cannot be loaded into {type(module).__name__}: {first_line(error)}"
        ) from error
    check_finite(module, reference=reference)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write all parameters and buffers to a `.safetensors` file; tensors that share memory are written once each.

    The folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        # a copy each: safetensors refuses shared memory and strides
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def check_finite(module: nn.Module, *, reference: str) -> None:
    """Refuse parameters that are not finite and buffers that hold NaN (infinite buffers are masks).

    Raises:
        ModelError: there is such a tensor; the message names the first.
    """
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter.detach()).all()):
            raise ModelError(f"{reference}: the weights {name!r} hold values that are not finite: is the file damaged?")
    for name, buffer in module.named_buffers():
        if bool(torch.isnan(buffer).any()):
            raise ModelError(f"{reference}: the buffer {name!r} holds NaN: did the training that saved it diverge?")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(file, device="cpu")
    except Exception as error:
        raise ModelError(f"{str(file)!r} is no safetensors file or is damaged: {first_line(error)}") from error
    if not tensors:
        raise ModelError(f"{str(file)!r} holds no weights")
    return tensors


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Weights in a checkpoint, the key they lie under, and the keys of other weights beside them."""

    weights: dict[str, Tensor]
    key: str = ""
    left: tuple[str, ...] = ()


def _find_weights(content: Any, *, depth: int) -> _Found | None:
    if not isinstance(content, Mapping) or depth == 0:
        return None
    inner = {key: _find_weights(content.get(key), depth=depth - 1) for key in _AVERAGED + _NESTED}
    found = [(key, one) for key, one in inner.items() if one is not None]
    if found:
        (key, taken), *others = found
        left = [other for other, one in others if not _are_same(one.weights, taken.weights)]
        left += [f"{key}/{other}" for other in taken.left]
        return _Found(weights=taken.weights, key=f"{key}/{taken.key}".rstrip("/"), left=tuple(left))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    # a training state has tensors too (a step, a loss), but most of it is something else
    return _Found(weights=tensors) if tensors and 2 * len(tensors) > len(content) else None


def _are_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name] is other[name] or (one[name].shape == other[name].shape and torch.equal(one[name], other[name]))
        for name in one
    )


def _only_weights(content: Any, file: Path) -> dict[str, Tensor]:
    """The weights under a key of the file's own, where only one has any."""
    if not isinstance(content, Mapping):
        raise ModelError(f"{str(file)!r} holds no weights but a {type(content).__name__}: expected tensors by name")
    found = {
        str(key): one.weights
        for key, value in content.items()
        if not _OF_TRAINING.search(str(key)) and (one := _find_weights(value, depth=_DEPTH - 1)) is not None
    }
    if len(found) == 1:
        (key,) = found
        _log.warning("%s: its weights are taken from under the key %r", file, key)
        return found[key]
    keys = ", ".join(repr(str(key)[:40]) for key in list(content)[:_KEYS_SHOWN])
    more = ", …" if len(content) > _KEYS_SHOWN else ""
    problem = f"holds weights under {' and '.join(map(repr, found))}" if found else "holds no weights"
    raise ModelError(
        f"{str(file)!r} {problem}: expected tensors by name, at the top or under 'state_dict'; its keys: "
        f"{keys or 'none'}{more}"
    )


def _check_fit(module: nn.Module, fitted: Mapping[str, Tensor], expected: Mapping[str, Tensor], reference: str) -> None:
    # checkpoints older than PyTorch 0.4.1 have no such counter, and only training with momentum=None reads it
    missing = [name for name in expected if name not in fitted and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in fitted if name not in expected]
    shapes = [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(value.shape)}"
        for name, value in fitted.items()
        if name in expected and expected[name].shape != value.shape
    ]
    parts = [_count("missing", missing), _count("unexpected", unexpected), _count("of another shape", shapes, "; ")]
    if any(parts):
        found = "; ".join(part for part in parts if part)
        raise ModelError(f"{reference}: the weights do not fit {type(module).__name__}: {found}")
    for name, value in fitted.items():
        if value.is_meta or value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise ModelError(
                f"{reference}: the weights {name!r} are no plain numbers ({value.dtype}, {value.layout}, on "
                f"{value.device}): save them as dense floating-point tensors"
            )


def _note_beside(found: FittedNames, reference: str) -> None:
    if found.beside:
        passed = _count("tensor(s)", list(found.beside))
        _log.warning("%s: passed over in the weights file, as not the model's: %s", reference, passed)


def _materialise(module: nn.Module, expected: Mapping[str, Tensor], reference: str) -> None:
    """Give a module on the `meta` device its memory, on the CPU, tied weights tied as before."""
    if not any(value.is_meta for value in (*module.parameters(), *module.buffers())):
        return
    lost = next((name for name, value in module.named_buffers() if value.is_meta and name not in expected), None)
    if lost is not None:
        raise ModelError(
            f"{reference}: {lost!r} is on torch's meta device and in no weights file: build the module without "
            "torch.device('meta')"
        )
    tied = defaultdict(list)
    for name, value in module.named_parameters(remove_duplicate=False):
        tied[id(value)].append(name)
    module.to_empty(device="cpu")
    for first, *others in tied.values():
        for name in others:
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, module.get_parameter(first))


def _fill_shared(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors that share memory in the module the weights of whichever of them the file holds."""
    present = {storage_key(expected[name]): value for name, value in weights.items() if name in expected}
    shared = {name: present.get(storage_key(value)) for name, value in expected.items() if name not in weights}
    return {**weights, **{name: value for name, value in shared.items() if value is not None}}


def _count(what: str, names: list[str], separator: str = ", ") -> str:
    if not names:
        return ""
    shown = separator.join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names)} {what} ({shown})"
