"""Every method that compares logits against a loop in pure python, written from its row of the table."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gainfinder.config import TransferConfig, resolve_settings
from gainfinder.config.methods import METHODS, Method
from gainfinder.losses import Temperatures, TransferLoss
from gainfinder.training import loss_of

Row = list[float]
LOGIT_METHODS = [method for method in METHODS if not method.needs_features]
PARTITIONED = [method for method in LOGIT_METHODS if method.partition is not None]
LABEL_FREE = [method for method in LOGIT_METHODS if method.partition != "label"]
N, C = 14, 12  # more classes than the 10 of kl-top-k


def named(methods: list[Method]) -> Any:
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.name)


def loss_of_run(method: Method, *, temperatures: Sequence[float] = (0.5, 3.0), **asked: Any) -> TransferLoss:
    """The loss of a transfer with these settings, its cross-entropy left out."""
    settings = TransferConfig.model_validate({"method": method.name, **asked})
    resolved = resolve_settings(settings, labelled=True, images=640, view_size=(224, 224), mirrorable=True)
    loss = loss_of(resolved, temperatures=own_of(method, temperatures) if method.calibrated else None)
    loss.distill_weight, loss.label_weight = 1.0, 0.0
    return loss


def own_of(method: Method, temperatures: Sequence[float]) -> Temperatures:
    """Of methods with one for each class, the first, third, … class has the model's, the others have 1."""
    return temperatures if method.pooling is None else [[t, 1.0] * (C // 2) for t in temperatures]


def models_of(method: Method, *, models: int = 2) -> Tensor:
    """Logits of so many models, or of the teacher alone where the method has no partition."""
    return logits(N, models if method.needs_initial_student else 1, C, seed=2)


def logits(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(seed: int = 9) -> Tensor:
    return torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(seed))


# ---- the naive loop: nothing of gainfinder below, but what the row says ----


def softmax(z: Row, t: float = 1.0) -> Row:
    powers = [math.exp((v - max(z)) / t) for v in z]
    return [power / sum(powers) for power in powers]


def kl(p: Row, q: Row) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def correlation(a: Row, b: Row) -> float:
    a, b = [x - sum(a) / len(a) for x in a], [x - sum(b) / len(b) for x in b]
    products = sum(x * y for x, y in zip(a, b, strict=True))
    return products / math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))


def standardised(z: Row) -> Row:
    mean = sum(z) / len(z)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in z) / len(z))
    return [(v - mean) / deviation for v in z]


def dkd(target: Row, student: Row, y: int, t: float) -> float:
    """α 1, β 0.5: Zhao et al. for ImageNet."""
    p, q = softmax(target, t), softmax(student, t)
    rest_p, rest_q = sum(p) - p[y], sum(q) - q[y]
    first = kl([p[y], rest_p], [q[y], rest_q])
    others = [j for j in range(len(p)) if j != y]
    return t**2 * (first + 0.5 * kl([p[j] / rest_p for j in others], [q[j] / rest_q for j in others]))


def one_loss(objective: str, target: Row, student: Row, y: int | None, t: float, *, k: int) -> float:
    """An objective that looks at one sample at a time."""
    if objective == "standardised":
        target, student = standardised(target), standardised(student)
    if objective == "top-k":
        best = sorted(range(len(target)), key=lambda j: -target[j])[:k]
        target, student = [target[j] for j in best], [student[j] for j in best]
    if objective == "dkd":
        return dkd(target, student, target.index(max(target)) if y is None else y, t)
    p, q = softmax(target, t), softmax(student, t)
    if objective == "soft-xe":
        return -(t**2) * sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    assert objective in ("kl", "top-k", "standardised")
    return t**2 * kl(p, q)


def dist(targets: list[Row], students: list[Row], t: float) -> Row:
    """β 1, γ 1: Huang et al. for ImageNet."""
    p, q = [softmax(z, t) for z in targets], [softmax(z, t) for z in students]
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    intra = sum(1 - correlation(list(a), list(b)) for a, b in columns) / len(p[0])
    return [t**2 * (1 - correlation(a, b) + intra) for a, b in zip(p, q, strict=True)]


def pool(answers: list[Row], how: str) -> Row:
    """Logits of what all models say together; 0.01 of a product is spread evenly."""
    columns = list(zip(*map(softmax, answers), strict=True))
    if how == "mean":
        return [math.log(sum(column) / len(column)) for column in columns]
    return [sum(math.log(0.99 * p + 0.01 / len(columns)) for p in column) / len(column) for column in columns]


def naive(
    method: Method, students: list[Row], models: list[list[Row]], y_N: list[int], temperatures: Row, **settings: Any
) -> tuple[Row, float]:
    """Losses and the number of samples that a teacher taught.

    Args:
        method: the row.
        students: logits of the student under training, a row a sample.
        models: for each sample the logits of each model; the first is the initial student's.
        y_N: labels.
        temperatures: of the models, for calibrated methods.
        **settings: `t`, `k` and `sharpness`.
    """
    t, k = settings["t"], settings["k"]
    supervised = method.partition == "label"
    chosen, mixed, taught = [], [], 0.0
    for student, answers, y in zip(students, models, y_N, strict=True):
        own = temperatures if method.calibrated else [1.0] * len(answers)
        probs = [softmax(z, own_t) for z, own_t in zip(answers, own, strict=True)]
        confidences = [p[y] if supervised else max(p) for p in probs]
        targets = [[v / own_t * own[0] for v in z] for z, own_t in zip(answers, own, strict=True)]
        if method.pooling is not None:
            pairs = list(zip(answers, temperatures, strict=True))
            even = [1.0 if not method.calibrated or z.index(max(z)) % 2 else t_m for z, t_m in pairs]
            cooled = [[v / t_m for v in z] for z, t_m in zip(answers, even, strict=True)]
            chosen.append(pool(cooled, method.pooling))
            taught += (len(answers) - 1) / len(answers)
        elif method.partition is None:
            chosen.append(answers[0])
        elif method.soft:
            powers = [confidence ** settings["sharpness"] for confidence in confidences]
            shares = [power / sum(powers) for power in powers]
            losses = [one_loss(method.objective, z, student, None, t, k=k) for z in targets]
            mixed.append(sum(share * loss for share, loss in zip(shares, losses, strict=True)))
            taught += sum(shares[1:])
        else:
            best = confidences.index(max(confidences))  # the first of equals
            chosen.append(targets[best])
            taught += best > 0
    if mixed:
        return mixed, taught
    if method.objective == "dist":
        return dist(chosen, students, t), taught
    by = [y if supervised else None for y in y_N]
    triples = zip(chosen, students, by, strict=True)
    return [one_loss(method.objective, *triple, t, k=k) for triple in triples], taught


# ---- the tests ----


def check(method: Method, *, models: int, asked: dict[str, Any], **numbers: Any) -> None:
    student, target, y_N = logits(N, C, seed=1), models_of(method, models=models), labels()
    temperatures = [0.5, 3.0, 1.25][:models]
    expected, taught = naive(method, student.tolist(), target.tolist(), y_N.tolist(), temperatures, **numbers)
    found = loss_of_run(method, temperatures=temperatures, **asked).losses(student, target, y_N)
    assert found.values.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert float(found.taught) == pytest.approx(taught, abs=1e-9)
    assert found.weights.sum(dim=1).tolist() == pytest.approx([1.0] * N)


@named(LOGIT_METHODS)
@pytest.mark.parametrize("models", [2, 3])
def test_a_row_of_the_table_equals_the_naive_loop(method: Method, models: int) -> None:
    t = 2.0 if method.name.startswith("std-") else 1.0  # Sun et al.; the paper
    check(method, models=models, asked={}, t=t, k=10, sharpness=4.0)


@named(LOGIT_METHODS)
def test_what_is_asked_for_goes_over_the_row(method: Method) -> None:
    asked: dict[str, Any] = {"temperature": 2.5}
    if method.objective == "top-k":
        asked["top_k"] = 3
    if method.soft:
        asked["sharpness"] = 1.5
    check(method, models=2, asked=asked, t=2.5, k=3, sharpness=1.5)


@named(LABEL_FREE)
def test_without_a_partition_by_label_no_label_is_read(method: Method) -> None:
    loss, student, target = loss_of_run(method), logits(N, C, seed=1), models_of(method)
    poisons = [None, labels(), torch.full((N,), -1), torch.full((N,), 10**12), torch.zeros(1, dtype=torch.int64)]
    found = [loss.losses(student, target, poison) for poison in poisons]
    assert all(torch.equal(one.values, found[0].values) for one in found)
    assert all(torch.equal(one.weights, found[0].weights) for one in found)


@named([method for method in PARTITIONED if method.partition == "label"])
def test_a_partition_by_label_does_read_labels(method: Method) -> None:
    student, target, loss = logits(N, C, seed=1), models_of(method), loss_of_run(method)
    one, other = (loss.losses(student, target, y_N) for y_N in (labels(), (labels() + 1) % C))
    assert not torch.equal(one.values, other.values)


@named(PARTITIONED)
def test_ties_are_taught_by_the_initial_student(method: Method) -> None:
    """A teacher that says the same: no sample is its own, and all are retained; soft methods share alike."""
    student, initial = logits(N, C, seed=1), logits(N, C, seed=2)
    target, loss = torch.stack([initial, initial], dim=1), loss_of_run(method, temperatures=(2.0, 2.0))
    assert float(loss.losses(student, target, labels()).taught) == pytest.approx(N / 2 if method.soft else 0.0)
    kept = loss.losses(initial, target, labels())
    assert kept.values.tolist() == pytest.approx([0.0] * N, abs=1e-9), "retention costs nothing at the start"


@named([method for method in LOGIT_METHODS if method.pooling is not None])
def test_what_all_models_say_is_retained(method: Method) -> None:
    """Three models of one opinion: the student has nothing to learn, but for what a product spreads evenly."""
    initial, loss = logits(N, C, seed=2), loss_of_run(method, temperatures=(1.0, 1.0, 1.0))
    kept = loss.losses(initial, torch.stack([initial] * 3, dim=1))
    assert kept.values.tolist() == pytest.approx([0.0] * N, abs=1e-9 if method.pooling == "mean" else 0.02)
    assert kept.weights.tolist() == [pytest.approx([1 / 3] * 3)] * N


@named(LOGIT_METHODS)
def test_gradients_reach_the_student_alone(method: Method) -> None:
    student, initial, teacher = (logits(N, C, seed=seed).requires_grad_() for seed in (1, 2, 3))
    loss = loss_of_run(method)
    value = loss(student, initial, teacher, labels())
    assert value.shape == () and not loss.losses(student, models_of(method), labels()).weights.requires_grad
    gradients = torch.autograd.grad(value, [student, initial, teacher], allow_unused=True)
    assert gradients[0].isfinite().all() and gradients[0].abs().sum() > 0
    assert gradients[1:] == (None, None)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_cross_entropy_is_of_the_logits_and_smooths_the_targets(smoothing: float) -> None:
    """The published code gives it probabilities, and smooths these."""
    student, y_N = logits(N, C, seed=1), labels()
    expected = []
    for row, y in zip(student.tolist(), y_N.tolist(), strict=True):
        wanted = [smoothing / C + (1 - smoothing) * (j == y) for j in range(C)]
        expected.append(-sum(w * math.log(q) for w, q in zip(wanted, softmax(row), strict=True)))
    loss = TransferLoss("xe-kl-ls" if smoothing else "xe-kl", distill_weight=0.0)
    found = loss.losses(student, logits(N, 1, C, seed=2), y_N)
    assert found.values.tolist() == pytest.approx(expected, rel=1e-9)
