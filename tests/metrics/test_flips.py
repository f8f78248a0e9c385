"""Flips, gain and loss, transfer rates and areas of expertise: by hand, by loops and by their identities."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.metrics.flips import (
    PairFlips,
    accuracy,
    class_gain_ratio,
    compare,
    flip_counts,
    flip_entropy,
    in_classes,
    knowledge_gained,
    knowledge_lost,
    negative_flips,
    positive_flips,
    top_flip_classes,
    transfer_rate,
)

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)
CLASSES = 4
ROWS = st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * 4), min_size=1, max_size=40)
COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=12)
NOTHING = torch.zeros(0, dtype=torch.int64)
NO_MASK = torch.zeros(0, dtype=torch.bool)


def columns(rows: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    student, teacher, after, target = torch.tensor(rows).T
    return student, teacher, after, target


@SETTINGS
@given(rows=ROWS)
def test_masks_and_ratios_equal_naive_loops(rows: list[tuple[int, ...]]) -> None:
    student, teacher, after, target = columns(rows)
    flips = positive_flips(student, teacher, target)
    gained = knowledge_gained(student, after, target)
    assert flips.tolist() == [t == y and s != y for s, t, _, y in rows]
    assert negative_flips(student, teacher, target).tolist() == [t != y and s == y for s, t, _, y in rows]
    assert gained.tolist() == [s != y and a == y for s, _, a, y in rows]
    assert knowledge_lost(student, after, target).tolist() == [s == y and a != y for s, _, a, y in rows]
    counts = Counter(y for s, t, _, y in rows if t == y and s != y)
    assert flip_counts(flips, target, CLASSES).tolist() == [counts[c] for c in range(CLASSES)]
    top = [1, 3]
    available = sum(counts[c] for c in top)
    arrived = sum(s != y and t == y and a == y and y in top for s, t, a, y in rows)
    won = sum(s != y and a == y and y in top for s, _, a, y in rows)
    rate = transfer_rate(gained, flips, among=in_classes(target, top))
    assert rate == (arrived / available if available else None)
    assert class_gain_ratio(gained, flips, target, top) == (won / available if available else None)


@SETTINGS
@given(rows=ROWS)
def test_differences_of_accuracy_are_positive_minus_negative(rows: list[tuple[int, ...]]) -> None:
    student, teacher, after, target = columns(rows)
    pair = compare(student, teacher, target, CLASSES)
    delta_acc = accuracy(teacher, target) - accuracy(student, target)
    assert pair.positive_flips - pair.negative_flips == pytest.approx(delta_acc, abs=1e-12)
    assert pair.delta_acc_pp == pytest.approx(100 * delta_acc, abs=1e-10)
    gain, loss = (int(f(student, after, target).sum()) / len(target) for f in (knowledge_gained, knowledge_lost))
    assert gain - loss == pytest.approx(accuracy(after, target) - accuracy(student, target), abs=1e-12)


@SETTINGS
@given(rows=ROWS)
def test_transfer_rate_is_a_share(rows: list[tuple[int, ...]]) -> None:
    student, teacher, after, target = columns(rows)
    flips, gained = positive_flips(student, teacher, target), knowledge_gained(student, after, target)
    rate = transfer_rate(gained, flips)
    ratio = class_gain_ratio(gained, flips, target, range(CLASSES))
    assert (rate is None) == (ratio is None) == (not bool(flips.any()))
    if rate is not None and ratio is not None:
        assert 0 <= rate <= 1
        assert ratio >= rate


def test_a_student_that_becomes_its_teacher_has_received_everything() -> None:
    student, teacher, target = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0]), torch.tensor([1, 1, 0])
    flips = positive_flips(student, teacher, target)
    assert transfer_rate(knowledge_gained(student, teacher, target), flips) == 1.0


def test_compare_by_hand() -> None:
    student, teacher, target = torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 0, 0]), torch.tensor([0, 1, 1, 0])
    expected = PairFlips(delta_acc_pp=25.0, positive_flips=0.5, negative_flips=0.25, flip_entropy=math.log(2))
    assert compare(student, teacher, target, 2) == expected
    assert compare(target, target, target, 2) == PairFlips(
        delta_acc_pp=0.0, positive_flips=0.0, negative_flips=0.0, flip_entropy=None
    )


def test_shares_are_exact_for_many_samples() -> None:
    """A float32 mean would be off in the seventh digit."""
    target = torch.zeros(100_003, dtype=torch.int64)
    predicted = (torch.arange(100_003) < 33_334).long()
    assert accuracy(predicted, target) == 66_669 / 100_003


def test_entropy() -> None:
    flips = torch.ones(4, dtype=torch.bool)
    even = flip_entropy(flips, torch.tensor([0, 1, 2, 3]), 4)
    assert even == pytest.approx(math.log(4))
    single = flip_entropy(flips, torch.tensor([2, 2, 2, 2]), 4)
    assert single == 0
    assert math.copysign(1, single) == 1
    uneven = flip_entropy(flips, torch.tensor([0, 0, 0, 1]), 1000)
    assert uneven == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert flip_entropy(~flips, torch.tensor([0, 1, 2, 3]), 4) is None


def test_zero_gains_and_zero_flips_divide_by_nothing() -> None:
    """In the published code zero gains divide by zero."""
    none, some = torch.tensor([False, False]), torch.tensor([True, False])
    target = torch.tensor([0, 1])
    assert transfer_rate(none, some) == 0.0
    assert transfer_rate(some, none) is None
    assert transfer_rate(none, none) is None
    assert transfer_rate(some, some, among=torch.tensor([False, True])) is None
    assert class_gain_ratio(none, some, target, [0]) == 0.0
    assert class_gain_ratio(some, none, target, [0]) is None
    assert class_gain_ratio(some, some, target, NOTHING) is None


def test_class_gain_ratio_counts_what_the_teacher_gets_wrong_too() -> None:
    gained, flips = torch.tensor([True, True, True]), torch.tensor([True, False, False])
    assert class_gain_ratio(gained, flips, torch.tensor([0, 0, 0]), torch.tensor([0])) == 3.0
    assert transfer_rate(gained, flips) == 1.0


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([2, 5, 0, 3], 0.5, [1]),
        ([2, 5, 0, 3], 0.51, [1, 3]),
        ([2, 5, 0, 3], 1, [1, 3, 0]),
        ([2, 5, 0, 3], 1e-9, [1]),
        ([1, 1, 1, 1], 0.5, [0, 1]),
        ([1, 1, 1, 1], 0.25, [0]),
        ([0, 7, 93], 0.93, [2]),
        ([0, 0], 0.5, []),
        ([], 0.5, []),
        ([3], 1.0, [0]),
    ],
)
def test_top_classes(counts: list[int], share: float, expected: list[int]) -> None:
    top = top_flip_classes(torch.tensor(counts, dtype=torch.int64), share)
    assert top.dtype == torch.int64
    assert top.tolist() == expected


def test_the_set_of_top_classes_is_not_one_too_large() -> None:
    """As in the published code; and 0.07 · 100 > 7 in floating point must not add one either."""
    assert 0.07 * 100 > 7
    assert top_flip_classes(torch.ones(100, dtype=torch.int64), 0.07).tolist() == list(range(7))


@SETTINGS
@given(counts=COUNTS, percent=st.integers(1, 100))
def test_top_classes_are_the_smallest_set(counts: list[int], percent: int) -> None:
    top = top_flip_classes(torch.tensor(counts), percent / 100).tolist()
    held, total = [counts[c] for c in top], sum(counts)
    assert sum(held) * 100 >= percent * total
    if total:
        assert sum(held[:-1]) * 100 < percent * total
    assert top == sorted(range(len(counts)), key=lambda c: (-counts[c], c))[: len(top)]


def test_no_samples() -> None:
    for mask in (positive_flips, negative_flips, knowledge_gained, knowledge_lost):
        assert mask(NOTHING, NOTHING, NOTHING).shape == (0,)
    assert flip_counts(NO_MASK, NOTHING, 3).tolist() == [0, 0, 0]
    assert flip_entropy(NO_MASK, NOTHING, 3) is None
    assert transfer_rate(NO_MASK, NO_MASK) is None
    with pytest.raises(ValueError, match=r"^expected at least one sample, got none: a share .* is undefined$"):
        accuracy(NOTHING, NOTHING)
    with pytest.raises(ValueError, match="a share of no samples is undefined"):
        compare(NOTHING, NOTHING, NOTHING, 3)


def test_messages() -> None:
    two, three, mask = torch.tensor([0, 1]), torch.tensor([0, 1, 2]), torch.tensor([True, False])
    with pytest.raises(ValueError, match=r"student_N \(2,\), teacher_N \(3,\), target_N \(2,\)"):
        positive_flips(two, three, two)
    with pytest.raises(ValueError, match=r"after_N: expected torch.int64 of one dimension, got torch.float32 \(2,\)"):
        knowledge_gained(two, two.float(), two)
    with pytest.raises(ValueError, match=r"predicted_N: .*got torch.int64 \(1, 2\)"):
        accuracy(two.unsqueeze(0), two)
    with pytest.raises(ValueError, match=r"flips_N \(2,\), target_N \(3,\)"):
        flip_counts(mask, three, 3)
    with pytest.raises(ValueError, match=r"gained_N \(2,\), target_N \(3,\)"):
        class_gain_ratio(mask, mask, three, [0])
    with pytest.raises(ValueError, match=r"labels from 0 to 1 \(2 classes\), got 0 to 2"):
        flip_counts(torch.ones(3, dtype=torch.bool), three, 2)
    with pytest.raises(ValueError, match="got -1 to 1"):
        flip_entropy(mask, torch.tensor([1, -1]), 2)
    with pytest.raises(ValueError, match="counts of 0 and above, got -1"):
        top_flip_classes(torch.tensor([1, -1]), 0.5)
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="share: expected a number above 0 and up to 1"):
            top_flip_classes(two, share)


TWO, MASK = torch.tensor([0, 1]), torch.tensor([True, False])
RIGHT: dict[Callable[..., Any], dict[str, Any]] = {
    accuracy: {"predicted_N": TWO, "target_N": TWO},
    positive_flips: {"student_N": TWO, "teacher_N": TWO, "target_N": TWO},
    negative_flips: {"student_N": TWO, "teacher_N": TWO, "target_N": TWO},
    knowledge_gained: {"before_N": TWO, "after_N": TWO, "target_N": TWO},
    knowledge_lost: {"before_N": TWO, "after_N": TWO, "target_N": TWO},
    flip_counts: {"flips_N": MASK, "target_N": TWO, "num_classes": 2},
    flip_entropy: {"flips_N": MASK, "target_N": TWO, "num_classes": 2},
    top_flip_classes: {"counts_C": TWO, "share": 0.5},
    in_classes: {"target_N": TWO, "classes": [0]},
    transfer_rate: {"gained_N": MASK, "positive_flips_N": MASK, "among": MASK},
    class_gain_ratio: {"gained_N": MASK, "positive_flips_N": MASK, "target_N": TWO, "classes": [0]},
}
TENSORS = [(function, name) for function, right in RIGHT.items() for name, one in right.items() if torch.is_tensor(one)]


@pytest.mark.parametrize(("function", "name"), TENSORS, ids=lambda one: getattr(one, "__name__", one))
def test_every_argument_is_checked(function: Callable[..., Any], name: str) -> None:
    right = RIGHT[function]
    function(**right)
    wanted = str(right[name].dtype)
    for wrong in (right[name].float(), right[name].unsqueeze(0)):
        with pytest.raises(ValueError, match=f"{name}: expected {wanted} of one dimension, got {wrong.dtype}"):
            function(**{**right, name: wrong})
