"""The objectives that the table of methods names: one function each, between a student and one target.

Shapes: N samples, C classes.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from .objectives import dist_loss, dkd_loss, kl_divergence, soft_cross_entropy, standardised_logits, top_k_kl

DIST_WEIGHTS = {"inter_weight": 1.0, "intra_weight": 1.0}
"""β and γ of Huang et al. 2022, section 4.1: 1 and 1 on ImageNet."""
DKD_WEIGHTS = {"target_weight": 1.0, "non_target_weight": 0.5}
"""α and β of Zhao et al. 2022: 1 and 0.5 on ImageNet, for teachers that are not far more confident than the student."""


class ObjectiveFunction(Protocol):
    """The losses (N,) of a student's logits (N, C) with a target's; `class_N` is the labels where the method knows."""

    def __call__(
        self, student_NC: Tensor, target_NC: Tensor, class_N: Tensor | None, /, *, temperature: float, top_k: int
    ) -> Tensor: ...


def _kl(student_NC: Tensor, target_NC: Tensor, _: Tensor | None, *, temperature: float, top_k: int) -> Tensor:
    return kl_divergence(student_NC, target_NC, temperature, reduction="none")


def _soft_xe(student_NC: Tensor, target_NC: Tensor, _: Tensor | None, *, temperature: float, top_k: int) -> Tensor:
    return soft_cross_entropy(student_NC, target_NC, temperature, reduction="none")


def _top_k(student_NC: Tensor, target_NC: Tensor, _: Tensor | None, *, temperature: float, top_k: int) -> Tensor:
    return top_k_kl(student_NC, target_NC, top_k, temperature, reduction="none")


def _standardised(student_NC: Tensor, target_NC: Tensor, _: Tensor | None, *, temperature: float, top_k: int) -> Tensor:
    target_NC = standardised_logits(target_NC)
    return kl_divergence(standardised_logits(student_NC), target_NC, temperature, reduction="none")


def _dist(student_NC: Tensor, target_NC: Tensor, _: Tensor | None, *, temperature: float, top_k: int) -> Tensor:
    return dist_loss(student_NC, target_NC, temperature, **DIST_WEIGHTS, reduction="none")


def _dkd(student_NC: Tensor, target_NC: Tensor, class_N: Tensor | None, *, temperature: float, top_k: int) -> Tensor:
    class_N = target_NC.argmax(dim=-1) if class_N is None else class_N
    return dkd_loss(student_NC, target_NC, class_N, temperature, **DKD_WEIGHTS, reduction="none")


FUNCTIONS: Mapping[str, ObjectiveFunction] = {
    "kl": _kl,
    "soft-xe": _soft_xe,
    "top-k": _top_k,
    "standardised": _standardised,
    "dist": _dist,
    "dkd": _dkd,
}
"""By `Method.objective`; those on features, `cd` and `crd`, are in `contrastive.py`."""
