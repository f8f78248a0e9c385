"""Complementary knowledge between two models, and what a student gained and lost, from predicted classes.

Source: sections 3 and 5 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653).
Shapes: N samples, C classes. Shares are counts divided by counts, in Python floats: nothing is summed in float32.
No samples: masks and counts of them are empty, ratios that have no denominator are None, and a share of all samples
is an error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PairFlips:
    """What one teacher knows that one student does not.

    Attributes:
        delta_acc_pp: Δ_acc = accuracy of the teacher − accuracy of the student, in percentage points.
        positive_flips: ρ_pos, share of all samples that the teacher has right and the student wrong.
        negative_flips: ρ_neg, share of all samples that the teacher has wrong and the student right.
        flip_entropy: entropy of the positive flips over classes, in nats; None without positive flips.
    """

    delta_acc_pp: float
    positive_flips: float
    negative_flips: float
    flip_entropy: float | None


def compare(student_N: Tensor, teacher_N: Tensor, target_N: Tensor, num_classes: int) -> PairFlips:
    """The complementary knowledge of an ordered pair (section 3, Fig. 1).

        Δ_acc = acc(teacher) − acc(student) = ρ_pos − ρ_neg

    Args:
        student_N: predicted classes, int64 (N,), N ≥ 1.
        teacher_N: predicted classes, int64 (N,).
        target_N: labels, int64 (N,), from 0 to num_classes − 1.
        num_classes: C.

    Raises:
        ValueError: a wrong shape or dtype, no samples, or a label out of range.

    Example:
        Of four samples the teacher corrects two (of classes 0 and 1: entropy ln 2) and spoils one:

        >>> target = torch.tensor([0, 1, 1, 0])
        >>> compare(torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 0, 0]), target, num_classes=2)
        PairFlips(delta_acc_pp=25.0, positive_flips=0.5, negative_flips=0.25, flip_entropy=0.6931471805599453)
    """
    positive_N = positive_flips(student_N, teacher_N, target_N)
    n = _at_least_one(target_N)
    positive = int(positive_N.sum())
    negative = int(negative_flips(student_N, teacher_N, target_N).sum())
    return PairFlips(
        delta_acc_pp=100 * (positive - negative) / n,
        positive_flips=positive / n,
        negative_flips=negative / n,
        flip_entropy=flip_entropy(positive_N, target_N, num_classes),
    )


def accuracy(predicted_N: Tensor, target_N: Tensor) -> float:
    """Share of samples whose predicted class is their label.

    Args:
        predicted_N: predicted classes, int64 (N,), N ≥ 1.
        target_N: labels, int64 (N,).

    Raises:
        ValueError: a wrong shape or dtype, or no samples.

    Example:
        >>> accuracy(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 1, 1]))
        0.75
    """
    _check(torch.int64, predicted_N=predicted_N, target_N=target_N)
    return int((predicted_N == target_N).sum()) / _at_least_one(target_N)


def positive_flips(student_N: Tensor, teacher_N: Tensor, target_N: Tensor) -> Tensor:
    """Samples that the teacher has right and the student wrong (section 3).

    Args:
        student_N: predicted classes, int64 (N,).
        teacher_N: predicted classes, int64 (N,).
        target_N: labels, int64 (N,).

    Returns:
        bool (N,).

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        >>> positive_flips(torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1])).tolist()
        [True, False, False]
    """
    _check(torch.int64, student_N=student_N, teacher_N=teacher_N, target_N=target_N)
    return (teacher_N == target_N) & (student_N != target_N)


def negative_flips(student_N: Tensor, teacher_N: Tensor, target_N: Tensor) -> Tensor:
    """Samples that the teacher has wrong and the student right (section 3).

    Args:
        student_N: predicted classes, int64 (N,).
        teacher_N: predicted classes, int64 (N,).
        target_N: labels, int64 (N,).

    Returns:
        bool (N,).

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        >>> negative_flips(torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1])).tolist()
        [False, False, True]
    """
    _check(torch.int64, student_N=student_N, teacher_N=teacher_N, target_N=target_N)
    return (teacher_N != target_N) & (student_N == target_N)


def knowledge_gained(before_N: Tensor, after_N: Tensor, target_N: Tensor) -> Tensor:
    """Samples that the student has wrong before transfer and right after (section 5.1, Fig. 7).

    Args:
        before_N: classes predicted before, int64 (N,).
        after_N: classes predicted after, int64 (N,).
        target_N: labels, int64 (N,).

    Returns:
        bool (N,); the paper's knowledge gain is its share of all samples.

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        >>> knowledge_gained(torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1])).tolist()
        [True, False, False]
    """
    _check(torch.int64, before_N=before_N, after_N=after_N, target_N=target_N)
    return (before_N != target_N) & (after_N == target_N)


def knowledge_lost(before_N: Tensor, after_N: Tensor, target_N: Tensor) -> Tensor:
    """Samples that the student has right before transfer and wrong after (section 5.1, Fig. 7).

    Args:
        before_N: classes predicted before, int64 (N,).
        after_N: classes predicted after, int64 (N,).
        target_N: labels, int64 (N,).

    Returns:
        bool (N,); the paper's knowledge loss is its share of all samples.

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        >>> knowledge_lost(torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1])).tolist()
        [False, False, True]
    """
    _check(torch.int64, before_N=before_N, after_N=after_N, target_N=target_N)
    return (before_N == target_N) & (after_N != target_N)


def flip_counts(flips_N: Tensor, target_N: Tensor, num_classes: int) -> Tensor:
    """Number of flips of each class, by label (Fig. 2a).

    Args:
        flips_N: bool (N,), as `positive_flips` gives it.
        target_N: labels, int64 (N,), from 0 to num_classes − 1.
        num_classes: C ≥ 1.

    Returns:
        int64 (C,).

    Raises:
        ValueError: a wrong shape or dtype, or a label out of range.

    Example:
        >>> flip_counts(torch.tensor([True, True, False, True]), torch.tensor([2, 0, 1, 2]), num_classes=3).tolist()
        [1, 0, 2]
    """
    _check(torch.bool, flips_N=flips_N)
    _check(torch.int64, target_N=target_N)
    _check_lengths(flips_N=flips_N, target_N=target_N)
    if len(target_N) and (int(target_N.min()) < 0 or int(target_N.max()) >= num_classes):
        raise ValueError(
            f"target_N: expected labels from 0 to {num_classes - 1} ({num_classes} classes), "
            f"got {int(target_N.min())} to {int(target_N.max())}"
        )
    return torch.bincount(target_N[flips_N], minlength=num_classes)


def flip_entropy(flips_N: Tensor, target_N: Tensor, num_classes: int) -> float | None:
    """Entropy, in nats, of how flips are spread over classes (section 3, Fig. 1b).

        H = −Σ_c s_c · ln s_c,  s_c = flips of class c / all flips

    From 0 (all in one class) to ln C (evenly spread): lower is more specialised. Not normalised by class sizes.

    Args:
        flips_N: bool (N,), as `positive_flips` gives it.
        target_N: labels, int64 (N,), from 0 to num_classes − 1.
        num_classes: C ≥ 1.

    Returns:
        Nats; None without flips.

    Raises:
        ValueError: a wrong shape or dtype, or a label out of range.

    Example:
        Two flips in each of two classes give ln 2:

        >>> flip_entropy(torch.tensor([True] * 4), torch.tensor([0, 0, 1, 1]), num_classes=3)
        0.6931471805599453
    """
    counts = [k for k in flip_counts(flips_N, target_N, num_classes).tolist() if k]
    total = sum(counts)
    # ln(total / k) in place of −ln(k / total): no −0.0 where all flips lie in one class.
    return math.fsum(k / total * math.log(total / k) for k in counts) if total else None


def top_flip_classes(counts_C: Tensor, share: float) -> Tensor:
    """The smallest set of top classes that holds at least a share of all flips (section 3, Figs. 2b and 5a).

        the first k of the classes by descending counts, k the least with  Σ_{first k} counts ≥ share · Σ counts

    Args:
        counts_C: int64 (C,), none negative, as `flip_counts` gives it.
        share: above 0, up to 1. Taken as the decimal that it prints as: 0.07 of 100 flips is 7 of them, although the
            floating-point product is above 7.

    Returns:
        int64 (k,), classes by descending count, on the device of the counts; empty where there are no flips. Ties go
        to the lowest class index. Never one class more than needed, and never a class without flips.

    Raises:
        ValueError: a wrong shape or dtype, a negative count, or a share out of range.

    Example:
        Of 10 flips the top class holds 5, so half need one class, and 60 % need two:

        >>> counts = torch.tensor([2, 5, 0, 3])
        >>> top_flip_classes(counts, 0.5).tolist(), top_flip_classes(counts, 0.6).tolist()
        ([1], [1, 3])
    """
    _check(torch.int64, counts_C=counts_C)
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number above 0 and up to 1, got {share}")
    if len(counts_C) and int(counts_C.min()) < 0:
        raise ValueError(f"counts_C: expected counts of 0 and above, got {int(counts_C.min())}")
    sorted_C, classes_C = counts_C.sort(descending=True, stable=True)
    needed = math.ceil(Fraction(str(share)) * int(counts_C.sum()))
    if needed == 0:
        return classes_C[:0]
    return classes_C[: int((sorted_C.cumsum(0) < needed).sum()) + 1]


def in_classes(target_N: Tensor, classes: Tensor | Sequence[int]) -> Tensor:
    """Samples whose label is one of the classes, for `transfer_rate(..., among=...)`.

    Args:
        target_N: labels, int64 (N,).
        classes: class indices, int64 (k,) or a sequence.

    Returns:
        bool (N,); all False without classes.

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        >>> in_classes(torch.tensor([0, 1, 2, 1]), [1, 2]).tolist()
        [False, True, True, True]
    """
    _check(torch.int64, target_N=target_N)
    return torch.isin(target_N, torch.as_tensor(classes, dtype=torch.int64, device=target_N.device))


def transfer_rate(gained_N: Tensor, positive_flips_N: Tensor, *, among: Tensor | None = None) -> float | None:
    """Share of the complementary knowledge that arrived in the student (section 5.2, Fig. 5).

        |gained ∧ positive flips| / |positive flips|, over the samples of `among`

    Our reading of "the student's improvement per class relative to the available complementary knowledge per class";
    the published code counts every gained sample, which is `class_gain_ratio`.

    Args:
        gained_N: bool (N,), as `knowledge_gained` gives it.
        positive_flips_N: bool (N,), of teacher and *initial* student: counted before transfer.
        among: bool (N,), the samples to count, of a set of classes say; None for all.

    Returns:
        From 0 to 1; None where there are no positive flips among the samples.

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        Of two positive flips one was gained; the other gained sample was none:

        >>> transfer_rate(torch.tensor([True, False, True]), torch.tensor([True, True, False]))
        0.5
    """
    _check(torch.bool, gained_N=gained_N, positive_flips_N=positive_flips_N)
    flips_N = positive_flips_N
    if among is not None:
        _check(torch.bool, positive_flips_N=positive_flips_N, among=among)
        flips_N = flips_N & among
    flips = int(flips_N.sum())
    return int((gained_N & flips_N).sum()) / flips if flips else None


def class_gain_ratio(
    gained_N: Tensor, positive_flips_N: Tensor, target_N: Tensor, classes: Tensor | Sequence[int]
) -> float | None:
    """All that a student gained in some classes, relative to the complementary knowledge in them (Fig. 5).

        |gained samples of the classes| / |positive flips of the classes|

    As the published code counts: gained samples that the teacher has wrong too are included, so it may exceed 1. See
    `transfer_rate` for our reading of the paper's text.

    Args:
        gained_N: bool (N,), as `knowledge_gained` gives it.
        positive_flips_N: bool (N,), of teacher and *initial* student: counted before transfer.
        target_N: labels, int64 (N,).
        classes: class indices, as `top_flip_classes` gives them.

    Returns:
        0 or above; None where the classes hold no positive flips.

    Raises:
        ValueError: a wrong shape or dtype.

    Example:
        Class 0 has two gained samples and one positive flip; class 1 is not counted:

        >>> gained, flips = torch.tensor([True, True, True]), torch.tensor([True, False, True])
        >>> class_gain_ratio(gained, flips, torch.tensor([0, 0, 1]), classes=[0])
        2.0
    """
    _check(torch.bool, gained_N=gained_N, positive_flips_N=positive_flips_N)
    among_N = in_classes(target_N, classes)
    _check_lengths(gained_N=gained_N, target_N=target_N)
    flips = int((positive_flips_N & among_N).sum())
    return int((gained_N & among_N).sum()) / flips if flips else None


def _check(dtype: torch.dtype, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim != 1 or tensor.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype} of one dimension, got {tensor.dtype} {tuple(tensor.shape)}")
    _check_lengths(**tensors)


def _check_lengths(**tensors: Tensor) -> None:
    if len({len(tensor) for tensor in tensors.values()}) > 1:
        got = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"expected the same samples in each, got {got}")


def _at_least_one(target_N: Tensor) -> int:
    if not len(target_N):
        raise ValueError("expected at least one sample, got none: a share of no samples is undefined")
    return len(target_N)
