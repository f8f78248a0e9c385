"""Batches of samples, read in order by worker processes; broken ones are collected instead of ending the run.

Shapes: N samples, B rows of a batch (fewer where samples are broken).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import BrokenSample, DataError, GainfinderError, SettingsError
from .samples import Samples

Transform = Callable[[int, Any], Tensor]
Indices = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class LoadedBatch:
    """The samples of a batch that could be read.

    Attributes:
        positions: int64 (B,), indices into the samples.
        inputs: outputs of the transform, (B, ...); None if all are broken.
        broken: `where: reason` of each broken sample.
    """

    positions: Tensor
    inputs: Tensor | None
    broken: tuple[str, ...] = ()

    def pin_memory(self) -> "LoadedBatch":
        """The batch with its inputs in page-locked memory, which a GPU reads beside other work; torch calls it."""
        return self if self.inputs is None else replace(self, inputs=self.inputs.pin_memory())


def load_batches(
    images: Samples,
    transform: Transform,
    *,
    batch_size: int | None = None,
    indices: Indices | None = None,
    batch_indices: Sequence[Indices] | None = None,
    workers: int = 0,
    start_method: Literal["fork", "spawn", "forkserver"] | None = None,
    pinned: bool = False,
) -> Iterator[LoadedBatch]:
    """Read and transform samples in a fixed order, whatever the number of workers. No global random state is touched.

    Args:
        images: the samples to read from.
        transform: maps (index, RGB image or text) to a tensor, all of one shape; must be picklable where workers are
            spawned.
        batch_size: rows a batch; the last batch may be smaller.
        indices: indices of the samples to read, in order; all by default. An empty sequence gives no batch.
        batch_indices: explicit batches, instead of `batch_size` and `indices`.
        workers: number of processes, each of one thread; 0 reads in this process.
        start_method: start method of the workers; the platform's by default.
        pinned: inputs come in page-locked memory, which needs CUDA.

    Raises:
        SettingsError: contradicting or impossible settings.
        DataError: while iterating, if the source as a whole cannot be used.
    """
    if workers < 0:
        raise SettingsError(f"{workers} workers are impossible: expected 0 (read in the main process) or more")
    batches = _plan(len(images), batch_size, indices, batch_indices)
    workers = min(workers, len(batches))  # one that gets no batch is started and ended for nothing
    loader = DataLoader(
        _Rows(images, transform),
        batch_sampler=batches,
        collate_fn=_unchanged,
        num_workers=workers,
        multiprocessing_context=start_method if workers else None,
        persistent_workers=False,
        pin_memory=pinned,
        # The loader draws the workers' seeds from here instead of the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    return _checked(loader)


def check_broken(broken: Sequence[str], *, of: Samples, max_share: float) -> None:
    """Refuse to go on if too many samples are broken.

    Args:
        broken: `where: reason` of each broken sample.
        of: the samples that were to be read.
        max_share: the largest share allowed, in [0, 1]; exactly this share passes, but never all samples.

    Raises:
        DataError: the share is above.
        SettingsError: the largest share is not in [0, 1].
    """
    if not 0 <= max_share <= 1:
        raise SettingsError(f"max-broken is {max_share}: expected a share from 0 to 1")
    total = len(of)
    if not broken or (len(broken) <= max_share * total and len(broken) < total):
        return
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    raise DataError(
        f"{of.reference}: {len(broken)} of {total} {of.noun}s ({len(broken) / max(total, 1):.2%}) cannot be "
        f"{of.unread}, allowed are {max_share:.2%}: {'; '.join(broken[:3])}{more}; repair or remove them, or raise "
        "`max_broken`"
    )


class _Rows(Dataset[Any]):
    """Whole batches by their indices. A `GainfinderError` is returned as a value: raised in a worker, torch would wrap
    it in the worker's traceback."""

    def __init__(self, images: Samples, transform: Transform) -> None:
        self.images = images
        self.transform = transform

    def __getitems__(self, indices: list[int]) -> LoadedBatch | GainfinderError:
        positions, rows, broken = [], [], []
        for index in indices:
            try:
                row = self._row(index)
            except BrokenSample as error:
                broken.append(str(error))
                continue
            except GainfinderError as error:
                return error
            positions.append(index)
            rows.append(row)
        inputs = torch.stack(rows) if rows else None
        return LoadedBatch(positions=torch.tensor(positions, dtype=torch.int64), inputs=inputs, broken=tuple(broken))

    def _row(self, index: int) -> Tensor:
        sample = self.images.read(index)
        try:
            return self.transform(index, sample)
        except (OverflowError, ValueError) as error:  # what Pillow raises at sizes that it cannot make
            pixels = f"{sample.width}×{sample.height} pixels cannot be resized: " if hasattr(sample, "width") else ""
            raise BrokenSample(self.images.where(index), f"{pixels}{error}") from error


def _plan(
    available: int, batch_size: int | None, indices: Indices | None, batch_indices: Sequence[Indices] | None
) -> list[list[int]]:
    if batch_indices is not None:
        if batch_size is not None or indices is not None:
            raise SettingsError("give either explicit batches, or a batch size and indices, not both")
        return [[int(i) for i in batch] for batch in batch_indices]
    if batch_size is None or batch_size < 1:
        raise SettingsError(f"batch size {batch_size} is impossible: expected 1 or more")
    order = list(range(available)) if indices is None else [int(i) for i in indices]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _checked(loader: "DataLoader[Any]") -> Iterator[LoadedBatch]:
    batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, GainfinderError):
                raise batch
            yield batch
    finally:
        # Left to garbage collection after an error, torch waits 5 s for each worker: their queues go first.
        getattr(batches, "_shutdown_workers", _nothing)()


def _unchanged(batch: Any) -> Any:
    return batch


def _nothing() -> None:
    """Without workers there is nothing to end."""
