"""Samples with stable ids, labels optional: what every data reference becomes, images or texts."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import BrokenSample, DataError


class Reader(Protocol):
    """Random access to the samples of one source; picklable, so that worker processes can hold it."""

    def read(self, index: int) -> Any:
        """Sample `index`, such as a decoded image. Whatever it raises means that this sample is broken."""
        ...

    def where(self, index: int) -> str:
        """The location of sample `index`, for a message: a path, `archive.tar: member`, `file.parquet: row 3`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A selection of the samples of one source; what they are a subclass says (`Images`, `Texts`).

    Attributes:
        reference: the data reference as given, or the name of the data set's class.
        reader: gives sample `positions[i]` for i in 0 … len - 1.
        ids: N sample ids, stable and unique.
        labels: int64 (N,), positions in `class_names` (or plain class indices); None for unlabelled samples.
        class_names: class names in timm's order (natural sort), or None where the source names none.
        num_classes: number of classes of the whole source (not of this selection); None for unlabelled samples.
        positions: int64 (N,), index of each sample in the reader.
        numbers: the distinct labels of the whole source, ascending, where it names no classes and nobody has matched
            them to a model's; None otherwise.
    """

    noun: ClassVar[str] = "sample"
    """What a sample is called in messages; its plural ends in s."""
    unread: ClassVar[str] = "read"
    """What cannot be done with a broken one."""
    reading: ClassVar[str] = "reading"
    """What is done with one."""
    classified: ClassVar[str] = "sample"
    """What has a class: the whole sample, or each of its places, such as the words of a text."""
    content_of: ClassVar[int] = 256
    """Samples whose content enters a fingerprint …"""
    few_content_of: ClassVar[int] = 16
    """… and a digest of content alone, at most."""

    reference: str
    reader: Reader = field(repr=False)
    ids: tuple[str, ...] = field(repr=False)
    labels: NDArray[np.int64] | None = field(repr=False)
    class_names: tuple[str, ...] | None
    num_classes: int | None
    positions: NDArray[np.int64] = field(repr=False)
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
        highest: int | None = None,
        **about: Any,
    ) -> Self:
        """Check the samples that a source found, and wrap them.

        Args:
            reference: the data reference.
            reader: gives the samples.
            ids: their ids.
            labels: their labels, or None.
            class_names: names of the classes, or None.
            highest: the highest class of the source, where its samples have others beside their labels.
            about: what a subclass has beside these.

        Raises:
            DataError: no samples, an id twice, or a label out of range.
        """
        if not ids:
            raise DataError(f"{reference}: no {cls.noun}s found")
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            duplicate = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise DataError(f"{reference}: the sample id {duplicate!r} occurs more than once; ids must be unique")
        array = None if labels is None else _checked_labels(labels, ids, class_names, reference)
        num_classes = None
        if array is not None:
            known = int(array.max()) if highest is None else highest
            num_classes = len(class_names) if class_names is not None else known + 1
        return cls(
            reference=reference,
            reader=reader,
            ids=tuple(ids),
            labels=array,
            class_names=None if class_names is None else tuple(class_names),
            num_classes=num_classes,
            positions=np.arange(len(ids), dtype=np.int64),
            numbers=None if array is None or class_names is not None else tuple(np.unique(array).tolist()),
            **about,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def measured_places(self) -> NDArray[np.int64] | None:
        """Of samples in places the one that each is measured on, int64 (N,), whose labels `labels` are; else None.

        One of each, so that samples are independent of each other, as every interval and test takes them to be.
        """
        return None

    @property
    def most_places(self) -> int:
        """Places that a sample has at most; 1 of those that have a class as a whole."""
        return 1

    def labels_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of some samples, int64 (n,); of samples in places those of all places, (n, P), -1 where there is none.

        The samples have to be labelled.
        """
        assert self.labels is not None
        return self.labels[indices]

    @property
    def highest_labels(self) -> NDArray[np.int64]:
        """The highest label of each sample, of samples in places that of all its places, int64 (N,).

        The samples have to be labelled.
        """
        assert self.labels is not None
        return self.labels

    @property
    def mirrorable(self) -> bool:
        """Whether a mirrored sample means the same."""
        return False

    def read(self, index: int) -> Any:
        """Sample `index`.

        Raises:
            BrokenSample: it cannot be read; the message names its place.
            DataError: the source as a whole cannot be used.
        """
        position = int(self.positions[index])
        try:
            return self._usable(self.reader.read(position))
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(
                f"{self.reader.where(position)}: {self.reading} it needs more memory than there is; free some, or "
                "use fewer `workers`"
            ) from error
        except Exception as error:
            raise BrokenSample(self.reader.where(position), str(error) or type(error).__name__) from error

    def where(self, index: int) -> str:
        """The location of sample `index`, for a message."""
        return self.reader.where(int(self.positions[index]))

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The samples at these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            positions=self.positions[chosen],
        )

    def without_labels(self) -> Self:
        """The same samples, their labels and class names dropped."""
        return replace(self, labels=None, class_names=None, num_classes=None, numbers=None)

    def relabel(self, labels: NDArray[np.int64], *, class_names: tuple[str, ...] | None, num_classes: int) -> Self:
        """The same samples under another order of classes."""
        return replace(self, labels=labels, class_names=class_names, num_classes=num_classes, numbers=None)

    def reordered(
        self, order: tuple[int, ...] | None, *, class_names: tuple[str, ...] | None, num_classes: int
    ) -> Self:
        """The same samples under other positions of their classes.

        Args:
            order: the new position of each class; None for the positions as they are.
            class_names: names of the classes in the new order.
            num_classes: number of classes.
        """
        assert self.labels is not None
        labels = self.labels if order is None else np.array(order, dtype=np.int64)[self.labels]
        return self.relabel(labels, class_names=class_names, num_classes=num_classes)

    def digest(self) -> str:
        """Hex digest of ids and labels, in their order (not of the content)."""
        digest = hashlib.blake2b("\n".join(self.ids).encode(), digest_size=16)
        digest.update(
            b"unlabelled" if self.labels is None else np.ascontiguousarray(self.labels, dtype="<i8").tobytes()
        )
        return digest.hexdigest()

    @functools.cached_property
    def identity(self) -> "tuple[_Same, str]":
        """What tells whether other samples of this process are the same: the source as loaded, ids and labels.

        Unlike `fingerprint` it reads no content, and holds the source.
        """
        return _Same(self.reader), self.digest()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of ids and labels, in their order, and of the content of `content_of` samples, chosen by id."""
        digest = hashlib.blake2b(self.digest().encode(), digest_size=16)
        by_hash = sorted(range(len(self)), key=lambda i: hashlib.blake2b(self.ids[i].encode()).digest())
        self._add_content(digest, by_hash[: self.content_of])
        return digest.hexdigest()

    @functools.cached_property
    def few_digest(self) -> str:
        """Hex digest of the content of `few_content_of` samples, spread over all: quick, for re-encoded images."""
        digest = hashlib.blake2b(digest_size=16)
        few = min(len(self), self.few_content_of)
        self._add_content(digest, [number * len(self) // few for number in range(few)])
        return digest.hexdigest()

    def _add_content(self, digest: "hashlib.blake2b", indices: Iterable[int]) -> None:
        for index in indices:
            try:
                sample = self.read(index)
            except BrokenSample:
                digest.update(b"broken")
            else:
                digest.update(self._content(sample))

    def _usable(self, sample: Any) -> Any:
        """A sample that the reader gave, in the form in which it is used."""
        return sample

    def _content(self, sample: Any) -> bytes:
        """All that a sample is, as bytes."""
        raise NotImplementedError


class _Same:
    """An object that equals itself alone, whatever its class thinks equal."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def drawn_place(sample_id: str, count: int) -> int:
    """The number of the place that a sample is measured on, of so many: pseudo-random, by its id alone.

    Example:
        >>> {drawn_place(f"{number}", 3) for number in range(20)}
        {0, 1, 2}
    """
    digest = hashlib.blake2b(b"place/" + sample_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % count


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
