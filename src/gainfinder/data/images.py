"""Images with stable ids, labels optional: what every data reference becomes."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BrokenImage, DataError


class Reader(Protocol):
    """Random access to the images of one source; picklable, so that worker processes can hold it."""

    def read(self, index: int) -> Image.Image:
        """Image `index`, fully decoded, RGB. Whatever it raises means that this image is broken."""
        ...

    def where(self, index: int) -> str:
        """The location of image `index`, for a message: a path, `archive.tar: member`, `file.parquet: row 3`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Images:
    """A selection of the images of one source.

    Attributes:
        reference: the data reference as given, or the name of the data set's class.
        reader: gives image `positions[i]` for i in 0 … len - 1.
        ids: N sample ids, stable and unique.
        labels: int64 (N,), positions in `class_names` (or plain class indices); None for unlabelled images.
        class_names: class names in timm's order (natural sort), or None where the source names none.
        num_classes: number of classes of the whole source (not of this selection); None for unlabelled images.
        positions: int64 (N,), index of each sample in the reader.
        mirrorable: False where a mirrored image means something else (digits, text).
        numbers: the distinct labels of the whole source, ascending, where it names no classes and nobody has matched
            them to a model's; None otherwise.
    """

    reference: str
    reader: Reader = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    labels: NDArray[np.int64] | None = field(repr=False)
    class_names: tuple[str, ...] | None
    num_classes: int | None
    positions: NDArray[np.int64] = field(repr=False)
    mirrorable: bool = True
    numbers: tuple[int, ...] | None = field(default=None, repr=False)

    @classmethod
    def build(
        cls,
        *,
        reference: str,
        reader: Reader,
        ids: Sequence[str],
        labels: Sequence[int] | None,
        class_names: Sequence[str] | None = None,
        mirrorable: bool = True,
    ) -> "Images":
        """Check the images that a source found, and wrap them.

        Raises:
            DataError: no images, an id twice, or a label out of range.
        """
        if not ids:
            raise DataError(f"{reference}: no images found")
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            duplicate = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise DataError(f"{reference}: the sample id {duplicate!r} occurs more than once; ids must be unique")
        array = None if labels is None else _checked_labels(labels, ids, class_names, reference)
        num_classes = None
        if array is not None:
            num_classes = len(class_names) if class_names is not None else int(array.max()) + 1
        return cls(
            reference=reference,
            reader=reader,
            ids=tuple(ids),
            labels=array,
            class_names=None if class_names is None else tuple(class_names),
            num_classes=num_classes,
            positions=np.arange(len(ids), dtype=np.int64),
            mirrorable=mirrorable,
            numbers=None if array is None or class_names is not None else tuple(np.unique(array).tolist()),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Image.Image:
        """Sample `index`, fully decoded, RGB.

        Raises:
            BrokenImage: it cannot be decoded; the message names its path.
            DataError: the source as a whole cannot be used.
        """
        position = int(self.positions[index])
        try:
            image = self.reader.read(position)
            return image if image.mode == "RGB" else image.convert("RGB")
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(
                f"{self.reader.where(position)}: decoding it needs more memory than there is; free some, or use fewer "
                "`workers`"
            ) from error
        except Exception as error:
            raise BrokenImage(self.reader.where(position), str(error) or type(error).__name__) from error

    def where(self, index: int) -> str:
        """The location of sample `index`, for a message."""
        return self.reader.where(int(self.positions[index]))

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "Images":
        """The samples at these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            positions=self.positions[chosen],
        )

    def without_labels(self) -> "Images":
        """The same images, their labels and class names dropped."""
        return replace(self, labels=None, class_names=None, num_classes=None, numbers=None)

    def relabel(self, labels: NDArray[np.int64], *, class_names: tuple[str, ...] | None, num_classes: int) -> "Images":
        """The same images under another order of classes."""
        return replace(self, labels=labels, class_names=class_names, num_classes=num_classes, numbers=None)

    def digest(self) -> str:
        """Hex digest of ids and labels, in their order (not of the pixels)."""
        digest = hashlib.blake2b("\n".join(self.ids).encode(), digest_size=16)
        digest.update(
            b"unlabelled" if self.labels is None else np.ascontiguousarray(self.labels, dtype="<i8").tobytes()
        )
        return digest.hexdigest()

    @functools.cached_property
    def identity(self) -> "tuple[_Same, str]":
        """What tells whether other images of this process are the same: the source as loaded, ids and labels.

        Unlike `fingerprint` it reads no pixels, and holds the source.
        """
        return _Same(self.reader), self.digest()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of ids and labels, in their order, and of the pixels of 256 images or fewer, chosen by id."""
        digest = hashlib.blake2b(self.digest().encode(), digest_size=16)
        by_hash = sorted(range(len(self)), key=lambda i: hashlib.blake2b(self.ids[i].encode()).digest())
        self._add_pixels(digest, by_hash[:PIXELS_OF])
        return digest.hexdigest()

    @functools.cached_property
    def pixels_digest(self) -> str:
        """Hex digest of the pixels of 16 images or fewer, spread over all: quick, for images that were re-encoded."""
        digest = hashlib.blake2b(digest_size=16)
        few = min(len(self), FEW_PIXELS_OF)
        self._add_pixels(digest, [number * len(self) // few for number in range(few)])
        return digest.hexdigest()

    def _add_pixels(self, digest: "hashlib.blake2b", indices: Iterable[int]) -> None:
        for index in indices:
            try:
                image = self.read(index)
            except BrokenImage:
                digest.update(b"broken")
            else:
                digest.update(f"{image.size}".encode() + image.tobytes())


class _Same:
    """An object that equals itself alone, whatever its class thinks equal."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


PIXELS_OF = 256
"""Images whose pixels enter a fingerprint …"""
FEW_PIXELS_OF = 16
"""… and a digest of pixels alone."""


def _checked_labels(
    labels: Sequence[int], ids: Sequence[str], class_names: Sequence[str] | None, reference: str
) -> NDArray[np.int64]:
    try:
        array = np.asarray(labels, dtype=np.int64)
    except OverflowError as error:
        raise DataError(f"{reference}: a label has more than 64 bits; labels count the classes from 0") from error
    limit = None if class_names is None else len(class_names)
    wrong = (array < 0) if limit is None else (array < 0) | (array >= limit)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        remedy = "drop these rows where they mean that there is no label, or read without labels"
        expected = "labels of 0 and above" if limit is None else f"labels from 0 to {limit - 1} ({limit} classes)"
        raise DataError(
            f"{reference}: label {int(array[first])} of sample {ids[first]!r} is out of range: expected {expected}; "
            f"{int(wrong.sum())} such label(s); {remedy}"
        )
    return array
