"""Tokenization: from a text, or a pair of them, to the first layer of a classifier of texts.

A text becomes rows of whole numbers, one a model input (`input_ids`, `attention_mask`, …), padded on the right. All
that a model sees of a text is in them, so that they serve evaluation and training alike; each model has its own, by its
own tokenizer. Padding that no text of a batch needs is cut off.

Of models that give each word a class, texts come in words, and a row more says where: the position of the first token
of word 0, 1, …, or -1 where there is none, or where it lies beyond the tokens that are read. Language models give each
token after the first a class, which is the token itself; the row says 0, 1, … as far as there is a next one.

Shapes: N texts, R rows, L tokens, P words, C classes.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import Text, Texts
from ..errors import BadReference, BrokenSample
from ..references import Query, check_keys
from .outputs import logits_of

MASK = "attention_mask"
IDS = "input_ids"
LONGEST = 512
"""Tokens of a text at most where no `max_length` is given: of long ones a batch takes much memory and time."""
TEXT_OVERRIDES = ("max_length", "classes")


@dataclass(frozen=True, kw_only=True)
class Tokenization:
    """How a classifier's tokenizer turns texts into its input; equal where the same texts become the same numbers.

    Attributes:
        tokenizer: a tokenizer of transformers, with a padding token.
        max_length: tokens of a text at most; what is longer is cut off at the end, of pairs the longer text first.
        limit: tokens that tokenizer and model take at most.
        rows: names of the module's inputs, `input_ids` and `attention_mask` among them.
        digest: hex digest of the tokenizer: vocabulary, rules and special tokens.
        classifies: what gets a class: `text`, or each `word`, or each next `token`.
    """

    tokenizer: Any = field(compare=False, repr=False)
    max_length: int
    limit: int = field(compare=False)
    rows: tuple[str, ...]
    digest: str
    classifies: str = "text"

    @classmethod
    def of(cls, tokenizer: Any, *, limit: int, rows: tuple[str, ...], classifies: str = "text") -> "Tokenization":
        """The tokenization of a tokenizer; texts are cut off after `LONGEST` tokens, or fewer where the limit is lower.

        Args:
            tokenizer: the tokenizer.
            limit: tokens that tokenizer and model take at most.
            rows: names of the module's inputs.
            classifies: `text`, `word` or `token`.
        """
        digest = _digest(tokenizer)
        return cls(
            tokenizer=tokenizer,
            max_length=min(limit, LONGEST),
            limit=limit,
            rows=rows,
            digest=digest,
            classifies=classifies,
        )

    @property
    def reads(self) -> str:
        """What it reads (`Samples.noun`)."""
        return "text"

    @property
    def height(self) -> int:
        """Number of rows, R, that of the words' places among them."""
        return len(self.rows) + (self.classifies != self.reads)

    @property
    def view_size(self) -> "Tokenization":
        """What the views for this model are known by."""
        return self

    @property
    def shares_views(self) -> bool:
        """Whether what a model sees in evaluation is a view."""
        return True

    def with_overrides(self, query: Query, *, reference: str) -> "Tokenization":
        """This tokenization with the settings of a reference; `classes` is left to the caller.

        Raises:
            BadReference: a key is unknown, or there would be more tokens than the model takes.
        """
        check_keys(query, TEXT_OVERRIDES, reference=reference)
        asked = dict(query).get("max_length")
        if asked is None:
            return self
        if int(asked) > self.limit:
            raise BadReference(
                f"max_length={asked} in {reference!r} cannot be used: the model takes {self.limit} tokens at most"
            )
        return replace(self, max_length=int(asked))

    def described(self) -> dict[str, Any]:
        """All values by name, for digests and files."""
        return {
            "tokenizer": type(self.tokenizer).__name__,
            "digest": self.digest,
            "max_length": self.max_length,
            "inputs": list(self.rows),
            **({"classifies": self.classifies} if self.classifies != self.reads else {}),
        }

    def evaluation_transform(self) -> Callable[[Any], Tensor]:
        """A text to its rows of numbers, int32 (R, L), padded to `max_length`."""
        return self.encoded

    def encoded(self, text: Text | tuple[str, ...]) -> Tensor:
        """A text's rows of numbers, int32 (R, L), padded on the right to `max_length`.

        Args:
            text: a text, or a pair; where each word gets a class, its words.

        Raises:
            ValueError: no token is left of it.
        """
        in_words = self.classifies == "word"
        texts: tuple[Any, ...] = (list(text),) if in_words else text if isinstance(text, tuple) else (text,)
        found = self.tokenizer(
            *texts,
            truncation="longest_first",
            max_length=self.max_length,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in self.rows,
            is_split_into_words=in_words,
        )
        count = len(found[IDS])
        if count < self._fewest:
            raise ValueError("no token is left of the text" if not count else "the text has one token and no next one")
        tokens_RL = torch.zeros(self.height, self.max_length, dtype=torch.int32)
        for row, name in enumerate(self.rows):
            tokens_RL[row, count:] = self._padding.get(name, 0)
            tokens_RL[row, :count] = torch.tensor(found[name], dtype=torch.int32)
        if in_words:
            tokens_RL[-1] = _first_tokens(found.word_ids(), self.max_length)
        elif self.classifies == "token":
            tokens_RL[-1] = torch.where(torch.arange(self.max_length) < count - 1, torch.arange(self.max_length), -1)
        return tokens_RL

    def tokens_of(self, texts: Texts, index: int) -> NDArray[np.int64]:
        """The tokens of a text as the model reads them, int64; none of a text that cannot be read."""
        try:
            tokens_RL = self.encoded(texts.read(index))
        except (BrokenSample, ValueError):  # told where it is measured or learned from
            return np.zeros(0, dtype=np.int64)
        count = int(tokens_RL[self.rows.index(MASK)].sum())
        return tokens_RL[self.rows.index(IDS), :count].numpy().astype(np.int64)

    @property
    def _fewest(self) -> int:
        return 2 if self.classifies == "token" else 1

    @property
    def _padding(self) -> dict[str, int]:
        """What pads each row; 0 where a tokenizer has no token for it, as where nothing is learned from padding."""
        return {IDS: self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}

    def collated(self, tokens_NRL: Tensor) -> Tensor:
        """The rows of a batch without the padding that none of its texts needs: the model's input.

        Args:
            tokens_NRL: int32, on the CPU, where their length is known without waiting.
        """
        used_L = tokens_NRL[:, self.rows.index(MASK)].any(dim=0)
        longest = int(used_L.nonzero().max()) + 1 if bool(used_L.any()) else 1
        return tokens_NRL[:, :, :longest]

    def inputs(self, tokens_NRL: Tensor) -> Tensor:
        """The model's input of the views of some texts: themselves."""
        return tokens_NRL

    def call(self, module: nn.Module, tokens_NRL: Tensor) -> Any:
        """What a module gives for some texts; where each word gets a class, logits (N, P, C) at their first tokens.

        P is that of `usable_places`; the logits of places without a word mean nothing.
        """
        outputs: Any = module(**{name: tokens_NRL[:, row].long() for row, name in enumerate(self.rows)})
        if self.classifies == self.reads:
            return outputs
        logits_NLC = logits_of(outputs)[..., : self.most_classes]
        at_NPC = tokens_NRL[:, -1, :, None].clamp_min(0).long().expand(-1, -1, logits_NLC.shape[-1])
        return logits_NLC.gather(1, at_NPC)

    @property
    def most_classes(self) -> int | None:
        """Of language models the number of tokens: they often have a few outputs more; None of others."""
        return len(self.tokenizer) if self.classifies == "token" else None

    def usable_places(self, tokens_NRL: Tensor) -> Tensor | None:
        """Which places of a batch have a word that is read, bool (N, P); None where the whole text gets a class."""
        return None if self.classifies == self.reads else tokens_NRL[:, -1] >= 0

    def blank(self, count: int) -> Tensor:
        """The rows of so many shortest texts, int32 (N, R, L), to try a module with."""
        return self.collated(self._shortest[None]).expand(count, -1, -1).contiguous()

    @property
    def _shortest(self) -> Tensor:
        return self.encoded(("a",) if self.classifies == "word" else "a b")

    def noise(self, generator: torch.Generator) -> Tensor:
        """The rows of four texts of tokens drawn at random, int32 (4, R, L)."""
        tokens_NRL = self.blank(4).repeat(1, 1, 4)[:, :, : self.max_length]
        drawn_NL = torch.randint(len(self.tokenizer), (4, tokens_NRL.shape[-1]), generator=generator)
        tokens_NRL[:, self.rows.index(IDS)] = drawn_NL.int()
        return tokens_NRL

    def largest(self, count: int) -> Tensor:
        """The rows of so many longest texts, int32 (N, R, L), to find out whether memory holds them."""
        tokens_RL = self._shortest
        tokens_RL[self.rows.index(MASK)] = 1
        return tokens_RL[None].expand(count, -1, -1).contiguous()


def _first_tokens(words: list[int | None], length: int) -> Tensor:
    """The position of the first token of each word, int32 (L,); -1 where there is none."""
    places_L = torch.full((length,), -1, dtype=torch.int32)
    for position in range(len(words) - 1, -1, -1):
        word = words[position]
        if word is not None and word < length:
            places_L[word] = position
    return places_L


def _digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    about = [type(tokenizer).__name__, _without_length(rules), sorted(map(str, tokenizer.special_tokens_map.items()))]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()


def _without_length(rules: str) -> str:
    """A tokenizer's rules without the truncation and padding of the last call, which it keeps among them."""
    found = json.loads(rules)
    for key in ("truncation", "padding"):
        found.pop(key, None)
    return json.dumps(found, sort_keys=True)
