"""Logits of other classes: by hand, and what has to hold for any map."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gainfinder.classes.label_map import UNMAPPED_LOGIT, LabelMap

SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def maps(draw: st.DrawFn) -> LabelMap:
    classes = draw(st.integers(1, 6))
    targets = draw(st.lists(st.none() | st.integers(0, classes - 1), min_size=1, max_size=8))
    if all(target is None for target in targets):
        targets.append(0)
    return LabelMap(targets=tuple(targets), num_classes=classes)


def naive(label_map: LabelMap, logits: list[float]) -> tuple[list[float], float]:
    """Log-probabilities of the student's classes and the share kept, from the definition, in float64."""
    whole = [math.exp(z - max(logits)) for z in logits]
    probs = [value / sum(whole) for value in whole]
    summed = [0.0] * label_map.num_classes
    for prob, target in zip(probs, label_map.targets, strict=True):
        if target is not None:
            summed[target] += prob
    kept = sum(summed)
    logs = [
        math.log(value / kept) if target in label_map.targets else UNMAPPED_LOGIT for target, value in enumerate(summed)
    ]
    return logs, kept


def test_by_hand() -> None:
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    label_map = LabelMap(targets=(0, 0, None, 2), num_classes=3)
    logits, kept = label_map.apply(probs.log() + 5)  # a shift changes nothing
    expected = torch.tensor([[3 / 7, 1e-12, 4 / 7], [2 / 3, 1e-12, 1 / 3]])
    torch.testing.assert_close(logits.exp(), expected)
    assert logits[:, 1].tolist() == pytest.approx([UNMAPPED_LOGIT, UNMAPPED_LOGIT])
    torch.testing.assert_close(kept, torch.tensor([0.7, 0.75]))
    torch.testing.assert_close(label_map.dropped_mass(probs.log()), torch.tensor([0.3, 0.25]))
    assert label_map.left_out == (2,) and label_map.unmatched == (1,) and label_map.order is None


def test_a_permutation_changes_no_bit() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * 100
    label_map = LabelMap.from_order((2, 0, 3, 1), outputs=4)
    assert label_map.order == (2, 0, 3, 1)
    found = label_map.apply(logits)
    assert torch.equal(found.logits, logits[:, [2, 0, 3, 1]])
    assert torch.equal(found.kept, torch.ones(5))
    assert label_map.apply(logits.half()).logits.dtype == torch.float16


def test_improbable_classes_keep_their_precision() -> None:
    """What is kept may be far below what is dropped, and one class far below another."""
    label_map = LabelMap(targets=(None, 0, 1, 1), num_classes=2)
    logits, kept = label_map.apply(torch.tensor([[300.0, 0.0, -200.0, -200.0]]))
    assert logits[0].tolist() == pytest.approx([0.0, math.log(2) - 200])
    assert kept.tolist() == [0.0]


def test_values_that_are_not_finite() -> None:
    label_map = LabelMap(targets=(0, 1, 1, None), num_classes=2)
    inf, nan = math.inf, math.nan
    assert label_map.apply(torch.tensor([[0.0, -inf, -inf, 0.0]])).logits[0].tolist() == pytest.approx(
        [0.0, UNMAPPED_LOGIT]
    )
    assert label_map.apply(torch.tensor([[-inf, -inf, -inf, 0.0]])).logits.isfinite().all()
    assert label_map.apply(torch.tensor([[nan, 0.0, 0.0, 0.0]])).logits.isnan().any()
    assert label_map.apply(torch.tensor([[0.0, inf, 0.0, 0.0]])).logits.isnan().any()


def test_no_sample() -> None:
    logits, kept = LabelMap(targets=(0, 0, None), num_classes=2).apply(torch.zeros(0, 3))
    assert logits.shape == (0, 2) and kept.shape == (0,)


@SETTINGS
@given(label_map=maps(), data=st.data())
def test_it_is_the_definition(label_map: LabelMap, data: st.DataObject) -> None:
    size = len(label_map.targets)
    row = data.draw(st.lists(st.floats(-20, 20, width=32), min_size=size, max_size=size))
    logits, kept = label_map.apply(torch.tensor([row]))
    expected, share = naive(label_map, row)
    if label_map.order is not None:
        logits = logits.log_softmax(dim=1)
    assert logits[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert kept.item() == pytest.approx(share, abs=1e-5)
    unmatched = len(label_map.unmatched)
    assert logits.double().exp().sum().item() == pytest.approx(1 + unmatched * 1e-12, abs=1e-5)


@SETTINGS
@given(label_map=maps(), data=st.data())
def test_the_order_of_the_outputs_does_not_matter(label_map: LabelMap, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(label_map.targets))))
    logits = torch.randn(3, len(order), generator=torch.Generator().manual_seed(0))
    shuffled = LabelMap(targets=tuple(label_map.targets[i] for i in order), num_classes=label_map.num_classes)
    one, other = label_map.apply(logits), shuffled.apply(logits[:, list(order)])
    torch.testing.assert_close(one.logits.softmax(dim=1), other.logits.softmax(dim=1))
    torch.testing.assert_close(one.kept, other.kept)


@SETTINGS
@given(first=maps(), data=st.data())
def test_one_after_the_other_is_the_two_together(first: LabelMap, data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, 2), min_size=first.num_classes, max_size=first.num_classes))
    second = LabelMap(targets=tuple(targets), num_classes=3)
    logits = torch.randn(3, len(first.targets), generator=torch.Generator().manual_seed(0))
    step = second.apply(first.apply(logits).logits).logits.softmax(dim=1)
    together = first.then(second).apply(logits).logits.softmax(dim=1)
    torch.testing.assert_close(together, step, atol=1e-5, rtol=1e-4)


def test_maps_that_cannot_be() -> None:
    for targets in ((0, 2), (-1,)):
        with pytest.raises(ValueError, match="targets: expected classes 0 to 1"):
            LabelMap(targets=targets, num_classes=2)
    with pytest.raises(ValueError, match="no output maps to a class"):
        LabelMap(targets=(None, None), num_classes=2)
    with pytest.raises(ValueError, match="at most once, got 1"):
        LabelMap.from_order((1, 1), outputs=2)
    with pytest.raises(ValueError, match="expected logits of 2 outputs, got 3"):
        LabelMap(targets=(0, None), num_classes=1).apply(torch.zeros(1, 3))


def test_it_can_be_pickled_and_compared() -> None:
    label_map = LabelMap(targets=(1, 0), num_classes=2)
    assert label_map.order == (1, 0)
    assert pickle.loads(pickle.dumps(label_map)) == label_map == LabelMap.from_order((1, 0), outputs=2)
