"""Results of earlier versions, converted to this version's format; the only module that knows older formats."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RunFolderError
from ..metrics import TransferMeasures
from .documents import unreadable
from .metrics import FORMAT_VERSION

GUARD_BEFORE_1 = {"points": [], "labelled": True, "held_out": None}
POINT_BEFORE_1 = {"measure": "accuracy", "gain": None, "error": None, "sure_gain": None, "veto": None}
"""What early versions did not write counts as this."""
SETTINGS_BEFORE = {
    "optimizer": "sgd",
    "patience": 5,
    "lr_warmup": 0.0,
    "ema_decay": 0.0,
    "layer_decay": 1.0,
    "adapt_start": False,
    "mixup": 0.0,
    "recipes": [],
    "decide_on": "view",
    "both": None,
}
"""Settings that earlier versions did not have, and what they did."""
ADDED_SINCE_1 = {"oracle_accuracy", "routed_accuracy", "mean_accuracy", "headroom_pp", "headroom_captured"}
"""Measures that are null in files of format 1 from before there were any."""
RENAMED_IN_1 = {"share": "alpha", "adapted": "bn_reestimated"}


def migrated(document: Mapping[str, Any], path: Path, *, measure: Callable[[], TransferMeasures]) -> dict[str, Any]:
    """A document as this version writes it.

    Args:
        document: the JSON object in `result.json`.
        path: path of that file, for messages.
        measure: recomputes the measures from the predictions in the folder; called where some are missing that early
            versions did not write.

    Raises:
        RunFolderError: a newer version wrote it, or it has no version that there is.
    """
    version = document.get("format_version", 0)
    if not isinstance(version, int) or version < 0:
        raise unreadable(path, f"format_version: unexpected {version!r:.40}")
    if version > FORMAT_VERSION:
        raise RunFolderError(
            f"{path}: written by a newer version of gainfinder (format {version}; this one reads up to "
            f"{FORMAT_VERSION}); nothing was changed. Update gainfinder to read it"
        )
    found = dict(document)
    if version < 1:
        found = _to_1(found, measure)
    return {**found, "format_version": FORMAT_VERSION}


def settings_before(config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the settings that its version did not have, as far as another, `known`, has them."""
    settings, asked = config.get("settings"), known.get("settings")
    if not isinstance(settings, dict) or not isinstance(asked, dict):
        return dict(config)
    return {**config, "settings": {**{k: v for k, v in SETTINGS_BEFORE.items() if k in asked}, **settings}}


def is_current(settings: Mapping[str, Any]) -> bool:
    """Whether resolved settings are of a version whose runs choose their own recipe by default."""
    return "recipes" in settings


def _to_1(document: dict[str, Any], measure: Callable[[], TransferMeasures]) -> dict[str, Any]:
    """Keys of the guard are renamed; measures that were not written yet are recomputed."""
    found = {**document, "guard": _guard_to_1(document.get("guard"))}
    if isinstance(found.get("steps"), list):
        found["steps"] = [
            {**step, "guard": _guard_to_1(step.get("guard"))} if isinstance(step, dict) else step
            for step in found["steps"]
        ]
    if TransferMeasures.model_fields.keys() - ADDED_SINCE_1 - document.keys():
        found = {**measure().model_dump(mode="json"), **found}
    return found


def _guard_to_1(guard: Any) -> Any:
    """A guard's decision; a value that is none is left for validation to refuse."""
    if not isinstance(guard, dict):
        return guard
    found = {**GUARD_BEFORE_1, **_renamed(guard)}
    if isinstance(found["points"], list):
        found["points"] = [
            {**POINT_BEFORE_1, **_renamed(point)} if isinstance(point, dict) else point for point in found["points"]
        ]
    return found


def _renamed(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"bn_reestimated": False, **{RENAMED_IN_1.get(key, key): value for key, value in document.items()}}
