"""Texts in words, each of which has a class: what a model of named entities, or of parts of speech, is for.

Training learns from every word. Measured is one word of each text, drawn by its id: words of one text are not
independent of each other, and every interval and test takes its samples to be.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .labels import encode_labels
from .rows import RowsReader
from .samples import drawn_place
from .texts import Texts

UNTAGGED = -1
"""The class of a word that has none; tables write -100, or any number below 0."""
MEASURED_WITHIN = 64
"""A text is measured on one of its first so many words, which models read however short their memory is."""


@dataclass(frozen=True, kw_only=True)
class TaggedTexts(Texts):
    """Texts in words, with a class each where they are labelled; the reader gives tuples of words.

    Attributes:
        words: int64 (N,), the number of the word that each text is measured on, counted from 0.
        longest: words of the longest text of the source.
        tags: a class for each word of each text, int64, `UNTAGGED` for none; in the reader's order. None for unlabelled
            texts.
    """

    classified: ClassVar[str] = "word"

    words: NDArray[np.int64] = field(repr=False)
    longest: int
    tags: tuple[NDArray[np.int64], ...] | None = field(default=None, repr=False)

    @property
    def measured_places(self) -> NDArray[np.int64]:
        """The number of the word that each text is measured on, int64 (N,)."""
        return self.words

    @property
    def most_places(self) -> int:
        """Words of a text at most."""
        return self.longest

    def labels_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of all words of some texts, int64 (n, P), `UNTAGGED` where there is none."""
        assert self.tags is not None
        rows = [self.tags[position] for position in self.positions[indices]]
        found = np.full((len(rows), max(map(len, rows), default=0)), UNTAGGED, dtype=np.int64)
        for row, tags in zip(found, rows, strict=True):
            row[: len(tags)] = tags
        return found

    @property
    def highest_labels(self) -> NDArray[np.int64]:
        """The highest class of each text's words, int64 (N,)."""
        assert self.tags is not None
        return np.array([self.tags[position].max(initial=UNTAGGED) for position in self.positions], dtype=np.int64)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The texts at these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(super().select(chosen), words=self.words[chosen])

    def without_labels(self) -> Self:
        """The same texts, their classes dropped; they are measured on the same words."""
        return replace(super().without_labels(), tags=None)

    def reordered(
        self, order: tuple[int, ...] | None, *, class_names: tuple[str, ...] | None, num_classes: int
    ) -> Self:
        """The same texts under other positions of their classes."""
        found = super().reordered(order, class_names=class_names, num_classes=num_classes)
        if order is None or self.tags is None:
            return found
        known = np.array([*order, UNTAGGED], dtype=np.int64)  # the last is what -1 finds
        return replace(found, tags=tuple(known[tags] for tags in self.tags))

    def digest(self) -> str:
        """Hex digest of ids and classes of all words, in their order (not of the texts)."""
        digest = hashlib.blake2b(super().digest().encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.words, dtype="<i8").tobytes())
        if self.tags is not None:
            for position in self.positions:
                digest.update(np.ascontiguousarray(self.tags[position], dtype="<i8").tobytes() + b"/")
        return digest.hexdigest()

    def _usable(self, sample: Any) -> Any:
        if any(not isinstance(word, str) for word in sample):
            raise ValueError("a word is no text")
        return tuple(sample)


@dataclass(frozen=True, kw_only=True)
class WordsReader(RowsReader):
    """Words of texts in memory.

    Attributes:
        rows: the words of each text.
    """

    rows: tuple[tuple[str, ...], ...] = field(repr=False)

    def read(self, index: int) -> tuple[str, ...]:
        """The words of text `index`."""
        return self.rows[index]


def tagged_texts(
    rows: Sequence[Any],
    *,
    reader: WordsReader,
    reference: str,
    ids: Sequence[str],
    tags: Sequence[Any] | None,
    class_names: Sequence[str] | None,
) -> TaggedTexts:
    """Check words and their classes, and wrap them.

    Args:
        rows: the words of each text, as a table has them.
        reader: gives the same.
        reference: the data reference.
        ids: ids of the texts.
        tags: a class for each word of each text: numbers, or names; None without labels.
        class_names: names of the classes, where the source gives them.

    Raises:
        DataError: a text has no words, or not as many classes, or none that is known.
    """
    for at, words in enumerate(rows):
        if not words:
            raise DataError(f"{reader.where(at)}: the text has no words: drop the row")
        if tags is not None and len(tags[at] if tags[at] is not None else ()) != len(words):
            count = 0 if tags[at] is None else len(tags[at])
            raise DataError(f"{reader.where(at)}: {len(words)} words and {count} labels: expected one for each word")
    longest = max(map(len, rows), default=0)
    if tags is None:
        words = np.array(
            [drawn_place(name, _first(len(row))) for name, row in zip(ids, rows, strict=True)], dtype=np.int64
        )
        return TaggedTexts.build(reference=reference, reader=reader, ids=ids, labels=None, words=words, longest=longest)
    encoded, names = _encoded(tags, class_names, reference)
    measured = []
    for at, (name, own) in enumerate(zip(ids, encoded, strict=True)):
        tagged = np.flatnonzero(own[: _first(len(own))] != UNTAGGED)
        if not len(tagged):
            raise DataError(f"{reader.where(at)}: none of its first words has a label: drop the row")
        measured.append(int(tagged[drawn_place(name, len(tagged))]))
    return TaggedTexts.build(
        reference=reference,
        reader=reader,
        ids=ids,
        labels=[int(own[word]) for own, word in zip(encoded, measured, strict=True)],
        class_names=names,
        highest=max((int(own.max()) for own in encoded), default=0),
        words=np.array(measured, dtype=np.int64),
        longest=longest,
        tags=tuple(encoded),
    )


def _encoded(
    tags: Sequence[Any], class_names: Sequence[str] | None, reference: str
) -> tuple[list[NDArray[np.int64]], tuple[str, ...] | None]:
    """Classes of all words as positions, `UNTAGGED` for those without."""
    flat = [tag for own in tags for tag in own]
    known = [tag for tag in flat if not (isinstance(tag, int) and tag < 0)]
    if not known:
        raise DataError(f"{reference}: no word has a label; read it without labels")
    found, names = encode_labels(known, class_names, where=reference)
    positions = iter(found)
    encoded = [
        np.array([UNTAGGED if isinstance(tag, int) and tag < 0 else next(positions) for tag in own], dtype=np.int64)
        for own in tags
    ]
    return encoded, names


def _first(count: int) -> int:
    return min(count, MEASURED_WITHIN)
