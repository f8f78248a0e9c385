"""Information of predictions, against loops over probabilities, and what it tells of a model's strength."""

import math

import pytest
import torch

from gainfinder.evaluation import estimated_strengths, mean_agreements
from gainfinder.information import class_information, information
from gainfinder.predictions import Predictions


def predictions(logits: torch.Tensor, target: list[int] | None = None) -> Predictions:
    return Predictions(
        model="by hand",
        ids=tuple(str(i) for i in range(len(logits))),
        logits=logits,
        target=None if target is None else torch.tensor(target),
    )


def sure_of(classes: list[int], *, by: float = 6.0) -> Predictions:
    logits = torch.zeros(len(classes), 3)
    logits[range(len(classes)), classes] = by
    return predictions(logits)


def naive_probs(logits: torch.Tensor) -> list[list[float]]:
    rows = []
    for row in logits.tolist():
        powers = [math.exp(z - max(row)) for z in row]
        rows.append([power / sum(powers) for power in powers])
    return rows


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


def test_information_is_the_divergence_from_the_mean_prediction() -> None:
    logits = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    probs = naive_probs(logits.double())
    mean = [sum(row[c] for row in probs) / 50 for c in range(4)]
    expected = [sum(p * math.log(p / m) for p, m in zip(row, mean, strict=True)) for row in probs]
    found = information(logits)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert float(found.mean()) == pytest.approx(entropy(mean) - sum(map(entropy, probs)) / 50, abs=1e-9)


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
    assert estimated_strengths([predictions(logits, target), predictions(logits.flip(1), target)]) == [0.75, 0.25]


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
