"""Where a run computes: device, precision and processes, through Accelerate."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from timm.layers import convert_sync_batchnorm
from torch import nn

from ._version import __version__
from .config import check_device
from .errors import SettingsError
from .models import has_batch_norm


def resolve_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the first of CUDA, MPS and CPU that is there.

    Raises:
        SettingsError: the name is unknown, or the machine has no such device.
    """
    check_device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there[name]:
        raise SettingsError(f"device {name!r} is not available on this machine: use `device='auto'` or cpu")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """Accelerate's word for the precision of training; `auto` is bf16 or fp16 on CUDA and fp32 elsewhere.

    Raises:
        SettingsError: fp16 is requested on a CPU.
    """
    if name == "auto":
        if device.type != "cuda":
            return "no"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if name == "fp16" and device.type == "cpu":
        raise SettingsError("precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    return "no" if name == "fp32" else name


def default_workers(device: torch.device) -> int:
    """Worker processes for decoding: none where the models compute on the CPU and have use for every core; beside a
    GPU one fewer than this process's share of the cores, at most 16: decoding is what a fast GPU waits for.
    """
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local_processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return max(0, min(16, cores // local_processes - 1))


def make_accelerator(device: str, precision: str, *, compiled: bool = False) -> Accelerator:
    """An Accelerator for this device and precision; `compiled` compiles what it prepares (torch.compile).

    Under `accelerate launch` or `torchrun` the launcher's processes are used. Accelerate keeps one state a process:
    where an earlier Accelerator was made for another device or precision, that state is replaced.
    """
    resolved = resolve_device(device)
    mixed = resolve_precision(precision, resolved)
    cpu = resolved.type == "cpu"
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=cpu,
        mixed_precision=mixed,
        dynamo_backend="inductor" if compiled else None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def check_batch_norm(module: nn.Module, accelerator: Accelerator) -> None:
    """Refuse what batch statistics cannot be shared over: SyncBatchNorm has no CPU implementation.

    Raises:
        SettingsError: several CPU processes and a batch-norm layer.
    """
    if accelerator.num_processes > 1 and accelerator.device.type != "cuda" and has_batch_norm(module):
        raise SettingsError(
            f"the student has batch-norm layers, whose statistics {accelerator.num_processes} CPU processes cannot "
            "share: run it in one process, or on GPUs"
        )


def synchronised(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The module with batch statistics that agree between processes: SyncBatchNorm on several GPUs."""
    if accelerator.num_processes == 1 or not has_batch_norm(module):
        return module
    converted: nn.Module = convert_sync_batchnorm(module)
    return converted


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and machine, as stored with results."""
    packages = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
    return {
        "gainfinder": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "device_name": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
    }
