"""The partition against loops written from Eq. 4, and its properties."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder import partition
from gainfinder.partition import (
    confidences,
    cooled_by_class,
    log_confidences,
    most_confident,
    pooled_log_probs,
    soft_weights,
    teacher_share,
)

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


def naive_weights(probs: torch.Tensor, target: torch.Tensor | None, sharpness: float) -> list[list[float]]:
    rows = []
    for i, sample in enumerate(probs.tolist()):
        known = [max(p) if target is None else p[int(target[i])] for p in sample]
        powers = [c**sharpness if c > 0 else 0.0 for c in known]
        rows.append([p / sum(powers) for p in powers] if sum(powers) > 0 else [1.0] + [0.0] * (len(powers) - 1))
    return rows


@pytest.mark.parametrize(("n", "m", "c"), [(50, 2, 3), (50, 4, 3), (10, 1, 5), (10, 3, 1), (0, 2, 3)])
def test_confidences_equal_the_naive_loop_with_and_without_labels(n: int, m: int, c: int) -> None:
    probs = coarse_probs(n, m, c, seed=n + m + c).requires_grad_()
    target = torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(1))
    assert confidences(probs).tolist() == [[max(p) for p in sample] for sample in probs.tolist()]
    labelled = [[p[y] for p in sample] for sample, y in zip(probs.tolist(), target.tolist(), strict=True)]
    assert confidences(probs, target).tolist() == labelled
    for found in (confidences(probs), confidences(probs, target), soft_weights(probs, sharpness=1.0)):
        assert found.shape == (n, m)
        assert not found.requires_grad


def test_a_confidence_of_nan_is_the_lowest() -> None:
    probs = torch.tensor([[[0.5, 0.5], [torch.nan, 0.2]]])
    assert confidences(probs).tolist() == [[0.5, -math.inf]]
    assert confidences(probs, torch.tensor([1]))[0].tolist() == pytest.approx([0.5, 0.2])


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0, 7.0])
@pytest.mark.parametrize(("n", "m", "c"), [(50, 2, 3), (50, 4, 3), (10, 1, 5), (10, 3, 1), (0, 2, 3)])
def test_soft_weights_equal_the_naive_loop(n: int, m: int, c: int, sharpness: float) -> None:
    probs = coarse_probs(n, m, c, seed=n + m + c)
    target = torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(1))
    for labels in (None, target):
        weights = soft_weights(probs, labels, sharpness=sharpness)
        expected = torch.tensor(naive_weights(probs, labels, sharpness), dtype=torch.float64).reshape(n, m)
        torch.testing.assert_close(weights, expected)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(n, dtype=torch.float64))


@SETTINGS
@given(seed=st.integers(0, 10_000))
def test_great_sharpness_is_the_greedy_choice_but_for_ties(seed: int) -> None:
    probs = torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    target = torch.randint(0, 4, (20,), generator=torch.Generator().manual_seed(seed))
    greedy = torch.nn.functional.one_hot(most_confident(probs, target), 3).double()
    assert torch.equal(soft_weights(probs, target, sharpness=1e300), greedy)
    further = [(soft_weights(probs, target, sharpness=s) - greedy).abs().sum().item() for s in (0.0, 1.0, 10.0, 100.0)]
    assert further == sorted(further, reverse=True)


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 50.0, 1e300])
def test_ties_share_and_ignorance_has_no_share(sharpness: float) -> None:
    zero, some, nan = [0.0, 1.0], [0.3, 0.7], [torch.nan, torch.nan]
    probs = torch.tensor(
        [[some, zero, some], [nan, some, zero], [zero, zero, zero], [zero, nan, zero], [nan, nan, nan]]
    )
    weights = soft_weights(probs, torch.zeros(5, dtype=torch.int64), sharpness=sharpness)
    assert weights.tolist() == [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_small_confidences_are_compared_too() -> None:
    """Their powers would underflow: only their ratio counts."""
    probs = torch.tensor([[[3e-38, 1.0], [1e-38, 1.0]]])
    weights = soft_weights(probs, torch.tensor([0]), sharpness=2.0)
    assert weights[0].tolist() == pytest.approx([0.9, 0.1], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_probabilities_are_float32(dtype: torch.dtype) -> None:
    probs = coarse_probs(50, 3, 4, seed=0).to(dtype)
    weights = soft_weights(probs, sharpness=3.0)
    assert weights.dtype == torch.float32
    assert confidences(probs).dtype == dtype
    torch.testing.assert_close(weights, soft_weights(probs.double(), sharpness=3.0).float())


@pytest.mark.parametrize("sharpness", [-1.0, math.inf, math.nan])
def test_sharpness_must_be_finite(sharpness: float) -> None:
    with pytest.raises(ValueError, match="sharpness: expected a finite number of at least 0, got"):
        soft_weights(torch.zeros(2, 3, 4), sharpness=sharpness)


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
    probs = torch.zeros(shape, dtype=dtype)
    for function in (most_confident, confidences, lambda p, y: soft_weights(p, y, sharpness=1.0)):
        with pytest.raises(ValueError, match=message):
            function(probs, target)


def naive_pool(z: torch.Tensor, how: str) -> list[list[float]]:
    found = []
    for sample in z.tolist():
        weights = []
        rows = [[math.exp(v - max(row)) for v in row] for row in sample]
        for j in range(len(rows[0])):
            probs = [row[j] / sum(row) for row in rows]
            if how == "mean":
                weights.append(sum(probs) / len(probs))
            else:
                weights.append(math.prod(0.99 * p + 0.01 / len(rows[0]) for p in probs) ** (1 / len(probs)))
        found.append([math.log(w / sum(weights)) for w in weights])
    return found


@pytest.mark.parametrize("how", ["mean", "product"])
@pytest.mark.parametrize(("n", "m", "c"), [(40, 2, 3), (40, 4, 12), (9, 1, 5), (9, 3, 1)])
def test_a_pool_equals_the_naive_loop(how: Any, n: int, m: int, c: int) -> None:
    z = 3 * torch.randn(n, m, c, generator=torch.Generator().manual_seed(n + m + c), dtype=torch.float64)
    found = pooled_log_probs(z, how)
    assert torch.allclose(found, torch.tensor(naive_pool(z, how), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found, pooled_log_probs(z + torch.randn(n, m, 1), how)), "logits may be shifted"
    assert torch.allclose(found, pooled_log_probs(z.flip(1), how)), "all models count alike"
    assert pooled_log_probs(z.half(), how).dtype == torch.float32


@pytest.mark.parametrize("how", ["mean", "product"])
def test_no_model_rules_a_class_out(how: Any) -> None:
    """A teacher without the third class, as a label map has it, and a student that is sure of that class."""
    student, teacher = [-9.0, -9.0, 0.0], [0.0, 0.0, -27.6]
    assert pooled_log_probs(torch.tensor([[student, teacher]]), how).argmax(dim=1).tolist() == [2]


def test_a_pool_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"logits_NMC: expected floating point \(N, models, classes\)"):
        pooled_log_probs(torch.zeros(2, 3), "mean")
    with pytest.raises(ValueError, match=r"pooling: expected 'mean' or 'product', got 'median'"):
        pooled_log_probs(torch.zeros(2, 3, 4), "median")  # type: ignore[arg-type]


def test_partition_quality_counts_masked_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    choice = torch.randint(0, 3, (500,), generator=generator)
    mask = torch.rand(500, generator=generator) < 0.2
    sent = sum(1 for k, m in zip(choice.tolist(), mask.tolist(), strict=True) if m and k > 0)
    assert teacher_share(choice, mask) == sent / sum(mask.tolist())


def test_partition_quality_of_nothing_is_none() -> None:
    assert teacher_share(torch.tensor([0, 1]), torch.tensor([False, False])) is None
    assert teacher_share(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)) is None
    with pytest.raises(ValueError, match=r"mask_N: expected torch.bool \(2,\), got torch.bool \(1,\)"):
        teacher_share(torch.tensor([0, 1]), torch.tensor([True]))
    with pytest.raises(ValueError, match=r"choice_N: expected torch.int64 \(N,\), got torch.bool"):
        teacher_share(torch.tensor([True]), torch.tensor([True]))


@pytest.mark.parametrize(
    ("old", "new"),
    [("sent_to_teacher", "teacher_share"), ("shares", "soft_assignment"), ("surest", "argmax_confidence")],
)
def test_earlier_names_still_work_with_a_note(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"partition.{old} is now partition.{new}"):
        found = getattr(partition, old)
    assert found is getattr(partition, new)
    with pytest.raises(AttributeError, match=f"no attribute '{old}s'"):
        getattr(partition, f"{old}s")


@pytest.mark.parametrize("target", [None, torch.tensor([2, 0])])
def test_log_confidences_are_those_of_the_softmax(target: Tensor | None) -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 8.0]], [[5.0, 5.0, 1.0], [-1e4, 0.0, -1e4]]])
    found = log_confidences(logits, target)
    assert torch.allclose(found.exp(), confidences(logits.softmax(dim=2), target))
    assert log_confidences(logits.half(), target).dtype == torch.float32
    assert log_confidences(logits.double(), target).dtype == torch.float64
    assert not log_confidences(logits.clone().requires_grad_(), target).requires_grad


def test_each_models_logits_are_cooled_by_the_temperature_of_the_class_it_answers() -> None:
    logits = torch.tensor([[[1.0, 3.0, 2.0], [4.0, 4.0, 0.0]], [[6.0, 5.0, 1.0], [0.0, 1.0, 2.0]]])
    temperatures = torch.tensor([[2.0, 4.0, 8.0], [0.5, 1.0, 0.25]])
    found = cooled_by_class(logits, temperatures)
    for sample, model in itertools.product(range(2), range(2)):
        answer = int(logits[sample, model].argmax())  # of equal ones the first
        assert torch.equal(found[sample, model], logits[sample, model] / temperatures[model, answer])


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4).long(), torch.zeros(2, 0, 4), torch.zeros(2, 3, 0)])
def test_pooling_needs_models_and_classes(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"logits_NMC: expected floating point \(N, models, classes\), got "):
        pooled_log_probs(wrong, "mean")
