"""What a run takes of a machine by default."""

import os

import pytest
import torch

from gainfinder.devices import default_workers


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are counted otherwise")
def test_workers_are_the_cores_that_are_left_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(cores: int, *, processes: int = 1, device: str = "cuda") -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        return default_workers(torch.device(device))

    assert [workers(cores) for cores in (1, 2, 8, 16, 64)] == [0, 1, 7, 15, 16]
    assert workers(16, processes=4) == 3
    assert workers(16, device="cpu") == 0
