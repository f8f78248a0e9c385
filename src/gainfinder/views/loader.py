"""The source of a run's views: images decoded when they are needed, or once, with their crops cached in memory.

Small sets are decoded once, or read where another run has kept their crops, and stay on the device that computes, as
uint8; each epoch then augments whole batches there. Larger sets are decoded and cropped by worker processes and
augmented in the same way. All of this gives the same bits.

Shapes: N samples of a batch, n transfer images, L bytes of all renderings of a view.
"""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Indices, LoadedBatch, Samples, load_batches
from ..devices import LEAST_CROPS_BYTES
from .ahead import made_ahead
from .mixup import Mixing, Overlay, mixing_of
from .spec import Crops, Size, Views, ViewSpec, draws, layout

READ_AT_ONCE = 256
"""Images decoded at a time while the crops are made."""


@dataclass(frozen=True, kw_only=True)
class ViewBatch:
    """The views of a batch.

    Attributes:
        positions_N: int64, positions of the samples among the images; on the CPU.
        views: views of these samples, on the device; None if no image of the batch can be decoded.
        broken: `where: reason` of each image that cannot be decoded.
        number: number of the views.
        overlay: what is laid over them, where they are mixed.
    """

    positions_N: Tensor
    views: Views | None
    broken: tuple[str, ...]
    number: int = 0
    overlay: Overlay | None = None


class CropCache:
    """Crops in memory that several sources share, of images of one source; the least recently used go first.

    Args:
        limit: bytes of crops that are kept, at most; the latest are in any case.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._found: OrderedDict[Hashable, tuple[CachedCrops, int]] = OrderedDict()

    def find(self, key: Hashable) -> "CachedCrops | None":
        """The crops of a key, if they are there."""
        if key not in self._found:
            return None
        self._found.move_to_end(key)
        return self._found[key][0]

    def add(self, key: Hashable, crops: "CachedCrops", size: int) -> None:
        """Keep crops of so many bytes."""
        self._found[key] = (crops, size)
        while len(self._found) > 1 and sum(size for _, size in self._found.values()) > self.limit:
            self._found.popitem(last=False)


class CropKeeper(Protocol):
    """Keeps crops beyond this process."""

    def crops(self, images: Samples, spec: ViewSpec, decode: Callable[[], "CachedCrops"]) -> "CachedCrops":
        """The crops of some images, on the CPU: those that are kept, or else what `decode` makes."""
        ...


class ViewSource:
    """Gives the views of some images, batch by batch.

    Args:
        images: the images.
        spec: specification of the views.
        workers: number of decoding processes; does not change the views.
        device: device of the views.
        resident_bytes: crops are kept in memory up to this size; 0 keeps none. They are not for `rrc`, whose crops
            are others in each epoch.
        cache: keeps the crops in memory for other sources, too; None for this one alone.
        keeper: keeps the crops for other processes and runs, too; None for this one alone.
    """

    def __init__(
        self,
        images: Samples,
        spec: ViewSpec,
        *,
        workers: int,
        device: torch.device,
        resident_bytes: int = LEAST_CROPS_BYTES,
        cache: CropCache | None = None,
        keeper: CropKeeper | None = None,
    ) -> None:
        self.images = images
        self.spec = spec
        self.workers = workers
        self.device = device
        self.cache = cache
        self.keeper = keeper
        self.resident_bytes = resident_bytes
        self.fits = spec.augment != "rrc" and self._size <= resident_bytes
        self._cached: CachedCrops | None = None

    @property
    def _size(self) -> int:
        return len(self.images) * self.spec.crop_bytes

    def unmixed(self) -> "ViewSource":
        """The same views before any is mixed; cached crops are shared."""
        other = copy.copy(self)
        other.spec = replace(self.spec, mixup=0.0)
        return other

    def labelled(self, images: Samples) -> "ViewSource":
        """The same views of the same images with their labels; cached crops are shared.

        Args:
            images: images of the same ids, in the same order.
        """
        other = copy.copy(self)
        other.images = images
        return other

    def at(self, size: Size) -> "ViewSource":
        """The same views at one size; itself where it has no other."""
        if self.spec.sizes == (size,):
            return self
        return ViewSource(
            self.images,
            replace(self.spec, sizes=(size,)),
            workers=self.workers,
            device=self.device,
            resident_bytes=self.resident_bytes,
            cache=self.cache,
            keeper=self.keeper,
        )

    @property
    def resident_size(self) -> int:
        """Bytes that its crops take in memory once they are loaded; 0 where they are not kept."""
        return self._size if self.fits else 0

    def load(self, on_images: Callable[[int], None] | None = None) -> None:
        """Decode all images, or read what is kept of them, and cache their crops, if they fit and are not cached yet.

        Args:
            on_images: called with the number of images done since the last call.

        Raises:
            DataError: the source as a whole cannot be used. Broken images are reported with the batches they are in.
        """
        if not self.fits or self._cached is not None:
            return
        key = self._key() if self.cache is not None else None
        found = None if self.cache is None else self.cache.find(key)
        decoded = False

        def decode() -> CachedCrops:
            nonlocal decoded
            decoded = True
            return self._decode(on_images)

        if found is None:
            found = decode() if self.keeper is None else self.keeper.crops(self.images, self.spec, decode)
            with contextlib.suppress(torch.OutOfMemoryError):  # then each batch is moved when it is needed
                found = found.to(self.device)
            if self.cache is not None:
                self.cache.add(key, found, self._size)
        if on_images is not None and not decoded:
            on_images(len(self.images))
        self._cached = found

    def _key(self) -> Hashable:
        """What the crops depend on, and where they are."""
        return self.images.identity, tuple(map(self.spec.crop_at, self.spec.sizes)), str(self.device)

    def _decode(self, on_images: Callable[[int], None] | None) -> "CachedCrops":
        rows_n = torch.full((len(self.images),), -1)
        # filled in place: parts that are joined later would take as much again
        layouts = [layout(size) for size in self.spec.sizes]
        whole = [torch.empty(len(self.images), *shape, dtype=dtype) for shape, dtype in layouts]
        broken: dict[int, str] = {}
        # A batch's broken images are listed in its order, but not by position: they are the missing ones.
        all_of = range(len(self.images))
        wanted = [all_of[start : start + READ_AT_ONCE] for start in range(0, len(all_of), READ_AT_ONCE)]
        count = 0
        for batch, indices in zip(self._decoded(wanted, number=0), wanted, strict=True):
            read = set(batch.positions.tolist())
            broken.update(zip((i for i in indices if i not in read), batch.broken, strict=True))
            if batch.inputs is not None:
                rows = slice(count, count + len(batch.positions))
                for part, new in zip(whole, Views.unpack(batch.inputs, self.spec.sizes).renderings, strict=True):
                    part[rows] = new
                rows_n[batch.positions] = torch.arange(rows.start, rows.stop)
                count = rows.stop
            if on_images is not None:
                on_images(len(indices))
        views = Views.of([part[:count] for part in whole], self.spec.sizes) if count else None
        return CachedCrops(crops=views, rows_n=rows_n, broken=broken)

    def batches(self, wanted: Sequence[Indices], *, epoch: int) -> Iterator[ViewBatch]:
        """The views of an epoch.

        Args:
            wanted: positions of each batch's samples.
            epoch: number of the epoch, from 0.

        Raises:
            DataError: while iterating, if the source as a whole cannot be used.
        """
        return made_ahead(self._made(wanted, number=self.spec.number(epoch)), self.device, tensors=_tensors)

    def _made(self, wanted: Sequence[Indices], *, number: int) -> Iterator[ViewBatch]:
        mixing = mixing_of(self.spec, self.images.ids, number=number)
        shown = wanted if mixing is None else [mixing.with_partners(np.asarray(batch)) for batch in wanted]
        if self._cached is not None:
            found = (self._cached.batch(positions) for positions in shown)
        else:
            pinned = self.device.type == "cuda"
            found = (_unpacked(batch, self.spec) for batch in self._decoded(shown, number=number, pinned=pinned))
        for batch, positions in zip(found, wanted, strict=True):
            views = batch.views
            if views is not None:
                drawn = draws(self.spec, [self.images.ids[i] for i in batch.positions_N.tolist()], number=number)
                views = _to_device(views.without_padding(), self.device).augmented(drawn, self.spec.augment)
            shown_batch = replace(batch, views=views, number=number)
            yield shown_batch if mixing is None else _mixed(shown_batch, np.asarray(positions), mixing)

    def _decoded(self, wanted: Sequence[Indices], *, number: int, pinned: bool = False) -> Iterator[LoadedBatch]:
        crops = Crops(self.spec, self.images.ids, number=number)
        return load_batches(self.images, crops, batch_indices=wanted, workers=self.workers, pinned=pinned)


@dataclass(frozen=True, kw_only=True)
class CachedCrops:
    """Crops in memory, or files that are mapped into it.

    Attributes:
        crops: crops of the images that could be decoded; None if there are none.
        rows_n: int64, the row of each image, or -1.
        broken: `where: reason` of the other images, by position.
    """

    crops: Views | None
    rows_n: Tensor
    broken: dict[int, str]

    def to(self, device: torch.device) -> "CachedCrops":
        """These crops on a device; those of texts stay on the CPU, where padding is cut off batch by batch."""
        stay = self.crops is None or self.crops.tokenizations
        return self if stay or self.crops is None else replace(self, crops=_to_device(self.crops, device))

    def batch(self, positions: Indices) -> ViewBatch:
        """The crops of the samples at these positions, and what is broken among them."""
        positions_N = torch.as_tensor(np.asarray(positions, dtype=np.int64))
        broken: tuple[str, ...] = ()
        if self.broken:
            broken = tuple(self.broken[i] for i in positions_N.tolist() if i in self.broken)
            positions_N = positions_N[self.rows_n[positions_N] >= 0]
        if self.crops is None or not len(positions_N):
            return ViewBatch(positions_N=positions_N, views=None, broken=broken)
        rows_N = self.rows_n[positions_N].to(self.crops.renderings[0].device, non_blocking=True)
        views = self.crops.map(lambda part: part.index_select(0, rows_N))
        return ViewBatch(positions_N=positions_N, views=views, broken=broken)


def _mixed(batch: ViewBatch, wanted: NDArray[np.int64], mixing: Mixing) -> ViewBatch:
    """The mixed views of those samples of a batch that are wanted; the others were read to be laid over them."""
    positions = batch.positions_N.numpy()
    wanted = wanted[np.isin(wanted, positions)]
    if batch.views is None or not len(wanted):
        return replace(batch, positions_N=torch.from_numpy(wanted), views=None)
    views, overlay = mixing.mixed(batch.views, positions, wanted)
    return replace(batch, positions_N=torch.from_numpy(wanted), views=views, overlay=overlay)


def _tensors(batch: ViewBatch) -> tuple[Tensor, ...]:
    return () if batch.views is None else batch.views.renderings


def _to_device(views: Views, device: torch.device) -> Views:
    return views.map(lambda part: part.to(device, non_blocking=True))


def _unpacked(batch: LoadedBatch, spec: ViewSpec) -> ViewBatch:
    views = None if batch.inputs is None else Views.unpack(batch.inputs, spec.sizes)
    return ViewBatch(positions_N=batch.positions, views=views, broken=batch.broken)
