"""Before and after: what a student gained and lost, and from whom, as a function of predictions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from ..predictions import Predictions
from .flips import (
    accuracy,
    knowledge_gained,
    knowledge_lost,
    negative_flips,
    positive_flips,
    transfer_rate,
)
from .information import information
from .intervals import paired_bootstrap_ci, wilson_interval

LABELLED_MEASURES = (
    "accuracy_before",
    "accuracy_after",
    "transfer_delta_pp",
    "transfer_delta_ci_pp",
    "knowledge_gain",
    "knowledge_gain_ci",
    "knowledge_loss",
    "knowledge_loss_ci",
    "positive_flips",
    "negative_flips",
    "transfer_rate",
)


def measure_transfer(before: Predictions, after: Predictions, teachers: Sequence[Predictions | None]) -> dict[str, Any]:
    """The measures of a student against its initial self and its teacher (PAPER section 5).

    Args:
        before: of the initial student.
        after: of the transferred student, for the same images.
        teachers: of the teachers, for the same images; None for one that cannot tell. With several, a sample is a
            positive flip when any of them is right where the initial student is wrong, and a negative one when none is
            right where it is right.

    Returns:
        Shares of all samples in [0, 1] (`knowledge_gain` and `knowledge_loss`, each with Wilson's 95 % interval;
        `positive_flips`, `negative_flips`), accuracies in [0, 1], deltas in percentage points with a 95 % interval
        (paired bootstrap, fixed seed), and `transfer_rate`; all null without labels, `transfer_rate` also without
        positive flips. Always: `agreement` (share of samples whose predicted class is unchanged),
        `agreement_with_teachers` (share on which student and teacher agree, before and after, a pair a teacher or
        null), `dropped_mass` (mean share of probability that each teacher spends on classes that are none of the
        student's, or null) and mean `confidence_before`, `confidence_after`.
    """
    known = [teacher for teacher in teachers if teacher is not None]
    check_same_samples(before, after, *known)
    measures: dict[str, Any] = dict.fromkeys(LABELLED_MEASURES)
    if before.target is not None:
        measures.update(_with_labels(before, after, known, before.target))
    measures["samples"] = len(before)
    measures["agreement"] = accuracy(after.predicted, before.predicted)
    measures["agreement_with_teachers"] = [
        None if teacher is None else [accuracy(student.predicted, teacher.predicted) for student in (before, after)]
        for teacher in teachers
    ]
    measures["dropped_mass"] = [None if teacher is None else teacher.dropped_mass for teacher in teachers]
    measures["confidence_before"] = _mean(before.confidence)
    measures["confidence_after"] = _mean(after.confidence)
    return measures


def epoch_measures(before: Predictions, now: Predictions) -> dict[str, Any]:
    """The measures of a row: after an epoch against before the transfer; null where they need labels."""
    row: dict[str, Any] = dict.fromkeys(("accuracy", "transfer_delta_pp", "knowledge_gain", "knowledge_loss"))
    if now.target is not None:
        gained, lost = _gained_lost(before, now, now.target)
        row["accuracy"] = now.accuracy
        row["transfer_delta_pp"] = _delta_pp(before, now)
        row["knowledge_gain"], row["knowledge_loss"] = _share(gained), _share(lost)
    row["agreement"] = accuracy(now.predicted, before.predicted)
    row["confidence"] = _mean(now.confidence)
    return row


def since_origin(origin: Predictions, now: Predictions) -> dict[str, Any]:
    """The change since the student that a sequence of transfers began with (Fig. 11); null without labels."""
    row: dict[str, Any] = dict.fromkeys(("total_delta_pp", "total_gain", "total_loss"))
    if now.target is not None:
        gained, lost = _gained_lost(origin, now, now.target)
        row = {"total_delta_pp": _delta_pp(origin, now), "total_gain": _share(gained), "total_loss": _share(lost)}
    return row


def unguarded_measures(before: Predictions, trained: Predictions) -> dict[str, Any]:
    """What the student would have gained without its guard, percentage points; null without labels."""
    row: dict[str, Any] = dict.fromkeys(("unguarded_delta_pp", "unguarded_delta_ci_pp"))
    if before.target is not None:
        row["unguarded_delta_pp"] = _delta_pp(before, trained)
        row["unguarded_delta_ci_pp"] = _interval_pp(before, trained, before.target)
    return row


def beyond_control(control: Predictions, after: Predictions) -> dict[str, Any]:
    """How much better a student is than one that learned from its own copy, percentage points; null without labels."""
    row: dict[str, Any] = dict.fromkeys(("beyond_pp", "beyond_ci_pp"))
    check_same_samples(control, after)
    if control.target is not None:
        row = {"beyond_pp": _delta_pp(control, after), "beyond_ci_pp": _interval_pp(control, after, control.target)}
    return row


def estimated_strengths(models: Sequence[Predictions]) -> list[float]:
    """A number for each model that rises with its accuracy: the accuracy itself where there are labels.

    Without labels: mean agreement with the others × mutual information between image and predicted class. Agreement
    alone does not do: weak models that are alike agree with each other more than with a strong one. Information alone
    does not, either: it believes a model that is sure of itself without reason. Both can be wrong; benchmarks/README.md
    tells how often they were.

    Raises:
        DataError: predictions for different images.
    """
    check_same_samples(*models)
    if models[0].target is not None:
        return [model.accuracy for model in models]
    agreements = mean_agreements(models)
    return [
        agreement * float(information(model.logits).mean()) for agreement, model in zip(agreements, models, strict=True)
    ]


def mean_agreements(models: Sequence[Predictions]) -> list[float]:
    """How often, on average, the other models predict the same class as each; 1 for a model without others.

    Raises:
        DataError: predictions for different images.
    """
    check_same_samples(*models)
    if len(models) == 1:
        return [1.0]
    return [
        sum(accuracy(model.predicted, other.predicted) for other in models if other is not model) / (len(models) - 1)
        for model in models
    ]


def _with_labels(
    before: Predictions, after: Predictions, teachers: Sequence[Predictions], target: Tensor
) -> dict[str, Any]:
    gained, lost = _gained_lost(before, after, target)
    measures: dict[str, Any] = dict.fromkeys(("positive_flips", "negative_flips", "transfer_rate"))
    if teachers:
        positive = torch.stack([positive_flips(before.predicted, t.predicted, target) for t in teachers]).any(dim=0)
        negative = torch.stack([negative_flips(before.predicted, t.predicted, target) for t in teachers]).all(dim=0)
        measures = {
            "positive_flips": _share(positive),
            "negative_flips": _share(negative),
            "transfer_rate": transfer_rate(gained, positive),
        }
    return {
        "accuracy_before": before.accuracy,
        "accuracy_after": after.accuracy,
        "transfer_delta_pp": _delta_pp(before, after),
        "transfer_delta_ci_pp": _interval_pp(before, after, target),
        "knowledge_gain": _share(gained),
        "knowledge_gain_ci": _share_interval(gained),
        "knowledge_loss": _share(lost),
        "knowledge_loss_ci": _share_interval(lost),
        **measures,
    }


def _gained_lost(before: Predictions, after: Predictions, target: Tensor) -> tuple[Tensor, Tensor]:
    return (
        knowledge_gained(before.predicted, after.predicted, target),
        knowledge_lost(before.predicted, after.predicted, target),
    )


def _interval_pp(before: Predictions, after: Predictions, target: Tensor) -> list[float]:
    return list(paired_bootstrap_ci(before.predicted == target, after.predicted == target))


def _delta_pp(before: Predictions, after: Predictions) -> float:
    assert before.target is not None
    right = (after.predicted == before.target).sum() - (before.predicted == before.target).sum()
    return 100 * int(right) / len(before)


def _share(mask_N: Tensor) -> float:
    return int(mask_N.sum()) / len(mask_N)


def _share_interval(mask_N: Tensor) -> list[float]:
    return list(wilson_interval(int(mask_N.sum()), len(mask_N)))


def _mean(values_N: Tensor) -> float:
    return float(values_N.double().mean())


def check_same_samples(first: Predictions, *others: Predictions) -> None:
    """Refuse predictions for different images, or for none.

    Raises:
        DataError: so they are.
    """
    if len(first) == 0:
        raise DataError("there are no images to measure on")
    for other in others:
        if other.ids != first.ids:
            raise DataError(f"predictions of {first.model} and {other.model} are not for the same images")
