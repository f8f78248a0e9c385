"""Softmax regression on features: a weighted decay chosen on images set apart, and a fit by L-BFGS. Pure.

The loss is convex, so what it begins from does not matter, and there is no rate and no number of epochs to choose:

    mean over N of −log softmax(V · u + b)_y  +  λ/2 · ‖V‖²,   u = (x − mean) / std

u are the features x, standardised over the images, so that λ means the same for any model. The bias does not decay.
Shapes: N samples, D features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

DECAYS = tuple(10 ** (1 - step / 2) for step in range(15))
"""Weight decays that are tried, from the strongest, 10, to the weakest, 1e-6."""
WORSE = 2
"""So many decays in a row that are worse than the best end the search: the loss has one valley, up to noise."""
ITERATIONS = 500
"""Of L-BFGS at most; few fits need 100."""
_HISTORY = 10
_GRADIENT = 1e-6
"""Largest entry of the gradient at which a fit is done."""
_CHANGE = 1e-9
_LOGITS_AT_ONCE = 2**25
_CONSTANT = 1e-6
"""Features whose spread is this share of the largest or less are constant (a dead unit) and left out."""


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """Weights of a classifier layer.

    Attributes:
        weight_CD: floating point (C, D).
        bias_C: floating point (C,); None without a bias.
        iterations: iterations of L-BFGS.
    """

    weight_CD: Tensor
    bias_C: Tensor | None
    iterations: int

    def logits(self, features_ND: Tensor) -> Tensor:
        """Logits (N, C) of features (N, D)."""
        logits = features_ND @ self.weight_CD.T
        return logits if self.bias_C is None else logits + self.bias_C


@dataclass(frozen=True, kw_only=True)
class TriedDecay:
    """A weight decay and the loss that heads fitted with it have on images set apart.

    Attributes:
        weight_decay: λ.
        log_loss: mean over all images that were set apart, in nats.
    """

    weight_decay: float
    log_loss: float


@dataclass(frozen=True, kw_only=True)
class Standardised:
    """Features less their means over the standard deviations; dividing makes no constant feature count.

    Attributes:
        features_ND: the standardised features.
        mean_D: means that were taken off; zero without a bias.
        inverse_D: one over the standard deviations, 0 for constant features.
    """

    features_ND: Tensor
    mean_D: Tensor
    inverse_D: Tensor

    @classmethod
    def of(cls, features_ND: Tensor, *, centred: bool) -> "Standardised":
        """Standardise features; not `centred`, they are only scaled, by their root mean squares."""
        mean_D = features_ND.mean(dim=0) if centred else torch.zeros_like(features_ND[0])
        moved_ND = features_ND - mean_D
        spread_D = moved_ND.square().mean(dim=0).sqrt()
        varies_D = spread_D > _CONSTANT * spread_D.max()
        inverse_D = torch.where(varies_D, 1 / spread_D, 0.0)
        return cls(features_ND=moved_ND * inverse_D, mean_D=mean_D, inverse_D=inverse_D)


def fit_softmax(
    features_ND: Tensor,
    target_N: Tensor,
    *,
    num_classes: int,
    weight_decay: float,
    bias: bool = True,
    start: LinearHead | None = None,
) -> LinearHead:
    """The head of least loss.

    Args:
        features_ND: floating point (N, D), N ≥ 1; the head has its dtype and device.
        target_N: int64 (N,), labels from 0 to C − 1.
        num_classes: C. A class without a sample gets a bias that it is never predicted by.
        weight_decay: λ, positive.
        bias: whether the head has a bias.
        start: a head to begin from, which only saves time.

    Example:
        Two points, so far apart that little decay is enough to tell them apart:

        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> head = fit_softmax(x, torch.tensor([0, 1]), num_classes=2, weight_decay=1e-3)
        >>> head.logits(x).argmax(dim=1).tolist()
        [0, 1]
    """
    found = Standardised.of(features_ND, centred=bias)
    weight_CD = features_ND.new_zeros(num_classes, features_ND.shape[1])
    bias_C = features_ND.new_zeros(num_classes)
    if start is not None:
        weight_CD = start.weight_CD * torch.where(found.inverse_D > 0, 1 / found.inverse_D, 0.0)
        if start.bias_C is not None:
            bias_C = start.bias_C + start.weight_CD @ found.mean_D
    parameters = [weight_CD, bias_C] if bias else [weight_CD]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=ITERATIONS,
        history_size=_HISTORY,
        tolerance_grad=_GRADIENT,
        tolerance_change=_CHANGE,
        line_search_fn="strong_wolfe",
    )
    loss = partial(_loss, found.features_ND, target_N, weight_CD=weight_CD, bias_C=bias_C, weight_decay=weight_decay)
    optimizer.step(loss)
    scaled_CD = weight_CD * found.inverse_D
    return LinearHead(
        weight_CD=scaled_CD,
        bias_C=bias_C - scaled_CD @ found.mean_D if bias else None,
        iterations=int(optimizer.state[parameters[0]]["n_iter"]),
    )


@torch.no_grad()
def _loss(u_ND: Tensor, target_N: Tensor, *, weight_CD: Tensor, bias_C: Tensor, weight_decay: float) -> Tensor:
    """The loss; its gradient, softmax less target times features, is left in `grad` of the weights."""
    value = 0.5 * weight_decay * weight_CD.square().sum()
    weight_grad_CD, bias_grad_C = weight_decay * weight_CD, torch.zeros_like(bias_C)
    rows = max(1, _LOGITS_AT_ONCE // len(weight_CD))
    for u_nD, y_n in zip(u_ND.split(rows), target_N.split(rows), strict=True):
        log_probs_nC = torch.addmm(bias_C, u_nD, weight_CD.T).log_softmax(dim=1)
        chosen_n1 = y_n.unsqueeze(1)
        value = value - log_probs_nC.gather(1, chosen_n1).sum() / len(target_N)
        error_nC = log_probs_nC.exp_()
        error_nC.scatter_add_(1, chosen_n1, torch.full_like(chosen_n1, -1, dtype=error_nC.dtype))
        weight_grad_CD += error_nC.T @ u_nD / len(target_N)
        bias_grad_C += error_nC.sum(dim=0) / len(target_N)
    weight_CD.grad, bias_C.grad = weight_grad_CD, bias_grad_C
    return value


def choose_decay(
    features_ND: Tensor,
    target_N: Tensor,
    held_out: Sequence[Tensor],
    *,
    num_classes: int,
    bias: bool = True,
    decays: Sequence[float] = DECAYS,
) -> tuple[TriedDecay, ...]:
    """Weight decays by the loss on samples that the heads were not fitted to; ties go to the stronger decay.

    Args:
        features_ND: floating point (N, D).
        target_N: int64 (N,), labels from 0 to C − 1.
        held_out: sets of samples, int64 positions; for each a head is fitted to all the others.
        num_classes: C.
        bias: whether heads have a bias.
        decays: weight decays to try, from the strongest.

    Returns:
        The decays that were tried, in order; the search ends after `WORSE` in a row that are worse than the best.
    """
    tried: list[TriedDecay] = []
    starts: list[LinearHead | None] = [None] * len(held_out)
    everything = torch.ones(len(target_N), dtype=torch.bool, device=target_N.device)
    for decay in decays:
        total = 0.0
        for place, rows in enumerate(held_out):
            others = everything.index_fill(0, rows, False)
            head = fit_softmax(
                features_ND[others],
                target_N[others],
                num_classes=num_classes,
                weight_decay=decay,
                bias=bias,
                start=starts[place],
            )
            starts[place] = head
            logits_NC = head.logits(features_ND[rows])
            total += float(nn.functional.cross_entropy(logits_NC, target_N[rows], reduction="sum"))
        tried.append(TriedDecay(weight_decay=decay, log_loss=total / sum(map(len, held_out))))
        if len(tried) - 1 - tried.index(best_decay(tried)) >= WORSE:
            break
    return tuple(tried)


def best_decay(tried: Sequence[TriedDecay]) -> TriedDecay:
    """The decay of the least loss; of equal ones the first."""
    return min(tried, key=lambda one: one.log_loss)
