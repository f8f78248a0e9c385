"""Timings of the parts of a prepared run, from a few real batches that change nothing."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..runs import PreparedTransfer
from ..training import StudentTrainer, epoch_batches, make_batch
from ..views import ViewBatch, ViewSource

STEPS = 8
"""Batches measured; the first, which warms up workers, kernels and caches, does not count."""


def typical(times_s: Sequence[float]) -> float:
    """The median without the first; 0 where there is none."""
    return float(np.median(times_s[1:] or times_s)) if times_s else 0.0


def first_batches(prepared: PreparedTransfer, source: ViewSource) -> Iterator[ViewBatch]:
    """This process's share of the first batches of the run."""
    settings, accelerator = prepared.settings, prepared.accelerator
    batches = epoch_batches(prepared.train_images.ids, settings.batch_size, seed=settings.seed, epoch=0)[:STEPS]
    local = [batch[accelerator.process_index :: accelerator.num_processes] for batch in batches]
    return source.batches(local, epoch=0)


def reading_source(prepared: PreparedTransfer, *, workers: int = 0) -> ViewSource:
    """The run's views, decoded anew for each batch."""
    return ViewSource(
        prepared.train_images, prepared.view_spec, workers=workers, device=prepared.accelerator.device, resident_bytes=0
    )


def reading(prepared: PreparedTransfer, *, workers: int = 0) -> tuple[list[ViewBatch], float]:
    """The first batches, and the seconds that one takes to be read and rendered, in this process or by workers."""
    found, times_s = [], []
    began = time.perf_counter()
    for batch in first_batches(prepared, reading_source(prepared, workers=workers)):
        times_s.append(time.perf_counter() - began)
        found.append(batch)
        began = time.perf_counter()
    if workers:  # batches come in bursts: what counts is the rate at which they come
        return found, sum(times_s[1:]) / max(1, len(times_s) - 1)
    return found, typical(times_s)


def learning_s(prepared: PreparedTransfer, trainer: StudentTrainer, batches: Sequence[ViewBatch]) -> float:
    """Seconds of a training step; the trainer is changed."""
    processes = prepared.accelerator.num_processes

    def step(batch: ViewBatch) -> Tensor:
        return trainer.step(make_batch(trainer, prepared.views, batch, total=len(batch.positions_N) * processes))[0]

    return seconds(step, batches)


def seconds(work: Callable[[ViewBatch], Tensor], batches: Sequence[ViewBatch]) -> float:
    """Seconds that some work on a batch takes; waits for the device. Batches of broken images are skipped."""
    times_s = []
    for batch in batches:
        if batch.views is None:
            continue
        began = time.perf_counter()
        result = work(batch)
        if result.device.type == "cuda":
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - began)
    return typical(times_s)
