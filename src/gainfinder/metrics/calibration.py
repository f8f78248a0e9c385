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
CLASS_TEMPERATURES = tuple(2 ** (step / 2) for step in range(13))
"""Those tried for each class a model answers: 1, 1.4, 2, … 64."""
COMMON_SAMPLES = 50.0
"""A class's temperature is drawn to the model's common one as if by so many samples of all classes."""
SWEEPS = 3
LEAST_CLASS, LEAST_EVIDENCE = 1e-3, 1e-30
"""A class's least share, and the least evidence, so that their logarithms are finite."""


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


def fit_temperature_where_known(logits_NC: Tensor, target_N: Tensor) -> float:
    """`fit_temperature` on the samples whose label the model does not mask: no temperature helps with the others.

    Args:
        logits_NC: floating point (N, C), C ≥ 1. A logit of −inf masks its class.
        target_N: labels, int64 (N,), from 0 to C − 1.

    Returns:
        T, from 0.05 to 20; 1.0 where there is no such sample.

    Raises:
        ValueError: as `fit_temperature`.

    >>> logits = torch.tensor([[9.0, 1.0, 0.0]] * 5).log()
    >>> round(fit_temperature_where_known(logits, torch.tensor([0, 0, 0, 1, 2])), 6)
    2.0
    """
    known_N = logits_NC.gather(1, target_N.to(logits_NC.device)[:, None]).squeeze(1) > -torch.inf
    return fit_temperature(logits_NC[known_N], target_N[known_N]) if bool(known_N.any()) else 1.0


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

    With labels each is calibrated (`fit_temperature_where_known`). Without, the right confidence of a model is unknown,
    but models that were trained with different losses can at least be brought to one scale: the first model, the
    student, keeps its own (T = 1), and a model more confident than it on average is cooled to the same mean confidence.
    One that is less confident keeps T = 1: it may well be the worse.

    Args:
        logits: one (N, C) tensor a model, for the same samples; the student's first.
        target_N: labels, int64 (N,), or None.

    Raises:
        ValueError: as `fit_temperature`.
    """
    if target_N is not None:
        return [fit_temperature_where_known(logits_NC, target_N) for logits_NC in logits]
    confidence = float(logits[0].double().softmax(dim=1).amax(dim=1).mean())
    return [1.0, *(max(1.0, fit_temperature_to(logits_NC, confidence)) for logits_NC in logits[1:])]


def class_temperatures(logits: Sequence[Tensor]) -> Tensor:
    """A temperature for each model and each class it answers, from how well the models' answers agree; no labels.

    If two models that err independently give an image the probabilities p and q, and π_y is the share of class y, then
    Σ_y p_y q_y / π_y is how much likelier they are to have the same image before them than two unrelated ones. Models
    that are sure and contradict each other make it small. Each model m but the first, the student, is cooled in turn
    where it answers class j, by the T that makes its mean evidence with the other models b largest:

        T_mj = argmax_T Σ_{i: ŷ_mi = j} V_mi(T) + 50/N · Σ_i V_mi(T)
        V_mi(T) = 1/(M − 1) · Σ_{b ≠ m} ln Σ_y p_bi(y) · σ_y(z_mi / T) / π_y,  p_bi = σ(z_bi / T_b,ŷ_bi)

    over T in `CLASS_TEMPERATURES`, all ≥ 1: nobody is made surer than it is. Three sweeps over the models, from T = 1;
    π is the mean of all models' probabilities at T = 1. Models that are wrong together look better than they are, so
    that models of one kind keep T = 1. A model that was given its classes in a wrong order, or that is sure of what it
    never met, is cooled in these classes.

    Two models alone cannot say which of them is wrong. The student is believed, and keeps T = 1: a student that is sure
    of what it does not know then hears less from a teacher that knows it. Other teachers, or referees, help with that.

    Ours, in place of the confusion matrices of Dawid and Skene (1979): with two or three raters that err together the
    maximum of their likelihood lies far from the truth (`benchmarks/evidence`).

    Args:
        logits: one (N, C) tensor a model, M ≥ 2, for the same samples; the student's first. Models that only judge
            (referees) come last.

    Returns:
        float64 (M, C), from 1 to 64, the student's all 1. Ties go to the lower temperature; a class that a model never
        answers has its common one.

    Raises:
        ValueError: fewer than two models, different shapes, no sample, NaN or +inf among the logits.

    Example:
        A teacher with its two classes confused is cooled down to saying nothing:

        >>> right = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
        >>> class_temperatures([right, right.flip(1)]).tolist()
        [[1.0, 1.0], [64.0, 64.0]]
    """
    if len(logits) < 2 or len({z_NC.shape for z_NC in logits}) != 1:
        raise ValueError(f"logits: expected at least two models' of one shape, got {[tuple(z.shape) for z in logits]}")
    shifted = [_shifted(z_NC) for z_NC in logits]
    probs = [z_NC.softmax(dim=1) for z_NC in shifted]
    share_C = (torch.stack([p_NC.mean(dim=0) for p_NC in probs]).mean(dim=0)).clamp_min(LEAST_CLASS)
    share_C = share_C / share_C.sum()
    found_MC = torch.ones(len(logits), logits[0].shape[1], dtype=torch.float64)
    for _ in range(SWEEPS):
        before_MC = found_MC.clone()
        for m in range(1, len(logits)):
            others = [p_NC / share_C for at, p_NC in enumerate(probs) if at != m]
            found_MC[m] = _coolest_evidence(shifted[m], others)
            probs[m] = (shifted[m] / found_MC[m][shifted[m].argmax(dim=1)].unsqueeze(1)).softmax(dim=1)
        if torch.equal(found_MC, before_MC):
            break
    return found_MC


def _coolest_evidence(z_NC: Tensor, others: Sequence[Tensor]) -> Tensor:
    """For each class that a model answers, the temperature of the most evidence with the others, float64 (C,)."""
    tried = torch.tensor(CLASS_TEMPERATURES, dtype=torch.float64)
    evidence_NT = torch.stack(
        [
            torch.stack([(p_NC * probs_NC).sum(dim=1).clamp_min(LEAST_EVIDENCE).log() for p_NC in others]).mean(dim=0)
            for probs_NC in ((z_NC / float(temperature)).softmax(dim=1) for temperature in tried)
        ],
        dim=1,
    )
    summed_CT = torch.zeros(z_NC.shape[1], len(tried), dtype=torch.float64)
    summed_CT.index_add_(0, z_NC.argmax(dim=1), evidence_NT)
    return tried[(summed_CT + COMMON_SAMPLES * evidence_NT.mean(dim=0)).argmax(dim=1)]


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
