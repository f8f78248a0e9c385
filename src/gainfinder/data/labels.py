"""Label columns of tables and data sets. Pure."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes import natural_key
from ..errors import DataError
from ..references import shown, suggest


def encode_labels(values: Sequence[Any], class_names: Sequence[str] | None, *, where: str) -> "Encoded":
    """Labels as class positions.

    Args:
        values: integers, also as floating point, as pandas leaves them (taken as they are), or strings, also as bytes
            (classes are the distinct ones in natural order, or `class_names` where the source names them).
        class_names: class names that the source gives, or None.
        where: name of the source that is read, for the message.

    Raises:
        DataError: missing labels, labels of another type, only negative ones, or a string that is not a class name.

    Example:
        >>> encode_labels(["n10", "n9"], None, where="x")
        ([1, 0], ('n9', 'n10'))
        >>> encode_labels([1.0, 0.0], None, where="x")
        ([1, 0], None)
    """
    values = [_plain(value) for value in values]
    missing = sum(value is None for value in values)
    if missing:
        raise DataError(
            f"{where}: {missing} of {len(values)} labels are missing (null); label or drop these rows, or read without "
            "labels"
        )
    names = None if class_names is None else tuple(class_names)
    if all(isinstance(value, str) for value in values) and values:
        return _encode_names(values, names, where)
    for value in values:
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise DataError(
                f"{where}: labels must be integers or strings, one class an image, got {describe_label(value)}; "
                f"{_remedy(value)}"
            )
    labels = [int(value) for value in values]
    if labels and max(labels) < 0:
        raise DataError(f"{where}: all labels are negative, so this split hides them; read it without labels")
    if labels and max(labels) >= 2**31:
        highest = describe_label(max(labels)).rpartition(" (")[0]
        raise DataError(f"{where}: label {highest} is out of range: labels count the classes from 0")
    return labels, names


def describe_label(value: Any) -> str:
    """A label that cannot be used, and its type, for a message.

    Example:
        >>> describe_label(0.5), describe_label(10**5000)
        ('0.5 (float)', 'a number of more than 64 bits (int)')
    """
    huge = isinstance(value, int) and value.bit_length() > 64
    text = "a number of more than 64 bits" if huge else repr(value)
    return f"{text if len(text) <= 80 else text[:80] + '…'} ({type(value).__name__})"


def _plain(value: Any) -> Any:
    """A label as a table means it: pandas stores integers beside missing ones as floats, and missing ones as NaN."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _remedy(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return "of one-hot labels store the position of the 1; several classes an image cannot be read"
    return "store the class's name or its position, or read without labels"


Encoded = tuple[list[int], tuple[str, ...] | None]


def integer_vector(values: Any, *, length: int) -> list[int] | None:
    """A list, array or tensor of `length` integers as a list; None if it is anything else.

    Example:
        >>> integer_vector([1, 0], length=2), integer_vector([0.5, 1.0], length=2), integer_vector(None, length=2)
        ([1, 0], None, None)
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if not isinstance(values, list | tuple | np.ndarray) or len(values) != length:
        return None
    try:
        array: NDArray[Any] = np.asarray(values)
    except ValueError:  # nested lists of different lengths
        return None
    return [int(value) for value in array] if array.ndim == 1 and array.dtype.kind in "iu" else None


def _encode_names(values: Sequence[str], names: tuple[str, ...] | None, where: str) -> Encoded:
    known = tuple(sorted(set(values), key=natural_key)) if names is None else names
    index = {name: i for i, name in enumerate(known)}
    for value in values:
        if value not in index:
            raise DataError(
                f"{where}: label {shown(value)} is none of the {len(known)} class names{suggest(value, known)}"
            )
    return [index[value] for value in values], known
