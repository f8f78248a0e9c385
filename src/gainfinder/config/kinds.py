"""The kinds of values that settings have: numbers in a range, and checks of words and paths."""

from operator import index
from pathlib import Path
from typing import Annotated, SupportsIndex

from pydantic import BeforeValidator, Field

from .choices import size_in_bytes, top_k_of
from .declaration import LARGEST_SEED, MOST
from .methods import find_method


def _whole(value: object) -> object:
    """Whole numbers of other libraries, such as NumPy's, as Python's; pydantic judges anything else."""
    return index(value) if isinstance(value, SupportsIndex) and not isinstance(value, bool) else value


def known_method(name: str | None) -> str | None:
    """A name of the table of methods, checked."""
    return None if name is None else find_method(name).name


def known_storage(name: str) -> str:
    """A form of the bank's storage, checked."""
    top_k_of(name)
    return name


def known_size(text: str | None) -> str | None:
    """A size such as 20GB, checked."""
    if text is not None:
        size_in_bytes(text)
    return text


def no_word(share: str | float | None) -> str | float | None:
    """A share that `share_of` has read; text that it left is refused."""
    if isinstance(share, str):  # text that holds a share is a number by now
        raise ValueError(share)
    return share


def as_path(folder: str | Path | None) -> Path | None:
    """A folder as a path; a URL, whose folder would be made here under a strange name, is refused."""
    if folder is not None and "://" in str(folder):
        raise ValueError(folder)
    return None if folder is None else Path(folder)


Whole = Annotated[int, BeforeValidator(_whole), Field(ge=-LARGEST_SEED, le=LARGEST_SEED)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST)]
CountFromZero = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0, le=MOST)]
