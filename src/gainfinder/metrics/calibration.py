"""Temperatures fitted to predictions, so that models of different confidence can be compared.

Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, arXiv 1706.04599), section 4.2. The greedy
partition (Eq. 4) compares confidences between models: one that is overconfident teaches what it does not know.
Shapes: N samples, C classes. Solved in float64 on the CPU; takes about ten passes over the logits.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits_NC: Tensor, target_N: Tensor) -> float:
    """The temperature T that minimises the cross-entropy of softmax(logits / T) with the labels.

        argmin_T −1/N · Σ_i log σ_{y_i}(z_i / T),  0.05 ≤ T ≤ 20

    The loss is convex in β = 1/T: its derivative 1/N · Σ_i (Σ_j σ_j(β z_i) · z_ij − z_{i, y_i}) rises with β, and its
    root is found by Newton's method within a bracket. Scaling by T changes no prediction, only confidences.

    Args:
        logits_NC: floating point (N, C), N ≥ 1, C ≥ 1. A logit of −inf masks its class, not one that is the label.
        target_N: labels, int64 (N,), from 0 to C − 1.

    Returns:
        T, from 0.05 to 20. Predictions that are all right have no best T: the lower it is the better, so they give
        0.05; ones worse than chance give 20. Where T changes nothing (one class, or all logits of each sample equal),
        1.0. Good to nine digits or so.

    Raises:
        ValueError: a wrong shape or dtype, no sample, NaN or +inf among the logits, or −inf for a label.

    Example:
        Odds of 9 to 1 each time, and three of four right: what is right is 3 to 1, and ln 9 / 2 = ln 3.

        >>> logits = torch.tensor([[9.0, 1.0]] * 4).log()
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 6)
        2.0
        >>> fit_temperature(logits, torch.tensor([0, 0, 0, 0]))
        0.05
    """
    z_NC = _shifted(logits_NC)
    if target_N.shape != z_NC.shape[:1] or target_N.dtype != torch.int64:
        raise ValueError(f"target_N: expected torch.int64 ({len(z_NC)},), got {_got(target_N)}")
    label_N = z_NC.gather(1, target_N.to(z_NC.device).unsqueeze(1)).squeeze(1)
    if bool((label_N == -torch.inf).any()):
        raise ValueError("logits_NC: expected a finite logit for every label, got -inf: no temperature helps there")
    finite_NC = z_NC.masked_fill(z_NC == -torch.inf, 0.0)

    def derivative(beta: float) -> tuple[float, float]:
        probs_NC = (beta * z_NC).softmax(dim=1)
        mean_N = (probs_NC * finite_NC).sum(dim=1)
        variance_N = (probs_NC * (finite_NC - mean_N.unsqueeze(1)).square()).sum(dim=1)
        return float((mean_N - label_N).mean()), float(variance_N.mean())

    return 1.0 if _is_flat(finite_NC) else 1 / _root(derivative)


def fit_temperature_to(logits_NC: Tensor, mean_confidence: float) -> float:
    """The temperature T at which the mean confidence of softmax(logits / T) has a given value.

        1/N · Σ_i max_j σ_j(z_i / T) = mean_confidence,  0.05 ≤ T ≤ 20

    Needs no labels: it makes one model as confident on average as another, or as its known accuracy. Mean confidence
    falls as T rises, so there is one solution; it is found by Newton's method within a bracket, in 1/T.

    Args:
        logits_NC: floating point (N, C), N ≥ 1, C ≥ 1. A logit of −inf masks its class.
        mean_confidence: above 0, at most 1.

    Returns:
        T, from 0.05 to 20: the nearer bound where the confidence cannot be reached between them. Where T changes
        nothing (one class, or all logits of each sample equal), 1.0. Good to nine digits or so.

    Raises:
        ValueError: a wrong shape or dtype, no sample, NaN or +inf among the logits, or a confidence out of range.

    Example:
        Odds of 9 to 1 become 3 to 1 at T = 2, since ln 9 / 2 = ln 3:

        >>> logits = torch.tensor([[9.0, 1.0], [1.0, 9.0]]).log()
        >>> round(fit_temperature_to(logits, 0.75), 6)
        2.0
        >>> fit_temperature_to(logits, 0.5)
        20.0
    """
    z_NC = _shifted(logits_NC)
    if not 0 < mean_confidence <= 1:
        raise ValueError(f"mean_confidence: expected a number above 0 and at most 1, got {mean_confidence}")
    finite_NC = z_NC.masked_fill(z_NC == -torch.inf, 0.0)

    def excess(beta: float) -> tuple[float, float]:
        probs_NC = (beta * z_NC).softmax(dim=1)
        confidence_N = probs_NC.amax(dim=1)
        slope_N = -confidence_N * (probs_NC * finite_NC).sum(dim=1)  # the largest of z is 0
        return float(confidence_N.mean()) - mean_confidence, float(slope_N.mean())

    return 1.0 if _is_flat(finite_NC) else 1 / _root(excess)


def calibrated_temperatures(logits: Sequence[Tensor], target_N: Tensor | None) -> list[float]:
    """A temperature for each of several models, so that their confidences can be compared.

    With labels each is calibrated (`fit_temperature`). Without, the right confidence of a model is unknown, but models
    that were trained with different losses can at least be brought to one scale: the first model, the student, keeps
    its own (T = 1), and a model more confident than it on average is cooled to the same mean confidence. One that is
    less confident keeps T = 1: it may well be the worse.

    Args:
        logits: one (N, C) tensor a model, for the same samples; the student's first.
        target_N: labels, int64 (N,), or None.

    Raises:
        ValueError: as `fit_temperature`.
    """
    if target_N is not None:
        return [fit_temperature(logits_NC, target_N) for logits_NC in logits]
    confidence = float(logits[0].double().softmax(dim=1).amax(dim=1).mean())
    return [1.0, *(max(1.0, fit_temperature_to(logits_NC, confidence)) for logits_NC in logits[1:])]


def _root(rising: Callable[[float], tuple[float, float]]) -> float:
    """The root between 1/20 and 1/0.05 of a rising function that also returns its slope; the nearer bound outside."""
    # Not scipy.optimize.brentq: without the slope it takes half as many passes again over all logits, to other digits.
    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    if rising(high)[0] <= 0:
        return high
    if rising(low)[0] >= 0:
        return low
    beta, step = 1.0, high - low
    for _ in range(200):
        value, slope = rising(beta)
        low, high = (beta, high) if value < 0 else (low, beta)
        newton = beta - value / slope if slope > 0 else math.inf
        # Newton's method while its steps halve and stay in the bracket, which is halved otherwise: neither can stall.
        converging = low <= newton <= high and abs(newton - beta) <= step / 2
        following = newton if converging else (low * high) ** 0.5
        step = abs(following - beta)
        if step <= 1e-12 * beta:
            break
        beta = following
    return beta


def _shifted(logits_NC: Tensor) -> Tensor:
    """The logits in float64, shifted so that each sample's largest is 0."""
    if logits_NC.ndim != 2 or not logits_NC.is_floating_point() or 0 in logits_NC.shape:
        raise ValueError(
            f"logits_NC: expected floating point (N, classes) with at least one sample and one class, "
            f"got {_got(logits_NC)}"
        )
    z_NC = logits_NC.detach().to("cpu", torch.float64)
    highest_N1 = z_NC.amax(dim=1, keepdim=True)
    if not bool(highest_N1.isfinite().all()):
        bad = int((~highest_N1.isfinite()).sum())
        raise ValueError(f"logits_NC: expected no NaN or +inf and a finite logit a sample, got others in {bad} samples")
    return z_NC - highest_N1


def _is_flat(finite_NC: Tensor) -> bool:
    return not bool(finite_NC.any())


def _got(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
