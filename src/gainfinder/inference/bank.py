"""The bank: an on-disk cache of frozen models' logits for the views of some images, shared by transfers.

An entry (`store.py`) holds the logits of one model for one view of each image; of samples in places of each
place, those of a sample after each other:

    KEY/logits.npy     float16 (n, C): logits less the image's largest
    KEY/exact.npy      float32 (n, 2): log-probability of the most probable class, and of the label (NaN without labels)

In place of `logits.npy`, the storage `top-K`, for many classes, has the K most probable of each image:

    KEY/classes.npy    int32 (n, K), the most probable first
    KEY/log_probs.npy  float16 (n, K)

and the storage `exact`, for predictions that are measured, float32 (n, C), unrounded. Beside these the bank keeps the
crops of images (`crops.py`).

A student learns from rounded logits: float16 is off by at most 2⁻¹¹ of a logit's distance to the largest, by nothing at
the largest itself. The partition is decided by the exact float32 values, so that it is the one that the models run live
would give, ties included.

Readers map the files into memory: processes share the pages. Nothing here knows models or images: keys are digests that
the caller makes.

Shapes: n images, N of them requested, C classes, K classes kept.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import top_k_of
from ..errors import BankError, RunFolderError
from .crops import CropFiles
from .store import SPARE_BYTES, Store

FORMAT = 1
LEAST = torch.finfo(torch.float16).min

Block = tuple[NDArray[np.int64], Tensor]
"""Positions (b,) of some images, and their logits, float32 (b, C), on any device."""


@dataclass(frozen=True, kw_only=True)
class EntryKey:
    """What an entry's logits are of.

    Attributes:
        model: fingerprint of the model, with its classes and precision.
        images: fingerprint of the images, their order and labels.
        view: description of the view of each image.
        storage: `full`, `exact` or `top-K`, K a number.
    """

    model: str
    images: str
    view: str
    storage: str = "full"

    @property
    def digest(self) -> str:
        """Name of the entry's folder."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def entry_bytes(images: int, classes: int, storage: str = "full") -> int:
    """The most bytes that an entry takes on disk.

    >>> entry_bytes(1_000_000, 1000), entry_bytes(1_000_000, 1000, "top-10")
    (2008016384, 68016384)
    """
    top_k = top_k_of(storage)
    class_bytes = 4 if storage == "exact" else 2
    kept = class_bytes * classes if top_k is None or top_k >= classes else 6 * top_k
    return images * (kept + 8) + SPARE_BYTES


class BankEntry:
    """The logits of one model for one view of each image; files are memory-mapped, not read.

    `about` holds further values that `Bank.build` was given.

    Args:
        folder: folder of a complete entry.
        meta: description of the entry, from `meta.json`.
    """

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.images = int(meta["images"])
        self.classes = int(meta["classes"])
        self.labelled = bool(meta["labelled"])
        self.about: dict[str, Any] = meta["about"]
        files = {Path(name).stem: np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in meta["files"]}
        self._exact: NDArray[np.float32] = files.pop("exact")
        self._kept = files

    def logits(self, rows_N: Tensor) -> Tensor:
        """Logits up to a constant of each row, float32 (N, C), on the CPU.

        Of an entry that keeps the most probable classes only these are log-probabilities, and what is left of 1 is
        spread evenly over the others. A row of NaN belongs to an image that could not be decoded.

        Args:
            rows_N: int64, positions of images.
        """
        rows = rows_N.numpy()
        if "logits" in self._kept:
            return torch.from_numpy(self._kept["logits"][rows]).float()
        listed_NK = torch.from_numpy(self._kept["log_probs"][rows]).float()
        classes_NK = torch.from_numpy(self._kept["classes"][rows]).long()
        others = self.classes - listed_NK.shape[1]
        # Rounded, the listed ones may reach 1: the others keep a little, so that no logit is infinite.
        left_N = (1 - listed_NK.exp().sum(dim=1)).clamp_min(torch.finfo(torch.float16).tiny)
        filled_NC = (left_N / others).log()[:, None].repeat(1, self.classes)
        return filled_NC.scatter_(1, classes_NK, listed_NK)

    def written(self, rows_N: Tensor) -> Tensor:
        """Which rows have logits, bool (N,), on the CPU; others are of what could not be read, or is not there.

        Args:
            rows_N: int64, positions of images.
        """
        return torch.from_numpy(~np.isnan(self._exact[rows_N.numpy(), 0]))

    def log_confidence(self, rows_N: Tensor, *, labelled: bool) -> Tensor:
        """The exact log-probability of each image's label, or of its most probable class, float32 (N,), on the CPU.

        Args:
            rows_N: int64, positions of images.
            labelled: True for the label's log-probability, False for that of the most probable class.

        Raises:
            ValueError: the label's is requested, and the entry has no labels.
        """
        if labelled and not self.labelled:
            raise ValueError("expected an entry that was made with labels")
        return torch.from_numpy(self._exact[rows_N.numpy(), int(labelled)])

    def difference(self, rows_N: Tensor, logits_NC: Tensor) -> float:
        """The largest difference between the stored logits and recomputed ones.

        In log-probability, over the stored classes; probabilities below 10⁻⁴ are left out, for they teach nothing and
        float16 is coarse there.

        Args:
            rows_N: int64, positions of images.
            logits_NC: float32 (N, C), recomputed logits of these images, on any device.
        """
        now_NC = logits_NC.detach().cpu().float().log_softmax(dim=1)
        kept_NC = self.logits(rows_N).log_softmax(dim=1)
        matters_NC = now_NC > math.log(1e-4)
        if "classes" in self._kept:
            listed = torch.from_numpy(self._kept["classes"][rows_N.numpy()]).long()
            matters_NC &= torch.zeros_like(matters_NC).scatter_(1, listed, value=True)
        differences = (now_NC - kept_NC).abs()[matters_NC]
        return float(differences.max()) if len(differences) else 0.0


class Bank:
    """A folder of entries.

    Args:
        folder: folder of the entries, created with the first one.
        limit: bytes that all entries, those of crops included, may take; None for as much as the disk has.

    Attributes:
        crops: keeps crops of images there.
    """

    def __init__(self, folder: Path, *, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit
        self._store = Store(folder, limit=limit)
        self.crops = CropFiles(self._store)

    def find(self, key: EntryKey) -> BankEntry | None:
        """The entry of that key, or None. A damaged or altered one is removed."""
        return self._store.find(key.digest, asdict(key), BankEntry)

    def build(
        self,
        key: EntryKey,
        blocks: Callable[[], Iterable[Block]],
        *,
        images: int,
        classes: int,
        labels_n: NDArray[np.int64] | None = None,
        about: Mapping[str, Any] | None = None,
        keep: Collection[EntryKey] = (),
    ) -> BankEntry:
        """Write an entry, unless it exists; waits for another process that is writing it.

        Args:
            key: key of the entry.
            blocks: function that yields the logits, each position at most once; missing positions get rows of NaN.
            images: number of images, n.
            classes: number of classes, C.
            labels_n: int64 (n,), labels of the images, or None.
            about: JSON values for `BankEntry.about`, read after the last block.
            keep: entries that must not be evicted for this one.

        Raises:
            BankError: there is no room, or the entry cannot be written.
        """

        def fill(folder: Path) -> dict[str, Any]:
            """Write the arrays, and say what they are."""
            files = _Files(folder, images=images, classes=classes, storage=key.storage)
            target_n = None if labels_n is None else torch.from_numpy(labels_n)
            for positions, logits in blocks():
                files.put(positions, logits, None if target_n is None else target_n[torch.from_numpy(positions)])
            files.close()
            shape = {"images": images, "classes": classes, "labelled": labels_n is not None}
            return {**shape, "about": dict(about or {})}

        try:
            with self._store.locked(key.digest):
                if (found := self.find(key)) is not None:
                    return found
                self._make_room(entry_bytes(images, classes, key.storage), keep={key, *keep})
                self._store.write(key.digest, asdict(key), fill)
                entry = self.find(key)
        except RunFolderError as error:
            raise BankError(str(error)) from error
        except OSError as error:
            raise self._unwritable(error) from error
        if entry is None:
            raise BankError(f"{self.folder / key.digest}: was damaged while it was written; is the disk whole?")
        return entry

    def require(self, sizes: Collection[int]) -> None:
        """Refuse entries that do not fit on the disk together, before any of them is computed.

        Raises:
            BankError: they are larger than the limit, or than what the disk has and older entries could free; or the
                folder cannot be made.
        """
        needed = sum(sizes)
        if self.limit is not None and needed > self.limit:
            raise BankError(
                f"{self.folder}: the logits that this run caches take {_mb(needed)}, and the bank's limit is "
                f"{_mb(self.limit)}: raise `bank_limit`, or keep fewer classes with `bank_storage='top-K'`"
            )
        free = self._store.free()
        if needed > free + self.size():
            raise BankError(
                f"{self.folder}: the logits that this run caches take {_mb(needed)}, and {_mb(free)} are free there: "
                "choose another `bank`, or keep fewer classes with `bank_storage='top-K'`"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def size(self) -> int:
        """Bytes that all entries take."""
        return self._store.size()

    def _make_room(self, needed: int, *, keep: Collection[EntryKey]) -> None:
        """Evict crops, then the least recently used entries, until there is room."""
        if not self._store.make_room(needed, keep={key.digest for key in keep}):
            room = "" if self.limit is None else f" within the limit of {_mb(self.limit)}"
            raise BankError(
                f"{self.folder}: {_mb(needed)} are needed beside the {_mb(self.size())} that this run keeps{room}, and "
                f"{_mb(self._store.free())} are free there: raise `bank_limit`, or keep fewer classes with "
                "`bank_storage='top-K'`"
            )

    def _unwritable(self, error: OSError) -> BankError:
        reason = error.strerror or error
        return BankError(f"{self.folder}: the bank cannot be written ({reason}); choose another `bank`")


class _Files:
    """The arrays of an entry while it is written."""

    def __init__(self, folder: Path, *, images: int, classes: int, storage: str) -> None:
        top_k = top_k_of(storage)
        self.top_k = None if top_k is None or top_k >= classes else top_k
        self.unrounded = storage == "exact"
        shapes: dict[str, tuple[Any, int]] = {"exact": (np.float32, 2)}
        if self.top_k is None:
            shapes["logits"] = (np.float32 if self.unrounded else np.float16, classes)
        else:
            shapes |= {"classes": (np.int32, self.top_k), "log_probs": (np.float16, self.top_k)}
        self.arrays = {}
        for name, (dtype, columns) in shapes.items():
            path = folder / f"{name}.npy"
            self.arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(images, columns))
            _reserve(path)
        for array in self.arrays.values():
            array[:] = np.nan if array.dtype.kind == "f" else 0

    def put(self, positions: NDArray[np.int64], logits_NC: Tensor, target_N: Tensor | None) -> None:
        """Write the logits (N, C) of the images at these positions (N,), and their labels where there are any."""
        log_probs_NC = logits_NC.float().log_softmax(dim=-1)
        largest_N = log_probs_NC.amax(dim=1)
        exact_N2 = torch.stack([largest_N, torch.full_like(largest_N, torch.nan)], dim=1)
        if target_N is not None:
            exact_N2[:, 1] = log_probs_NC.gather(1, target_N.to(log_probs_NC.device)[:, None])[:, 0]
        self.arrays["exact"][positions] = exact_N2.cpu().numpy()
        if self.unrounded:
            self.arrays["logits"][positions] = logits_NC.float().cpu().numpy()
            return
        if self.top_k is None:
            relative = logits_NC.float() - logits_NC.float().amax(dim=1, keepdim=True)
            self.arrays["logits"][positions] = relative.clamp_min(LEAST).half().cpu().numpy()
            return
        # A stable sort, so that of equal ones the lowest class comes first on every device.
        values, classes = log_probs_NC.sort(dim=1, descending=True, stable=True)
        self.arrays["classes"][positions] = classes[:, : self.top_k].int().cpu().numpy()
        self.arrays["log_probs"][positions] = values[:, : self.top_k].clamp_min(LEAST).half().cpu().numpy()

    def close(self) -> None:
        for array in self.arrays.values():
            array.flush()
        self.arrays.clear()


def _reserve(path: Path) -> None:
    """Allocate the disk space of a whole file: written through a map, a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
