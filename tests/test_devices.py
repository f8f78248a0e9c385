"""What a run takes of a machine by default."""

import os
from pathlib import Path

import psutil
import pytest
import torch

from gainfinder.devices import (
    LEAST_CROPS_BYTES,
    crops_in_memory,
    default_workers,
    free_memory,
    measured_in_memory,
    seed_generators,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("seed", [0, 2**40 + 3])
def test_generators_are_seeded_as_torch_does(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = torch.rand(3), torch.rand(3, device=DEVICE)
        seed_generators(seed, DEVICE)
        assert torch.equal(torch.rand(3), expected[0]) and torch.equal(torch.rand(3, device=DEVICE), expected[1])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are counted otherwise")
def test_workers_are_the_cores_that_are_left_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(cores: int, *, processes: int = 1, device: str = "cuda") -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        return default_workers(torch.device(device))

    assert [workers(cores) for cores in (1, 2, 8, 16, 64)] == [0, 1, 7, 15, 16]
    assert workers(16, processes=4) == 3
    assert workers(16, device="cpu") == 0


GIB = 2**30


def group(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100 * GIB}))


@pytest.mark.usefixtures("machine")
def test_memory_that_is_free_is_that_of_the_container_or_job(tmp_path: Path) -> None:
    own = tmp_path / "own"

    def free(line: str) -> float:
        own.write_text(line)
        return free_memory(groups=tmp_path, own=own) / GIB

    assert free("0::/") == 100, "no limit is shown"
    group(tmp_path / "slurm", memory__max=30 * GIB, memory__current=2 * GIB)
    group(tmp_path / "slurm" / "job", memory__max="max", memory__current=GIB)
    assert free("0::/slurm/job\n") == 28, "of the group above"
    assert free("0::/elsewhere\n") == 100
    group(tmp_path / "memory" / "docker", memory__limit_in_bytes=8 * GIB, memory__usage_in_bytes=3 * GIB)
    assert free("5:cpu:/docker\n4:memory:/docker\n") == 5, "version 1"
    group(tmp_path / "full", memory__max=GIB, memory__current=2 * GIB)
    assert free("0::/full\n") * GIB == 1
    own.unlink()
    assert free_memory(groups=tmp_path, own=own) == 100 * GIB, "another system"


@pytest.mark.usefixtures("machine")
def test_decoded_images_take_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainfinder.devices.free_memory", lambda: 80 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 24 * GIB))
    assert crops_in_memory(torch.device("cpu")) == 10 * GIB
    assert crops_in_memory(torch.device("cuda")) == 5 * GIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert crops_in_memory(torch.device("cpu")) == 2.5 * GIB
    monkeypatch.setattr("gainfinder.devices.free_memory", lambda: GIB)
    assert crops_in_memory(torch.device("cpu")) == LEAST_CROPS_BYTES


def test_images_that_are_measured_on_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, kept in ((GIB, GIB // 4), (16 * GIB, GIB), (500 * GIB, 2 * GIB)):
        monkeypatch.setattr("gainfinder.devices.free_memory", lambda free=free: free)
        assert measured_in_memory() == kept
