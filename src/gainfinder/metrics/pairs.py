"""Complementary knowledge between all models of a zoo (section 3), and what there is to win from it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from torch import Tensor

from ..errors import DataError
from ..predictions import Predictions
from .ceilings import Answers, ceilings_of
from .flips import accuracy, compare


@dataclass(frozen=True, kw_only=True)
class ScannedModel:
    """A model, and what it could win from all the others together.

    Attributes:
        model: reference of the model.
        accuracy: share of all samples that it has right.
        oracle_accuracy: share of all samples that any of the models has right.
        routed_accuracy: accuracy of the routed ensemble of all models.
        mean_accuracy: accuracy of the ensemble of mean probabilities of all models; None where logits were not kept.
        headroom_pp: accuracy of the better of the two less this model's, percentage points.
    """

    model: str
    accuracy: float
    oracle_accuracy: float
    routed_accuracy: float
    mean_accuracy: float | None
    headroom_pp: float


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
        oracle_accuracy: share of all samples that either has right.
        routed_accuracy: accuracy of the routed ensemble of both.
        mean_accuracy: accuracy of the ensemble of their mean probabilities; None where logits were not kept.
        headroom_pp: accuracy of the better of the two less the student's, percentage points.
    """

    student: str
    teacher: str
    delta_acc_pp: float
    positive_flips: float
    negative_flips: float
    flip_entropy: float | None
    oracle_accuracy: float
    routed_accuracy: float
    mean_accuracy: float | None
    headroom_pp: float


@dataclass(frozen=True, kw_only=True)
class ScanFailure:
    """A model that was left out.

    Attributes:
        model: reference of the model.
        reason: why it could not be loaded or run, in one line.
    """

    model: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Every model's accuracy and every ordered pair's complementary knowledge, and their ceilings (`ceilings.py`)."""

    models: tuple[ScannedModel, ...]
    pairs: tuple[ScannedPair, ...]
    samples: int
    broken: tuple[str, ...]
    failed: tuple[ScanFailure, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The scan as plain values, as `--json` prints it."""
        return {
            "models": [asdict(model) for model in self.models],
            "pairs": [asdict(pair) for pair in self.pairs],
            "samples": self.samples,
            "broken_images": list(self.broken),
            "failed_models": [asdict(one) for one in self.failed],
        }


@dataclass(frozen=True, kw_only=True)
class PredictedClasses:
    """The part of a model's predictions that a scan keeps: a large zoo's logits would not fit into memory.

    Attributes:
        model: the model's reference.
        ids: N sample ids.
        answers: predicted classes and confidences, and the logits where they are kept.
        target: labels, int64 (N,).
        broken: `where: reason` of each image that has no row.
    """

    model: str
    ids: tuple[str, ...]
    answers: Answers
    target: Tensor
    broken: tuple[str, ...] = ()

    @classmethod
    def of(cls, predictions: Predictions, *, keep_logits: bool = True) -> "PredictedClasses":
        """The predicted classes in predictions for labelled images, and their logits if they are to be kept."""
        if predictions.target is None:
            raise DataError(f"predictions of {predictions.model} carry no labels")
        return cls(
            model=predictions.model,
            ids=predictions.ids,
            answers=Answers.of(predictions, keep_logits=keep_logits),
            target=predictions.target,
            broken=predictions.broken,
        )

    @property
    def predicted(self) -> Tensor:
        """Predicted classes, int64 (N,)."""
        return self.answers.predicted_N


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
        above = ceilings_of(student.answers, [teacher.answers], student.target)
        pairs.append(ScannedPair(student=student.model, teacher=teacher.model, **asdict(pair), **asdict(above)))
    return Scan(
        models=tuple(_with_all_others(model, models) for model in models),
        pairs=tuple(pairs),
        samples=len(models[0].ids),
        broken=models[0].broken,
    )


def _with_all_others(model: PredictedClasses, models: Sequence[PredictedClasses]) -> ScannedModel:
    others = [other.answers for other in models if other is not model]
    above = ceilings_of(model.answers, others, model.target)
    return ScannedModel(model=model.model, accuracy=accuracy(model.predicted, model.target), **asdict(above))
