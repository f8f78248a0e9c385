"""PyTorch's checkpoints, read so that they cannot run code.

A pickle is a program that says which functions to call. `weights_only=True` lets it call those that build tensors and
Python's plain values; beside these, what training scripts of timm and torchvision leave in checkpoints is let in: an
`argparse.Namespace`, and NumPy's numbers, which are read here without NumPy's own unpickling.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from ..libraries import first_line, quiet

ENDINGS = (".pt", ".pth", ".pt.tar", ".pth.tar", ".bin", ".ckpt")

_REFUSED = re.compile(r"[Uu]nsupported (?:global|GLOBAL|class|operand).*?(?:GLOBAL )?(?P<what>[\w.]+\.\w+)")
_KINDS = "biufc"  # booleans, integers, floating-point and complex numbers


def read_pickle(file: Path) -> Any:
    """What `torch.save` wrote, its tensors on the CPU.

    Raises:
        ModelError: it is damaged, or holds what only unsafe loading accepts.
    """
    try:
        with quiet(), torch.serialization.safe_globals(_ALLOWED):
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


class _Dtype:
    """Stands for `numpy.dtype` in a pickle: a number's kind and size, and its byte order."""

    def __init__(self, text: str, *flags: object) -> None:
        self.dtype = np.dtype(str(text))
        if self.dtype.kind not in _KINDS:
            raise ModelError(f"it holds a NumPy value of type {self.dtype}, no number")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    """Stands for NumPy's function that builds a number of its bytes."""
    return np.frombuffer(data, dtype.dtype, count=1)[0].item()


_ALLOWED: list[Any] = [
    argparse.Namespace,
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),  # as NumPy below 2 writes it
]
