"""What is known of a student and a teacher before any training, as functions of their predictions.

Every quantity is an average over samples of what is right. With labels that is counted; without, it is expected by the
class probabilities that all models of a zoo give together (`stand_ins.pooled_probs`), by the same formulas.
Shapes: N samples, M models, C classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..partition import argmax_confidence, cooled_by_class, pooled_log_probs
from .calibration import class_temperatures
from .ceilings import ROWS, Answers, better_of
from .stand_ins import expected_accuracy

COOLING_SAMPLES = 1000
"""Samples at equal distances that a teacher's temperatures are found on, at most: they take many passes over these."""


@dataclass(frozen=True, kw_only=True)
class PairFeatures:
    """A student and a teacher before training; shares and differences are in percentage points of all samples.

    Attributes:
        student_accuracy: accuracy of the student, in [0, 1].
        teacher_accuracy: accuracy of the teacher, in [0, 1].
        delta_acc_pp: the difference, teacher less student.
        positive_flips_pp: teacher right, student wrong (ρ_pos).
        negative_flips_pp: teacher wrong, student right (ρ_neg).
        teacher_share: share of the samples that the partition without labels (Eq. 4) sends to the teacher, in [0, 1].
        taught_positive_pp: positive flips among these.
        taught_negative_pp: negative flips among these.
        supervised_net_pp: positive less negative flips that the partition by the true class's probability sends to the
            teacher; None where logits were not kept, as the one that follows.
        target_headroom_pp: accuracy of the target that `kl-prod-cal-u` learns from, the product of both models'
            probabilities with the teacher cooled where the student contradicts it, less the student's.
        headroom_pp: accuracy of the better of the routed and the mean ensemble, less the student's.
        agreement: share of the samples on which both predict the same class, in [0, 1].
        student_overconfidence_pp: mean confidence of the student less its accuracy.
        teacher_overconfidence_pp: mean confidence of the teacher less its accuracy.
        log10_parameters: decimal logarithm of the student's number of weights, its capacity; None where it is unknown.
    """

    student_accuracy: float
    teacher_accuracy: float
    delta_acc_pp: float
    positive_flips_pp: float
    negative_flips_pp: float
    teacher_share: float
    taught_positive_pp: float
    taught_negative_pp: float
    supervised_net_pp: float | None
    target_headroom_pp: float | None
    headroom_pp: float
    agreement: float
    student_overconfidence_pp: float
    teacher_overconfidence_pp: float
    log10_parameters: float | None

    def values(self) -> Mapping[str, float]:
        """Those that are known, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


FEATURES = tuple(field.name for field in fields(PairFeatures))
"""The names of all features."""


def measure_pair(student: Answers, teacher: Answers, truth: Tensor, *, parameters: int | None = None) -> PairFeatures:
    """What is known of a student and a teacher before training.

    Between equal confidences the student keeps the sample, as in Eq. 4.

    Args:
        student: the student's answers.
        teacher: the teacher's answers to the same images, in the student's class order.
        truth: labels, int64 (N,), N ≥ 1; or class probabilities, float (N, C), where there are none.
        parameters: number of the student's weights; None where it is unknown.

    Example:
        The surer teacher corrects one of two images and keeps the other:

        >>> student = Answers(predicted_N=torch.tensor([0, 0]), confidence_N=torch.tensor([0.5, 0.5]))
        >>> teacher = Answers(predicted_N=torch.tensor([1, 0]), confidence_N=torch.tensor([0.9, 0.9]))
        >>> found = measure_pair(student, teacher, torch.tensor([1, 0]))
        >>> found.positive_flips_pp, found.taught_positive_pp, found.headroom_pp, found.agreement
        (50.0, 50.0, 50.0, 0.5)
    """
    student_right_N, teacher_right_N = (_rightness(one.predicted_N, truth) for one in (student, teacher))
    differ_N = student.predicted_N != teacher.predicted_N
    positive_N, negative_N = differ_N * teacher_right_N, differ_N * student_right_N
    taught_N = _choice(student, teacher) > 0
    own, other = float(student_right_N.mean()), float(teacher_right_N.mean())
    routed_N = torch.where(taught_N, teacher.predicted_N, student.predicted_N)
    means, products = _pooled(student, teacher)
    mean = None if means is None else expected_accuracy(means, truth)
    return PairFeatures(
        student_accuracy=own,
        teacher_accuracy=other,
        delta_acc_pp=100 * (other - own),
        positive_flips_pp=100 * float(positive_N.mean()),
        negative_flips_pp=100 * float(negative_N.mean()),
        teacher_share=float(taught_N.double().mean()),
        taught_positive_pp=100 * float((taught_N * positive_N).mean()),
        taught_negative_pp=100 * float((taught_N * negative_N).mean()),
        supervised_net_pp=_supervised_net_pp(student, teacher, positive_N, negative_N),
        target_headroom_pp=None if products is None else 100 * (expected_accuracy(products, truth) - own),
        headroom_pp=100 * (better_of(expected_accuracy(routed_N, truth), mean) - own),
        agreement=1 - float(differ_N.double().mean()),
        student_overconfidence_pp=100 * (_mean_confidence(student) - own),
        teacher_overconfidence_pp=100 * (_mean_confidence(teacher) - other),
        log10_parameters=None if not parameters else math.log10(parameters),
    )


def _rightness(predicted_N: Tensor, truth: Tensor) -> Tensor:
    """How right each answer is: 1 or 0 by a label, else its probability; float64 (N,)."""
    if truth.ndim == 1:
        return (predicted_N == truth).double()
    return truth.gather(1, predicted_N[:, None]).squeeze(1).double()


def _choice(student: Answers, teacher: Answers) -> Tensor:
    """The partition of Eq. 4 without labels: 1 where the teacher teaches, int64 (N,)."""
    confidence_NM = torch.stack([student.confidence_N, teacher.confidence_N], dim=1)
    return argmax_confidence(confidence_NM.masked_fill(confidence_NM.isnan(), -torch.inf))


def _mean_confidence(model: Answers) -> float:
    return float(model.confidence_N.double().nan_to_num(0.0).mean())


def _supervised_net_pp(student: Answers, teacher: Answers, positive_N: Tensor, negative_N: Tensor) -> float | None:
    """Of positive flips the true class is the teacher's answer, of negative ones the student's."""
    if student.logits_NC is None or teacher.logits_NC is None:
        return None
    net = 0.0
    for answer, flips_N, sign in ((teacher, positive_N, 1), (student, negative_N, -1)):
        own_N, other_N = (_prob_of(model.logits_NC, answer.predicted_N) for model in (student, teacher))
        net += sign * float(((other_N > own_N) * flips_N).mean())
    return 100 * net


def _prob_of(logits_NC: Tensor | None, classes_N: Tensor) -> Tensor:
    assert logits_NC is not None
    blocks = zip(logits_NC.split(ROWS), classes_N.split(ROWS), strict=True)
    return torch.cat([one.log_softmax(dim=1).gather(1, classes[:, None]).squeeze(1) for one, classes in blocks])


def _pooled(student: Answers, teacher: Answers) -> tuple[Tensor | None, Tensor | None]:
    """What both predict by the mean of their calibrated probabilities, and by the product; None without logits."""
    if student.logits_NC is None or teacher.logits_NC is None:
        return None, None
    stride = -(-len(student.predicted_N) // COOLING_SAMPLES)
    temperatures_MC = class_temperatures([student.logits_NC[::stride], teacher.logits_NC[::stride]])
    means, products = [], []
    for start in range(0, len(student.predicted_N), ROWS):
        rows = slice(start, start + ROWS)
        own_NC, other_NC = student.probs(rows), teacher.probs(rows)
        assert own_NC is not None and other_NC is not None, "logits come with temperatures"
        means.append((own_NC + other_NC).argmax(dim=1))
        logits_NMC = torch.stack([student.logits_NC[rows], teacher.logits_NC[rows]], dim=1)
        cooled_NMC = cooled_by_class(logits_NMC.double(), temperatures_MC)
        products.append(pooled_log_probs(cooled_NMC, "product").argmax(dim=1))
    return torch.cat(means), torch.cat(products)
