"""The breakdown of a transfer's measures: against naive loops over samples, and in its limits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from gainfinder.errors import DataError
from gainfinder.metrics.breakdown import attribute_gains, by_class, by_partition, by_teacher
from gainfinder.predictions import Predictions
from handmade import drawn, softmax

CLASSES = 4


def labelled(seed: int, *, noise: float = 1.5) -> Predictions:
    target = torch.arange(200) % CLASSES
    found = drawn(seed, count=200, classes=CLASSES, noise=noise)
    hint = 2.0 * torch.nn.functional.one_hot(target, CLASSES)
    return replace(found, logits=found.logits + hint, target=target)


def right(model: Predictions, i: int) -> bool:
    assert model.target is not None
    row = model.logits[i].tolist()
    return row.index(max(row)) == int(model.target[i])


BEFORE, AFTER = labelled(0), labelled(1, noise=1.0)
TEACHERS = (labelled(2), labelled(3))


@pytest.mark.parametrize("teachers", [TEACHERS[:1], TEACHERS])
def test_classes_equal_a_naive_loop(teachers: Sequence[Predictions]) -> None:
    found = by_class(BEFORE, AFTER, teachers)
    assert [one.name for one in found] == ["0", "1", "2", "3"]
    for c, one in enumerate(found):
        samples = [i for i in range(200) if i % CLASSES == c]
        flips = [i for i in samples if not right(BEFORE, i) and any(right(t, i) for t in teachers)]
        assert one.samples == 50
        assert one.positive_flips == len(flips) > 0
        assert one.transferred == sum(right(AFTER, i) for i in flips) > 0
        assert one.gained == sum(right(AFTER, i) and not right(BEFORE, i) for i in samples) > one.transferred - 1
        assert one.lost == sum(right(BEFORE, i) and not right(AFTER, i) for i in samples) > 0
        assert one.right_after == sum(right(AFTER, i) for i in samples)


@pytest.mark.parametrize("teachers", [TEACHERS[:1], TEACHERS])
@pytest.mark.parametrize("by", ["label", "confidence"])
@pytest.mark.parametrize("temperatures", [None, (0.5, 4.0, 1.0)])
def test_partition_groups_equal_a_naive_loop(
    teachers: Sequence[Predictions], by: Any, temperatures: tuple[float, ...] | None
) -> None:
    models = (BEFORE, *teachers)
    scales = (1.0,) * len(models) if temperatures is None else temperatures[: len(models)]
    counts = dict.fromkeys(("both", "teacher", "student", "neither"), (0, 0))
    for i in range(200):
        probs = [softmax(model.logits[i].double().tolist(), t) for model, t in zip(models, scales, strict=True)]
        confidence = [p[i % CLASSES] if by == "label" else max(p) for p in probs]
        teaches = confidence.index(max(confidence)) > 0
        student, teacher = right(BEFORE, i), any(right(t, i) for t in teachers)
        name = {(1, 1): "both", (0, 1): "teacher", (1, 0): "student", (0, 0): "neither"}[(student, teacher)]
        counts[name] = (counts[name][0] + 1, counts[name][1] + teaches)
    found = by_partition(BEFORE, teachers, by, temperatures=None if temperatures is None else scales)
    assert {one.right: (one.samples, one.to_teacher) for one in found} == counts
    assert all(samples for samples, _ in counts.values())


def test_sources_add_up_to_what_was_wrong_and_gained() -> None:
    found = attribute_gains(BEFORE, AFTER, TEACHERS[:1])
    wrong = [i for i in range(200) if not right(BEFORE, i)]
    assert found.known + found.unknown == len(wrong)
    assert found.known == sum(right(TEACHERS[0], i) for i in wrong)
    assert found.known_gained == sum(right(TEACHERS[0], i) and right(AFTER, i) for i in wrong)
    assert found.known_gained + found.unknown_gained == sum(right(AFTER, i) for i in wrong)


def test_each_teacher_counts_by_itself() -> None:
    for teacher in TEACHERS:
        found = by_teacher(BEFORE, AFTER, teacher)
        flips = [(right(BEFORE, i), right(teacher, i), right(AFTER, i)) for i in range(200)]
        assert found.right == sum(knows for _, knows, _ in flips)
        assert found.positive_flips == sum(knows and not before for before, knows, _ in flips)
        assert found.transferred == flips.count((False, True, True)) > 0
        assert found.negative_flips == sum(before and not knows for before, knows, _ in flips)
        assert found.misled == flips.count((True, False, False)) > 0


def test_without_teachers_nothing_is_known_to_them() -> None:
    assert attribute_gains(BEFORE, AFTER, []).known == 0
    assert {one.positive_flips for one in by_class(BEFORE, AFTER, [])} == {0}
    assert sum(one.gained for one in by_class(BEFORE, AFTER, [])) == attribute_gains(BEFORE, AFTER, []).unknown_gained


def test_what_cannot_be_told() -> None:
    blind = replace(BEFORE, target=None)
    for function in (by_class, attribute_gains):
        with pytest.raises(DataError, match="no labels"):
            function(blind, AFTER, TEACHERS)
    with pytest.raises(DataError, match="no labels"):
        by_teacher(blind, AFTER, TEACHERS[0])
    with pytest.raises(DataError, match="not for the same images"):
        by_partition(BEFORE, [replace(TEACHERS[0], ids=tuple("x" * 200))], "label")
