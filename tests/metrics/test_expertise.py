"""Areas of expertise of many pairs, as those of each pair by itself, and similarity as a loop over pairs of classes."""

from itertools import permutations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from gainfinder.metrics import PERCENTS, areas_of_expertise, mean_similarity, semantic_similarity
from gainfinder.metrics import expertise as module
from gainfinder.metrics.flips import top_flip_classes

SEED = torch.Generator().manual_seed(0)
COUNTS = torch.cat([
    torch.randint(0, 6, (12, 30), generator=SEED),  # many ties
    torch.randint(0, 1000, (12, 30), generator=SEED) ** 2,
    torch.zeros(1, 30, dtype=torch.int64),
    torch.tensor([[100, *[0] * 29], [*[0] * 29, 1], [1] * 30, [7, 93, *[0] * 28]]),
])  # fmt: skip
EMBEDDINGS = torch.randn(30, 8, generator=SEED) + 0.7


def naive_similarity(embeddings: torch.Tensor) -> float:
    pairs = list(permutations(range(len(embeddings)), 2))
    cosines = [cosine_similarity(embeddings[a].double(), embeddings[b].double(), dim=0).item() for a, b in pairs]
    return sum(cosines) / len(cosines)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_areas_are_those_of_each_pair_by_itself(dtype: torch.dtype) -> None:
    counts = COUNTS.clamp(max=255) if dtype == torch.uint8 else COUNTS
    found = areas_of_expertise(counts.to(dtype), percents=(1, *PERCENTS, 7, 93, 100))
    for row, counts_C in enumerate(counts):
        for place, percent in enumerate((1, *PERCENTS, 7, 93, 100)):
            one = top_flip_classes(counts_C, percent / 100)
            assert int(found.sizes_PA[row, place]) == len(one)
            assert found.order_PC[row, : len(one)].tolist() == one.tolist()


def test_no_area_is_a_class_too_large() -> None:
    found = areas_of_expertise(COUNTS, percents=PERCENTS)
    for counts_C, order, sizes in zip(COUNTS, found.order_PC, found.sizes_PA.tolist(), strict=True):
        for percent, size in zip(PERCENTS, sizes, strict=True):
            total, held = int(counts_C.sum()), int(counts_C[order[:size]].sum())
            assert 100 * held >= percent * total and (size > 0) == (total > 0)
            assert size == 0 or 100 * (held - int(counts_C[order[size - 1]])) < percent * total


def test_similarity_is_the_mean_over_pairs_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", 5)
    common = mean_similarity(EMBEDDINGS)
    assert common is not None
    assert common == pytest.approx(naive_similarity(EMBEDDINGS), rel=1e-12)
    areas = areas_of_expertise(COUNTS)
    found = semantic_similarity(areas, EMBEDDINGS * torch.rand(30, 1).add(0.1), all_similarity=common)
    for order, sizes, similar in zip(areas.order_PC, areas.sizes_PA.tolist(), found, strict=True):
        for size, one in zip(sizes, similar.tolist(), strict=True):
            expected = (naive_similarity(EMBEDDINGS[order[:size]]) - common) / common if size > 1 else float("nan")
            assert one == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def test_what_makes_no_sense_is_refused() -> None:
    assert mean_similarity(EMBEDDINGS[:1]) is None
    areas = areas_of_expertise(COUNTS)
    for similarity in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="all_similarity: expected a number above 0"):
            semantic_similarity(areas, EMBEDDINGS, all_similarity=similarity)
    with pytest.raises(ValueError, match="counts_PC: expected integers"):
        areas_of_expertise(COUNTS.double())
    with pytest.raises(ValueError, match="whole numbers from 1 to 100"):
        areas_of_expertise(COUNTS, percents=(0,))
