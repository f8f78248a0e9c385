"""How what is kept and what is asked for are told apart."""

from collections.abc import Mapping
from typing import Any


def differing(held: Mapping[str, Any], asked: Mapping[str, Any], *, ignored: str | None = None) -> list[str]:
    """What differs between two nested mappings of JSON values, each as `key: X in the folder, Y asked for`.

    Args:
        held: what is kept.
        asked: what is asked for.
        ignored: a key at the top that may differ.

    >>> differing({"settings": {"lr": 0.1, "seed": 0}}, {"settings": {"lr": 0.2, "seed": 0}})
    ['settings.lr: 0.1 in the folder, 0.2 asked for']
    """
    there, here = _flat(held), _flat(asked)
    return [
        f"{key}: {there.get(key, 'nothing')} in the folder, {here.get(key, 'nothing')} asked for"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key) and (ignored is None or not key.startswith(f"{ignored}."))
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out.update(_flat(inner, f"{prefix}.{key}" if prefix else key))
    return out
