"""Ceilings of a whole zoo at once against `ceilings_of`, pair by pair and model by model: the same numbers."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.metrics import Answers, ceilings_of, compare_zoo, zoo_ceilings
from gainfinder.metrics.zoo_ceilings import ceilings_of_pairs, ceilings_with_all_others

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)
CLASSES = 3
MODELS = 4
CONFIDENCES = st.sampled_from([0.4, 0.5, 0.5000001, 1.0, math.nan])
"""Few, so that many are equal; not a number is what a model that overflows says."""
ROWS = st.lists(
    st.tuples(
        st.tuples(*[st.integers(0, CLASSES - 1)] * MODELS),
        st.tuples(*[CONFIDENCES] * MODELS),
        st.integers(0, CLASSES - 1),
    ),
    min_size=1,
    max_size=30,
)
Rows = list[tuple[tuple[int, ...], tuple[float, ...], int]]


def answers(rows: Rows) -> tuple[list[Answers], Tensor]:
    predicted, confidence, target = (torch.tensor(column) for column in zip(*rows, strict=True))
    return [
        Answers(predicted_N=predicted[:, m].contiguous(), confidence_N=confidence[:, m].contiguous())
        for m in range(MODELS)
    ], target


def assert_equal_one_by_one(models: list[Answers], target: Tensor) -> None:
    flips = compare_zoo(torch.stack([model.predicted_N for model in models]), target, CLASSES)
    found = ceilings_of_pairs(models, target, flips)
    assert list(found) == list(permutations(range(len(models)), 2))
    for (s, t), above in found.items():
        assert above == ceilings_of(models[s], [models[t]], target)
    for model, above in zip(models, ceilings_with_all_others(models, target), strict=True):
        assert above == ceilings_of(model, [other for other in models if other is not model], target)


@SETTINGS
@given(rows=ROWS)
def test_as_one_by_one_with_many_ties(rows: Rows) -> None:
    assert_equal_one_by_one(*answers(rows))


@pytest.mark.parametrize("samples", [1, 7, 10_000], ids="{} samples at once".format)
def test_however_many_samples_come_at_once(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, CLASSES, (100,), generator=generator)
    models = [
        Answers(
            predicted_N=torch.randint(0, CLASSES, (100,), generator=generator),
            confidence_N=torch.rand(100, generator=generator),
        )
        for _ in range(MODELS)
    ]
    monkeypatch.setattr(zoo_ceilings, "SAMPLES", samples)
    assert_equal_one_by_one(models, target)


def test_as_one_by_one_where_logits_are_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, CLASSES, (50,), generator=generator)
    logits = torch.randn(MODELS, 50, CLASSES, generator=generator)
    models = [
        Answers(
            predicted_N=one.argmax(dim=1),
            confidence_N=one.softmax(dim=1).amax(dim=1),
            logits_NC=one,
            temperature_N=torch.full((50,), 1.5),
        )
        for one in logits
    ]
    assert_equal_one_by_one(models, target)
    # Some of them kept: the mean is known of those pairs alone.
    half = Answers(predicted_N=models[0].predicted_N, confidence_N=models[0].confidence_N)
    assert_equal_one_by_one([half, *models[1:]], target)
