"""Complementary knowledge between all models of a zoo (section 3), and what there is to win from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, SettingsError
from ..predictions import IMAGE, Predictions
from .ceilings import Answers, Ceilings
from .ensembles import choose_teachers
from .scanned import Scan, ScannedModel, ScannedPair, TeacherChoice
from .stand_ins import StandIns, measure_stand_ins, pooled_probs
from .tracking import track
from .zoo_ceilings import ceilings_of_pairs, ceilings_with_all_others
from .zoo_expertise import ClassTexts, ZooAreas, areas_of_zoo, expertise_of
from .zoo_flips import ZooFlips, compare_zoo

CHOOSE = 3
"""Teachers that are chosen for a student, at most."""


@dataclass(frozen=True, kw_only=True)
class PredictedClasses:
    """The part of a model's predictions that a scan keeps: a large zoo's logits would not fit into memory.

    Attributes:
        model: the model's reference.
        ids: N sample ids.
        answers: predicted classes and confidences, and the logits where they are kept.
        target: labels, int64 (N,), or None where the images carry none.
        broken: `where: reason` of each image that has no row.
        noun: what a sample is: `image` or `text`.
    """

    model: str
    ids: tuple[str, ...]
    answers: Answers
    target: Tensor | None
    broken: tuple[str, ...] = ()
    noun: str = IMAGE

    @classmethod
    def of(cls, predictions: Predictions, *, keep_logits: bool = True) -> "PredictedClasses":
        """The predicted classes in predictions, and their logits if they are to be kept."""
        return cls(
            model=predictions.model,
            ids=predictions.ids,
            answers=Answers.of(predictions, keep_logits=keep_logits),
            target=predictions.target,
            broken=predictions.broken,
            noun=predictions.noun,
        )

    @property
    def predicted(self) -> Tensor:
        """Predicted classes, int64 (N,)."""
        return self.answers.predicted_N


def scan_predictions(
    models: Sequence[PredictedClasses],
    *,
    num_classes: int,
    texts: ClassTexts | None = None,
    student: str | None = None,
    choose: int = CHOOSE,
) -> Scan:
    """Complementary knowledge of all ordered pairs of models, each of which predicted the same images.

    Without labels: where they disagree, and what all of them together hold for right.

    Args:
        models: two or more models' predicted classes.
        num_classes: number of classes.
        texts: names of the classes, and embeddings of them for the areas of expertise; None for indices.
        student: reference of the model that teachers are chosen for; None for none.
        choose: number of teachers at most.

    Raises:
        DataError: the images or their labels differ.
        SettingsError: the student is none of the models.
    """
    first = models[0]
    same_samples(models)
    names, answers, target_N = [model.model for model in models], [model.answers for model in models], first.target
    teachers: tuple[TeacherChoice, ...] = ()
    if student is not None:
        teachers = chosen_teachers(names, answers, target_N, num_classes, student=student, most=choose)
    known, expertise = _NOT_KNOWN, None
    if target_N is not None:
        texts = texts or ClassTexts.by_index(num_classes)
        flips = compare_zoo(torch.stack([one.predicted_N for one in answers]), target_N, num_classes)
        samples_C = torch.bincount(target_N, minlength=num_classes)
        areas = areas_of_zoo(flips, texts, samples_C)
        known = _known(answers, target_N, flips, areas)
        chosen = [one.teacher for one in teachers]
        expertise = expertise_of(
            names, flips, areas, texts=texts, samples_C=samples_C, student=student, teachers=chosen
        )
    stand_ins = measure_stand_ins(answers, num_classes)
    scanned, pairs = _models(names, known, stand_ins), _pairs(names, known, stand_ins)
    return Scan(
        models=scanned,
        pairs=pairs,
        samples=len(first.ids),
        broken=first.broken,
        noun=first.noun,
        labelled=target_N is not None,
        student=student,
        teachers=teachers,
        expertise=expertise,
        tracking=() if target_N is None else track(scanned, pairs),
    )


def same_samples(models: Sequence[PredictedClasses]) -> None:
    """Find out whether all models predicted the same images.

    Raises:
        DataError: the images or their labels differ.
    """
    first = models[0]
    for model in models[1:]:
        if model.ids != first.ids or not _same_labels(model.target, first.target):
            raise DataError(
                f"predictions of {first.model} and {model.model} are not for the same {first.noun}s and labels"
            )


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What labels tell: the fields of each model and of each ordered pair, by their places; without labels none."""

    models: Mapping[int, Mapping[str, Any]]
    pairs: Mapping[tuple[int, int], Mapping[str, Any]]


_NOT_KNOWN = _Known(models={}, pairs={})
_CEILINGS = tuple(field.name for field in fields(Ceilings))
_OF_A_MODEL = ("accuracy", *_CEILINGS)
_OF_A_PAIR = (
    "delta_acc_pp",
    "positive_flips",
    "negative_flips",
    "flip_entropy",
    "error_overlap",
    "error_consistency",
    *_CEILINGS,
    "area_sizes",
    "area_similarity",
)


def _known(answers: Sequence[Answers], target_N: Tensor, flips: ZooFlips, areas: ZooAreas) -> _Known:
    # As lists: a number at a time out of a tensor takes a hundred times as long.
    positive, negative = flips.positive_flips_MM.tolist(), flips.negative_flips_MM.tolist()
    delta_acc_pp, entropy = flips.delta_acc_pp_MM.tolist(), flips.flip_entropy_MM.tolist()
    overlap, consistency = flips.error_overlap_MM.tolist(), flips.error_consistency_MM.tolist()
    sizes = areas.sizes_MMA.tolist()
    similarity = None if areas.similarity_MMA is None else areas.similarity_MMA.tolist()
    return _Known(
        models={
            place: {"accuracy": right, **vars(above)}
            for place, (right, above) in enumerate(
                zip(flips.accuracy_M.tolist(), ceilings_with_all_others(answers, target_N), strict=True)
            )
        },
        pairs={
            (s, t): {
                "delta_acc_pp": delta_acc_pp[s][t],
                "positive_flips": positive[s][t],
                "negative_flips": negative[s][t],
                "flip_entropy": _number(entropy[s][t]),
                "error_overlap": _number(overlap[s][t]),
                "error_consistency": _number(consistency[s][t]),
                **vars(above),
                "area_sizes": tuple(sizes[s][t]) if positive[s][t] else None,
                "area_similarity": tuple(map(_number, similarity[s][t])) if similarity and positive[s][t] else None,
            }
            for (s, t), above in ceilings_of_pairs(answers, target_N, flips).items()
        },
    )


def _models(names: Sequence[str], known: _Known, stand_ins: StandIns) -> tuple[ScannedModel, ...]:
    agreement, estimated = stand_ins.agreement_M.tolist(), stand_ins.estimated_accuracy_M.tolist()
    strength = [None] * len(names) if stand_ins.strength_M is None else stand_ins.strength_M.tolist()
    unknown = dict.fromkeys(_OF_A_MODEL)
    return tuple(
        ScannedModel(
            model=name,
            **known.models.get(place, unknown),
            agreement=agreement[place],
            strength=strength[place],
            estimated_accuracy=estimated[place],
        )
        for place, name in enumerate(names)
    )


def _pairs(names: Sequence[str], known: _Known, stand_ins: StandIns) -> tuple[ScannedPair, ...]:
    disagreement, surer = stand_ins.disagreement_MM.tolist(), stand_ins.surer_disagreement_MM.tolist()
    kappa, estimated = stand_ins.kappa_MM.tolist(), stand_ins.estimated_positive_flips_MM.tolist()
    accuracy, unknown = stand_ins.estimated_accuracy_M.tolist(), dict.fromkeys(_OF_A_PAIR)
    return tuple(
        ScannedPair(
            student=names[s],
            teacher=names[t],
            **known.pairs.get((s, t), unknown),
            disagreement=disagreement[s][t],
            surer_disagreement=surer[s][t],
            kappa=_number(kappa[s][t]),
            estimated_positive_flips=estimated[s][t],
            estimated_delta_acc_pp=100 * (accuracy[t] - accuracy[s]),
        )
        for s, t in permutations(range(len(names)), 2)
    )


def chosen_teachers(
    names: Sequence[str],
    answers: Sequence[Answers],
    target_N: Tensor | None,
    num_classes: int,
    *,
    student: str,
    most: int,
) -> tuple[TeacherChoice, ...]:
    """Teachers for one of the models, one after another, by the ensemble of all so far (`ensembles.choose_teachers`).

    Args:
        names: references of the models.
        answers: their answers.
        target_N: labels, int64 (N,), or None: then the ensembles are estimated by all models together.
        num_classes: number of classes.
        student: reference of the student.
        most: number of teachers at most.

    Raises:
        SettingsError: the student is none of the models.
    """
    if student not in names:
        raise SettingsError(f"student is {student!r}, which is none of the models that could be compared")
    own = names.index(student)
    others = [place for place in range(len(names)) if place != own]
    truth = pooled_probs(answers, num_classes) if target_N is None else target_N
    found = choose_teachers(answers[own], [answers[place] for place in others], truth, most=most)
    return tuple(
        TeacherChoice(
            teacher=names[others[one.teacher]],
            routed_accuracy=None if target_N is None else one.routed_accuracy,
            mean_accuracy=None if target_N is None else one.mean_accuracy,
            headroom_pp=None if target_N is None else one.headroom_pp,
            added_pp=None if target_N is None else one.added_pp,
            estimated_headroom_pp=one.headroom_pp if target_N is None else None,
            estimated_added_pp=one.added_pp if target_N is None else None,
        )
        for one in found
    )


def _same_labels(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _number(value: float) -> float | None:
    """None for NaN."""
    return None if math.isnan(value) else value
