"""Complementary knowledge of all ordered pairs of a zoo at once, by matrix products: no loop over pairs.

Sources: section 3 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653), whose study has 301 models; for
errors in common Geirhos et al., "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by
measuring error consistency" (NeurIPS 2020, arXiv 2006.16736).
Shapes: N samples, M models, C classes, K classes of a product, R samples of the largest of them. In a matrix (M, M) the
row is the student, the column the teacher.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NUMBERS = 2**22
"""Numbers in a factor or a result of one product, at most, but for a class that is larger: 16 MiB in float32."""
EXACT = 2**24
"""Up to here every whole number is one of float32, so that a sum of ones is exact in any order."""


@dataclass(frozen=True, kw_only=True)
class ZooFlips:
    """What each model of a zoo knows that each other one does not. Of a matrix, row: student, column: teacher.

    Counts are integers, shares float64. Negative flips are the positive ones of the pair the other way round: their
    matrices, also by class, are the transposed ones.

    Attributes:
        samples: N.
        right_M: number of samples that each model has right, int64 (M,).
        positive_flip_counts_MM: number of samples that the teacher has right and the student wrong, int64 (M, M).
        flip_entropy_MM: entropy of the positive flips over classes, in nats, float64 (M, M), within 1e-12 of what
            `flips.flip_entropy` gives; NaN without positive flips, as on the diagonal.
        flip_counts_CMM: number of positive flips of each class, by label, (C, M, M), or None where they were not kept.
            The first of uint8, int16, int32 and int64 that holds the size of the largest class: counts fit, sums of
            them may not, so give `sum` a dtype.
    """

    samples: int
    right_M: Tensor
    positive_flip_counts_MM: Tensor
    flip_entropy_MM: Tensor
    flip_counts_CMM: Tensor | None

    @property
    def accuracy_M(self) -> Tensor:
        """Share of samples that each model has right, float64 (M,)."""
        return self.right_M.double() / self.samples

    @property
    def positive_flips_MM(self) -> Tensor:
        """ρ_pos, share of all samples that the teacher has right and the student wrong, float64 (M, M)."""
        return self.positive_flip_counts_MM.double() / self.samples

    @property
    def negative_flips_MM(self) -> Tensor:
        """ρ_neg, share of all samples that the teacher has wrong and the student right, float64 (M, M)."""
        return self.positive_flips_MM.T

    @property
    def delta_acc_pp_MM(self) -> Tensor:
        """Δ_acc = accuracy of the teacher − accuracy of the student, in percentage points, float64 (M, M)."""
        return (100 * (self.right_M - self.right_M[:, None])).double() / self.samples

    @property
    def oracle_accuracy_MM(self) -> Tensor:
        """Share of samples that student or teacher has right: the student's accuracy + ρ_pos, float64 (M, M)."""
        return (self.right_M[:, None] + self.positive_flip_counts_MM).double() / self.samples

    @property
    def error_overlap_MM(self) -> Tensor:
        """Of the samples that either has wrong, the share that both have wrong: the Jaccard index of their errors.

            |both wrong| / |either wrong|

        Ours: independent of how many samples both have right. The "observed error overlap" of Geirhos et al. counts
        these as well; it is 1 − ρ_pos − ρ_neg.

        Returns:
            float64 (M, M), symmetric, from 0 to 1; NaN where neither has an error.
        """
        both_right_MM = self.right_M - self.positive_flip_counts_MM
        either_right_MM = self.right_M[:, None] + self.positive_flip_counts_MM
        return (self.samples - either_right_MM).double() / (self.samples - both_right_MM).double()

    @property
    def error_consistency_MM(self) -> Tensor:
        """Whether two models err on the same samples more often than by chance, given their accuracies: Cohen's κ.

            κ = (c_obs − c_exp) / (1 − c_exp)
            c_obs = 1 − ρ_pos − ρ_neg, both right or both wrong;  c_exp = a_s · a_t + (1 − a_s) · (1 − a_t)

        Source: Geirhos et al. 2020, a the accuracies of student and teacher.

        Returns:
            float64 (M, M), symmetric, from −1 to 1: 0 as by chance, 1 the same errors. NaN where both have all right or
            both have all wrong, so that chance alone lets them agree on everything.
        """
        n, wrong_M = self.samples, self.samples - self.right_M
        differ_MM = self.positive_flip_counts_MM + self.positive_flip_counts_MM.T
        expected_MM = torch.outer(self.right_M, self.right_M) + torch.outer(wrong_M, wrong_M)
        return (n * (n - differ_MM) - expected_MM).double() / (n * n - expected_MM).double()


def compare_zoo(predicted_MN: Tensor, target_N: Tensor, num_classes: int, *, keep_classes: bool = True) -> ZooFlips:
    """The complementary knowledge of all ordered pairs: what `flips.compare` and `flips.flip_counts` give for each.

        positive flips of class c = [B_c]_tt − [B_c]_st,  B_c = R_c R_cᵀ,  [R_c]_mi = 1 where model m has sample i right

    Source: section 3, Figs. 1 and 2a. Beside the result it takes about 150 MB of memory, two bytes for each prediction,
    and four for each prediction of the largest class.

    Args:
        predicted_MN: predicted classes, int64 or int32 (M, N), from 0 to num_classes − 1, M ≥ 1, N ≥ 1.
        target_N: labels, int64 (N,), from 0 to num_classes − 1.
        num_classes: C. Classes without samples have no flips.
        keep_classes: whether the counts of each class are wanted, which are C × M × M numbers.

    Raises:
        ValueError: a wrong shape or dtype, no models or samples, or a class out of range.

    Example:
        The second model has all four samples right, the first one only the last two, and both samples that it could
        learn are of class 0:

        >>> found = compare_zoo(torch.tensor([[1, 1, 1, 0], [0, 0, 1, 0]]), torch.tensor([0, 0, 1, 0]), num_classes=2)
        >>> found.positive_flip_counts_MM.tolist(), found.negative_flips_MM.tolist()
        ([[0, 2], [0, 0]], [[0.0, 0.0], [0.5, 0.0]])
        >>> found.flip_counts_CMM[:, 0, 1].tolist(), found.flip_entropy_MM[0].tolist()
        ([2, 0], [nan, 0.0])
    """
    _check(predicted_MN, target_N, num_classes)
    models, samples = predicted_MN.shape
    device = predicted_MN.device
    right_NM = (predicted_MN == target_N).T.contiguous()
    counts_C = torch.bincount(target_N, minlength=num_classes)
    n_ln_n = _n_ln_n(samples, device)
    both_right_MM = torch.zeros(models, models, dtype=torch.int64, device=device)
    class_terms_MM = torch.zeros(models, models, dtype=torch.float64, device=device)
    kept_CMM = None
    if keep_classes:
        kept_CMM = torch.zeros(num_classes, models, models, dtype=_dtype_for(int(counts_C.max())), device=device)
    for classes_K, right_KRM in _by_class(right_NM, target_N, counts_C):
        both_right_KMM = right_KRM.mT @ right_KRM
        flips_KMM = both_right_KMM.diagonal(dim1=1, dim2=2)[:, None, :] - both_right_KMM
        both_right_MM += both_right_KMM.sum(dim=0).long()
        class_terms_MM += n_ln_n.index_select(0, flips_KMM.int().flatten()).view_as(flips_KMM).sum(dim=0)
        if kept_CMM is not None:
            kept_CMM.index_copy_(0, classes_K, flips_KMM.to(kept_CMM.dtype))
    right_M = both_right_MM.diagonal().clone()
    flips_MM = right_M - both_right_MM
    return ZooFlips(
        samples=samples,
        right_M=right_M,
        positive_flip_counts_MM=flips_MM,
        # −Σ_c s_c · ln s_c of s_c = n_c / n. A table has n · ln n for both, so that flips of one class give exactly 0.
        flip_entropy_MM=(n_ln_n[flips_MM] - class_terms_MM) / flips_MM,
        flip_counts_CMM=kept_CMM,
    )


def _by_class(right_NM: Tensor, target_N: Tensor, counts_C: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some classes at a time and who has which of their samples right, as numbers for products (K, R, M).

    Classes of like size come together, the largest first; rows beyond a class's own samples are 0.
    """
    samples, models = right_NM.shape
    dtype = torch.float32 if samples <= EXACT else torch.float64
    order_N = target_N.argsort(stable=True)
    first_C = counts_C.cumsum(0) - counts_C
    by_size_C = counts_C.argsort(descending=True, stable=True)
    filled_C = by_size_C[: int((counts_C > 0).sum())]
    begin = 0
    while begin < len(filled_C):
        rows = int(counts_C[filled_C[begin]])
        classes_K = filled_C[begin : begin + max(1, NUMBERS // (models * max(models, rows)))]
        row_R = torch.arange(rows, device=right_NM.device)
        positions_KR = (first_C[classes_K, None] + row_R).clamp(max=samples - 1)
        own_KR = row_R < counts_C[classes_K, None]
        yield classes_K, (right_NM[order_N[positions_KR]] & own_KR[:, :, None]).to(dtype)
        begin += len(classes_K)


def _n_ln_n(samples: int, device: torch.device) -> Tensor:
    """n · ln n for n from 0 to the number of samples, float64, 0 for n = 0."""
    n = torch.arange(samples + 1, dtype=torch.float64, device=device)
    return torch.xlogy(n, n)


def _dtype_for(largest: int) -> torch.dtype:
    """The smallest integer dtype for counts up to this one."""
    dtypes = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return next(dtype for dtype in dtypes if largest <= torch.iinfo(dtype).max)


def _check(predicted_MN: Tensor, target_N: Tensor, num_classes: int) -> None:
    if predicted_MN.ndim != 2 or predicted_MN.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"predicted_MN: expected torch.int64 or torch.int32 of two dimensions, got {_got(predicted_MN)}"
        )
    if target_N.ndim != 1 or target_N.dtype != torch.int64:
        raise ValueError(f"target_N: expected torch.int64 of one dimension, got {_got(target_N)}")
    if predicted_MN.shape[1] != len(target_N):
        shapes = f"predicted_MN {tuple(predicted_MN.shape)}, target_N {tuple(target_N.shape)}"
        raise ValueError(f"expected the same samples in each, got {shapes}")
    if not predicted_MN.numel():
        raise ValueError(f"expected at least one model and one sample, got predicted_MN {tuple(predicted_MN.shape)}")
    for name, tensor, what in (("predicted_MN", predicted_MN, "classes"), ("target_N", target_N, "labels")):
        least, greatest = (int(end) for end in tensor.aminmax())
        if least < 0 or greatest >= num_classes:
            expected = f"expected {what} from 0 to {num_classes - 1} ({num_classes} classes)"
            raise ValueError(f"{name}: {expected}, got {least} to {greatest}")


def _got(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
