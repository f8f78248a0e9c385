"""Before and after: what a student gained and lost, and from whom, as a function of predictions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ..errors import DataError
from ..predictions import Predictions
from .ceilings import captured, measure_ceilings
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

Interval: TypeAlias = tuple[float, float]
"""Low and high end of a 95 % interval."""


class TransferMeasures(BaseModel):
    """The measures of a student against its initial self and its teachers (PAPER section 5), for N images.

    Attributes:
        accuracy_before: accuracy of the initial student, in [0, 1]; null without labels.
        accuracy_after: accuracy of the student that is kept, in [0, 1]; null without labels.
        transfer_delta_pp: accuracy after less before, in percentage points; null without labels.
        transfer_delta_ci_pp: 95 % interval of `transfer_delta_pp`, by a paired bootstrap with a fixed seed; null
            without labels.
        knowledge_gain: share of the images that were wrong before and are right after, in [0, 1]; null without labels.
        knowledge_gain_ci: 95 % interval of `knowledge_gain` (Wilson); null without labels.
        knowledge_loss: share of the images that were right before and are wrong after; null without labels.
        knowledge_loss_ci: 95 % interval of `knowledge_loss` (Wilson); null without labels.
        positive_flips: share of the images that any of the teachers has right and the initial student wrong; null
            without labels, and where no teacher's predictions are known.
        negative_flips: share of the images that no teacher has right and the initial student has; null likewise.
        transfer_rate: share of the positive flips that are right after; null likewise, and without positive flips.
        oracle_accuracy: share of the images that the initial student or any of the teachers has right; null without
            labels, and where no teacher's predictions are known.
        routed_accuracy: accuracy of the routed ensemble, whichever of their answers is surest; null likewise.
        mean_accuracy: accuracy of the ensemble of their mean calibrated probabilities; null likewise.
        headroom_pp: accuracy of the better of the two ensembles less `accuracy_before`, in percentage points; null
            likewise.
        headroom_captured: `transfer_delta_pp` / `headroom_pp`; null likewise, and where there is no headroom above 0.
        samples: N.
        agreement: share of the images whose predicted class is unchanged; never null.
        agreement_with_teachers: for each teacher the share of the images on which it and the student predict the same
            class, before and after; null for a prediction table without some of the images.
        dropped_mass: for each teacher its mean probability of classes that are none of the student's, in [0, 1]; null
            likewise.
        confidence_before: mean of the initial student's largest probability; never null.
        confidence_after: likewise of the student that is kept.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    accuracy_before: float | None = None
    accuracy_after: float | None = None
    transfer_delta_pp: float | None = None
    transfer_delta_ci_pp: Interval | None = None
    knowledge_gain: float | None = None
    knowledge_gain_ci: Interval | None = None
    knowledge_loss: float | None = None
    knowledge_loss_ci: Interval | None = None
    positive_flips: float | None = None
    negative_flips: float | None = None
    transfer_rate: float | None = None
    oracle_accuracy: float | None = None
    routed_accuracy: float | None = None
    mean_accuracy: float | None = None
    headroom_pp: float | None = None
    headroom_captured: float | None = None
    samples: int
    agreement: float
    agreement_with_teachers: tuple[tuple[float, float] | None, ...]
    dropped_mass: tuple[float | None, ...]
    confidence_before: float
    confidence_after: float


@dataclass(frozen=True, kw_only=True)
class AccuracyChange:
    """How much better one student is than another on the same images.

    Attributes:
        delta_pp: difference in accuracy, in percentage points; None without labels.
        ci_pp: 95 % interval of `delta_pp`, by a paired bootstrap with a fixed seed; None without labels.
    """

    delta_pp: float | None = None
    ci_pp: Interval | None = None


def measure_transfer(
    before: Predictions, after: Predictions, teachers: Sequence[Predictions | None]
) -> TransferMeasures:
    """The measures of a student against its initial self and its teachers (PAPER section 5).

    Args:
        before: predictions of the initial student.
        after: predictions of the transferred student for the same images.
        teachers: the teachers' predictions for the same images; None where a teacher has none. With several, a sample
            is a positive flip when any of them is right where the initial student is wrong, and a negative one when
            none is right where it is right.

    Raises:
        DataError: predictions for different images, or for none.
    """
    known = [teacher for teacher in teachers if teacher is not None]
    check_same_samples(before, after, *known)
    return TransferMeasures(
        **({} if before.target is None else _with_labels(before, after, known, before.target)),
        samples=len(before),
        agreement=accuracy(after.predicted, before.predicted),
        agreement_with_teachers=tuple(None if one is None else _agreements(before, after, one) for one in teachers),
        dropped_mass=tuple(None if teacher is None else teacher.dropped_mass for teacher in teachers),
        confidence_before=_mean(before.confidence),
        confidence_after=_mean(after.confidence),
    )


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


def accuracy_change(before: Predictions, after: Predictions) -> AccuracyChange:
    """How much better one student is than another; all None without labels.

    Args:
        before: predictions of the student to compare with.
        after: predictions of the other student for the same images.

    Raises:
        DataError: predictions for different images, or for none.
    """
    check_same_samples(before, after)
    if before.target is None:
        return AccuracyChange()
    return AccuracyChange(delta_pp=_delta_pp(before, after), ci_pp=_interval_pp(before, after, before.target))


def estimated_strengths(models: Sequence[Predictions]) -> list[float]:
    """A number for each model that rises with its accuracy: the accuracy itself where there are labels.

    Without labels: mean agreement with the others × mutual information between image and predicted class. Agreement
    alone does not do: weak models that are alike agree with each other more than with a strong one. Information alone
    does not, either: it trusts an overconfident model. Both can be wrong; benchmarks/evidence/README.md states
    how often they were.

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
    if (above := measure_ceilings(before, teachers)) is not None:
        share = captured(_delta_pp(before, after), above.headroom_pp)
        measures = {**measures, **asdict(above), "headroom_captured": share}
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


def _agreements(before: Predictions, after: Predictions, teacher: Predictions) -> tuple[float, float]:
    return accuracy(before.predicted, teacher.predicted), accuracy(after.predicted, teacher.predicted)


def _gained_lost(before: Predictions, after: Predictions, target: Tensor) -> tuple[Tensor, Tensor]:
    return (
        knowledge_gained(before.predicted, after.predicted, target),
        knowledge_lost(before.predicted, after.predicted, target),
    )


def _interval_pp(before: Predictions, after: Predictions, target: Tensor) -> Interval:
    return paired_bootstrap_ci(before.predicted == target, after.predicted == target)


def _delta_pp(before: Predictions, after: Predictions) -> float:
    assert before.target is not None
    right = (after.predicted == before.target).sum() - (before.predicted == before.target).sum()
    return 100 * int(right) / len(before)


def _share(mask_N: Tensor) -> float:
    return int(mask_N.sum()) / len(mask_N)


def _share_interval(mask_N: Tensor) -> Interval:
    return wilson_interval(int(mask_N.sum()), len(mask_N))


def _mean(values_N: Tensor) -> float:
    return float(values_N.double().mean())


def check_same_samples(first: Predictions, *others: Predictions) -> None:
    """Refuse predictions for different images, or for none.

    Raises:
        DataError: the sample ids differ, or there are no samples.
    """
    if len(first) == 0:
        raise DataError(f"there are no {first.noun}s to measure on")
    for other in others:
        if other.ids != first.ids:
            raise DataError(f"predictions of {first.model} and {other.model} are not for the same {first.noun}s")
