"""The loss of a row of the table of methods, as a module: from the logits of all models to a loss.

Shapes: N samples, M models, C classes; model 0 is the initial student where the method has a partition or a pooling.
Without one, the teacher is the only model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import DEFAULTS, Method, TransferConfig, find_method, refuse_unread
from ..errors import SettingsError
from ..partition import argmax_confidence, cooled_by_class, log_confidences, pooled_log_probs, soft_assignment
from .named import FUNCTIONS
from .objectives import chosen_logits, cross_entropy, mixed_kl
from .objectives.arguments import check_labels, check_logits, reduce

Temperatures: TypeAlias = Sequence[float] | Sequence[Sequence[float]]
"""One for each model, or for each model one for each class that it answers."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a batch, and which model taught each sample.

    Attributes:
        values: a loss a position, shaped as the logits without their classes; the mean is the batch's loss.
        weights: each model's share in teaching each position, of that shape and M: bool where one model teaches alone,
            else floating point with rows that add up to 1. Model 0 is the initial student where there is a partition or
            a pooling.
    """

    values: Tensor
    weights: Tensor

    @property
    def taught(self) -> Tensor:
        """How many positions the partition gave to a teacher, scalar; with fractions where all models teach one."""
        return self.weights[..., 1:].sum()


@dataclass(frozen=True, kw_only=True)
class OverlaidLabels:
    """Labels of images that are laid over a batch's own (mixup).

    Attributes:
        target_N: labels, int64 (N,).
        shares_N: share of each sample's own image in its view, floating point (N,), from 0 to 1.
    """

    target_N: Tensor
    shares_N: Tensor

    def of(self, rows: NDArray[np.int64]) -> "OverlaidLabels":
        """Those of some rows."""
        return OverlaidLabels(target_N=self.target_N[rows], shares_N=self.shares_N[rows])


class TransferLoss(nn.Module):
    """The loss of a method, for a training loop of your own; `gainfinder.transfer` trains with the same.

        λ · objective(student, who teaches) + w · cross-entropy(student, label)

    Who teaches a sample is decided from the logits of the frozen models (Eq. 4): the teacher, or the initial student,
    a frozen copy of the student as it was; with a pooling they teach every sample together. What a method does besides
    its loss is left to the loop: the slow weights of `xe-kl-mcl`, the warm-up of `kl-warmup`, the temperatures of the
    `-cal` methods.

    Args:
        method: a name that `gainfinder methods` shows, or a row of that table.
        temperature: T of the objective (the method's).
        distill_weight: λ, from 0 to 1 (the method's).
        label_weight: w, 0 or more (1 − λ where λ is given, else the method's).
        label_smoothing: ε of the cross-entropy's targets, from 0 to below 1 (the method's).
        top_k: classes that `kl-top-k` compares (10).
        sharpness: a model's weight in the `soft` methods is its confidence to this power (4).
        temperatures: each model's own temperature, the initial student's first, for the `-cal` methods, which must have
            them: confidences are compared after the logits are divided by them. What the student learns stays on its
            own scale: the logits of a teacher with T_t are divided by T_t / T_st. For `kl-prod-cal-u` as many for each
            model as there are classes, as `metrics.class_temperatures` gives them: its logits are divided by that of
            the class it answers.

    Raises:
        SettingsError: an unknown method, one that compares features (`cd`, `crd`), a setting that the method does not
            read, or a value out of its range.

    It has no parameters. From even odds, three to one costs 0.1308 (`objectives.kl_divergence`), and the teacher is
    more confident than the initial student in the first label alone:

    >>> criterion = TransferLoss("kl-dp")
    >>> student = initial = torch.zeros(2, 2)
    >>> teacher = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log()
    >>> round(criterion(student, initial, teacher, torch.tensor([0, 1])).item(), 4)
    0.0654
    """

    temperatures_M: Tensor | None  # (M, C) with a pooling

    def __init__(
        self,
        method: str | Method = "kl-dp",
        *,
        temperature: float | None = None,
        distill_weight: float | None = None,
        label_weight: float | None = None,
        label_smoothing: float | None = None,
        top_k: int | None = None,
        sharpness: float | None = None,
        temperatures: Temperatures | None = None,
    ) -> None:
        super().__init__()
        self.method = find_method(method) if isinstance(method, str) else method
        _refuse_features(self.method)
        if label_weight is None:
            label_weight = self.method.label_weight if distill_weight is None else 1 - distill_weight
        arguments = {
            "temperature": temperature,
            "distill_weight": distill_weight,
            "label_smoothing": label_smoothing,
            "top_k": top_k,
            "sharpness": sharpness,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        _check_settings(self.method, given, label_weight=label_weight)
        self.temperature: float = given.get("temperature", self.method.temperature)
        self.distill_weight: float = given.get("distill_weight", self.method.distill_weight)
        self.label_weight = label_weight
        self.label_smoothing: float = given.get("label_smoothing", self.method.label_smoothing)
        self.top_k: int = given.get("top_k", DEFAULTS["top_k"])
        self.sharpness: float = given.get("sharpness", DEFAULTS["sharpness"])
        self.register_buffer("temperatures_M", _own_temperatures(self.method, temperatures), persistent=False)

    @property
    def needs_labels(self) -> bool:
        """Whether `target` must be given; otherwise no label is read."""
        return self.method.partition == "label" or self.label_weight > 0

    @property
    def needs_initial_student(self) -> bool:
        """Whether `initial_logits` must be given."""
        return self.method.needs_initial_student

    def forward(
        self,
        student_logits: Tensor,
        initial_logits: Tensor | None,
        teacher_logits: Tensor | Sequence[Tensor],
        target: Tensor | None = None,
    ) -> Tensor:
        """The mean loss over all positions.

        Args:
            student_logits: floating point (..., C), of the student under training; (N, C) for methods that compare the
                samples of a batch (`dist-dp`, `dist-dp-u`), else leading dimensions are positions, such as tokens.
            initial_logits: the same shape, of the initial student for the same inputs; not read, and may be None, where
                the method has no partition and no pooling.
            teacher_logits: the same shape, of the teacher; of several teachers a sequence of such tensors, or one
                tensor with them in its first dimension.
            target: labels, int64 (...), for methods that need them; else not read.

        Returns:
            A scalar, at least float32, with a gradient of the student's logits alone; 0 for no position.

        Raises:
            ValueError: a wrong shape or dtype, or logits or labels missing that the method needs.
        """
        model_logits = self.stack(initial_logits, teacher_logits, shape=student_logits.shape)
        return reduce(self.losses(student_logits, model_logits, target).values, "mean")

    def stack(
        self, initial_logits: Tensor | None, teacher_logits: Tensor | Sequence[Tensor], *, shape: torch.Size
    ) -> Tensor:
        """The logits of the frozen models in one tensor, as `losses` takes them.

        Args:
            initial_logits: as in `forward`.
            teacher_logits: as in `forward`.
            shape: shape of the student's logits, (..., C), which each model's must have.

        Returns:
            (..., M, C), without gradient.

        Raises:
            ValueError: a wrong shape, or no logits of a model that the method needs.
        """
        if isinstance(teacher_logits, Tensor) and teacher_logits.ndim == len(shape):
            named = {"teacher_logits": teacher_logits}
        else:
            named = {f"teacher_logits[{at}]": logits for at, logits in enumerate(teacher_logits)}
        if self.needs_initial_student:
            if initial_logits is None:
                raise ValueError(
                    f"initial_logits: method {self.method.name!r} compares the teacher with the initial student, got "
                    "None; give the logits of a frozen copy of the student as it was, or use a method such as 'kl'"
                )
            named = {"initial_logits": initial_logits, **named}
        for name, logits in named.items():
            if logits.shape != shape:
                raise ValueError(f"{name}: expected {tuple(shape)} as the student's logits, got {tuple(logits.shape)}")
        if not named:
            raise ValueError("teacher_logits: expected those of at least one teacher, got none")
        return torch.stack([logits.detach() for logits in named.values()], dim=-2)

    def losses(
        self,
        student_logits: Tensor,
        model_logits: Tensor,
        target: Tensor | None = None,
        *,
        log_confidence: Tensor | None = None,
        choice: Tensor | None = None,
        overlaid: OverlaidLabels | None = None,
    ) -> Losses:
        """A loss for each position, and which model taught it.

        Args:
            student_logits: as in `forward`.
            model_logits: floating point (..., M, C), of the models that may teach: the initial student where the method
                has a partition or a pooling, then the teachers.
            target: as in `forward`.
            log_confidence: (..., M), what the partition compares, as `partition.log_confidences` gives it, where
                `model_logits` are rounded and do not give it exactly; None: that of the logits. Calibrated methods take
                these in any case.
            choice: int64 (...), the model that teaches each position, where that is decided already; logits of the
                others are not read. Of a partition that gives each position to one model.
            overlaid: of mixed images, the labels of what is laid over them; one for each position, in their order. The
                cross-entropy fits both labels by their shares; the partition goes by `target`.

        Raises:
            ValueError: a wrong shape or dtype, or labels missing that the method needs.
        """
        self._check(student_logits, model_logits, target)
        *positions, M, C = model_logits.shape
        student_NC = _wide(student_logits).reshape(-1, C)
        model_NMC = _wide(model_logits.detach()).reshape(-1, M, C)
        target_N = target.reshape(-1) if self.needs_labels and target is not None else None
        log_confidence_NM = None if log_confidence is None else log_confidence.reshape(-1, M)
        choice_N = None if choice is None else choice.reshape(-1)
        values_N, weights_NM = self._distillation(student_NC, model_NMC, target_N, log_confidence_NM, choice_N)
        values_N = with_label_loss(
            values_N,
            student_NC,
            target_N,
            distill_weight=self.distill_weight,
            label_weight=self.label_weight,
            label_smoothing=self.label_smoothing,
            overlaid=overlaid,
        )
        return Losses(values=values_N.reshape(positions), weights=weights_NM.reshape(*positions, M))

    def _distillation(
        self,
        student_NC: Tensor,
        model_NMC: Tensor,
        target_N: Tensor | None,
        log_confidence_NM: Tensor | None,
        choice_N: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The objective's values (N,), and the share of each model in teaching each sample (N, M)."""
        method = self.method
        if self.distill_weight == 0 and not method.needs_initial_student:  # fine-tuning: it would count for nothing
            return student_NC.new_zeros(len(student_NC)), model_NMC.new_ones(model_NMC.shape[:2]).bool()
        by = target_N if method.partition == "label" else None
        if method.pooling is not None:
            if self.temperatures_M is not None:
                model_NMC = cooled_by_class(model_NMC, self.temperatures_M)
            shares_NM = model_NMC.new_full(model_NMC.shape[:2], 1 / model_NMC.shape[1])
            return self._objective(student_NC, pooled_log_probs(model_NMC, method.pooling), by), shares_NM
        if method.partition is None:
            return self._objective(student_NC, model_NMC[:, 0], by), model_NMC.new_ones(model_NMC.shape[:2]).bool()
        if self.temperatures_M is not None:
            calibrated_NMC = model_NMC / self.temperatures_M.view(1, -1, 1)
            log_confidence_NM, model_NMC = log_confidences(calibrated_NMC, by), calibrated_NMC * self.temperatures_M[0]
        elif log_confidence_NM is None:
            log_confidence_NM = log_confidences(model_NMC, by)
        confidence_NM = log_confidence_NM.exp()  # as the paper compares: confidences that are equal in float32 tie
        if method.soft:
            weights_NM = soft_assignment(confidence_NM, sharpness=self.sharpness)
            return mixed_kl(student_NC, model_NMC, weights_NM, self.temperature, reduction="none"), weights_NM
        if choice_N is None:
            choice_N = argmax_confidence(confidence_NM)
        chosen_NM = choice_N[:, None] == torch.arange(model_NMC.shape[1], device=choice_N.device)
        return self._objective(student_NC, chosen_logits(model_NMC, choice_N), by), chosen_NM

    def _objective(self, student_NC: Tensor, target_NC: Tensor, class_N: Tensor | None) -> Tensor:
        objective = FUNCTIONS[self.method.objective]
        return objective(student_NC, target_NC, class_N, temperature=self.temperature, top_k=self.top_k)

    def _check(self, student_logits: Tensor, model_logits: Tensor, target: Tensor | None) -> None:
        check_logits("student_logits", student_logits)
        check_logits("model_logits", model_logits)
        name, shape = self.method.name, tuple(student_logits.shape)
        if self.method.compares_batch and len(shape) != 2:
            raise ValueError(
                f"student_logits: method {name!r} compares the samples of a batch and expects (N, classes), got "
                f"{shape}; for other positions use a method that looks at each alone, such as 'kl-dp'"
            )
        if model_logits.ndim < 2 or model_logits.shape[:-2] + model_logits.shape[-1:] != student_logits.shape:
            raise ValueError(
                f"model_logits: expected {(*shape[:-1], 'models', shape[-1])}, got {tuple(model_logits.shape)}"
            )
        M, C = model_logits.shape[-2:]
        own = self.temperatures_M
        if own is not None and len(own) != M:
            raise ValueError(f"method {name!r} has temperatures of {len(own)} models, got logits of {M}")
        if own is not None and own.ndim == 2 and own.shape[1] != C:
            raise ValueError(f"method {name!r} has temperatures of {own.shape[1]} classes, got logits of {C}")
        if not self.needs_initial_student and M != 1:
            raise ValueError(
                f"method {name!r} has no partition that shares samples out and learns from one teacher, got {M}; use a "
                "method such as 'kl-dp-u'"
            )
        if self.needs_labels:
            if target is None:
                raise ValueError(f"target: method {name!r} needs labels, got None; a label-free method is 'kl-dp-u'")
            check_labels("target", target, student_logits)

    def extra_repr(self) -> str:
        """Method, temperature and weights, as `print` shows them."""
        weights = f"distill_weight={self.distill_weight:g}, label_weight={self.label_weight:g}"
        return f"{self.method.name!r}, temperature={self.temperature:g}, {weights}"


def with_label_loss(
    values_N: Tensor,
    student_logits_NC: Tensor,
    target_N: Tensor | None,
    *,
    distill_weight: float,
    label_weight: float,
    label_smoothing: float,
    overlaid: OverlaidLabels | None = None,
) -> Tensor:
    """Both terms of Eq. 2 for each sample: λ · distillation + w · cross-entropy.

    For an image of label y that shows by a share s, under one of label z, the cross-entropy is s · XE(y) +
    (1 − s) · XE(z) (Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018).

    Args:
        values_N: the distillation losses, floating point (N,).
        student_logits_NC: floating point (N, C), of the student under training.
        target_N: labels, int64 (N,); read where `label_weight` is above 0.
        distill_weight: λ.
        label_weight: w.
        label_smoothing: ε of the cross-entropy's targets.
        overlaid: of mixed images, the labels of what is laid over them.
    """
    values_N = values_N if distill_weight == 1 else distill_weight * values_N
    if label_weight > 0:
        assert target_N is not None, "the cross-entropy needs labels"
        fitted = partial(cross_entropy, student_logits_NC, label_smoothing=label_smoothing, reduction="none")
        cross_entropy_N = fitted(target_N)
        if overlaid is not None:
            cross_entropy_N = torch.lerp(fitted(overlaid.target_N), cross_entropy_N, overlaid.shares_N)
        values_N = values_N + label_weight * cross_entropy_N
    return values_N


def _refuse_features(method: Method) -> None:
    if method.needs_features:
        raise SettingsError(
            f"method {method.name!r} compares features, and TransferLoss sees logits alone: use gainfinder.transfer, "
            "or gainfinder.losses.cd_loss or ContrastiveMemory on features that your loop takes"
        )


def _check_settings(method: Method, given: dict[str, Any], *, label_weight: float) -> None:
    TransferConfig.model_validate(given)  # as transfer checks their ranges
    if not label_weight >= 0:
        raise SettingsError(f"label-weight is {label_weight!r}: expected 0 or more")
    refuse_unread(method, given, fits_labels=label_weight > 0)


def _own_temperatures(method: Method, temperatures: Temperatures | None) -> Tensor | None:
    if temperatures is None:
        if method.calibrated:
            raise SettingsError(
                f"method {method.name!r} compares calibrated confidences: give `temperatures`, the initial student's "
                "and each teacher's; a method without calibration is 'kl-dp'"
            )
        return None
    if not method.calibrated:
        raise SettingsError(f"temperatures is a setting of the -cal methods: method {method.name!r} does not use it")
    wanted = "numbers above 0, the initial student's and each teacher's"
    if method.pooling is not None:
        wanted = "a row for the initial student and each teacher, with numbers above 0 for all classes"
    try:
        found = torch.tensor(temperatures, dtype=torch.float32)
    except (TypeError, ValueError):  # rows of different lengths, or no numbers
        found = torch.tensor(torch.nan)
    shaped = found.ndim == (1 if method.pooling is None else 2) and len(found) >= 2
    if not shaped or not ((found > 0) & found.isfinite()).all():
        raise SettingsError(f"temperatures is {list(temperatures)!r}: expected {wanted}")
    return found


def _wide(logits: Tensor) -> Tensor:
    """Logits in at least float32: under mixed precision the mean of half-precision losses would be a coarse one."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
