"""All pairs of a zoo at once: by hand, against a loop over pairs and images, and against the measures of a pair."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.metrics import ZooFlips, compare_zoo, zoo_flips
from gainfinder.metrics.flips import accuracy, compare, flip_counts, positive_flips

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)
CLASSES = 4
MODELS = 3
ROWS = st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * (MODELS + 1)), min_size=1, max_size=40)
"""What each of the models predicts for an image, and its label."""


def zoo(seed: int, *, models: int, samples: int, classes: int) -> tuple[Tensor, Tensor]:
    """Random predictions, right about two times in three; classes of very different size, the last one empty."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(classes, generator=generator) ** 4 + 1e-6
    if classes > 1:
        weights[-1] = 0
    target = torch.multinomial(weights, samples, replacement=True, generator=generator)
    other = torch.randint(0, classes, (models, samples), generator=generator)
    return torch.where(torch.rand(models, samples, generator=generator) < 0.6, target, other), target


def assert_equals_pair_by_pair(found: ZooFlips, predicted: Tensor, target: Tensor, classes: int) -> None:
    """Counts and shares are the same numbers; entropies are summed in another order."""
    assert found.flip_counts_CMM is not None
    for s, t in product(range(len(predicted)), repeat=2):
        pair = compare(predicted[s], predicted[t], target, classes)
        flips = positive_flips(predicted[s], predicted[t], target)
        assert found.flip_counts_CMM[:, s, t].tolist() == flip_counts(flips, target, classes).tolist()
        assert found.positive_flip_counts_MM[s, t] == flips.sum()
        assert found.positive_flips_MM[s, t].item() == pair.positive_flips
        assert found.negative_flips_MM[s, t].item() == pair.negative_flips
        assert found.delta_acc_pp_MM[s, t].item() == pair.delta_acc_pp
        entropy = found.flip_entropy_MM[s, t].item()
        assert math.isnan(entropy) if pair.flip_entropy is None else abs(entropy - pair.flip_entropy) < 1e-12
    assert found.accuracy_M.tolist() == [accuracy(one, target) for one in predicted]


@SETTINGS
@given(rows=ROWS)
def test_as_a_loop_over_pairs_and_images(rows: list[tuple[int, ...]]) -> None:
    *predicted, target = torch.tensor(rows).T
    found = compare_zoo(torch.stack(predicted), target, CLASSES)
    assert found.flip_counts_CMM is not None
    n = len(rows)
    for s, t in product(range(MODELS), repeat=2):
        right = [(row[s] == row[-1], row[t] == row[-1]) for row in rows]
        counts = Counter(row[-1] for row, of_both in zip(rows, right, strict=True) if of_both == (False, True))
        flips = counts.total()
        assert found.positive_flip_counts_MM[s, t] == flips
        assert found.flip_counts_CMM[:, s, t].tolist() == [counts[c] for c in range(CLASSES)]
        assert found.positive_flips_MM[s, t].item() == flips / n
        assert found.negative_flips_MM[s, t].item() == right.count((True, False)) / n
        assert found.oracle_accuracy_MM[s, t].item() == sum(map(any, right)) / n
        entropy = -sum(k / flips * math.log(k / flips) for k in counts.values()) if flips else math.nan
        assert found.flip_entropy_MM[s, t].item() == pytest.approx(entropy, abs=1e-12, nan_ok=True)
        both_wrong = right.count((False, False))
        either_wrong = n - right.count((True, True))
        overlap = both_wrong / either_wrong if either_wrong else math.nan
        assert found.error_overlap_MM[s, t].item() == pytest.approx(overlap, nan_ok=True)
        of_student, of_teacher = (sum(one) / n for one in zip(*right, strict=True))
        expected = of_student * of_teacher + (1 - of_student) * (1 - of_teacher)
        observed = sum(one == other for one, other in right) / n
        kappa = (observed - expected) / (1 - expected) if expected < 1 else math.nan
        assert found.error_consistency_MM[s, t].item() == pytest.approx(kappa, abs=1e-12, nan_ok=True)


@SETTINGS
@given(rows=ROWS)
def test_as_the_measures_of_each_pair(rows: list[tuple[int, ...]]) -> None:
    *predicted, target = torch.tensor(rows).T
    found = compare_zoo(torch.stack(predicted), target, CLASSES)
    assert_equals_pair_by_pair(found, torch.stack(predicted), target, CLASSES)


@pytest.mark.parametrize("numbers", [1, 500, 5000, zoo_flips.NUMBERS], ids="{} numbers at once".format)
def test_however_many_classes_come_at_once(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, target = zoo(0, models=6, samples=700, classes=40)
    monkeypatch.setattr(zoo_flips, "NUMBERS", numbers)
    assert_equals_pair_by_pair(compare_zoo(predicted, target, 40), predicted, target, 40)


@pytest.mark.parametrize(("models", "samples", "classes"), [(2, 50, 3), (1, 50, 3), (4, 30, 1), (5, 1, 7)])
def test_few_models_classes_and_samples(models: int, samples: int, classes: int) -> None:
    predicted, target = zoo(1, models=models, samples=samples, classes=classes)
    assert_equals_pair_by_pair(compare_zoo(predicted, target, classes), predicted, target, classes)


def test_classes_without_images_have_no_flips() -> None:
    predicted, target = torch.tensor([[0, 0, 4], [2, 2, 4]]), torch.tensor([2, 2, 4])
    found = compare_zoo(predicted, target, 6)
    assert found.flip_counts_CMM is not None
    assert found.flip_counts_CMM[:, 0, 1].tolist() == [0, 0, 2, 0, 0, 0]
    assert found.flip_counts_CMM.sum() == 2


def test_all_right_all_wrong_and_the_same() -> None:
    target = torch.tensor([0, 1, 2, 0])
    right, wrong, half = target, (target + 1) % 3, torch.tensor([0, 1, 0, 1])
    found = compare_zoo(torch.stack([right, wrong, half, half, right, wrong]), target, 3)
    assert found.accuracy_M.tolist() == [1.0, 0.0, 0.5, 0.5, 1.0, 0.0]
    assert found.positive_flips_MM[1].tolist() == [1.0, 0.0, 0.5, 0.5, 1.0, 0.0]
    assert found.flip_entropy_MM[1, 0].item() == pytest.approx(1.5 * math.log(2))
    assert found.error_overlap_MM[0].tolist() == pytest.approx([math.nan, 0, 0, 0, math.nan, 0], nan_ok=True)
    assert found.error_overlap_MM[2].tolist() == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    # Of two models that are always right, or always wrong, no agreement goes beyond chance.
    assert found.error_consistency_MM[0].tolist() == pytest.approx([math.nan, 0, 0, 0, math.nan, 0], nan_ok=True)
    assert found.error_consistency_MM[1].tolist() == pytest.approx([0, math.nan, 0, 0, 0, math.nan], nan_ok=True)
    assert found.error_consistency_MM[2].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]


def test_flips_of_a_single_class_have_an_entropy_of_exactly_zero() -> None:
    """Not a rounding error beside it, whatever their number."""
    for flips in range(1, 200):
        target = torch.zeros(flips + 3, dtype=torch.int64)
        student = (torch.arange(flips + 3) < flips).long()
        entropy = compare_zoo(torch.stack([student, target]), target, 2).flip_entropy_MM[0, 1].item()
        assert entropy == 0 and math.copysign(1, entropy) == 1


def test_errors_that_exclude_each_other_are_less_consistent_than_chance() -> None:
    target = torch.zeros(4, dtype=torch.int64)
    found = compare_zoo(torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]]), target, 2)
    assert found.error_consistency_MM.tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    assert found.error_overlap_MM.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, torch.uint8), (256, torch.int16), (32_767, torch.int16), (32_768, torch.int32)]
)
def test_counts_of_classes_take_the_smallest_dtype(largest: int, dtype: torch.dtype) -> None:
    target = torch.cat([torch.zeros(largest, dtype=torch.int64), torch.ones(1, dtype=torch.int64)])
    found = compare_zoo(torch.stack([1 - target, target]), target, 2)
    assert found.flip_counts_CMM is not None and found.flip_counts_CMM.dtype == dtype
    assert found.flip_counts_CMM[:, 0, 1].tolist() == [largest, 1]


def test_more_samples_than_float32_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products are then of float64: a sum of ones in float32 ends at 2^24, which nobody wants to wait for here."""
    predicted, target = zoo(2, models=4, samples=100, classes=5)
    at_once = [right_KRM.dtype for _, right_KRM in products_of(predicted, target)]
    monkeypatch.setattr(zoo_flips, "EXACT", 99)
    beyond = [right_KRM.dtype for _, right_KRM in products_of(predicted, target)]
    assert set(at_once) == {torch.float32} and set(beyond) == {torch.float64}
    assert_equals_pair_by_pair(compare_zoo(predicted, target, 5), predicted, target, 5)


def products_of(predicted: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zoo_flips._by_class((predicted == target).T, target, torch.bincount(target, minlength=5)))


def test_int32_and_no_counts_of_classes() -> None:
    predicted, target = zoo(3, models=4, samples=100, classes=5)
    expected, found = compare_zoo(predicted, target, 5), compare_zoo(predicted.int(), target, 5, keep_classes=False)
    assert found.flip_counts_CMM is None
    assert torch.equal(found.positive_flip_counts_MM, expected.positive_flip_counts_MM)
    assert torch.equal(found.flip_entropy_MM.nan_to_num(-1.0), expected.flip_entropy_MM.nan_to_num(-1.0))


def test_messages() -> None:
    predicted, target = torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 1])
    with pytest.raises(
        ValueError, match=r"predicted_MN: expected torch.int64 or torch.int32 of two dimensions, got .*32"
    ):
        compare_zoo(predicted.float(), target, 2)
    with pytest.raises(ValueError, match=r"of two dimensions, got torch.int64 \(2,\)"):
        compare_zoo(predicted[0], target, 2)
    with pytest.raises(ValueError, match=r"target_N: expected torch.int64 of one dimension, got torch.int32 \(2,\)"):
        compare_zoo(predicted, target.int(), 2)
    with pytest.raises(ValueError, match=r"target_N: .*got torch.int64 \(1, 2\)"):
        compare_zoo(predicted, target[None], 2)
    with pytest.raises(ValueError, match=r"the same samples in each, got predicted_MN \(2, 2\), target_N \(1,\)"):
        compare_zoo(predicted, target[:1], 2)
    for nothing in (predicted[:, :0], predicted[:0]):
        with pytest.raises(ValueError, match="expected at least one model and one sample, got"):
            compare_zoo(nothing, target[: nothing.shape[1]], 2)
    with pytest.raises(ValueError, match=r"target_N: expected labels from 0 to 1 \(2 classes\), got 0 to 2"):
        compare_zoo(predicted, torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match=r"target_N: .*got -1 to 1"):
        compare_zoo(predicted, torch.tensor([-1, 1]), 2)
    with pytest.raises(ValueError, match=r"predicted_MN: expected classes from 0 to 1 \(2 classes\), got 0 to 2"):
        compare_zoo(predicted + torch.tensor([[0], [1]]), target, 2)
    with pytest.raises(ValueError, match=r"predicted_MN: .*got -1 to 0"):
        compare_zoo(predicted - 1, target, 2)
