"""A scan of predictions: all pairs in order, as each is measured by itself, to the last digit."""

import math
from dataclasses import asdict, replace
from itertools import permutations

import pytest
import torch

from gainfinder.errors import DataError
from gainfinder.metrics import PredictedClasses, accuracy, ceilings_of, compare, scan_predictions
from gainfinder.predictions import Predictions

N, C = 60, 4
TARGET = torch.randint(0, C - 1, (N,), generator=torch.Generator().manual_seed(0))


def model(seed: int, *, keep_logits: bool) -> PredictedClasses:
    logits = torch.randn(N, C, generator=torch.Generator().manual_seed(seed))
    logits[torch.arange(N), TARGET] += 0.5 * seed
    found = Predictions(model=f"m{seed}", ids=tuple(map(str, range(N))), logits=logits, target=TARGET, broken=("x: y",))
    return PredictedClasses.of(found, keep_logits=keep_logits)


@pytest.mark.parametrize("keep_logits", [True, False], ids=["with logits", "without"])
def test_as_each_pair_by_itself(keep_logits: bool) -> None:
    models = [model(seed, keep_logits=keep_logits) for seed in (1, 2, 3, 4)]
    models.append(replace(models[0], model="the first again"))
    scan = scan_predictions(models, num_classes=C)
    assert (scan.samples, scan.broken) == (N, ("x: y",))
    assert [(one.model, one.accuracy) for one in scan.models] == [
        (one.model, accuracy(one.predicted, TARGET)) for one in models
    ]
    pairs = list(permutations(models, 2))
    assert len(scan.pairs) == len(pairs)
    for found, (student, teacher) in zip(scan.pairs, pairs, strict=True):
        measured = compare(student.predicted, teacher.predicted, TARGET, C)
        above = ceilings_of(student.answers, [teacher.answers], TARGET)
        names = {"student": student.model, "teacher": teacher.model}
        entropies = [math.nan if one is None else one for one in (found.flip_entropy, measured.flip_entropy)]
        assert entropies[0] == pytest.approx(entropies[1], rel=0, abs=1e-12, nan_ok=True)
        measured = replace(measured, flip_entropy=found.flip_entropy)
        assert asdict(found) == {**asdict(found), **names, **asdict(measured), **asdict(above)}
    assert scan.pairs[3].flip_entropy is None, "the first knows nothing that the first does not"


def test_errors_in_common() -> None:
    models = [model(seed, keep_logits=False) for seed in (1, 2, 3)]
    all_right = replace(models[0], model="right", answers=replace(models[0].answers, predicted_N=TARGET))
    models += [all_right, replace(all_right, model="right again")]
    for found, (student, teacher) in zip(
        scan_predictions(models, num_classes=C).pairs, permutations(models, 2), strict=True
    ):
        wrong = [(one.predicted != TARGET).tolist() for one in (student, teacher)]
        both = sum(s and t for s, t in zip(*wrong, strict=True))
        either = sum(s or t for s, t in zip(*wrong, strict=True))
        agreed = sum(s == t for s, t in zip(*wrong, strict=True)) / N
        a, b = (1 - sum(one) / N for one in wrong)
        by_chance = a * b + (1 - a) * (1 - b)
        assert found.error_overlap == (pytest.approx(both / either) if either else None)
        kappa = None if by_chance == 1 else pytest.approx((agreed - by_chance) / (1 - by_chance))
        assert found.error_consistency == kappa


def test_predictions_for_other_images_or_labels() -> None:
    first, second = (model(seed, keep_logits=False) for seed in (1, 2))
    message = "predictions of m1 and m2 are not for the same images and labels"
    with pytest.raises(DataError, match=message):
        scan_predictions([first, replace(second, ids=second.ids[::-1])], num_classes=C)
    with pytest.raises(DataError, match=message):
        scan_predictions([first, replace(second, target=TARGET.flip(0))], num_classes=C)
