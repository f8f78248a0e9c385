"""Two result folders of one transfer compared: whether the second repeats the first, and what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..config import REQUEST, differing, first_few
from ..errors import RunFolderError
from ..metrics import Interval
from .differences import ENVIRONMENT, differences, in_words
from .documents import require_folder, unreadable
from .folder import RunFolder
from .metrics import Record, TransferMetrics
from .other_images import OtherImages, load_predictions, other_images
from .two_way import refuse_two_way

WEIGHTS = "model.safetensors"
PERSONAL = ("command", "track", "checkpoint_every", "origins")
"""Of the environment what no result depends on."""


class Repetition(Record):
    """How a transfer that was run again compares with the first.

    Attributes:
        folder: the first result's folder.
        out: the second's.
        ran: whether the transfer was run for this comparison; false where `out` held a finished repetition already.
        settings: what results depend on and differs, a line each: `key: X then, Y now` of a setting; of weights and
            images that they are others.
        environment: versions, machine and processes that differ, each as `key: X then, Y now`.
        other_images: images that are not as they were, as the answers of models with the same weights tell; null where
            these tell of none.
        weights_differ: number of the student's tensors that are not the same bit for bit; null where a folder did not
            keep its student.
        largest_weight_difference: largest difference of two weights; null likewise, and where shapes differ.
        images: number of images measured on; null where a folder did not keep its predictions.
        answers_differ: number of these that the students answer otherwise; null likewise.
        largest_logit_difference: largest difference of two logits; null likewise.
        transfer_delta_pp: transfer deltas of first and second, in percentage points; null without labels.
        transfer_delta_ci_pp: 95 % interval of the first; null without labels.
    """

    folder: str
    out: str
    ran: bool
    settings: tuple[str, ...]
    environment: tuple[str, ...]
    other_images: OtherImages | None
    weights_differ: int | None
    largest_weight_difference: float | None
    images: int | None
    answers_differ: int | None
    largest_logit_difference: float | None
    transfer_delta_pp: tuple[float, float] | None
    transfer_delta_ci_pp: Interval | None

    @property
    def repeated(self) -> bool:
        """Whether all that both folders kept is the same, bit for bit; not where they kept nothing to compare."""
        same = self.weights_differ in (0, None) and self.largest_logit_difference in (0, None)
        compared = self.weights_differ is not None or self.images is not None
        deltas = self.transfer_delta_pp
        same = same and not self.answers_differ and self.other_images is None
        return compared and same and (deltas is None or deltas[0] == deltas[1])

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON object, with the verdict."""
        return {"repeated": self.repeated, **super().to_dict()}


def changed_since(folder: RunFolder, config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What differs between a folder's configuration and a later one, of what results depend on, and of the environment.

    Args:
        folder: the result folder.
        config: the configuration, as `runs.describe` gives it.

    Returns:
        A line for each difference: `key: X then, Y now`, and of weights and images that they are others.

    Raises:
        RunFolderError: the folder has none, or it is damaged.
    """
    existing = folder.read_config()
    if existing is None:
        raise RunFolderError(f"{folder.path}: holds no run of gainfinder: expected the folder of a result")
    environments = [
        {key: value for key, value in (one.get(ENVIRONMENT) or {}).items() if key not in PERSONAL}
        for one in (existing, config)
    ]
    settings = in_words(differences(existing, config), config, asked=False)
    return settings, [one.since for one in differing(*environments)]


def earlier_repetition(folder: RunFolder, config: Mapping[str, Any]) -> str | None:
    """Why a repetition may not be run in a folder that holds an earlier one: under other conditions, which are named.

    Args:
        folder: the folder for the new result.
        config: the configuration of the repetition, as `runs.describe` gives it.

    Returns:
        The reason in words; None where the folder is free or holds the repetition under these conditions.

    Raises:
        RunFolderError: it holds a run of another request, or other files.
    """
    there = folder.read_config() if folder.path.is_dir() else None
    if there is None or there.get(REQUEST) != json.loads(json.dumps(config.get(REQUEST))):
        folder.check(config)
        return None
    found = changed_since(folder, config)[0]
    if not found:
        return None
    return f"holds an earlier repetition, under other conditions; nothing was changed. Differing: {first_few(found)}"


def check_comparable(folder: RunFolder) -> None:
    """Make sure, before anything is run, that what is kept of a result can be read to be compared.

    Args:
        folder: the result folder.

    Raises:
        RunFolderError: weights or predictions are damaged.
    """
    weights = folder.student / WEIGHTS
    if weights.exists():
        try:
            with safe_open(weights, framework="pt"):
                pass  # the header holds the length that the file must have
        except (OSError, SafetensorError) as error:
            raise unreadable(weights, error) from error
    for path in sorted(folder.predictions.glob("*.parquet")):
        load_predictions(path)


def compare_results(first: RunFolder, second: RunFolder, *, ran: bool = True) -> Repetition:
    """Compare two finished results of one transfer.

    Where a few labels have put another student into `student/` of the first since, the one that they chose is compared.

    Args:
        first: folder of the first.
        second: folder of the one that was run again.
        ran: whether it was run now, for this comparison.

    Raises:
        RunFolderError: one is not finished, or damaged.
    """
    before, after = finished(first), finished(second)
    config = second.read_config()
    assert config is not None, "a finished run has one"
    settings, environment = changed_since(first, config)
    by_labels = before.kept_by_labels and not after.kept_by_labels
    second_student, second_after = second.student, second.predictions
    if by_labels and second.candidate.is_dir():
        second_student, second_after = second.candidate / "student", second.candidate
    weights = _weights_differ(first.student / WEIGHTS, second_student / WEIGHTS)
    kept = (first.predictions / "after.parquet", second_after / "after.parquet")
    both = all(path.exists() for path in kept)
    answers = _answers_differ(*kept) if both else (None, None, None)
    deltas = (before.transfer_delta_pp, after.transfer_delta_pp)
    return Repetition(
        folder=str(first.path),
        out=str(second.path),
        ran=ran,
        settings=tuple(settings),
        environment=tuple(environment),
        other_images=other_images(first, second, students=kept if both and weights[0] == 0 else None),
        weights_differ=weights[0],
        largest_weight_difference=weights[1],
        images=answers[0],
        answers_differ=answers[1],
        largest_logit_difference=answers[2],
        transfer_delta_pp=None if deltas[0] is None or deltas[1] is None else (deltas[0], deltas[1]),
        transfer_delta_ci_pp=before.transfer_delta_ci_pp,
    )


def finished(folder: RunFolder) -> TransferMetrics:
    """The result of a folder.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    require_folder(folder.path)
    refuse_two_way(folder.path)
    metrics = folder.read_result()
    if metrics is None:
        raise RunFolderError(f"{folder.path}: holds no finished transfer: expected a folder with a result.json")
    return metrics


def _weights_differ(first: Path, second: Path) -> tuple[int | None, float | None]:
    if not (first.exists() and second.exists()):
        return None, None
    one, other = _load(first), _load(second)
    names = {*one, *other}
    different = [name for name in names if name not in one or name not in other or not _same(one[name], other[name])]
    shared = [(one[name], other[name]) for name in names if name in one and name in other]
    if any(a.shape != b.shape for a, b in shared):
        return len(different), None
    return len(different), max((_largest(a, b) for a, b in shared), default=0.0)


def _answers_differ(first: Path, second: Path) -> tuple[int | None, int | None, float | None]:
    one, other = load_predictions(first), load_predictions(second)
    if one.ids != other.ids or one.logits.shape != other.logits.shape:
        return None, None, None  # of other images: the digests differ, or some could not be read, and are told
    changed = (one.logits.argmax(dim=1) != other.logits.argmax(dim=1)).sum()
    return len(one.ids), int(changed), _largest(one.logits, other.logits)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
