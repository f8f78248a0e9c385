"""Images that are not as they were, found by the answers of models whose weights are the same.

A digest holds the contents of a few images only; the answers of frozen models, which every result keeps, tell of all of
them that the models were asked for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, RunFolderError
from ..predictions import ROUNDING, Predictions, answered_otherwise
from .differences import DIGEST
from .folder import RunFolder
from .metrics import Record

PREFIXES = ("", "probe-")
"""Of files of frozen models' predictions: for the images measured on, and those that guard or are compared on."""
NAMED = 3
"""Ids that are named."""


class OtherImages(Record):
    """Images that are not as they were.

    Attributes:
        images: number of them.
        compared: number of images whose answers were compared.
        ids: ids of the first of them, three at most.
        models: the models that answer them otherwise with the same weights.
    """

    images: int
    compared: int
    ids: tuple[str, ...]
    models: tuple[str, ...]


class _Found:
    """What the models tell, put together."""

    def __init__(self, *, on_cpu: bool) -> None:
        self.on_cpu = on_cpu
        self.compared: set[tuple[str, str]] = set()
        self.others: dict[tuple[str, str], None] = {}
        self.models: dict[str, None] = {}

    def add(self, model: str, then: Predictions, now: Predictions, *, prefix: str) -> None:
        self.compared |= {(prefix, one) for one in (*then.ids, *now.ids)}
        found = answered_otherwise(then, now, share=0.0 if self.on_cpu and _same_arithmetic(then, now) else ROUNDING)
        self.others |= {(prefix, one): None for one in found}
        self.models |= {model: None} if found else {}

    def record(self) -> OtherImages | None:
        if not self.others:
            return None
        ids = tuple(one for _, one in self.others)
        return OtherImages(images=len(ids), compared=len(self.compared), ids=ids[:NAMED], models=tuple(self.models))


def other_images(
    first: RunFolder,
    second: RunFolder,
    *,
    students: tuple[Path, Path] | None,
) -> OtherImages | None:
    """Images that are not as they were when a transfer was run first; None where no answers tell of any.

    Args:
        first: folder of the first result.
        second: folder of the second.
        students: files of the predictions of both transferred students, where their weights are the same; else None.

    Raises:
        RunFolderError: a file is damaged.
    """
    configs = [one.read_config() or {} for one in (first, second)]
    found = _Found(on_cpu=all(_device(one) == "cpu" for one in configs))
    for name, model in _frozen(*configs):
        for prefix in PREFIXES:
            pair = [one.predictions / f"{prefix}{name}.parquet" for one in (first, second)]
            if all(path.exists() for path in pair):
                found.add(model, load_predictions(pair[0]), load_predictions(pair[1]), prefix=prefix)
    if students is not None:
        found.add("the new student", *map(load_predictions, students), prefix="")
    return found.record()


def load_predictions(path: Path) -> Predictions:
    """The predictions in a file of a result folder.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        return Predictions.load(path)
    except DataError as error:
        raise RunFolderError(f"{error}; the folder has been changed since the transfer") from error


def _frozen(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The frozen models that are the same in both, weights and preprocessing: file name, and what it is called."""
    if _same(then.get("student"), now.get("student")):
        yield "before", "the initial student"
    for key, name in (("teachers", "teacher"), ("referees", "referee")):
        pairs = zip(then.get(key) or (), now.get(key) or (), strict=False)
        for number, (one, other) in enumerate(pairs, start=1):
            if _same(one, other):
                yield f"{name}-{number}", f"the {name} {other.get('reference')}"


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, dict) and one == other and one.get(DIGEST) is not None


def _device(config: Mapping[str, Any]) -> object:
    settings = config.get("settings")
    return settings.get("device") if isinstance(settings, dict) else None


def _same_arithmetic(then: Predictions, now: Predictions) -> bool:
    """Whether most answers are the same bit for bit: then rounding, which is in all of them, explains no other."""
    if then.ids != now.ids or then.logits.shape != now.logits.shape:
        return False
    return bool((then.logits == now.logits).all(dim=1).double().mean() > 0.5)
