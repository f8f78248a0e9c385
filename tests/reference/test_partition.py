"""The partition against loops written from Eq. 4, and its properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gainfinder.partition import most_confident, sent_to_teacher

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def coarse_probs(n: int, m: int, c: int, *, seed: int) -> torch.Tensor:
    """Probabilities in steps of 1/4 or so, so that ties are common."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 3, (n, m, c), generator=generator).double() + 0.5
    return counts / counts.sum(dim=-1, keepdim=True)


def naive_most_confident(probs: torch.Tensor, target: torch.Tensor | None) -> list[int]:
    choice = []
    for i, sample in enumerate(probs.tolist()):
        best, chosen = -1.0, -1
        for m, p in enumerate(sample):
            confidence = max(p) if target is None else p[int(target[i])]
            if confidence > best:
                best, chosen = confidence, m
        choice.append(chosen)
    return choice


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "m", "c"), [(200, 2, 3), (200, 4, 3), (50, 1, 5), (50, 3, 1), (0, 2, 3)])
def test_equals_the_naive_loop_with_and_without_labels(n: int, m: int, c: int, dtype: torch.dtype) -> None:
    probs = coarse_probs(n, m, c, seed=n + m + c).to(dtype)
    target = torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(1))
    for labels in (None, target):
        choice = most_confident(probs, labels)
        assert choice.dtype == torch.int64
        assert choice.shape == (n,)
        assert choice.tolist() == naive_most_confident(probs, labels)


def test_two_models_give_the_masks_of_equation_4() -> None:
    probs = coarse_probs(300, 2, 3, seed=0)
    target = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(1))
    student, teacher = (probs[torch.arange(300), m, target] for m in (0, 1))
    assert (student == teacher).any()
    assert torch.equal(most_confident(probs, target) > 0, teacher > student)


def test_ties_go_to_the_initial_student_then_to_the_first_teacher() -> None:
    probs = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]]])
    assert most_confident(probs).tolist() == [0, 1]


def test_all_or_none_of_a_batch_may_go_to_the_teacher() -> None:
    sure, unsure = torch.tensor([[0.9, 0.1]] * 4), torch.tensor([[0.6, 0.4]] * 4)
    assert most_confident(torch.stack([unsure, sure], dim=1)).tolist() == [1] * 4
    assert most_confident(torch.stack([sure, unsure], dim=1)).tolist() == [0] * 4


def test_a_model_that_fails_on_a_sample_does_not_teach_it() -> None:
    good, failed = torch.tensor([[0.6, 0.4]]), torch.full((1, 2), torch.nan)
    assert most_confident(torch.stack([good, failed], dim=1)).tolist() == [0]
    assert most_confident(torch.stack([failed, good], dim=1)).tolist() == [1]
    assert most_confident(torch.stack([failed, failed], dim=1)).tolist() == [0]


@SETTINGS
@given(seed=st.integers(0, 10_000), permutation=st.permutations(range(4)))
def test_does_not_depend_on_the_order_of_classes(seed: int, permutation: list[int]) -> None:
    probs = coarse_probs(20, 3, 4, seed=seed)
    target = torch.randint(0, 4, (20,), generator=torch.Generator().manual_seed(seed))
    shuffled = probs[:, :, permutation]
    moved = torch.tensor(permutation).argsort()[target]
    assert torch.equal(most_confident(probs), most_confident(shuffled))
    assert torch.equal(most_confident(probs, target), most_confident(shuffled, moved))


@pytest.mark.parametrize(
    ("shape", "dtype", "target", "message"),
    [
        ((2, 3), torch.float32, None, r"probs_NMC: .*got torch.float32 \(2, 3\)"),
        ((2, 3, 4), torch.int64, None, r"probs_NMC: .*got torch.int64 \(2, 3, 4\)"),
        ((2, 0, 4), torch.float32, None, r"probs_NMC: .*\(2, 0, 4\)"),
        ((2, 3, 4), torch.float32, torch.zeros(3, dtype=torch.int64), r"target_N: .*\(2,\), got torch.int64 \(3,\)"),
        ((2, 3, 4), torch.float32, torch.zeros(2), r"target_N: .*got torch.float32"),
    ],
)
def test_messages(shape: tuple[int, ...], dtype: torch.dtype, target: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        most_confident(torch.zeros(shape, dtype=dtype), target)


def test_partition_quality_counts_masked_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    choice = torch.randint(0, 3, (500,), generator=generator)
    mask = torch.rand(500, generator=generator) < 0.2
    sent = sum(1 for k, m in zip(choice.tolist(), mask.tolist(), strict=True) if m and k > 0)
    assert sent_to_teacher(choice, mask) == sent / sum(mask.tolist())


def test_partition_quality_of_nothing_is_none() -> None:
    assert sent_to_teacher(torch.tensor([0, 1]), torch.tensor([False, False])) is None
    assert sent_to_teacher(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)) is None
    with pytest.raises(ValueError, match=r"mask_N: expected torch.bool \(2,\), got torch.bool \(1,\)"):
        sent_to_teacher(torch.tensor([0, 1]), torch.tensor([True]))
    with pytest.raises(ValueError, match=r"choice_N: expected torch.int64 \(N,\), got torch.bool"):
        sent_to_teacher(torch.tensor([True]), torch.tensor([True]))
