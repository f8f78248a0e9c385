"""What frozen models hold a changed answer to be worth, on predictions made by hand."""

import math

import numpy as np
import pytest
import torch

from gainfinder.metrics import class_temperatures
from gainfinder.metrics.evidence import FRACTIONS
from gainfinder.metrics.posterior import betting_evidence, crossed_classes, posterior_of, votes, worth
from gainfinder.predictions import Predictions
from handmade import drawn, from_logits, softmax


def answers(*classes: int, of: int = 3) -> Predictions:
    return from_logits(5 * torch.eye(of)[list(classes)])


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_the_posterior_is_the_product_of_cooled_models(teachers: int) -> None:
    models = [drawn(seed) for seed in range(teachers + 1)]
    temperatures = class_temperatures([model.logits for model in models]).tolist()
    for i, row in enumerate(posterior_of(models[0], models[1:]).tolist()):
        products = [1.0] * len(row)
        for model, own in zip(models, temperatures, strict=True):
            z = model.logits[i].double().tolist()
            for c, p in enumerate(softmax(z, own[z.index(max(z))])):
                products[c] *= (0.99 * p + 0.01 / len(row)) ** (1 / len(models))
        assert row == pytest.approx([p / sum(products) for p in products], rel=1e-5)


def test_without_teachers_it_is_the_students() -> None:
    student = drawn(0)
    expected = (0.99 * student.logits.double().softmax(1) + 0.01 / 4).tolist()
    assert posterior_of(student, []).flatten().tolist() == pytest.approx(torch.tensor(expected).flatten().tolist())


def test_what_is_unchanged_is_worth_nothing() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])
    found = worth(probs, old=answers(0, 0, 2), new=answers(0, 2, 1))
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx([0.0, 0.5, 0.3])


def test_a_referee_votes_by_its_own_probabilities() -> None:
    referee = from_logits(torch.tensor([[0.0, 2.0, 1.0]] * 2))
    p = softmax([0.0, 2.0, 1.0])
    assert votes(referee, old=answers(0, 1), new=answers(1, 2)).tolist() == pytest.approx([p[1] - p[0], p[2] - p[1]])


def test_the_evidence_is_the_mean_of_bets() -> None:
    values = [0.5, -0.2, 0.1, 0.9]
    expected = [math.prod(1 + fraction * value for value in values) for fraction in FRACTIONS]
    assert betting_evidence(torch.tensor(values)) == pytest.approx(sum(expected) / len(expected))
    assert betting_evidence(torch.ones(100_000)) == pytest.approx(1e300)
    assert betting_evidence(-torch.ones(100_000)) == pytest.approx(0.0)


@pytest.mark.parametrize("spread", ["even", "rare", "soft"])
def test_votes_of_no_gain_reach_twenty_in_at_most_one_run_of_twenty(spread: str) -> None:
    """10,000 runs of 200 changed images, the mean of the votes 0."""
    generator = np.random.Generator(np.random.PCG64(1))
    size = (10_000, 200)
    if spread == "even":
        values = generator.choice([-1.0, 1.0], size=size)
    elif spread == "rare":
        values = generator.choice([-0.1, 0.9], p=[0.9, 0.1], size=size)
    else:
        values = generator.uniform(-0.5, 0.5, size=size)
    fractions = np.array(FRACTIONS)
    found = np.exp(np.log1p(fractions[:, None, None] * values[None, :2000]).sum(axis=2)).mean(axis=0)
    assert found[:5].tolist() == pytest.approx([betting_evidence(torch.from_numpy(row)) for row in values[:5]])
    reached = sum(betting_evidence(torch.from_numpy(row)) >= 20 for row in values)
    assert reached / len(values) <= 0.05
    assert found.mean() < 1.5  # expected: 1


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [1, 2, 0, 3], [3, 2, 1, 0]])
def test_a_wrong_class_order_is_seen(order: list[int]) -> None:
    student, teacher = drawn(0, count=400), drawn(1, count=400)
    assert crossed_classes(student, teacher) is None and crossed_classes(teacher, student) is None
    found = crossed_classes(student, from_logits(teacher.logits[:, order]))
    assert found is not None and order[found[1]] == found[0]


def test_a_model_of_few_classes_is_not_taken_for_one_of_a_wrong_order() -> None:
    student, teacher = drawn(0, count=400), drawn(1, count=400)
    half = teacher.logits.clone()
    half[:, 2:] = -50.0
    assert crossed_classes(student, from_logits(half)) is None and crossed_classes(from_logits(half), student) is None


def test_a_model_that_has_collapsed_is_not_taken_for_one_of_a_wrong_order() -> None:
    teacher, collapsed = drawn(1, count=400), answers(*[0] * 400, of=4)
    few = from_logits(teacher.logits - torch.tensor([9.0, 0.0, 0.0, 0.0]))  # hardly ever answers 0
    assert crossed_classes(collapsed, few) is None and crossed_classes(few, collapsed) is None


def test_a_few_images_do_not_show_a_wrong_order() -> None:
    assert crossed_classes(answers(0, 0, 1, 1), answers(1, 1, 0, 0)) is None
    assert crossed_classes(answers(*[0] * 20, *[1] * 20), answers(*[1] * 20, *[0] * 20)) is not None
