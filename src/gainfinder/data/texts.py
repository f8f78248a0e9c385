"""Texts: samples that a model's own tokenizer turns into its input."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from .rows import RowsReader
from .samples import Samples

Text: TypeAlias = str | tuple[str, str]
"""One text, or two that belong together (a premise and its hypothesis, a question and its answer)."""


@dataclass(frozen=True, kw_only=True)
class Texts(Samples):
    """A selection of the texts of one source; the reader gives `Text`s.

    Attributes:
        paired: whether each sample is two texts.
    """

    noun: ClassVar[str] = "text"
    classified: ClassVar[str] = "text"
    # all of them: reading texts is quick, and row numbers as ids say nothing of what was edited in place
    content_of: ClassVar[int] = sys.maxsize
    few_content_of: ClassVar[int] = sys.maxsize

    paired: bool = False

    def _usable(self, sample: Any) -> Text:
        parts = sample if isinstance(sample, tuple) else (sample,)
        if any(not isinstance(part, str) for part in parts):
            raise ValueError(f"expected text, got {type(next(p for p in parts if not isinstance(p, str))).__name__}")
        if not any(part.strip() for part in parts):
            raise ValueError("the text is empty")
        return sample  # type: ignore[no-any-return]  # one text or two, as was just checked

    def _content(self, sample: Text) -> bytes:
        parts = sample if isinstance(sample, tuple) else (sample,)
        return "\0".join(parts).encode(errors="surrogatepass") + b"\0"


@dataclass(frozen=True, kw_only=True)
class TableReader(RowsReader):
    """Texts in memory, as Arrow columns.

    Attributes:
        columns: of each file one column of texts, or two whose rows belong together.
    """

    columns: tuple[tuple[Any, ...], ...]

    def read(self, index: int) -> Text:
        """The text of row `index`, or its two."""
        file, row = self._locate(index)
        found = tuple(column[row].as_py() for column in self.columns[file])
        if any(part is None for part in found):
            raise ValueError("the row holds no text (null)")
        return found[0] if len(found) == 1 else (found[0], found[1])


@dataclass(frozen=True, kw_only=True)
class ItemsReader:
    """Texts of a data set object.

    Attributes:
        dataset: a map-style data set; an item is a text, or a tuple that begins with one, or with a tuple of two.
        name: name of the data set in messages.
    """

    dataset: Any
    name: str

    def read(self, index: int) -> Text:
        """The text of item `index`, or its two."""
        found: Text = _text_of(self.dataset[index])
        return found

    def where(self, index: int) -> str:
        """The data set's name and the item's index."""
        return f"{self.name}: item {index}"


def _text_of(item: Any) -> Any:
    """What of a data set's item is its text, unchecked."""
    first = item[0] if isinstance(item, tuple | list) and item else item
    return tuple(first) if isinstance(first, tuple | list) else first


def is_text_item(item: Any) -> bool:
    """Whether a data set's item begins with a text, or with two in a tuple or list.

    >>> is_text_item("fine"), is_text_item(("fine", 1)), is_text_item((("is it?", "it is"), 1)), is_text_item(({}, 1))
    (True, True, True, False)
    """
    first = _text_of(item)
    return isinstance(first, str) or (
        isinstance(first, tuple) and len(first) == 2 and all(isinstance(part, str) for part in first)
    )


def texts_of_dataset(dataset: Any, *, name: str, labels: Sequence[int] | None, class_names: Any) -> Texts:
    """Wrap a data set object whose items begin with texts; ids are `0000000`, `0000001`, …

    Args:
        dataset: an object with `__len__` and `__getitem__`.
        name: name of the data set.
        labels: labels of its items, or None.
        class_names: names of the classes, or None.
    """
    return Texts.build(
        reference=name,
        reader=ItemsReader(dataset=dataset, name=name),
        ids=[f"{i:07d}" for i in range(len(dataset))],
        labels=labels,
        class_names=class_names,
        paired=isinstance(_text_of(dataset[0]), tuple),
    )
