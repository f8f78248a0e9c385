"""In which order names of classes stand: frameworks sort them differently, and a model without names does not tell."""

import re
from collections.abc import Sequence

_DIGITS_READ = 4000
"""Python parses no more at once."""
_SHOWN = 3
_INLINE = 200
"""Characters of names that a message lists in full."""

Key = tuple[list[tuple[int, int] | str], str]


def natural_key(text: str) -> Key:
    """Sort key: timm's natural key (`timm.utils.misc.natural_key`), ties (`A`, `a`) by the text itself.

    Departure from timm: only what the pattern found counts as a number, so that a name such as `m2²` sorts too.

    Example:
        >>> sorted(["n10", "N9", "n9"], key=natural_key)
        ['N9', 'n9', 'n10']
    """
    pieces = re.split(r"(\d+)", text.lower())
    return [_number(piece) if i % 2 else piece for i, piece in enumerate(pieces)], text


def order_doubt(names: Sequence[str], *, named: str, nameless: str, because: str = "names no classes") -> str | None:
    """A note that a model without class names may have been trained under another order of these names.

    timm sorts folders naturally and without letter case; torchvision's ImageFolder, Keras and datasets sort as text.

    Args:
        names: class names in the order in which the model's outputs are taken.
        named: what has these names.
        nameless: reference of the model.
        because: why its outputs are matched by position.

    Returns:
        None where both orders are the same, or the names stand in neither (an order that somebody chose).

    Example:
        >>> order_doubt(["1", "2", "10"], named="photos", nameless="net")
        'net names no classes, so its outputs are taken in the order of photos: 1, 2, 10 (natural, as timm sorts); as \
text, which is how torchvision, Keras and datasets sort, it is 1, 10, 2: if net was trained so, add ?classes=1,10,2 to \
its reference'
        >>> order_doubt(["a", "b"], named="photos", nameless="net") is None
        True
    """
    natural, textual = sorted(names, key=natural_key), sorted(names)
    if natural == textual or list(names) not in (natural, textual):
        return None
    here, other = "natural, as timm sorts", "as text, which is how torchvision, Keras and datasets sort, it is"
    theirs = textual
    if list(names) == textual:
        here, other = "as text, as torchvision, Keras and datasets sort", "naturally, which is how timm sorts, it is"
        theirs = natural
    first = next(i for i, (ours, their) in enumerate(zip(names, theirs, strict=True)) if ours != their)
    return (
        f"{nameless} {because}, so its outputs are taken in the order of {named}: {shown_around(names, first)} "
        f"({here}); {other} {shown_around(theirs, first)}: if {nameless} was trained so, add {_setting(theirs)} to its "
        "reference"
    )


def shown_around(names: Sequence[str], first: int) -> str:
    """The names around one, such as the first that differs: those beside it, and dots for the others.

    Args:
        names: the names.
        first: index of the name.

    Example:
        >>> shown_around(["a", "b", "c", "d", "e"], 2)
        '…, b, c, d, …'
    """
    start, stop = max(0, first - 1), first + _SHOWN - 1
    return ("…, " if start else "") + ", ".join(names[start:stop]) + (", …" if stop < len(names) else "")


def _setting(names: Sequence[str]) -> str:
    text = ",".join(names)
    if len(text) <= _INLINE and not any("," in name or "&" in name for name in names):
        return f"?classes={text}"
    return "?classes=@FILE, with a name a line in that order,"


def _number(digits: str) -> tuple[int, int]:
    """A key that sorts digits by value; of numbers too long for Python to parse, by length and first digits."""
    return (0, int(digits)) if len(digits) <= _DIGITS_READ else (len(digits), int(digits[:_DIGITS_READ]))
