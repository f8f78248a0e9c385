"""Weights in files: read as plain tensors, found wherever a training script nested them, and loaded strictly.

Pickles are read with `weights_only=True` and nothing else: a checkpoint must not be able to run code.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..files import near_siblings
from ..libraries import first_line, quiet

PICKLES = (".pt", ".pth", ".pt.tar", ".pth.tar", ".bin", ".ckpt")

# averaged weights come first: they are the ones that were evaluated
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "params_ema", "ema_model", "ema")
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "shadow")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_REFUSED = re.compile(r"[Uu]nsupported (?:global|GLOBAL|class|operand).*?(?:GLOBAL )?(?P<what>[\w.]+\.\w+)")
_SHOWN = 3


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of one model from a file.

    Args:
        path: a `.safetensors` file, or a pickle with one of the endings `PICKLES`. Nested checkpoints are searched,
            averaged (EMA) weights are preferred; names are as in the file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ModelError: the file is missing, has another format, is damaged, holds objects that only unsafe loading
            accepts, or holds no weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        problem = "is a folder, expected a file" if file.is_dir() else "does not exist" + near_siblings(file)
        raise ModelError(f"weights file {str(path)!r} {problem}")
    if file.name.endswith(".safetensors"):
        return _read_safetensors(file)
    if not file.name.endswith(PICKLES):
        raise ModelError(
            f"weights file {str(path)!r} has an ending that is not known: expected .safetensors or {', '.join(PICKLES)}"
        )
    weights = _find_weights(_read_pickle(file), depth=4)
    if weights is None:
        raise ModelError(f"{str(path)!r} holds no weights: expected tensors by name, at the top or under 'state_dict'")
    return weights


def load_into(module: nn.Module, weights: Mapping[str, Tensor], *, reference: str) -> None:
    """Load weights into a module, strictly, in place.

    Prefixes that wrappers leave in the names (`module.`, `_orig_mod.`, `model.`, `net.`, in any stacking) are
    removed where the names fit only then.

    Raises:
        ModelError: names or shapes differ, or a weight is not finite.
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    fitted = _fill_shared(_fit_names(dict(weights), expected), expected)
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
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    module.load_state_dict({**counters, **fitted})
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


def _read_pickle(file: Path) -> Any:
    try:
        with quiet():
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        refused = _REFUSED.search(str(error))
        if refused is None and "TorchScript" not in str(error):
            # torch's own text advises unsafe loading, whatever the file holds
            reason = type(error).__name__ if "weights_only" in str(error) else first_line(error)
            raise ModelError(
                f"{str(file)!r} is no PyTorch checkpoint or is damaged: {reason}; fetch or save it again"
            ) from error
        what = refused["what"] if refused is not None else "a TorchScript program"
        raise ModelError(
            f"{str(file)!r} holds {what} beside its tensors, which safe loading refuses: where you trust it, save its "
            "tensors alone with safetensors.torch.save_file(model.state_dict(), 'model.safetensors') and use that file"
        ) from error


def _find_weights(found: Any, *, depth: int) -> dict[str, Tensor] | None:
    if not isinstance(found, Mapping) or depth == 0:
        return None
    for key in _AVERAGED + _NESTED:
        inner = _find_weights(found.get(key), depth=depth - 1)
        if inner is not None:
            return inner
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    # a training state has tensors too (a step, a loss), but most of it is something else
    return tensors if tensors and 2 * len(tensors) > len(found) else None


def _fit_names(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    best = weights
    current = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    while True:
        if len(current.keys() & expected.keys()) > len(best.keys() & expected.keys()):
            best = current
        prefix = next((p for p in _PREFIXES if 2 * sum(name.startswith(p) for name in current) > len(current)), None)
        if prefix is None:
            break
        current = {name.removeprefix(prefix): value for name, value in current.items()}
    if "n_averaged" not in expected:
        best = {name: value for name, value in best.items() if name != "n_averaged"}  # torch.optim.swa_utils counts
    return best


def _fill_shared(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors that share memory in the module the weights of whichever of them the file holds."""
    present = {_storage_key(expected[name]): value for name, value in weights.items() if name in expected}
    shared = {name: present.get(_storage_key(value)) for name, value in expected.items() if name not in weights}
    return {**weights, **{name: value for name, value in shared.items() if value is not None}}


def _storage_key(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.is_meta or tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _count(what: str, names: list[str], separator: str = ", ") -> str:
    if not names:
        return ""
    shown = separator.join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names)} {what} ({shown})"
