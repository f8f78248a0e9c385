"""Complementary knowledge between all models of a zoo (section 3), and what there is to win from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, SettingsError
from ..predictions import Predictions
from .ceilings import Answers, Ceilings
from .ensembles import choose_teachers
from .zoo_ceilings import ceilings_of_pairs, ceilings_with_all_others
from .zoo_flips import ZooFlips, compare_zoo

CHOOSE = 3
"""Teachers that are chosen for a student, at most."""


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
class TeacherChoice:
    """A teacher of a greedy choice for one student, and what an ensemble with all chosen so far has (`ensembles.py`).

    Attributes:
        teacher: reference of the teacher.
        routed_accuracy: accuracy of the routed ensemble of the student and all chosen so far.
        mean_accuracy: accuracy of the ensemble of their mean probabilities; None where logits were not kept.
        headroom_pp: accuracy of the better of the two less the student's, percentage points.
        added_pp: what this teacher has added to the headroom, percentage points.
    """

    teacher: str
    routed_accuracy: float
    mean_accuracy: float | None
    headroom_pp: float
    added_pp: float


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Every model's accuracy and every ordered pair's complementary knowledge, and their ceilings (`ceilings.py`).

    Attributes:
        models: the models.
        pairs: all ordered pairs of them.
        samples: number of images.
        broken: `where: reason` of each image that could not be decoded.
        failed: models that were left out.
        student: reference of the student that teachers were chosen for; None without.
        teachers: these teachers, the first choice first.
    """

    models: tuple[ScannedModel, ...]
    pairs: tuple[ScannedPair, ...]
    samples: int
    broken: tuple[str, ...]
    failed: tuple[ScanFailure, ...] = ()
    student: str | None = None
    teachers: tuple[TeacherChoice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The scan as plain values, as `--json` prints it."""
        return {
            "models": [asdict(model) for model in self.models],
            "pairs": [asdict(pair) for pair in self.pairs],
            "samples": self.samples,
            "broken_images": list(self.broken),
            "failed_models": [asdict(one) for one in self.failed],
            "student": self.student,
            "teachers": [asdict(one) for one in self.teachers],
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


def scan_predictions(
    models: Sequence[PredictedClasses], *, num_classes: int, student: str | None = None, choose: int = CHOOSE
) -> Scan:
    """Complementary knowledge of all ordered pairs of models, each of which predicted the same labelled images.

    Args:
        models: two or more models' predicted classes.
        num_classes: number of classes.
        student: reference of the model that teachers are chosen for; None for none.
        choose: number of teachers at most.

    Raises:
        DataError: the images or their labels differ.
        SettingsError: the student is none of the models.
    """
    first, target_N = models[0], models[0].target
    for model in models[1:]:
        if model.ids != first.ids or not torch.equal(model.target, target_N):
            raise DataError(f"predictions of {first.model} and {model.model} are not for the same images and labels")
    answers = [model.answers for model in models]
    predicted_MN = torch.stack([model.predicted for model in models])
    flips = compare_zoo(predicted_MN, target_N, num_classes, keep_classes=False)
    return Scan(
        models=tuple(
            ScannedModel(model=model.model, accuracy=right, **vars(above))
            for model, right, above in zip(
                models, flips.accuracy_M.tolist(), ceilings_with_all_others(answers, target_N), strict=True
            )
        ),
        pairs=_pairs([model.model for model in models], flips, ceilings_of_pairs(answers, target_N, flips)),
        samples=len(first.ids),
        broken=first.broken,
        student=student,
        teachers=() if student is None else _chosen(models, student, target_N, choose),
    )


def _chosen(
    models: Sequence[PredictedClasses], student: str, target_N: Tensor, choose: int
) -> tuple[TeacherChoice, ...]:
    by_name = {model.model: model.answers for model in models}
    if student not in by_name:
        raise SettingsError(f"student is {student!r}, which is none of the models that could be compared")
    names = [name for name in by_name if name != student]
    found = choose_teachers(by_name[student], [by_name[name] for name in names], target_N, most=choose)
    return tuple(TeacherChoice(**{**vars(one), "teacher": names[one.teacher]}) for one in found)


def _pairs(
    names: Sequence[str], flips: ZooFlips, ceilings: Mapping[tuple[int, int], Ceilings]
) -> tuple[ScannedPair, ...]:
    # As lists: a number at a time out of a tensor takes a hundred times as long.
    positive, negative = flips.positive_flips_MM.tolist(), flips.negative_flips_MM.tolist()
    delta_acc_pp, entropy = flips.delta_acc_pp_MM.tolist(), _entropies(flips)
    return tuple(
        ScannedPair(
            student=names[s],
            teacher=names[t],
            delta_acc_pp=delta_acc_pp[s][t],
            positive_flips=positive[s][t],
            negative_flips=negative[s][t],
            flip_entropy=entropy[s][t],
            **vars(above),
        )
        for (s, t), above in ceilings.items()
    )


def _entropies(flips: ZooFlips) -> list[list[float | None]]:
    """Nats, or None without flips."""
    return [[None if math.isnan(one) else one for one in row] for row in flips.flip_entropy_MM.tolist()]
