"""Fitted temperatures against a search over float64 loops written from the definitions, and at their limits."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gainfinder.metrics import calibration
from gainfinder.metrics.calibration import (
    calibrated_temperatures,
    class_temperatures,
    fit_temperature,
    fit_temperature_to,
)

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)


def logits(*shape: int, seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n: int, c: int, *, seed: int = 0) -> Tensor:
    return torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(seed))


def sampled_labels(z: Tensor, temperature: float, *, seed: int = 0) -> Tensor:
    """Labels that follow softmax(z / T)."""
    probs = (z / temperature).softmax(dim=1)
    return torch.multinomial(probs, 1, generator=torch.Generator().manual_seed(seed)).squeeze(1)


def naive_softmax(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((v - max(z)) / temperature) for v in z]
    return [power / sum(powers) for power in powers]


def naive_loss(z: Tensor, y: Tensor, temperature: float) -> float:
    rows = zip(z.tolist(), y.tolist(), strict=True)
    return -sum(math.log(naive_softmax(row, temperature)[label]) for row, label in rows) / len(z)


def naive_confidence(z: Tensor, temperature: float) -> float:
    return sum(max(naive_softmax(row, temperature)) for row in z.tolist()) / len(z)


def golden_section(loss: Callable[[float], float]) -> float:
    """The minimum over log T between 0.05 and 20, to about eight digits of T."""
    low, high, ratio = math.log(0.05), math.log(20), (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(math.exp(left)) < loss(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize(("n", "c"), [(60, 5), (40, 2), (30, 30)])
def test_the_fit_is_where_a_search_finds_the_lowest_loss(n: int, c: int, true: float) -> None:
    z = logits(n, c, seed=n + c)
    y = sampled_labels(z, true)
    fitted = fit_temperature(z, y)
    assert 0.05 < fitted < 20
    assert fitted == pytest.approx(golden_section(lambda t: naive_loss(z, y, t)), rel=1e-5)


def test_many_samples_give_back_the_temperature_they_were_drawn_with() -> None:
    z = logits(20_000, 10, seed=1)
    for true in (0.5, 2.0, 5.0):
        assert fit_temperature(z, sampled_labels(z, true)) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("right", range(6, 10))
def test_two_classes_by_hand(right: int) -> None:
    """Odds of e^3 each time, r of 10 right: 3/T = ln(r/(10 − r))."""
    z = torch.tensor([[3.0, 0.0]] * 10)
    y = torch.tensor([0] * right + [1] * (10 - right))
    assert fit_temperature(z, y) == pytest.approx(3 / math.log(right / (10 - right)), rel=1e-9)


@SETTINGS
@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 2), shift=st.floats(-100, 100))
def test_the_fit_scales_with_the_logits_and_ignores_shifts(seed: int, scale: float, shift: float) -> None:
    z = logits(40, 4, seed=seed, scale=2.0)
    y = sampled_labels(z, 1.5, seed=seed)
    fitted = fit_temperature(z, y)
    if 0.2 < fitted < 5:
        assert fit_temperature(scale * z + shift, y) == pytest.approx(scale * fitted, rel=1e-7)
    confidence = naive_confidence(z, 1.5)
    assert fit_temperature_to(scale * z + shift, confidence) == pytest.approx(scale * 1.5, rel=1e-7)


def test_limits_of_the_fit() -> None:
    z = logits(20, 4, seed=1)
    assert fit_temperature(z, z.argmax(dim=1)) == 0.05
    assert fit_temperature(1e6 * z, z.argmax(dim=1)) == 0.05
    assert fit_temperature(z, z.argmin(dim=1)) == 20.0
    for flat in (torch.zeros(5, 1), torch.full((5, 3), 0.1), torch.full((5, 3), -7.0, dtype=torch.float16)):
        assert fit_temperature(flat, torch.zeros(5, dtype=torch.int64)) == 1.0
        assert fit_temperature_to(flat, 0.9) == 1.0


def test_one_wrong_sample_among_sure_ones_is_found() -> None:
    """Extreme margins, where Newton's step leaves the bracket: 999 right by 40, one wrong by 40."""
    z = torch.tensor([[40.0, 0.0]] * 1000)
    y = torch.tensor([0] * 999 + [1])
    assert fit_temperature(z, y) == pytest.approx(40 / math.log(999), rel=1e-9)


def test_margins_of_many_sizes_are_solved() -> None:
    """A derivative that rises in steps far apart."""
    z = torch.tensor([[10.0 ** (k % 7 - 3), 0.0] for k in range(70)], dtype=torch.float64)
    y = torch.tensor([int(k >= 56) for k in range(70)])
    fitted = fit_temperature(z, y)
    assert fitted == pytest.approx(min(golden_section(lambda t: naive_two(z, y, t)), 20.0), rel=1e-5)


def naive_two(z: Tensor, y: Tensor, temperature: float) -> float:
    """The same loss for two classes where probabilities underflow: ln(1 + e^x) without e^x where x is large."""
    margins = [
        (a - b) * (1 if label else -1) / temperature for (a, b), label in zip(z.tolist(), y.tolist(), strict=True)
    ]
    return sum(x if x > 30 else math.log1p(math.exp(x)) for x in margins) / len(margins)


@pytest.mark.parametrize("confidence", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(("n", "c"), [(60, 5), (30, 30), (1, 4)])
def test_the_confidence_asked_for_is_that_of_the_loop(n: int, c: int, confidence: float) -> None:
    z = logits(n, c, seed=n + c)
    fitted = fit_temperature_to(z, confidence)
    assert 0.05 < fitted < 20
    assert naive_confidence(z, fitted) == pytest.approx(confidence, abs=1e-9)


def test_a_confidence_out_of_reach_gives_the_nearer_bound() -> None:
    z = logits(30, 5, seed=1)
    assert fit_temperature_to(z, 1.0) == 0.05
    assert fit_temperature_to(z, 0.2) == 20.0
    assert fit_temperature_to(z, naive_confidence(z, 20.0) + 1e-6) < 20
    assert fit_temperature_to(z, naive_confidence(z, 0.05) - 1e-6) > 0.05


def test_ties_for_the_largest_logit_and_equal_rows_among_others() -> None:
    z = torch.tensor([[2.0, 2.0, 0.0], [0.0, 0.0, 0.0], [3.0, 1.0, 2.0]], dtype=torch.float64)
    assert naive_confidence(z, fit_temperature_to(z, 0.5)) == pytest.approx(0.5, abs=1e-9)
    y = torch.tensor([1, 2, 2])
    assert fit_temperature(z, y) == pytest.approx(golden_section(lambda t: naive_loss(z, y, t)), rel=1e-5)


def test_a_fit_takes_about_ten_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bisection to the same precision takes fifty, each of them over all logits."""
    passes = []
    solve = calibration._root

    def counted(rising: Callable[[float], tuple[float, float]]) -> float:
        betas: list[float] = []

        def noted(beta: float) -> tuple[float, float]:
            betas.append(beta)
            return rising(beta)

        root = solve(noted)
        passes.append(len(betas))
        return root

    monkeypatch.setattr(calibration, "_root", counted)
    for scale in (0.1, 1.0, 10.0, 100.0):
        z = logits(200, 10, seed=1, scale=scale)
        for true in (0.1, 1.0, 5.0):
            fit_temperature(z, sampled_labels(z, true))
            fit_temperature_to(z, 0.9 - 0.1 * true)
    assert len(passes) == 24
    assert max(passes) <= 16


def test_a_root_is_found_where_newtons_method_alone_would_fail() -> None:
    """Steps back and forth, off a plateau, and with a slope that is no help."""
    for center in (0.06, 0.3, 1.0, 7.0, 19.9):
        for width in (1e-6, 1e-3, 0.1, 10.0):

            def rising(beta: float, center: float = center, width: float = width) -> tuple[float, float]:
                t = math.tanh((beta - center) / width)
                return t, (1 - t * t) / width

            assert calibration._root(rising) == pytest.approx(center, rel=1e-9)
    for slope in (0.0, 1e-9):

        def unhelpful(beta: float, slope: float = slope) -> tuple[float, float]:
            return beta - 3, slope

        assert calibration._root(unhelpful) == pytest.approx(3, rel=1e-9)
    creeping = calibration._root(lambda beta: ((beta - 3) ** 21, 21 * (beta - 3) ** 20))  # by 1/21 of the way a step
    assert creeping == pytest.approx(3, rel=1e-9)


def test_masked_classes_are_a_smaller_problem() -> None:
    z = logits(40, 5, seed=1)
    y = sampled_labels(z[:, :3], 2.0)
    smaller = fit_temperature(z[:, :3], y), fit_temperature_to(z[:, :3], 0.7)
    z[:, 3:] = -torch.inf
    assert (fit_temperature(z, y), fit_temperature_to(z, 0.7)) == pytest.approx(smaller, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_is_solved_in_float64(dtype: torch.dtype) -> None:
    z = logits(100, 5, seed=1).to(dtype).requires_grad_()
    y = sampled_labels(z.detach().float(), 2.0)
    assert fit_temperature(z, y) == fit_temperature(z.detach().double(), y)
    assert fit_temperature_to(z, 0.7) == fit_temperature_to(z.detach().double(), 0.7)


def test_with_labels_each_model_is_calibrated_by_itself() -> None:
    models = [logits(60, 5, seed=seed, scale=scale) for seed, scale in ((1, 3.0), (2, 9.0), (3, 1.0))]
    y = sampled_labels(models[0], 1.5)
    assert calibrated_temperatures(models, y) == [fit_temperature(z, y) for z in models]


def test_labels_that_a_model_masks_are_passed_over() -> None:
    logits = torch.tensor([[9.0, 1.0, 0.0]] * 5).log()
    target = torch.tensor([0, 0, 0, 1, 2])
    known = calibrated_temperatures([logits[:4]], target[:4])
    assert calibrated_temperatures([logits], target) == known != [1.0]
    assert calibrated_temperatures([logits], torch.full((5,), 2)) == [1.0]


def test_without_labels_surer_models_are_cooled_to_the_first_and_others_left() -> None:
    sure, student, surest, unsure = (logits(60, 5, seed=seed, scale=s) for seed, s in enumerate((6.0, 3.0, 12.0, 1.0)))
    confidence = naive_confidence(student, 1.0)
    own, first, second, third = calibrated_temperatures([student, sure, surest, unsure], None)
    assert own == third == 1.0
    assert 1.0 < first < second
    assert naive_confidence(sure, first) == pytest.approx(confidence, abs=1e-9)
    assert naive_confidence(surest, second) == pytest.approx(confidence, abs=1e-9)
    assert calibrated_temperatures([surest, student, sure, unsure], None) == [1.0, 1.0, 1.0, 1.0]
    assert calibrated_temperatures([student], None) == [1.0]


def test_messages() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    for shape in ((0, 3), (2, 0), (3,)):
        got = r"logits_NC: .*at least one sample and one class, got torch.float32 \(" + ", ".join(map(str, shape))
        with pytest.raises(ValueError, match=got):
            fit_temperature_to(torch.zeros(shape), 0.5)
    with pytest.raises(ValueError, match=r"logits_NC: .*got torch.int64 \(2, 3\)"):
        fit_temperature(z.long(), y)
    with pytest.raises(ValueError, match=r"target_N: expected torch.int64 \(2,\), got torch.float32 \(2,\)"):
        fit_temperature(z, torch.zeros(2))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"expected no NaN or \+inf .* got others in 1 samples"):
            fit_temperature(torch.tensor([[0.0, bad], [0.0, 0.0]]), y)
    with pytest.raises(ValueError, match="expected a finite logit for every label, got -inf"):
        fit_temperature(torch.tensor([[-math.inf, 0.0], [0.0, 0.0]]), y)
    for confidence in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="mean_confidence: expected a number above 0 and at most 1, got"):
            fit_temperature_to(z, confidence)


# ---- temperatures of classes ----


def naive_class_temperatures(models: list[list[list[float]]]) -> list[list[float]]:
    """Loops from the definition; nothing of gainfinder."""
    n, c, tried = len(models[0]), len(models[0][0]), [2 ** (k / 2) for k in range(13)]
    answers = [[row.index(max(row)) for row in rows] for rows in models]
    share = [0.0] * c
    for rows in models:
        for row in rows:
            share = [s + p / n / len(models) for s, p in zip(share, naive_softmax(row, 1.0), strict=True)]
    share = [max(s, 1e-3) / sum(max(v, 1e-3) for v in share) for s in share]
    found = [[1.0] * c for _ in models]
    for _ in range(3):
        for m in range(1, len(models)):
            evidence = []
            for i in range(n):
                others = [naive_softmax(models[b][i], found[b][answers[b][i]]) for b in range(len(models)) if b != m]
                row = []
                for t in tried:
                    own = naive_softmax(models[m][i], t)
                    sums = [sum(p * q / s for p, q, s in zip(other, own, share, strict=True)) for other in others]
                    row.append(sum(math.log(max(v, 1e-30)) for v in sums) / len(sums))
                evidence.append(row)
            for j in range(c):
                scores = [
                    sum(row[k] for row, answer in zip(evidence, answers[m], strict=True) if answer == j)
                    + 50 / n * sum(row[k] for row in evidence)
                    for k in range(13)
                ]
                found[m][j] = tried[scores.index(max(scores))]
    return found


def raters(n: int, c: int, accuracies: list[float], *, seed: int) -> tuple[list[Tensor], Tensor]:
    """Models that err independently, each as sure as it is right: odds of its answer as those of being right."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, c, (n,), generator=generator)
    found = []
    for accuracy in accuracies:
        wrong = (y + torch.randint(1, c, (n,), generator=generator)) % c
        answer = torch.where(torch.rand(n, generator=generator) < accuracy, y, wrong)
        z = torch.full((n, c), (1 - accuracy) / (c - 1), dtype=torch.float64)
        z[torch.arange(n), answer] = accuracy
        found.append(z.log())
    return found, y


@pytest.mark.parametrize(("n", "c", "models"), [(60, 4, 2), (50, 3, 3), (40, 5, 4)])
def test_class_temperatures_equal_the_naive_loop(n: int, c: int, models: int) -> None:
    z = [logits(n, c, seed=10 * c + m) + 2 * logits(n, c, seed=c) for m in range(models)]
    z[-1] = z[-1].roll(1, dims=1)
    expected = naive_class_temperatures([one.tolist() for one in z])
    assert class_temperatures(z).tolist() == expected
    assert max(max(row) for row in expected) > 1, "somebody is cooled"


def test_models_that_are_as_sure_as_they_are_right_keep_their_scale_and_an_oversure_one_does_not() -> None:
    models, _ = raters(4000, 5, [0.6, 0.8, 0.7], seed=1)
    assert class_temperatures(models).tolist() == [[1.0] * 5] * 3
    for teacher_and_others in (models[1:2], models[1:]):
        found = class_temperatures([models[0], 4 * teacher_and_others[0], *teacher_and_others[1:]])
        assert found[0].tolist() == [1.0] * 5
        assert all(2.8 < t < 5.7 for t in found[1].tolist()), "made four times as sure, it is cooled by about four"


def test_only_confused_classes_are_cooled() -> None:
    models, _ = raters(6000, 6, [0.7, 0.8], seed=2)
    models[1] = models[1][:, [1, 0, 2, 3, 4, 5]]
    found = class_temperatures(models)
    assert (found[1, :2] >= 8).all() and (found[1, 2:] <= 1.5).all() and (found[0] == 1).all()


def test_the_student_is_believed_and_a_referee_speaks_for_the_teacher() -> None:
    (student, teacher, *referees), _ = raters(3000, 4, [0.8] * 5, seed=3)
    confused = student[:, [1, 0, 2, 3]]
    alone = class_temperatures([confused, teacher])
    helped = class_temperatures([confused, teacher, *referees])
    assert (alone[0] == 1).all() and (alone[1, :2] >= 8).all(), "who of two is wrong cannot be known"
    assert (helped[0] == 1).all() and (helped[1, :2] <= 2).all()


def test_class_temperatures_do_not_mind_shifts_masks_or_classes_never_answered() -> None:
    models, _ = raters(500, 4, [0.7, 0.8, 0.7], seed=4)
    models[1][:, 3] = -torch.inf
    found = class_temperatures(models)
    assert found.isfinite().all()
    assert torch.equal(found, class_temperatures([z + torch.arange(500.0)[:, None] for z in models]))
    with pytest.raises(ValueError, match=r"logits: expected at least two models' of one shape, got \[\(500, 4\)\]"):
        class_temperatures(models[:1])
    with pytest.raises(ValueError, match=r"of one shape, got \[\(500, 4\), \(3, 4\)\]"):
        class_temperatures([models[0], models[1][:3]])
