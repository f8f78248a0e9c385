"""The differences between a stored and a requested configuration."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMED = 5
"""Differences that a message names; of more it gives the number."""
NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that two configurations do not share.

    Attributes:
        key: the path to it, its keys joined by points; mappings in a list are numbered from 1.
        stored: the value in the folder; `nothing` where it has no such key.
        requested: the requested value, likewise.
    """

    key: str
    stored: Any
    requested: Any

    @property
    def asked(self) -> str:
        """In words, of what somebody asks for.

        >>> Difference(key="settings.lr", stored=0.1, requested=0.2).asked
        'settings.lr: 0.1 in the folder, 0.2 asked for'
        """
        return f"{self.key}: {self.stored} in the folder, {self.requested} asked for"

    @property
    def since(self) -> str:
        """In words, of what has become otherwise and nobody asked for.

        >>> Difference(key="threads", stored=1, requested=2).since
        'threads: 1 then, 2 now'
        """
        return f"{self.key}: {self.stored} then, {self.requested} now"


def differing(
    stored: Mapping[str, Any], requested: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> list[Difference]:
    """Differences between two nested mappings of JSON values, by their keys in order.

    Args:
        stored: the configuration in the folder.
        requested: the requested configuration.
        ignored: top-level keys that may differ.

    >>> [one.asked for one in differing({"settings": {"lr": 0.1, "seed": 0}}, {"settings": {"lr": 0.2, "seed": 0}})]
    ['settings.lr: 0.1 in the folder, 0.2 asked for']
    """
    old, new = _flat(stored), _flat(requested)
    return [
        Difference(key=key, stored=old.get(key, NOTHING), requested=new.get(key, NOTHING))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key.split(".")[0] not in ignored
    ]


def first_few(lines: Sequence[str]) -> str:
    """The first `NAMED` differences in words, for one line, and how many there are more.

    >>> first_few(["a: 1 then, 2 now", "b: 1 then, 2 now"])
    'a: 1 then, 2 now; b: 1 then, 2 now'
    >>> first_few([f"{number}" for number in range(40)])
    '0; 1; 2; 3; 4; and 35 more'
    """
    more = len(lines) - NAMED
    return "; ".join([*lines[:NAMED], *([f"and {more} more"] if more > 0 else [])])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The innermost values by their path; mappings in a list are numbered from 1."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        value = {f"{number}": one for number, one in enumerate(value, start=1)}
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out.update(_flat(inner, f"{prefix}.{key}" if prefix else key))
    return out
