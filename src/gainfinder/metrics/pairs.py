"""Complementary knowledge between all models of a zoo, from their predicted classes alone (section 3)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from torch import Tensor

from ..errors import DataError
from ..predictions import Predictions
from .flips import accuracy, compare


@dataclass(frozen=True, kw_only=True)
class ScannedModel:
    """A model and its accuracy, a share of all samples."""

    model: str
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ScannedPair:
    """An ordered pair of models.

    Attributes:
        student: reference of the model that could learn.
        teacher: reference of the model that could teach.
        delta_acc_pp: accuracy of the teacher minus that of the student, percentage points.
        positive_flips: share of all samples that the teacher has right and the student wrong.
        negative_flips: share of all samples that the teacher has wrong and the student right.
        flip_entropy: entropy of the normalised counts of positive flips by class, nats; None without flips.
    """

    student: str
    teacher: str
    delta_acc_pp: float
    positive_flips: float
    negative_flips: float
    flip_entropy: float | None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Every model's accuracy and every ordered pair's complementary knowledge."""

    models: tuple[ScannedModel, ...]
    pairs: tuple[ScannedPair, ...]
    samples: int
    broken: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The scan as plain values, as `--json` prints it."""
        return {
            "models": [asdict(model) for model in self.models],
            "pairs": [asdict(pair) for pair in self.pairs],
            "samples": self.samples,
            "broken_images": list(self.broken),
        }


@dataclass(frozen=True, kw_only=True)
class PredictedClasses:
    """The part of a model's predictions that a scan keeps: a zoo's logits would not fit into memory.

    Attributes:
        model: the model's reference.
        ids: N sample ids.
        predicted: predicted classes, int64 (N,).
        target: labels, int64 (N,).
        broken: `where: reason` of each image that has no row.
    """

    model: str
    ids: tuple[str, ...]
    predicted: Tensor
    target: Tensor
    broken: tuple[str, ...] = ()

    @classmethod
    def of(cls, predictions: Predictions) -> "PredictedClasses":
        """The predicted classes in predictions for labelled images."""
        if predictions.target is None:
            raise DataError(f"predictions of {predictions.model} carry no labels")
        return cls(
            model=predictions.model,
            ids=predictions.ids,
            predicted=predictions.predicted,
            target=predictions.target,
            broken=predictions.broken,
        )


def scan_predictions(models: Sequence[PredictedClasses], *, num_classes: int) -> Scan:
    """Complementary knowledge of all ordered pairs of models, each of which predicted the same labelled images.

    Args:
        models: two or more models' predicted classes.
        num_classes: number of classes.

    Raises:
        DataError: the images differ.
    """
    pairs = []
    for student, teacher in permutations(models, 2):
        if student.ids != teacher.ids:
            raise DataError(f"predictions of {student.model} and {teacher.model} are not for the same images")
        pair = compare(student.predicted, teacher.predicted, student.target, num_classes=num_classes)
        pairs.append(ScannedPair(student=student.model, teacher=teacher.model, **asdict(pair)))
    return Scan(
        models=tuple(ScannedModel(model=one.model, accuracy=accuracy(one.predicted, one.target)) for one in models),
        pairs=tuple(pairs),
        samples=len(models[0].ids),
        broken=models[0].broken,
    )
