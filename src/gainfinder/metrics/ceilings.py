"""Ceilings: what there is to win, from the predictions of a student and its teachers for the same labelled images.

The oracle is the accuracy of whoever could tell which answer is right; the ensembles are what a single model could at
least become, since they use nothing but the models' own outputs. Shapes: N samples, M models, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..partition import argmax_confidence
from ..predictions import Predictions
from .calibration import fit_temperature_where_known
from .flips import accuracy

FIT_SAMPLES = 5000
"""Samples of a half that a temperature is fitted on, at most: it is a single number."""
ROWS = 4096
"""Samples whose probabilities are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What a student could win from its teachers.

    Attributes:
        oracle_accuracy: share of the samples that the student or any of the teachers has right, in [0, 1]: the
            student's accuracy + ρ_pos.
        routed_accuracy: accuracy of the routed ensemble, the answer of the most confident model, in [0, 1].
        mean_accuracy: accuracy of the ensemble of mean calibrated probabilities, in [0, 1]; None where the logits were
            not kept.
        headroom_pp: accuracy of the better of the ensembles that are known less the student's, in percentage points;
            negative where both are worse than the student alone.
    """

    oracle_accuracy: float
    routed_accuracy: float
    mean_accuracy: float | None
    headroom_pp: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The part of a model's predictions that ceilings are computed from.

    Attributes:
        predicted_N: predicted classes, int64 (N,).
        confidence_N: largest softmax probabilities, float32 (N,).
        logits_NC: logits, float32 (N, C), or None where they were not kept.
        temperature_N: each sample's temperature, float32 (N,), where the logits are kept.
    """

    predicted_N: Tensor
    confidence_N: Tensor
    logits_NC: Tensor | None = None
    temperature_N: Tensor | None = None

    @classmethod
    def of(cls, predictions: Predictions, *, keep_logits: bool = True) -> Self:
        """The answers in predictions.

        Args:
            predictions: the predictions. Without labels there is nothing to calibrate by, and temperatures are 1.
            keep_logits: whether the ensemble of mean probabilities is wanted, which needs N × C numbers a model.
        """
        predicted_N, confidence_N = predictions.predicted, predictions.confidence
        if not keep_logits:
            return cls(predicted_N=predicted_N, confidence_N=confidence_N)
        return cls(
            predicted_N=predicted_N,
            confidence_N=confidence_N,
            logits_NC=predictions.logits,
            temperature_N=(
                torch.ones(len(predictions))
                if predictions.target is None
                else cross_fitted_temperatures(predictions.logits, predictions.target)
            ),
        )

    def probs(self, rows: slice = slice(None)) -> Tensor | None:
        """Calibrated probabilities of some samples, float32 (n, C); None where the logits were not kept."""
        if self.logits_NC is None or self.temperature_N is None:
            return None
        z_NC = self.logits_NC[rows] / self.temperature_N[rows, None]
        # Logits of 1e38 divided by a temperature below 1 are infinite, and ∞ − ∞ is NaN.
        return z_NC.clamp(max=torch.finfo(z_NC.dtype).max).softmax(dim=1)

    def of_rows(self, rows: Tensor) -> Self:
        """The answers of some samples, int64 (n,), in this order."""
        optional = (self.logits_NC, self.temperature_N)
        logits_NC, temperature_N = (None if one is None else one[rows] for one in optional)
        return replace(
            self,
            predicted_N=self.predicted_N[rows],
            confidence_N=self.confidence_N[rows],
            logits_NC=logits_NC,
            temperature_N=temperature_N,
        )


def measure_ceilings(student: Predictions, teachers: Sequence[Predictions]) -> Ceilings | None:
    """The ceilings of a student and its teachers.

    Args:
        student: predictions of the student.
        teachers: predictions of the teachers for the same images, in the student's class order.

    Returns:
        The ceilings; None without labels or teachers.
    """
    if student.target is None or not teachers:
        return None
    return ceilings_of(Answers.of(student), [Answers.of(teacher) for teacher in teachers], student.target)


def ceilings_of(student: Answers, teachers: Sequence[Answers], target_N: Tensor) -> Ceilings:
    """The ceilings of a student and its teachers.

    The routed ensemble compares raw confidences, as the label-free partition (Eq. 4) does; ties go to the student, then
    to the teacher that comes first. The ensemble of means averages the calibrated probabilities of all models; between
    equal means it predicts the class of the lowest index.

    Args:
        student: the student's answers.
        teachers: the answers of one or more teachers to the same images, in the student's class order.
        target_N: labels, int64 (N,), N ≥ 1.
    """
    models = [student, *teachers]
    predicted_NM = torch.stack([model.predicted_N for model in models], dim=1)
    choice_N = argmax_confidence(torch.stack([model.confidence_N for model in models], dim=1))
    routed = accuracy(predicted_NM.gather(1, choice_N[:, None]).squeeze(1), target_N)
    mean_N = _mean_predicted(models)
    mean = None if mean_N is None else accuracy(mean_N, target_N)
    return Ceilings(
        oracle_accuracy=int((predicted_NM == target_N[:, None]).any(dim=1).sum()) / len(target_N),
        routed_accuracy=routed,
        mean_accuracy=mean,
        headroom_pp=100 * (better_of(routed, mean) - accuracy(student.predicted_N, target_N)),
    )


def better_of(routed: float, mean: float | None) -> float:
    """The accuracy of the better of both ensembles, of those that are known."""
    return routed if mean is None else max(routed, mean)


def captured(delta_pp: float | None, ceiling_pp: float | None) -> float | None:
    """The share of a gain that was there to be had: delta / ceiling.

    Args:
        delta_pp: what was gained, in percentage points; None where it is unknown.
        ceiling_pp: what there was to gain, in percentage points; None likewise.

    Returns:
        The share: negative for a loss, above 1 where the ceiling was passed; None where either is unknown or the
        ceiling is not above 0.

    >>> captured(0.5, 2.0), captured(-1.0, 2.0), captured(0.5, 0.0), captured(None, 2.0)
    (0.25, -0.5, None, None)
    """
    return None if delta_pp is None or ceiling_pp is None or ceiling_pp <= 0 else delta_pp / ceiling_pp


def cross_fitted_temperatures(logits_NC: Tensor, target_N: Tensor) -> Tensor:
    """For each sample a temperature that was fitted without its own label: to those of the other half.

    The halves are the samples at even and at odd positions, of which at most 5,000 at equal distances are fitted on.
    Two halves rather than other images: so a pair has the same ceilings wherever it is measured on these images, in a
    scan, a transfer or a report, and a single number from thousands of labels hardly depends on which they are.

    Args:
        logits_NC: floating point (N, C). Samples whose label has a logit of −inf, a class that the model does not
            know, are not fitted on: no temperature helps there.
        target_N: labels, int64 (N,), from 0 to C − 1.

    Returns:
        float32 (N,), each as `calibration.fit_temperature` gives it; 1 where the other half has nothing to fit on.
    """
    temperature_N = torch.ones(len(target_N))
    for half in (0, 1):
        temperature_N[half::2] = _temperature(logits_NC[1 - half :: 2], target_N[1 - half :: 2])
    return temperature_N


def _temperature(logits_NC: Tensor, target_N: Tensor) -> float:
    stride = max(1, -(-len(target_N) // FIT_SAMPLES))
    return fit_temperature_where_known(logits_NC[::stride], target_N[::stride])


def _mean_predicted(models: Sequence[Answers]) -> Tensor | None:
    """The most probable class by the mean of all models' calibrated probabilities; None where logits were not kept."""
    predicted = []
    for start in range(0, len(models[0].predicted_N), ROWS):
        probs = [found for model in models if (found := model.probs(slice(start, start + ROWS))) is not None]
        if len(probs) < len(models):
            return None
        predicted.append(torch.stack(probs).sum(dim=0).argmax(dim=1))
    return torch.cat(predicted)
