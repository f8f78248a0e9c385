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


def from_probs(rows: Sequence[Sequence[float]], target: Sequence[int] | None = None) -> Predictions:
    return from_logits(torch.tensor(rows).log(), target)


def point(share: float, gain_pp: float, error_pp: float = 0.0) -> GuardPoint:
    return GuardPoint(share=share, gain_pp=gain_pp, error_pp=error_pp)


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


def test_without_labels_the_models_together_say_what_a_change_is_worth() -> None:
    # Consensus of student and teacher: (0.3, 0.7), (0.5, 0.5), (0.9, 0.1).
    before = from_probs([[0.6, 0.4], [0.8, 0.2], [0.9, 0.1]])
    teacher = from_probs([[0.0001, 0.9999], [0.2, 0.8], [0.9, 0.1]])
    after = from_probs([[0.1, 0.9], [0.1, 0.9], [0.2, 0.8]])
    gains = expected_gain(before, after, [teacher])
    assert gains.dtype == torch.float64
    expected = [0.69995 - 0.30005, 0.5 - 0.5, 0.1 - 0.9]
    assert gains.tolist() == pytest.approx(expected, abs=1e-6)
    found = judge(before, after, [teacher], share=0.75)
    assert found.gain_pp == pytest.approx(100 * sum(expected) / 3, abs=1e-4)
    assert found.error_pp == pytest.approx(100 * standard_error(expected), abs=1e-4)


def test_without_labels_every_model_has_one_vote_and_the_candidate_none() -> None:
    before = from_probs([[0.9, 0.1]])
    teachers = [from_probs([[0.3, 0.7]]), from_probs([[0.3, 0.7]])]
    expected = ((0.1 + 0.7 + 0.7) - (0.9 + 0.3 + 0.3)) / 3
    for sure in (0.51, 0.99):
        candidate = from_probs([[1 - sure, sure]])
        assert expected_gain(before, candidate, teachers).item() == pytest.approx(expected, abs=1e-6)
    assert expected_gain(before, from_probs([[0.6, 0.4]]), teachers).item() == 0.0  # the same class, no change


def test_without_labels_what_the_consensus_prefers_is_kept_and_what_it_does_not_is_not() -> None:
    count = 50
    before = from_probs([[0.55, 0.45]] * count)
    teacher = from_probs([[0.05, 0.95]] * count)
    better, worse = from_probs([[0.4, 0.6]] * count), from_probs([[0.6, 0.4]] * count)
    assert choose([judge(before, better, [teacher], share=1.0)]) == 1.0
    assert choose([judge(from_probs([[0.4, 0.6]] * count), worse, [teacher], share=1.0)]) == 0.0


@pytest.mark.parametrize("target", [[1], None])
def test_one_image_proves_nothing(target: list[int] | None) -> None:
    before, after, teacher = (predictions([c], target, classes=2) for c in (0, 1, 1))
    found = judge(before, after, [teacher], share=1.0)
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
