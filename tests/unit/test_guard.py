"""Which point between two students is kept, on predictions made by hand."""

import math
from collections.abc import Sequence

import pytest
import torch

from gainfinder.guard import SHARES, GuardPoint, choose, expected_gain, judge
from gainfinder.predictions import Predictions


def predictions(predicted: Sequence[int], target: Sequence[int] | None, *, classes: int = 3) -> Predictions:
    """A model that is sure of these classes."""
    logits = torch.full((len(predicted), classes), -2.0)
    logits[range(len(predicted)), list(predicted)] = 2.0
    return from_logits(logits, target)


def from_logits(logits: torch.Tensor, target: Sequence[int] | None = None) -> Predictions:
    return Predictions(
        model="by hand",
        ids=tuple(str(i) for i in range(len(logits))),
        logits=logits,
        target=None if target is None else torch.tensor(target),
    )


def point(share: float, gain_pp: float, error_pp: float = 0.0) -> GuardPoint:
    return GuardPoint(share=share, gain_pp=gain_pp, error_pp=error_pp, sure_gain_pp=gain_pp - error_pp)


def standard_error(differences: Sequence[float]) -> float:
    mean = sum(differences) / len(differences)
    return math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1) / len(differences))


TARGET = [0, 1, 2, 0, 1, 2, 0, 1]


def test_with_labels_the_gain_is_that_of_the_accuracy_and_its_error_is_paired() -> None:
    before = predictions([0, 1, 2, 0, 0, 0, 1, 0], TARGET)  # four right
    found = judge(before, predictions([0, 1, 2, 0, 1, 2, 1, 2], TARGET), [], share=0.5)
    differences = [0, 0, 0, 0, 1, 1, 0, 0]  # two gained, none lost
    assert found.share == 0.5
    assert found.gain_pp == pytest.approx(25.0)
    assert found.error_pp == pytest.approx(100 * standard_error(differences))
    # Were the two taken for independent samples, the error would be another.
    before_right, after_right = [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]
    unpaired = math.hypot(standard_error(before_right), standard_error(after_right))
    assert found.error_pp != pytest.approx(100 * unpaired, rel=0.05)
    assert found.sure_gain_pp == pytest.approx(found.gain_pp - found.error_pp)


def test_with_labels_teachers_do_not_matter() -> None:
    before, after = predictions([0, 0, 0, 0], [0, 1, 2, 0]), predictions([0, 1, 0, 1], [0, 1, 2, 0])
    teachers = [predictions([1, 2, 0, 1], None), predictions([0, 0, 0, 0], None)]
    assert judge(before, after, teachers, share=1.0) == judge(before, after, [], share=1.0)


def test_a_wrong_answer_for_another_wrong_answer_is_no_gain() -> None:
    found = judge(predictions([1, 1, 0], [0, 1, 2]), predictions([2, 1, 1], [0, 1, 2]), [], share=1.0)
    assert (found.gain_pp, found.error_pp) == (0.0, 0.0)
    assert choose([found]) == 0.0


def softmax(z: Sequence[float], t: float) -> list[float]:
    powers = [math.exp((v - max(z)) / t) for v in z]
    return [power / sum(powers) for power in powers]


def tempered(rows: Sequence[Sequence[float]], confidence: float) -> list[list[float]]:
    """Probabilities at the temperature, from 0.05 to 20, at which they are so sure on average; by bisection."""
    low, high = 0.05, 20.0
    for _ in range(100):
        middle = (low + high) / 2
        mean = sum(max(softmax(row, middle)) for row in rows) / len(rows)
        low, high = (middle, high) if mean > confidence else (low, middle)
    return [softmax(row, low) for row in rows]


def naive_gains(models: Sequence[Predictions], candidate: Predictions) -> list[float]:
    """The first model is the initial student. Each is as sure, on average, as the others agree with it."""
    classes = [[row.index(max(row)) for row in model.logits.tolist()] for model in models]
    count, probs = len(candidate), []
    for model, own in zip(models, classes, strict=True):
        others = [other for other in classes if other is not own]
        agreement = sum(a == b for other in others for a, b in zip(own, other, strict=True)) / count / len(others)
        probs.append(tempered(model.logits.double().tolist(), agreement))
    gains = []
    for i, row in enumerate(candidate.logits.tolist()):
        q = [sum(p[i][c] for p in probs) / len(probs) for c in range(len(row))]
        gains.append(q[row.index(max(row))] - q[classes[0][i]])
    return gains


def drawn(seed: int, *, count: int = 40, classes: int = 4) -> Predictions:
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, classes, generator=torch.Generator().manual_seed(99))
    return from_logits(3 * (shared + 0.7 * torch.randn(count, classes, generator=draw)))


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_without_labels_the_models_together_say_what_a_change_is_worth(teachers: int) -> None:
    models, candidate = [drawn(seed) for seed in range(teachers + 1)], drawn(50)
    expected = naive_gains(models, candidate)
    gains = expected_gain(models[0], candidate, models[1:])
    assert gains.dtype == torch.float64
    assert gains.tolist() == pytest.approx(expected, abs=1e-6)
    assert 0 < sum(gain != 0 for gain in expected) < len(expected)
    found = judge(models[0], candidate, models[1:], share=0.75)
    assert found.gain_pp == pytest.approx(100 * sum(expected) / len(expected), abs=1e-4)
    assert found.error_pp == pytest.approx(100 * standard_error(expected), abs=1e-4)
    assert found.sure_gain_pp == pytest.approx(found.gain_pp - 2 * found.error_pp)


def test_without_labels_how_sure_the_candidate_is_does_not_matter() -> None:
    models, candidate = [drawn(seed) for seed in range(3)], drawn(50)
    surer = from_logits(candidate.logits * 7)
    assert torch.equal(expected_gain(models[0], candidate, models[1:]), expected_gain(models[0], surer, models[1:]))


def test_without_labels_an_unchanged_answer_is_worth_nothing_nor_is_any_without_teachers() -> None:
    before, candidate = drawn(0), drawn(50)
    gains = expected_gain(before, candidate, [drawn(1)])
    same = before.predicted == candidate.predicted
    assert same.any() and (gains[same] == 0).all()
    assert expected_gain(before, candidate, []).tolist() == [0.0] * len(before)
    assert choose([judge(before, candidate, [], share=1.0)]) == 0.0


def test_without_labels_what_the_others_agree_on_is_kept_and_the_contrary_is_not() -> None:
    """Two teachers that agree contradict the student on half of the images."""
    target, wrong = [0, 1, 2] * 10, [0, 1, 2] * 5 + [1, 2, 0] * 5
    teachers = [predictions(target, None), predictions(target, None)]
    student = predictions(wrong, None)
    assert choose([judge(student, predictions(target, None), teachers, share=1.0)]) == 1.0
    backwards = [1, 2, 0] * 10
    assert choose([judge(student, predictions(backwards, None), teachers, share=1.0)]) == 0.0


@pytest.mark.parametrize("target", [[1], None])
def test_one_image_proves_nothing(target: list[int] | None) -> None:
    before, after, *teachers = (predictions([c], target, classes=2) for c in (0, 1, 0, 1, 1))
    found = judge(before, after, teachers, share=1.0)
    assert found.error_pp == math.inf
    assert choose([found]) == 0.0
    if target is not None:
        assert found.gain_pp == 100.0


def test_no_point_or_no_gain_keeps_the_initial_student() -> None:
    assert choose([]) == 0.0
    assert choose([point(1.0, 0.0), point(0.5, -1.0)]) == 0.0


def test_a_gain_within_its_noise_keeps_the_initial_student() -> None:
    assert choose([point(1.0, 3.0, 3.0)]) == 0.0
    assert choose([point(1.0, 3.0, 2.9)]) == 1.0
    before = predictions([0] * 100, [1] * 51 + [0] * 49, classes=2)
    flipped = predictions([1] * 100, [1] * 51 + [0] * 49, classes=2)
    found = judge(before, flipped, [], share=1.0)
    assert found.gain_pp == pytest.approx(2.0) and found.error_pp > 2.0
    assert choose([found]) == 0.0


def test_the_surest_gain_wins_not_the_largest() -> None:
    assert choose([point(0.25, 2.0, 0.5), point(1.0, 5.0, 4.0)]) == 0.25
    assert choose([point(0.25, 2.0, 0.5), point(1.0, 5.0, 3.0)]) == 1.0


@pytest.mark.parametrize("order", [(0.25, 0.5, 1.0), (1.0, 0.5, 0.25), (0.5, 1.0, 0.25)])
def test_ties_go_to_the_shorter_way_in_whatever_order_the_points_come(order: tuple[float, ...]) -> None:
    assert choose([point(share, 2.0, 1.0) for share in order]) == 0.25
    assert choose([point(share, 4.0 if share > 0.25 else 1.0) for share in order]) == 0.5


def test_the_whole_way_and_no_way_outside_the_line_are_tried() -> None:
    assert SHARES[-1] == 1.0 and all(0 < share <= 1 for share in SHARES)
    assert list(SHARES) == sorted(set(SHARES))


def test_models_that_never_agree_are_unsure_of_everything() -> None:
    before, teacher = predictions([0, 1, 2], None), predictions([1, 2, 0], None)
    found = judge(before, predictions([0, 1, 0], None), [teacher], share=1.0)
    assert abs(found.gain_pp) < 1e-6
    assert choose([found]) == 0.0
