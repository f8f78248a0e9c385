"""The differences between a stored and a requested configuration."""

from collections.abc import Collection, Mapping
from typing import Any


def differing(stored: Mapping[str, Any], requested: Mapping[str, Any], *, ignored: Collection[str] = ()) -> list[str]:
    """Differences between two nested mappings of JSON values, each as `key: X in the folder, Y asked for`.

    Args:
        stored: the configuration in the folder.
        requested: the requested configuration.
        ignored: top-level keys that may differ.

    >>> differing({"settings": {"lr": 0.1, "seed": 0}}, {"settings": {"lr": 0.2, "seed": 0}})
    ['settings.lr: 0.1 in the folder, 0.2 asked for']
    """
    old, new = _flat(stored), _flat(requested)
    return [
        f"{key}: {old.get(key, 'nothing')} in the folder, {new.get(key, 'nothing')} asked for"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key.split(".")[0] not in ignored
    ]


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
