"""Two result folders of one transfer compared: whether the second repeats the first, and what differs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..config import differing
from ..errors import RunFolderError
from ..metrics import Interval
from ..predictions import Predictions
from .documents import require_folder, unreadable
from .folder import ENVIRONMENT, RunFolder, differences
from .metrics import Record, TransferMetrics
from .two_way import refuse_two_way

WEIGHTS = "model.safetensors"
PERSONAL = ("command", "track", "checkpoint_every", "origins")
"""Of the environment what no result depends on."""


class Repetition(Record):
    """How a transfer that was run again compares with the first.

    Attributes:
        folder: the first result's folder.
        out: the second's.
        settings: what results depend on and differs, each as `key: X in the folder, Y asked for`: settings, and digests
            of weights and images.
        environment: versions, machine and processes that differ, likewise.
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
    settings: tuple[str, ...]
    environment: tuple[str, ...]
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
        return compared and same and not self.answers_differ and (deltas is None or deltas[0] == deltas[1])

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON object, with the verdict."""
        return {"repeated": self.repeated, **super().to_dict()}


def changed_since(folder: RunFolder, config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What differs between a folder's configuration and another, of what results depend on, and of the environment.

    Args:
        folder: the result folder.
        config: the configuration, as `runs.describe` gives it.

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
    return differences(existing, config), differing(*environments)


def compare_results(first: RunFolder, second: RunFolder) -> Repetition:
    """Compare two finished results of one transfer.

    Where a few labels have put another student into `student/` of the first since, the one that they chose is compared.

    Args:
        first: folder of the first.
        second: folder of the one that was run again.

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
    answers = _answers_differ(first.predictions / "after.parquet", second_after / "after.parquet")
    deltas = (before.transfer_delta_pp, after.transfer_delta_pp)
    return Repetition(
        folder=str(first.path),
        out=str(second.path),
        settings=tuple(settings),
        environment=tuple(environment),
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
    if not (first.exists() and second.exists()):
        return None, None, None
    one, other = Predictions.load(first), Predictions.load(second)
    if one.ids != other.ids or one.logits.shape != other.logits.shape:
        return None, None, None  # of other images: the digests differ, and say so
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
