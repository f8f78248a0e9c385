"""Where a run computes: device, precision and processes, through Accelerate."""

import contextlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from timm.layers import convert_sync_batchnorm
from torch import nn

from ._version import __version__
from .config import check_device
from .errors import SettingsError
from .models import has_batch_norm

LEAST_CROPS_BYTES = 2**30
"""Decoded images that take no more than this are kept in memory on any machine."""


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


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of a device, as `torch.manual_seed` does.

    That one seeds all kinds of device that torch knows, and for each that is not in use it writes down the whole stack
    of calls: deep in a program some milliseconds on a slow core, in each step.

    Args:
        seed: the seed.
        device: the device that draws, besides the CPU.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def default_workers(device: torch.device) -> int:
    """Worker processes for decoding: none where the models compute on the CPU and have use for every core; beside a
    GPU one fewer than this process's share of the cores, at most 16: decoding is what a fast GPU waits for.
    """
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local_processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return max(0, min(16, cores // local_processes - 1))


def crops_in_memory(device: torch.device) -> int:
    """Bytes of decoded images that a run keeps in memory, at most: what is decoded once is not decoded each epoch.

    An eighth of the main memory that is free, over the processes of this machine, and of a GPU's a quarter; 1 GiB in
    any case. Where it is more than there is room for on the GPU later, batches come from the main memory.
    """
    local_processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    limit = free_memory() // (8 * local_processes)
    if device.type == "cuda":
        limit = min(limit, torch.cuda.mem_get_info(device)[0] // 4)
    return max(LEAST_CROPS_BYTES, limit)


def measured_in_memory() -> int:
    """Bytes of decoded images that are kept of each set that students are measured on again and again, at most.

    A sixteenth of the main memory that is free, from 256 MiB to 2 GiB.
    """
    return min(2**31, max(2**28, free_memory() // 16))


def free_memory(*, groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of main memory that this process may still take: what the machine has, or a container or a job of Slurm.

    Args:
        groups: where Linux shows its control groups, of version 2 or 1.
        own: the file that names this process's.
    """
    found = [psutil.virtual_memory().available]
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds in ("", "memory"):
                top = groups / kinds
                here = top / path.lstrip("/")
                found += [left for at in (here, *here.parents) if at.is_relative_to(top) and (left := _left_in(at))]
    return int(min(found))


def _left_in(group: Path) -> int | None:
    """Bytes that a control group may still take; None where it has no limit, or is not shown."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            return max(1, int((group / limit).read_text()) - int((group / used).read_text()))
    return None


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
