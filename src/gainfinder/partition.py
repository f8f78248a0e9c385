"""Which of M models teaches each sample, or how they teach it together; model 0 is the initial student.

Source: section 4.2 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653), for several teachers section 4.3.
Shapes: N samples, M models, C classes. The two masks of the paper are `choice_N == 0` (retention, m_st) and
`choice_N > 0` (transfer, m_t); they cannot overlap, and every sample is in one of them.
"""

import math
import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

LEAST_SHARE = 0.01
"""What a product takes to be spread evenly over the classes: no model may rule a class out by itself."""


def most_confident(probs_NMC: Tensor, target_N: Tensor | None = None) -> Tensor:
    """For each sample, the model that is most confident in it (Eq. 4, and section 4.3 for several teachers).

        choice_i = argmax_m p_{m,i},  p_{m,i} = σ_y(z_{m,i}) with the label y, or max_j σ_j(z_{m,i}) without labels

    With M = 2 this is Eq. 4: m_t,i = 1 where the teacher's confidence is greater, m_st = 1 − m_t.

    Args:
        probs_NMC: probabilities (N, M, C), floating point, M ≥ 1, C ≥ 1; model 0 is the initial student. Give float32:
            in half precision confident models tie. Not logits: confidences of logits cannot be compared.
        target_N: labels, int64 (N,), from 0 to C − 1. Where given, supervised; where None, no label is read anywhere.

    Returns:
        int64 (N,), from 0 to M − 1, without gradient; N = 0 gives an empty tensor.

    Ties go to the lowest index, hence to the initial student before any teacher. A confidence of NaN counts as the
    lowest, so that a model that fails on a sample does not teach it while another can.

    Raises:
        ValueError: a wrong shape or dtype.

    The teacher (second) is more confident in the first sample, the student in the second:

    >>> probs = torch.tensor([[[0.6, 0.4], [0.1, 0.9]], [[0.8, 0.2], [0.3, 0.7]]])
    >>> most_confident(probs).tolist()
    [1, 0]

    but with label 0 the student is the more confident in both:

    >>> most_confident(probs, torch.tensor([0, 0])).tolist()
    [0, 0]
    """
    return argmax_confidence(confidences(probs_NMC, target_N))


def argmax_confidence(confidence_NM: Tensor) -> Tensor:
    """The partition of Eq. 4 from confidences: for each sample the model with the greatest, ties to the lowest index.

    Args:
        confidence_NM: floating point (N, M), M ≥ 1, without NaN, as `confidences` gives them.

    Returns:
        int64 (N,), from 0 to M − 1.

    >>> argmax_confidence(torch.tensor([[0.5, 0.5], [0.25, 0.75]])).tolist()
    [0, 1]
    """
    return confidence_NM.argmax(dim=1)  # the first of equal values


def confidences(probs_NMC: Tensor, target_N: Tensor | None = None) -> Tensor:
    """How confident each model is in each sample: what Eq. 4 compares.

        p_{m,i} = σ_y(z_{m,i}) with the label y, or max_j σ_j(z_{m,i}) without labels

    Args:
        probs_NMC: probabilities (N, M, C), floating point, M ≥ 1, C ≥ 1, as for `most_confident`.
        target_N: labels, int64 (N,), from 0 to C − 1; where None, no label is read anywhere.

    Returns:
        (N, M) in the dtype of the probabilities, without gradient. A confidence of NaN becomes −inf, the lowest.

    Raises:
        ValueError: a wrong shape or dtype.

    >>> probs = torch.tensor([[[0.75, 0.25], [0.125, 0.875]]])
    >>> confidences(probs).tolist(), confidences(probs, torch.tensor([0])).tolist()
    ([[0.75, 0.875]], [[0.75, 0.125]])
    """
    if probs_NMC.ndim != 3 or not probs_NMC.is_floating_point() or 0 in probs_NMC.shape[1:]:
        raise ValueError(f"probs_NMC: expected floating point (N, models, classes), got {_got(probs_NMC)}")
    if target_N is None:
        confidence_NM = probs_NMC.detach().amax(dim=2)
    else:
        if target_N.shape != probs_NMC.shape[:1] or target_N.dtype != torch.int64:
            raise ValueError(f"target_N: expected torch.int64 ({len(probs_NMC)},), got {_got(target_N)}")
        index_NM1 = target_N[:, None, None].expand(-1, probs_NMC.shape[1], 1)
        confidence_NM = probs_NMC.detach().gather(2, index_NM1).squeeze(2)
    # argmax and sorting take NaN for greater than any number.
    return confidence_NM.masked_fill(confidence_NM.isnan(), -torch.inf)


def log_confidences(logits_NMC: Tensor, target_N: Tensor | None = None) -> Tensor:
    """The logarithms of Eq. 4's confidences, from logits: of the log-softmax, at least in float32.

    The bank stores these beside the logits that it rounds.

    Args:
        logits_NMC: floating point (N, M, C), M ≥ 1, C ≥ 1.
        target_N: labels, int64 (N,), from 0 to C − 1; where None, no label is read anywhere.

    Returns:
        (N, M), at least float32, without gradient. Of a confidence of NaN or of 0: −inf.

    Raises:
        ValueError: a wrong shape or dtype.
    """
    at_least_float32 = torch.promote_types(logits_NMC.dtype, torch.float32)
    return confidences(logits_NMC.detach().log_softmax(dim=-1, dtype=at_least_float32), target_N)


def soft_weights(probs_NMC: Tensor, target_N: Tensor | None = None, *, sharpness: float) -> Tensor:
    """For each sample, every model's weight in teaching it, which grows with its confidence.

        w_im = p_{m,i}^s / Σ_k p_{k,i}^s,  p as in `confidences`, s the sharpness

    Ours, for `objectives.mixed_kl`. Eq. 4 gives each sample to one model alone, which is the limit s → ∞, but for ties.

    Args:
        probs_NMC: probabilities (N, M, C), floating point, M ≥ 1, C ≥ 1, as for `most_confident`.
        target_N: labels, int64 (N,), from 0 to C − 1; where None, no label is read anywhere.
        sharpness: s ≥ 0, finite. With 0 all models of any confidence share equally, with 1 in proportion to confidence.

    Returns:
        (N, M), at least float32, without gradient, from 0 to 1; rows add up to 1. N = 0 gives an empty tensor.

    Ties share equally, at any sharpness. A confidence of 0 or NaN has weight 0, at any sharpness; where all are, model
    0, the initial student, has all the weight.

    Raises:
        ValueError: a wrong shape or dtype, or a sharpness out of range.

    Confidences in label 0 of 0.6 and 0.2 are as 3 to 1, and squared as 9 to 1:

    >>> probs, target = torch.tensor([[[0.6, 0.4], [0.2, 0.8]]]), torch.tensor([0])
    >>> [round(weight, 4) for weight in soft_weights(probs, target, sharpness=1.0)[0].tolist()]
    [0.75, 0.25]
    >>> [round(weight, 4) for weight in soft_weights(probs, target, sharpness=2.0)[0].tolist()]
    [0.9, 0.1]
    """
    return soft_assignment(confidences(probs_NMC, target_N), sharpness=sharpness)


def soft_assignment(confidence_NM: Tensor, *, sharpness: float) -> Tensor:
    """`soft_weights` from confidences.

    Args:
        confidence_NM: floating point (N, M), M ≥ 1, without NaN, as `confidences` gives them.
        sharpness: s ≥ 0, finite.

    Returns:
        As `soft_weights`.

    Raises:
        ValueError: a sharpness out of range.

    >>> [round(weight, 4) for weight in soft_assignment(torch.tensor([[0.6, 0.2]]), sharpness=2.0)[0].tolist()]
    [0.9, 0.1]
    """
    if not 0 <= sharpness < math.inf:
        raise ValueError(f"sharpness: expected a finite number of at least 0, got {sharpness}")
    confidence_NM = confidence_NM.to(torch.promote_types(confidence_NM.dtype, torch.float32))
    known_NM = confidence_NM > 0
    relative_NM = confidence_NM.log() - confidence_NM.amax(dim=1, keepdim=True).log()
    # Greater than any number of the dtype it would be infinite, and infinity times 0 is NaN.
    exponent = min(sharpness, torch.finfo(relative_NM.dtype).max)
    scores_NM = (exponent * relative_NM).masked_fill(~known_NM, -torch.inf)
    scores_NM[:, 0].masked_fill_(~known_NM.any(dim=1), 0.0)
    return scores_NM.softmax(dim=1)


def pooled_log_probs(logits_NMC: Tensor, pooling: Literal["mean", "product"]) -> Tensor:
    """What M models say of each sample together: a pool of their opinions, in which all count alike.

        mean: q_i ∝ Σ_m p_{m,i};  product: q_i ∝ Π_m (0.99 · p_{m,i} + 0.01 / C)^(1/M);  p = σ(z)

    Sources: linear and logarithmic opinion pools, Genest and Zidek, "Combining Probability Distributions" (Statistical
    Science 1986). Confidence is all that weighs: a model that is unsure of a sample leaves it to the others. The root
    of the product keeps models that agree as sure as they are. Its 0.01 is ours: a teacher that does not know a class
    at all (a label map gives it a probability of 1e-12) must not rule it out.

    Args:
        logits_NMC: floating point (N, M, C), M ≥ 1, C ≥ 1.
        pooling: `mean` or `product`.

    Returns:
        Log-probabilities (N, C), at least float32, without gradient; −inf where the mean is 0. Any NaN among a sample's
        logits makes its row NaN.

    Raises:
        ValueError: a wrong shape or dtype, or an unknown pooling.

    Odds of 9 to 1 and of 1 to 1 are odds of 7 to 3 on average, and of nearly 3 to 1 by the product:

    >>> logits = torch.tensor([[[9.0, 1.0], [1.0, 1.0]]]).log()
    >>> [round(p, 4) for p in pooled_log_probs(logits, "mean").exp()[0].tolist()]
    [0.7, 0.3]
    >>> [round(p, 4) for p in pooled_log_probs(logits, "product").exp()[0].tolist()]
    [0.7459, 0.2541]
    """
    if logits_NMC.ndim != 3 or not logits_NMC.is_floating_point() or 0 in logits_NMC.shape[1:]:
        raise ValueError(f"logits_NMC: expected floating point (N, models, classes), got {_got(logits_NMC)}")
    at_least_float32 = torch.promote_types(logits_NMC.dtype, torch.float32)
    log_probs_NMC = logits_NMC.detach().log_softmax(dim=2, dtype=at_least_float32)
    _, M, C = logits_NMC.shape
    if pooling == "mean":
        return log_probs_NMC.logsumexp(dim=1) - math.log(M)
    if pooling != "product":
        raise ValueError(f"pooling: expected 'mean' or 'product', got {pooling!r}")
    return torch.log((1 - LEAST_SHARE) * log_probs_NMC.exp() + LEAST_SHARE / C).mean(dim=1).log_softmax(dim=1)


def cooled_by_class(logits_NMC: Tensor, temperatures_MC: Tensor) -> Tensor:
    """Each model's logits divided by its temperature for the class that it answers.

    Args:
        logits_NMC: floating point (N, M, C).
        temperatures_MC: above 0, (M, C), as `metrics.class_temperatures` gives them.

    Returns:
        (N, M, C); classes answered stay the same, ties of the largest logit are of the lowest class.

    >>> cooled_by_class(torch.tensor([[[4.0, 2.0]], [[2.0, 4.0]]]), torch.tensor([[1.0, 2.0]])).tolist()
    [[[4.0, 2.0]], [[1.0, 2.0]]]
    """
    own_NMC = temperatures_MC.expand(len(logits_NMC), -1, -1)
    return logits_NMC / own_NMC.gather(2, logits_NMC.argmax(dim=2, keepdim=True))


def teacher_share(choice_N: Tensor, mask_N: Tensor) -> float | None:
    """Share of the masked samples that a teacher, not the initial student, teaches: a partition's quality.

        |{i : mask_i and choice_i > 0}| / |{i : mask_i}|

    Source: section 5.1, on the variance of the unsupervised selection (72 % of positive, 9 % of negative flips go to
    the teacher). Samples are counted over the whole set; shares of batches must not be averaged.

    Args:
        choice_N: int64 (N,), as `most_confident` gives it.
        mask_N: bool (N,), positive or negative flips of the *initial* student, say.

    Returns:
        From 0 to 1; None where the mask holds no sample.

    Raises:
        ValueError: a wrong shape or dtype.

    >>> teacher_share(torch.tensor([1, 0, 2, 1]), torch.tensor([True, True, True, False])) == 2 / 3
    True
    """
    if choice_N.ndim != 1 or choice_N.dtype != torch.int64:
        raise ValueError(f"choice_N: expected torch.int64 (N,), got {_got(choice_N)}")
    if mask_N.shape != choice_N.shape or mask_N.dtype != torch.bool:
        raise ValueError(f"mask_N: expected torch.bool ({len(choice_N)},), got {_got(mask_N)}")
    masked = int(mask_N.sum())
    return int((mask_N & (choice_N > 0)).sum()) / masked if masked else None


def _got(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


_RENAMED = {"sent_to_teacher": "teacher_share", "shares": "soft_assignment", "surest": "argmax_confidence"}
"""Earlier spellings, which still work."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(f"partition.{name} is now partition.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
