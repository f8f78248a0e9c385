"""Ceilings against loops over single images, written from their definitions."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gainfinder.metrics import (
    Answers,
    Ceilings,
    PredictedClasses,
    captured,
    ceilings_of,
    cross_fitted_temperatures,
    measure_ceilings,
    measure_transfer,
    scan_predictions,
)
from gainfinder.metrics.calibration import fit_temperature
from gainfinder.predictions import Predictions
from handmade import from_logits

N, C = 211, 5


def model(seed: int, skill: float, *, scale: float = 1.0, name: str | None = None) -> Predictions:
    """Random logits, raised at the label by `skill`; the larger the scale, the more confident."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(N, C, generator=generator)
    logits[torch.arange(N), target] += skill
    ids = tuple(str(i) for i in range(N))
    return Predictions(model=name or f"m{seed}", ids=ids, logits=scale * logits, target=target)


STUDENT, TEACHERS = model(1, 0.8), [model(2, 1.5, scale=3.0), model(3, 0.2, scale=0.3)]


def probabilities(logits: list[float], temperature: float) -> list[float]:
    highest = max(logits)
    powers = [math.exp((one - highest) / temperature) for one in logits]
    return [power / sum(powers) for power in powers]


def first_largest(values: list[float]) -> int:
    return values.index(max(values))


def by_loops(models: list[Predictions]) -> Ceilings:
    """The definitions, an image at a time."""
    target = models[0].target
    assert target is not None
    even, odd = range(0, N, 2), range(1, N, 2)
    fitted = [
        {
            half: fit_temperature(one.logits[list(others)], target[list(others)])
            for half, others in ((0, odd), (1, even))
        }
        for one in models
    ]
    any_right = routed = mean = before = 0
    for i in range(N):
        rows = [one.logits[i].tolist() for one in models]
        predicted = [first_largest(row) for row in rows]
        surest = first_largest([max(probabilities(row, 1.0)) for row in rows])
        calibrated = [probabilities(row, fitted[m][i % 2]) for m, row in enumerate(rows)]
        means = [sum(probs[c] for probs in calibrated) for c in range(C)]
        label = int(target[i])
        any_right += label in predicted
        routed += predicted[surest] == label
        mean += first_largest(means) == label
        before += predicted[0] == label
    headroom_pp = 100 * (max(routed, mean) - before) / N
    return Ceilings(
        oracle_accuracy=any_right / N, routed_accuracy=routed / N, mean_accuracy=mean / N, headroom_pp=headroom_pp
    )


@pytest.mark.parametrize("teachers", [TEACHERS[:1], TEACHERS[1:], TEACHERS], ids=["strong", "weak", "both"])
def test_as_loops_over_images(teachers: list[Predictions]) -> None:
    found, expected = measure_ceilings(STUDENT, teachers), by_loops([STUDENT, *teachers])
    assert found is not None
    assert found.headroom_pp == pytest.approx(expected.headroom_pp)
    assert replace(found, headroom_pp=0.0) == replace(expected, headroom_pp=0.0)
    # The cases differ, so that none of the numbers can stand for another.
    assert found.oracle_accuracy > max(found.routed_accuracy, found.mean_accuracy or 0.0)
    assert found.routed_accuracy != found.mean_accuracy


def test_the_oracle_is_accuracy_and_positive_flips() -> None:
    measured = measure_transfer(STUDENT, STUDENT, TEACHERS)
    assert measured.accuracy_before is not None and measured.positive_flips is not None
    assert measured.oracle_accuracy == pytest.approx(measured.accuracy_before + measured.positive_flips)


def test_no_label_is_fitted_and_measured_at_once() -> None:
    assert STUDENT.target is not None
    temperatures = cross_fitted_temperatures(STUDENT.logits, STUDENT.target)
    other = STUDENT.target.clone()
    other[0] = (other[0] + 1) % C  # an image of the even half
    changed = cross_fitted_temperatures(STUDENT.logits, other)
    assert torch.equal(changed[0::2], temperatures[0::2]) and not torch.equal(changed[1::2], temperatures[1::2])


def test_scale_does_not_matter_to_the_mean_and_does_to_the_surest() -> None:
    """A model eight times as confident with the same answers: calibration takes that away, routing believes it."""
    weak = model(5, 0.6)
    loud = replace(weak, logits=8 * weak.logits)
    quiet, found = measure_ceilings(STUDENT, [weak]), measure_ceilings(STUDENT, [loud])
    assert quiet is not None and found is not None
    assert found.mean_accuracy == quiet.mean_accuracy
    assert found.routed_accuracy < quiet.routed_accuracy


def answers(confidence: list[float], predicted: list[int]) -> Answers:
    return Answers(predicted_N=torch.tensor(predicted), confidence_N=torch.tensor(confidence))


def test_between_equally_sure_models_the_student_answers() -> None:
    student, teacher = answers([0.5, 0.5, 0.5], [0, 0, 0]), answers([0.5, 0.6, 0.4], [1, 1, 1])
    found = ceilings_of(student, [teacher], torch.tensor([0, 1, 0]))
    assert (found.routed_accuracy, found.mean_accuracy, found.oracle_accuracy) == (1.0, None, 1.0)
    assert found.headroom_pp == pytest.approx(100 / 3), "of the routed ensemble where the other is not known"


@pytest.mark.parametrize("unknown", [-torch.inf, -1e4])
def test_a_teacher_without_some_of_the_classes(unknown: float) -> None:
    masked: Tensor = TEACHERS[0].logits.clone()
    masked[:, C - 1] = unknown
    found = measure_ceilings(STUDENT, [replace(TEACHERS[0], logits=masked)])
    assert found is not None and found.mean_accuracy is not None
    assert STUDENT.accuracy < found.oracle_accuracy and 0 < found.mean_accuracy < 1


def test_logits_near_the_largest_float_have_probabilities() -> None:
    logits = torch.tensor([[1e38, 0.0, -1e38], [0.0, 1e38, -torch.inf]])
    probs = Answers.of(from_logits(logits, [0, 1])).probs()
    assert probs is not None and probs.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_single_image_and_none_labelled() -> None:
    def cut(one: Predictions) -> Predictions:
        assert one.target is not None
        return replace(one, ids=one.ids[:1], logits=one.logits[:1], target=one.target[:1])

    found = measure_ceilings(cut(STUDENT), [cut(TEACHERS[0])])
    assert found is not None and found.oracle_accuracy in (0.0, 1.0)
    unlabelled = replace(STUDENT, target=None)
    assert measure_ceilings(unlabelled, TEACHERS) is None and measure_ceilings(STUDENT, []) is None
    assert Answers.of(unlabelled).probs().equal(STUDENT.logits.softmax(dim=1)), "nothing to calibrate by"
    measured = measure_transfer(unlabelled, unlabelled, [replace(TEACHERS[0], target=None)])
    assert (measured.oracle_accuracy, measured.headroom_pp, measured.headroom_captured) == (None, None, None)


def test_what_a_student_captured() -> None:
    ends = measure_transfer(STUDENT, TEACHERS[0], TEACHERS[:1])
    assert ends.headroom_pp is not None and ends.transfer_delta_pp is not None and ends.headroom_pp > 0
    assert ends.headroom_captured == pytest.approx(ends.transfer_delta_pp / ends.headroom_pp)
    # A strong student and a poor, confident teacher: nothing to win by an ensemble, and no share of nothing.
    none = measure_transfer(TEACHERS[0], STUDENT, [model(4, -3.0, scale=5.0)])
    assert none.headroom_pp is not None and none.headroom_pp <= 0 and none.headroom_captured is None
    assert captured(1.0, None) is None and captured(1.0, -2.0) is None


def test_a_scan_has_the_ceilings_of_pairs_and_of_all() -> None:
    models = [STUDENT, *TEACHERS]
    scan = scan_predictions([PredictedClasses.of(one) for one in models], num_classes=C)
    keys = ("oracle_accuracy", "routed_accuracy", "mean_accuracy", "headroom_pp")
    by_name = {one.model: one for one in models}
    for pair in scan.to_dict()["pairs"]:
        expected = measure_ceilings(by_name[pair["student"]], [by_name[pair["teacher"]]])
        assert expected is not None and {key: pair[key] for key in keys} == vars(expected)
    for row in scan.to_dict()["models"]:
        expected = measure_ceilings(by_name[row["model"]], [one for one in models if one.model != row["model"]])
        assert expected is not None and {key: row[key] for key in keys} == vars(expected)
    small = scan_predictions([PredictedClasses.of(one, keep_logits=False) for one in models], num_classes=C).pairs[0]
    assert small.mean_accuracy is None and small.routed_accuracy == scan.pairs[0].routed_accuracy
