"""Areas of expertise: the classes that hold most of a teacher's complementary knowledge, and whether they are alike.

Source: section 3 and Fig. 2b of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653). The published code's sets
are one class too large; these are as `flips.top_flip_classes` gives them, for many pairs at once.
Shapes: P pairs, C classes, A areas (one a percentage), D numbers of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

PERCENTS = (2, 5, 10, 20, 50)
"""Of a pair's positive flips, what an area holds at least (Fig. 2b)."""
PAIRS = 2048
"""Pairs whose classes are summed up at once."""


@dataclass(frozen=True, kw_only=True)
class Areas:
    """The areas of expertise of some pairs. The area of a percentage is the first classes of the pair's order.

    Attributes:
        order_PC: classes of each pair by falling positive flips, int64 (P, C); ties by class index.
        sizes_PA: number of classes in each area, int64 (P, A); 0 for a pair without flips.
    """

    order_PC: Tensor
    sizes_PA: Tensor


def areas_of_expertise(counts_PC: Tensor, *, percents: Sequence[int] = PERCENTS) -> Areas:
    """For each pair the smallest sets of top classes that hold at least p % of its positive flips.

    Args:
        counts_PC: positive flips by class, integers from 0, (P, C), C ≥ 1.
        percents: whole percentages, from 1 to 100.

    Raises:
        ValueError: a wrong shape or dtype, or a percentage out of range.

    Example:
        Of 10 flips the top class holds 5, so 50 % need one class, and 60 % need two:

        >>> found = areas_of_expertise(torch.tensor([[2, 5, 0, 3], [0, 0, 0, 0]]), percents=(50, 60))
        >>> found.order_PC[0].tolist(), found.sizes_PA.tolist()
        ([1, 3, 0, 2], [[1, 2], [0, 0]])
    """
    if counts_PC.ndim != 2 or counts_PC.is_floating_point() or not counts_PC.shape[1]:
        raise ValueError(
            f"counts_PC: expected integers (pairs, classes), got {counts_PC.dtype} {tuple(counts_PC.shape)}"
        )
    if any(not 1 <= percent <= 100 for percent in percents):
        raise ValueError(f"percents: expected whole numbers from 1 to 100, got {list(percents)}")
    sorted_PC, order_PC = counts_PC.sort(dim=1, descending=True, stable=True)
    held_PC = sorted_PC.cumsum(dim=1, dtype=torch.int64)
    total_P1 = held_PC[:, -1:]
    # Rounded up in whole numbers: as a floating-point product, 7 % of 100 flips would be more than 7.
    needed_PA = -(-total_P1 * torch.tensor(list(percents), device=counts_PC.device) // 100)
    sizes_PA = torch.searchsorted(held_PC, needed_PA) + 1
    return Areas(order_PC=order_PC, sizes_PA=torch.where(total_P1 > 0, sizes_PA, 0))


def mean_similarity(embeddings_CD: Tensor) -> float | None:
    """Mean cosine similarity of all pairs of two different classes.

    Args:
        embeddings_CD: floating point (C, D), of any length but 0.

    Returns:
        From −1 to 1; None of fewer than two classes.

    Example:
        >>> mean_similarity(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
        0.3333333333333333
    """
    count = len(embeddings_CD)
    if count < 2:
        return None
    unit_CD = normalize(embeddings_CD.double(), dim=1)
    return float((unit_CD.sum(dim=0).square().sum() - count) / (count * (count - 1)))


def semantic_similarity(areas: Areas, embeddings_CD: Tensor, *, all_similarity: float) -> Tensor:
    """How much more alike the classes of each area are than all classes, by the embeddings of their names (Fig. 2b).

        (s(area) − s(all)) / s(all),  s the mean cosine similarity of all pairs of two different classes

    The sum over pairs comes from the length of the sum of the area's unit vectors: (‖Σ e‖² − k) / (k (k − 1)).

    Args:
        areas: the areas.
        embeddings_CD: embeddings of the class names, floating point (C, D).
        all_similarity: s(all), as `mean_similarity` gives it, above 0: relative to 0 or less it would mean nothing.

    Returns:
        float64 (P, A); NaN for areas of fewer than two classes, which have no pair.

    Raises:
        ValueError: `all_similarity` is not above 0.

    Example:
        Two classes of one direction in an area, where all three classes have 1/3 on average:

        >>> found = areas_of_expertise(torch.tensor([[5, 5, 0]]), percents=(50, 100))
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> semantic_similarity(found, embeddings, all_similarity=1 / 3).round(decimals=6).tolist()
        [[nan, 2.0]]
    """
    if not all_similarity > 0:
        raise ValueError(f"all_similarity: expected a number above 0, got {all_similarity}")
    unit_CD = normalize(embeddings_CD.double(), dim=1)
    parts = [
        _pair_sums(order_PC, sizes_PA, unit_CD)
        for order_PC, sizes_PA in zip(areas.order_PC.split(PAIRS), areas.sizes_PA.split(PAIRS), strict=True)
    ]
    pairs_PA = (areas.sizes_PA * (areas.sizes_PA - 1)).double()
    own_PA = torch.cat(parts) / torch.where(areas.sizes_PA > 1, pairs_PA, torch.nan)
    return (own_PA - all_similarity) / all_similarity


def _pair_sums(order_PC: Tensor, sizes_PA: Tensor, unit_CD: Tensor) -> Tensor:
    """Sum of the similarities of two different classes over each area, float64 (P, A)."""
    # Products with 0 and 1 rather than sums over lists of classes: half of all flips may lie in hundreds of classes.
    places_C = torch.arange(order_PC.shape[1], device=order_PC.device)
    rank_PC = torch.empty_like(order_PC).scatter_(1, order_PC, places_C.expand_as(order_PC).contiguous())
    sums = [
        ((rank_PC < size_P[:, None]).to(unit_CD.dtype) @ unit_CD).square().sum(dim=1) - size_P
        for size_P in sizes_PA.unbind(dim=1)
    ]
    return torch.stack(sums, dim=1)
