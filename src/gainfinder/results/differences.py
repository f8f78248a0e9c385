"""What differs between two configurations of a transfer, and how it is told.

Of settings a line has both values. A digest says nothing to a reader: its line names the model or the images that are
others.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import REQUEST, Difference, differing
from ..predictions import IMAGE
from .migrations import settings_before

DIGEST = "digest"
"""Key of the digest of a model's weights or of a table's file, and of that of ids and labels of images."""
PIXELS = "pixels"
"""Key of the digest of images' pixels, which early versions did not write."""
ENVIRONMENT = "environment"
NOT_COMPARED = (ENVIRONMENT, REQUEST)
"""Keys of the configuration that may differ where a run is resumed."""
MODELS = {"student": "the student", "teachers": "the teacher", "referees": "the referee"}
"""What a model is called, by its key."""
ROLES = {"data": "to learn from", "val": "to measure on", "guard": "to guard by"}
"""What images are for, by their key."""
_SHOWN = 12
"""Digits of a digest that are shown."""
_SETTINGS = "settings"


def differences(existing: Mapping[str, Any], requested: Mapping[str, Any]) -> list[Difference]:
    """The differences of two configurations in what a result depends on; the most telling first.

    References come first, then digests, settings, and the rest, each by their keys in order.

    Example:
        >>> differences({"settings": {"lr": 0.1, "seed": 0}}, {"settings": {"lr": 0.2, "seed": 0}})
        [Difference(key='settings.lr', stored=0.1, requested=0.2)]
    """
    # Through JSON, so that a requested tuple equals the list that was written.
    there, here = (_without_preset(json.loads(json.dumps(config))) for config in (existing, requested))
    found = differing(settings_before(there, here), _as_known(there, here), ignored=NOT_COMPARED)
    return sorted(found, key=lambda one: _rank(one.key))


def in_words(found: Sequence[Difference], requested: Mapping[str, Any], *, asked: bool) -> list[str]:
    """A line for each difference; digests that go without saying are left out: of another reference, of other ids.

    Args:
        found: the differences.
        requested: the requested configuration, which has the names of models and images.
        asked: whether somebody asks for these settings now, or they only have become others.

    Example:
        >>> config = {"teachers": [{"reference": "big", "digest": "b2b8"}]}
        >>> lines = in_words(differences({"teachers": [{"reference": "big", "digest": "64c3"}]}, config), config,
        ...                  asked=False)
        >>> lines
        ['the weights of the teacher big are others (digest 64c3 then, b2b8 now)']
    """
    keys = {one.key for one in found}
    lines = []
    for one in found:
        table, _, name = one.key.rpartition(".")
        implied = f"{table}.reference" in keys or (name == PIXELS and f"{table}.{DIGEST}" in keys)
        if name in (DIGEST, PIXELS) and implied:
            continue
        others = _others(table, name, requested)
        if others is not None:
            lines.append(f"{others} (digest {_digits(one.stored)} then, {_digits(one.requested)} now)")
        else:
            lines.append(one.asked if asked else one.since)
    return lines


def pixels_comparable(existing: Mapping[str, Any], requested: Mapping[str, Any], role: str) -> bool:
    """Whether the digests of pixels of some images can be compared.

    An earlier version wrote none, and another version of Pillow may decode the same file to other pixels.

    Args:
        existing: a configuration.
        requested: another one.
        role: the images' key, one of `ROLES`.
    """
    pillows = [_table(config, ENVIRONMENT).get("pillow") for config in (existing, requested)]
    return _table(existing, role).get(PIXELS) is not None and pillows[0] == pillows[1]


def _rank(key: str) -> int:
    name = key.rpartition(".")[2]
    if name == "reference":
        return 0
    return 1 if name in (DIGEST, PIXELS) else 2 if key.startswith(f"{_SETTINGS}.") else 3


def _others(table: str, name: str, requested: Mapping[str, Any]) -> str | None:
    """What a digest that differs says; None of any other key."""
    key, _, number = table.partition(".")
    if name == DIGEST and key in MODELS:
        found = requested.get(key)
        position = int(number) - 1 if number.isdecimal() else 0
        about = found[position] if isinstance(found, list) and position < len(found) else found
        reference = str(about.get("reference", "")) if isinstance(about, Mapping) else ""
        what = "file" if reference.startswith("table:") else "weights"
        verb = "is another" if what == "file" else "are others"
        return f"the {what} of {MODELS[key]} {reference} {verb}"
    if name in (DIGEST, PIXELS) and table in ROLES:
        about = _table(requested, table)
        images = f"{about.get('noun', IMAGE)}s {ROLES[table]}, {about.get('reference')},"
        if name == DIGEST:
            return f"ids or labels of the {images} are others"
        return f"of the {images} some are others, by their contents"
    return None


def _digits(digest: Any) -> str:
    text = str(digest)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _as_known(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, without the digests of pixels where those in the folder cannot be compared."""
    found = dict(here)
    for key, value in here.items():
        if isinstance(value, dict) and PIXELS in value and not pixels_comparable(there, here, key):
            found[key] = {**value, PIXELS: _table(there, key).get(PIXELS)}
    return found


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table of a configuration; empty where a damaged file has something else there."""
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _without_preset(config: Any) -> Any:
    """A configuration without the name of the preset: the values that it stood for are all there.

    So `--preset gentle` goes on with what an earlier version, whose defaults these were, began without a preset.
    """
    settings = config.get(_SETTINGS)
    if not isinstance(settings, dict):
        return config
    return {**config, _SETTINGS: {name: value for name, value in settings.items() if name != "preset"}}
