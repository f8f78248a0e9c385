"""Information of predictions, against loops over probabilities, and what it tells of a model's strength."""

import math

import pytest
import torch

from gainfinder.metrics.information import class_information, information
from gainfinder.metrics.transfer import estimated_strengths, mean_agreements
from gainfinder.predictions import Predictions
from handmade import drawn, entropy, from_logits, mean, naive_information, probabilities


def sure_of(classes: list[int], *, by: float = 6.0) -> Predictions:
    logits = torch.zeros(len(classes), 3)
    logits[range(len(classes)), classes] = by
    return from_logits(logits)


@pytest.mark.parametrize("classes", [2, 7])
def test_information_is_what_the_class_tells_of_the_image(classes: int) -> None:
    logits = drawn(3, classes=classes).logits
    values = information(logits)
    assert values.dtype == torch.float64 and values.min() >= 0
    assert values.tolist() == pytest.approx(naive_information(logits), abs=1e-12)
    rows, average = probabilities(logits)
    mutual = entropy(average) - mean([entropy(row) for row in rows])
    assert float(values.mean()) == pytest.approx(mutual, abs=1e-12)
    assert 0.1 < mutual < math.log(classes)


def test_sure_balanced_answers_tell_all_there_is_and_others_nothing() -> None:
    for classes in (2, 5):
        sure = 1000 * torch.eye(classes)  # other classes have probability 0 exactly
        assert information(sure).tolist() == pytest.approx([math.log(classes)] * classes)
        assert information(sure[[0] * 4]).tolist() == [0.0] * 4
        assert information(torch.zeros(4, classes)).tolist() == [0.0] * 4


def test_a_class_that_is_masked_tells_nothing_and_a_rare_one_little() -> None:
    logits = drawn(3).logits
    masked = torch.cat([logits, torch.full((len(logits), 1), -torch.inf)], dim=1)
    assert information(masked).tolist() == pytest.approx(information(logits).tolist(), abs=1e-12)
    partly = logits.clone()
    partly[::2, 1] = -torch.inf
    assert information(partly).tolist() == pytest.approx(naive_information(partly), abs=1e-12)
    rare = logits.clone()
    rare[:, 1] -= 20.0
    assert information(rare).tolist() == pytest.approx(naive_information(rare), abs=1e-12)


def test_one_class_or_one_image_tells_nothing() -> None:
    assert information(torch.randn(5, 1)).tolist() == [0.0] * 5
    assert information(torch.tensor([[3.0, -1.0, 0.5]])).tolist() == pytest.approx([0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[0.0, -math.inf], [-math.inf, 0.0]], math.log(2)),  # each class known for certain
        ([[0.0, 0.0, -math.inf]] * 4, 0.0),  # a class that nobody predicts; always the same answer
        ([[1.0]] * 3, 0.0),  # one class
    ],
)
def test_information_at_its_bounds(logits: list[list[float]], expected: float) -> None:
    assert float(information(torch.tensor(logits)).mean()) == pytest.approx(expected, abs=1e-12)


def test_class_information_sums_to_the_entropy_of_the_classes_predicted() -> None:
    predicted = torch.tensor([0, 0, 0, 2, 2, 1])
    found = class_information(predicted, num_classes=5)
    assert float(found.mean()) == pytest.approx(entropy([3 / 6, 1 / 6, 2 / 6]), abs=1e-12)
    assert found[0] == pytest.approx(-math.log(0.5)) and found[5] == pytest.approx(-math.log(1 / 6))
    assert class_information(torch.tensor([4, 4]), num_classes=5).tolist() == [0.0, 0.0]
    assert class_information(torch.arange(5), num_classes=5).tolist() == pytest.approx([math.log(5)] * 5)


def test_strength_is_accuracy_where_there_are_labels() -> None:
    target = [0, 1, 2, 0]
    logits = sure_of([0, 1, 2, 1]).logits
    assert estimated_strengths([from_logits(logits, target), from_logits(logits.flip(1), target)]) == [0.75, 0.25]


def test_agreement_is_the_mean_over_the_others() -> None:
    models = [sure_of([0, 1, 2, 0]), sure_of([0, 1, 2, 1]), sure_of([0, 0, 0, 0])]
    assert mean_agreements(models) == [(3 / 4 + 2 / 4) / 2, (3 / 4 + 1 / 4) / 2, (2 / 4 + 1 / 4) / 2]
    assert mean_agreements(models[:1]) == [1.0]


def test_a_strong_model_among_weak_ones_that_are_alike_is_found() -> None:
    """Two weak, unsure models share their mistakes and outvote the strong one; it tells the images apart better."""
    truth = [i % 3 for i in range(60)]
    muddled = [0 if i % 5 < 2 else c for i, c in enumerate(truth)]  # mistakes of both weak models
    weak = [sure_of(muddled, by=0.8), sure_of([*muddled[:55], *truth[55:]], by=0.8)]
    strong = sure_of([*truth[:57], 0, 0, 0], by=4.0)
    models = [*weak, strong]
    assert mean_agreements(models)[2] < min(mean_agreements(models)[:2])
    strengths = estimated_strengths(models)
    assert strengths.index(max(strengths)) == 2


def test_a_model_sure_of_itself_that_contradicts_all_others_is_not_taken_for_strong() -> None:
    truth = [i % 3 for i in range(60)]
    ordinary = [sure_of([*truth[:start], *[0] * 6, *truth[start + 6 :]], by=4.0) for start in (0, 20, 40)]
    stranger = sure_of([(c + 1) % 3 if i % 4 else c for i, c in enumerate(truth)], by=9.0)
    models = [*ordinary, stranger]
    assert float(information(stranger.logits).mean()) > float(information(ordinary[0].logits).mean())
    strengths = estimated_strengths(models)
    assert strengths.index(min(strengths)) == 3
