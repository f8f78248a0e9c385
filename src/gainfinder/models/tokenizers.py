"""Tokenizers of transformers, checked against the model that they are for."""

import inspect
from typing import Any

from torch import nn

from ..errors import ModelError
from .tokenization import IDS, LONGEST, MASK, Tokenization

_UNLIMITED = 1_000_000
"""A tokenizer that knows no limit says a number far above this one."""


def tokenization_of(tokenizer: Any, module: Any, *, classifies: str, reference: str) -> Tokenization:
    """How a tokenizer turns texts into the input of a model of transformers.

    Args:
        tokenizer: the tokenizer, or None.
        module: the model.
        classifies: what it gives a class: `text`, or each `word`, or each next `token`.
        reference: the model reference, for messages.

    Raises:
        ModelError: there is no tokenizer, it cannot pad, or it does not fit the model; or the model gives one number a
            text, no class.
    """
    if tokenizer is None or _is_empty(tokenizer):
        raise ModelError(
            f"{reference}: it classifies texts, and there is no tokenizer beside it that can be loaded: save it there, "
            "too (tokenizer.save_pretrained)"
        )
    if classifies != "token":
        _check_classifier(tokenizer, module, reference)
    _check_vocabulary(tokenizer, module, reference)
    accepted = inspect.signature(module.forward).parameters
    rows = tuple(dict.fromkeys(name for name in (*tokenizer.model_input_names, IDS, MASK) if name in accepted))
    if not {IDS, MASK} <= set(rows):
        raise ModelError(f"{reference}: its forward takes no {IDS} and {MASK}, which its tokenizer gives")
    if classifies == "word" and not tokenizer.is_fast:
        raise ModelError(
            f"{reference}: its tokenizer {type(tokenizer).__name__} does not say which word a token is of: expected a "
            "fast one (tokenizer.json)"
        )
    return Tokenization.of(tokenizer, limit=_limit(tokenizer, module), rows=rows, classifies=classifies)


def _check_classifier(tokenizer: Any, module: Any, reference: str) -> None:
    """Refuse what gives no class, or cannot read several texts at once.

    What a language model gives for padding is not learned from, and has no say in what stands before it.
    """
    if module.config.num_labels == 1 or getattr(module.config, "problem_type", None) == "regression":
        raise ModelError(f"{reference}: it gives one number a text (a regression): expected a classifier")
    if tokenizer.pad_token_id is None or getattr(module.config, "pad_token_id", None) is None:
        raise ModelError(
            f"{reference}: there is no padding token, so several texts cannot be read at once: set "
            "tokenizer.pad_token and model.config.pad_token_id, and save both again"
        )


def _is_empty(tokenizer: Any) -> bool:
    """Whether it knows special tokens alone, as what transformers makes of a folder without a tokenizer's files."""
    return not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)


def _check_vocabulary(tokenizer: Any, module: Any, reference: str) -> None:
    try:
        known = module.get_input_embeddings().num_embeddings
    except Exception:  # a model that has no table of its own for them
        return
    if len(tokenizer) > known:
        raise ModelError(
            f"{reference}: its tokenizer knows {len(tokenizer):,} tokens, the model {known:,}: is it that of another "
            "model?"
        )


def _limit(tokenizer: Any, module: Any) -> int:
    """Tokens that tokenizer and model take at most; `LONGEST` where neither says it."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < _UNLIMITED else []
    positions = getattr(module.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - _offset(module, positions))
    return int(min(limits, default=LONGEST))


def _offset(module: nn.Module, positions: int) -> int:
    """Positions that no token has: RoBERTa's kin count from the one after that of padding."""
    tables = (part for part in module.modules() if isinstance(part, nn.Embedding) and part.num_embeddings == positions)
    return max((one.padding_idx + 1 for one in tables if one.padding_idx is not None), default=0)
