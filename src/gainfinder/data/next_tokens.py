"""Texts whose tokens are classes themselves: what a language model predicts at each place is the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .samples import drawn_place
from .tagged import TaggedTexts
from .texts import Texts


@dataclass(frozen=True, kw_only=True)
class NextTokens(TaggedTexts):
    """Texts for language models of one tokenizer; place p is the token after the first p + 1 of them.

    Measured is one place of each text, drawn by its id, as of texts in words; `words` has its number, `tags` the token
    at each place.
    """

    classified: ClassVar[str] = "token"

    def _usable(self, sample: Any) -> Any:
        return Texts._usable(self, sample)


def next_tokens(texts: Texts, tokens: Sequence[NDArray[np.int64]], *, vocabulary: int) -> NextTokens:
    """Texts with their tokens as classes.

    Args:
        texts: the texts; their own labels are dropped.
        tokens: the tokens of each text, int64; of a text that cannot be read none.
        vocabulary: number of tokens that there are.
    """
    after = [own[1:] for own in tokens]
    places = [drawn_place(name, len(own)) if len(own) else 0 for name, own in zip(texts.ids, after, strict=True)]
    labels = [int(own[place]) if len(own) else 0 for own, place in zip(after, places, strict=True)]
    by_position: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * (int(texts.positions.max()) + 1)
    for position, own in zip(texts.positions, after, strict=True):
        by_position[position] = own
    return NextTokens(
        reference=texts.reference,
        reader=texts.reader,
        ids=texts.ids,
        labels=np.array(labels, dtype=np.int64),
        class_names=None,
        num_classes=vocabulary,
        positions=texts.positions,
        words=np.array(places, dtype=np.int64),
        longest=max(map(len, after), default=0),
        tags=tuple(by_position),
    )
