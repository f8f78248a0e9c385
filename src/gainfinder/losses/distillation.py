"""What a row of the table of methods does: from the answers of all models to a loss for each sample.

Shapes: N samples, M models, C classes. Model 0 is the initial student where the method has a partition; without one,
the teacher is the only model.
"""

from dataclasses import dataclass

from torch import Tensor

from ..config import ResolvedConfig
from ..partition import log_confidences, shares, surest
from .objectives import (
    chosen_logits,
    cross_entropy,
    dist_loss,
    dkd_loss,
    kl_divergence,
    mixed_kl,
    soft_cross_entropy,
    standardised_logits,
    top_k_kl,
)

DIST_WEIGHTS = {"inter_weight": 1.0, "intra_weight": 1.0}
"""β and γ of Huang et al. 2022, section 4.1: 1 and 1 on ImageNet."""
DKD_WEIGHTS = {"target_weight": 1.0, "non_target_weight": 0.5}
"""α and β of Zhao et al. 2022: 1 and 0.5 on ImageNet, for teachers that are not surer than the student by far."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a batch.

    Attributes:
        values_N: a loss a sample; their mean is the batch's.
        taught: how many samples a teacher taught, scalar; a share of a sample where all models teach it.
    """

    values_N: Tensor
    taught: Tensor


def distillation_losses(
    student_logits_NC: Tensor,
    target_logits_NMC: Tensor,
    target_N: Tensor | None,
    *,
    settings: ResolvedConfig,
    log_confidence_NM: Tensor | None = None,
    temperatures_M: Tensor | None = None,
) -> Losses:
    """The losses of the methods that compare logits, without the cross-entropy.

    Args:
        student_logits_NC: of the student under training, float32.
        target_logits_NMC: of the models it learns from, float32, without gradient.
        target_N: labels, for methods that need them.
        settings: of the run.
        log_confidence_NM: of what the partition compares, as `partition.log_confidences` gives it, where the logits are
            rounded and cannot say it exactly; None: of the logits. Calibrated methods take these in any case.
        temperatures_M: the models' own temperatures, for calibrated methods: confidences are compared after the logits
            are divided by them. What the student learns is on its own scale: the logits of a teacher with T_t are
            divided by T_t / T_st, so that the student's confidence is not drawn to that of another kind of training.
    """
    method = settings.method
    if method.partition is None:
        values = _objective(student_logits_NC, target_logits_NMC[:, 0], target_N, settings=settings)
        return Losses(values_N=values, taught=values.new_zeros(()))
    by = target_N if method.partition == "label" else None
    if method.calibrated:
        assert temperatures_M is not None, "calibrated methods get temperatures"
        calibrated_NMC = target_logits_NMC / temperatures_M.view(1, -1, 1)
        log_confidence_NM, target_logits_NMC = log_confidences(calibrated_NMC, by), calibrated_NMC * temperatures_M[0]
    elif log_confidence_NM is None:
        log_confidence_NM = log_confidences(target_logits_NMC, by)
    confidence_NM = log_confidence_NM.exp()  # as the paper compares: what float32 holds for equally sure, ties
    if method.soft:
        weights_NM = shares(confidence_NM, sharpness=settings.sharpness)
        values = mixed_kl(student_logits_NC, target_logits_NMC, weights_NM, settings.temperature, reduction="none")
        return Losses(values_N=values, taught=weights_NM[:, 1:].sum())
    choice_N = surest(confidence_NM)
    values = _objective(student_logits_NC, chosen_logits(target_logits_NMC, choice_N), by, settings=settings)
    return Losses(values_N=values, taught=(choice_N > 0).sum())


def label_losses(student_logits_NC: Tensor, target_N: Tensor, *, settings: ResolvedConfig) -> Tensor:
    """The cross-entropy with the labels of each sample, (N,)."""
    return cross_entropy(student_logits_NC, target_N, label_smoothing=settings.label_smoothing, reduction="none")


def _objective(student_NC: Tensor, target_NC: Tensor, target_N: Tensor | None, *, settings: ResolvedConfig) -> Tensor:
    """The method's objective between the student and one target a sample, (N,)."""
    temperature = settings.temperature
    match settings.method.objective:
        case "soft-xe":
            return soft_cross_entropy(student_NC, target_NC, temperature, reduction="none")
        case "top-k":
            return top_k_kl(student_NC, target_NC, settings.top_k, temperature, reduction="none")
        case "standardised":
            target_NC = standardised_logits(target_NC)
            return kl_divergence(standardised_logits(student_NC), target_NC, temperature, reduction="none")
        case "dist":
            return dist_loss(student_NC, target_NC, temperature, **DIST_WEIGHTS, reduction="none")
        case "dkd":
            class_N = target_NC.argmax(dim=-1) if target_N is None else target_N
            return dkd_loss(student_NC, target_NC, class_N, temperature, **DKD_WEIGHTS, reduction="none")
        case _:
            return kl_divergence(student_NC, target_NC, temperature, reduction="none")
