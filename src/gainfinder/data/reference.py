"""Data references: `BASE[?key=value&…][#k/n]`, one string that parses to a frozen value and prints back identically."""

import re
from dataclasses import dataclass

from ..errors import BadReference
from ..references import Query, join_query, shown, split_query, whole_number

_PART = re.compile(r"#(?P<k>[0-9]+)/(?P<n>[0-9]+)$")
_MOST_PARTS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class DataRef:
    """A parsed data reference.

    Attributes:
        base: a path, `digits`, `hfds/NAME` or `torch/NAME`.
        query: settings in the order given.
        part: (k, n) for the k-th of n disjoint parts, counted from 1; None for all samples.
    """

    base: str
    query: Query = ()
    part: tuple[int, int] | None = None

    def __str__(self) -> str:
        return join_query(self.base, self.query) + (f"#{self.part[0]}/{self.part[1]}" if self.part else "")

    def get(self, key: str) -> str | None:
        """The value of a setting, or None."""
        return dict(self.query).get(key)


def parse_data_ref(text: str) -> DataRef:
    """Parse a data reference. A `#` begins a part only where `k/n` ends the text, so a path may hold one.

    Raises:
        BadReference: an empty base, a part outside 1 … n, or a setting without a value or given twice.

    Example:
        >>> parse_data_ref("hfds/cifar10?split=train#1/2")
        DataRef(base='hfds/cifar10', query=(('split', 'train'),), part=(1, 2))
        >>> str(parse_data_ref("photos/#3.tar"))
        'photos/#3.tar'
    """
    match = _PART.search(text)
    part = None if match is None else _parse_part(match["k"], match["n"], text)
    base, query = split_query(text if match is None else text[: match.start()])
    if not base.strip():
        raise BadReference(f"data reference {text!r} names nothing: expected BASE, BASE?key=value or BASE#k/n")
    return DataRef(base=base, query=query, part=part)


def wants_upright(ref: DataRef) -> bool:
    """Whether `?orient=exif` asks for images turned as their EXIF orientation says.

    Raises:
        BadReference: another value than `exif` or `stored`.
    """
    value = ref.get("orient") or "stored"
    if value not in ("exif", "stored"):
        raise BadReference(
            f"orient={value} in {str(ref)!r} is unknown: expected exif (turned as EXIF says) or stored (as pixels lie)"
        )
    return value == "exif"


def first_class(ref: DataRef) -> int:
    """The number that `?count_from=` gives the first class of masks: 0, or 1 where 0 means that a pixel has no class.

    Raises:
        BadReference: another value.
    """
    value = ref.get("count_from") or "0"
    if value not in ("0", "1"):
        raise BadReference(
            f"count_from={value} in {str(ref)!r} is unknown: expected 0, or 1 where pixels of 0 have no class"
        )
    return int(value)


def _parse_part(k_text: str, n_text: str, text: str) -> tuple[int, int]:
    k, n = (whole_number(t, what=f"a part of {shown(text)}", least=0, most=_MOST_PARTS) for t in (k_text, n_text))
    if not 1 <= k <= n:
        raise BadReference(f"part #{k}/{n} of {shown(text)} does not exist: expected #k/n with 1 <= k <= n")
    if (k_text, n_text) != (str(k), str(n)):
        raise BadReference(f"part #{k_text}/{n_text} of {shown(text)} has leading zeros: write #{k}/{n}")
    return k, n
