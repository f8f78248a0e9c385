"""A model's outputs as the classes of another: which of them make up each class of a student.

Shapes: N samples, K own outputs of the model, C classes of the student.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

UNMAPPED_LOGIT = math.log(1e-12)
"""Logit of a student's class that no output of the model maps to: finite, so that predictions stay finite."""


class MappedLogits(NamedTuple):
    """Logits of the student's classes, and how much of each sample's probability the model spends on them.

    Attributes:
        logits: floating point (N, C).
        kept: float32 (N,), in [0, 1]; 1 where no output of the model is left out.
    """

    logits: Tensor
    kept: Tensor


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Own output of a model → class of a student; many to one, and neither side needs to be covered.

    Attributes:
        targets: the student's class that each of the K own outputs counts for, or None where it is left out.
        num_classes: C, number of the student's classes.

    Raises:
        ValueError: a target out of range, or none at all.
    """

    targets: tuple[int | None, ...]
    num_classes: int

    def __post_init__(self) -> None:
        wrong = [target for target in self.targets if target is not None and not 0 <= target < self.num_classes]
        if wrong:
            raise ValueError(f"targets: expected classes 0 to {self.num_classes - 1}, got {wrong[0]}")
        if all(target is None for target in self.targets):
            raise ValueError("targets: no output maps to a class")

    @classmethod
    def from_order(cls, order: Sequence[int | None], *, outputs: int) -> "LabelMap":
        """The map by which the student's class c is the own output `order[c]`; None for a class without any.

        Raises:
            ValueError: an output out of range, or named twice.

        Example:
            >>> LabelMap.from_order((2, None), outputs=3).targets
            (None, None, 0)
        """
        targets: list[int | None] = [None] * outputs
        for target, output in enumerate(order):
            if output is None:
                continue
            if not 0 <= output < outputs or targets[output] is not None:
                raise ValueError(f"order: expected each of the outputs 0 to {outputs - 1} at most once, got {output}")
            targets[output] = target
        return cls(targets=tuple(targets), num_classes=len(order))

    @functools.cached_property
    def order(self) -> tuple[int, ...] | None:
        """For each class of the student its own output, where the map is a permutation; else None.

        Example:
            >>> LabelMap(targets=(1, 2, 0), num_classes=3).order
            (2, 0, 1)
        """
        if len(self.targets) != self.num_classes or set(self.targets) != set(range(self.num_classes)):
            return None
        output_of = {target: output for output, target in enumerate(self.targets)}
        return tuple(output_of[target] for target in range(self.num_classes))

    @property
    def left_out(self) -> tuple[int, ...]:
        """The own outputs that count for no class."""
        return tuple(output for output, target in enumerate(self.targets) if target is None)

    @property
    def unmatched(self) -> tuple[int, ...]:
        """The student's classes that no output counts for."""
        return tuple(sorted(set(range(self.num_classes)) - set(self.targets)))

    def apply(self, logits_NK: Tensor) -> MappedLogits:
        """The model's logits as logits of the student's classes.

        A permutation reorders the logits and changes no bit of them. Otherwise the result are log-probabilities,

            log p_c,  p_c = Σ_{k → c} σ(z)_k / Σ_{k mapped} σ(z)_k,

        in float32: the softmax over all own outputs, summed by class, what is left out dropped, the rest renormalised.
        A class that no output counts for gets `UNMAPPED_LOGIT`. That is a probability of 1e-12, but at a temperature of
        4 it already weighs 1e-3.

        Args:
            logits_NK: the model's own outputs, floating point (N, K).

        Returns:
            Logits and the share of the probability that is not dropped. Logits that are NaN or +inf give NaN.

        Raises:
            ValueError: another number of outputs than the map has.

        Example:
            Cats 1/2, dogs 1/8, cars 3/8: of what is kept, 5/8, the cats are 4/5.

            >>> cats_dogs = LabelMap(targets=(0, 1, None), num_classes=2)
            >>> logits, kept = cats_dogs.apply(torch.tensor([[4.0, 1.0, 3.0]]).log())
            >>> [round(p, 3) for p in logits.exp()[0].tolist()], round(kept.item(), 3)
            ([0.8, 0.2], 0.625)
        """
        if logits_NK.shape[1] != len(self.targets):
            raise ValueError(f"expected logits of {len(self.targets)} outputs, got {logits_NK.shape[1]}")
        if self.order is not None:
            index = torch.tensor(self.order, device=logits_NK.device)
            return MappedLogits(logits_NK[:, index], torch.ones(len(logits_NK), device=logits_NK.device))
        z_NK = logits_NK.float()
        scores_NC = self._summed(z_NK)
        total_N = scores_NC.logsumexp(dim=1)
        logits_NC = (scores_NC - total_N[:, None]).masked_fill(scores_NC == -torch.inf, UNMAPPED_LOGIT)
        return MappedLogits(logits_NC, (total_N - z_NK.logsumexp(dim=1)).exp().clamp(max=1))

    def dropped_mass(self, logits_NK: Tensor) -> Tensor:
        """The share of each sample's probability that falls on outputs left out, float32 (N,).

        Example:
            >>> LabelMap(targets=(0, 1, None), num_classes=2).dropped_mass(torch.tensor([[4.0, 1.0, 3.0]]).log())
            tensor([0.3750])
        """
        return 1 - self.apply(logits_NK).kept

    def then(self, following: "LabelMap") -> "LabelMap":
        """The one map that does what this one and then `following` do.

        Raises:
            ValueError: `following` maps another number of classes, or nothing is left.

        Example:
            >>> LabelMap(targets=(1, 1, 0), num_classes=2).then(LabelMap(targets=(None, 0), num_classes=1)).targets
            (0, 0, None)
        """
        if len(following.targets) != self.num_classes:
            raise ValueError(f"expected a map of {self.num_classes} classes, got one of {len(following.targets)}")
        targets = tuple(None if target is None else following.targets[target] for target in self.targets)
        return LabelMap(targets=targets, num_classes=following.num_classes)

    def _summed(self, z_NK: Tensor) -> Tensor:
        """Log-sum-exp of the logits of each class, float32 (N, C); −inf where there is nothing to sum."""
        pairs = [(output, target) for output, target in enumerate(self.targets) if target is not None]
        outputs, targets = (torch.tensor(side, device=z_NK.device) for side in zip(*pairs, strict=True))
        z_NL = z_NK[:, outputs]
        targets_NL = targets.expand(len(z_NL), -1)
        empty_NC = z_NK.new_full((len(z_NK), self.num_classes), -torch.inf)
        # each class's own largest logit is subtracted first: a class far below the others keeps its precision
        peak_NC = empty_NC.scatter_reduce(1, targets_NL, z_NL, "amax")
        peak_NC = torch.where(peak_NC.isfinite(), peak_NC, 0)
        sums_NC = torch.zeros_like(peak_NC).index_add(1, targets, (z_NL - peak_NC[:, targets]).exp())
        return sums_NC.log() + peak_NC
