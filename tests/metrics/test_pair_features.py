"""What is known of a pair before training, as a loop over samples says it; by labels and by class probabilities."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gainfinder.metrics import FEATURES, Answers, PairFeatures, ceilings_of, class_temperatures, measure_pair
from gainfinder.partition import most_confident
from gainfinder.predictions import Predictions

N, C = 120, 4
SEED = torch.Generator().manual_seed(11)
TARGET = torch.randint(0, C, (N,), generator=SEED)
LOGITS = []
for strength in (1.0, 2.0):
    one = 2 * torch.randn(N, C, generator=SEED)
    one[torch.arange(N), TARGET] += strength
    LOGITS.append(one)
PROBS = torch.rand(N, C, generator=SEED).softmax(dim=1)


def answers(*, labelled: bool = True, keep_logits: bool = True) -> list[Answers]:
    ids, target = tuple(map(str, range(N))), TARGET if labelled else None
    return [
        Answers.of(Predictions(model="m", ids=ids, logits=logits, target=target), keep_logits=keep_logits)
        for logits in LOGITS
    ]


def naive(truth: Tensor) -> dict[str, float]:
    """Sums over samples, in percentage points; `right` is 1 or 0 by a label, else a probability."""
    sums: dict[str, float] = dict.fromkeys(
        ("own", "other", "positive", "negative", "taught_positive", "taught_negative", "taught", "alike", "net"), 0.0
    )
    for i in range(N):
        student, teacher = (logits[i].double().softmax(0) for logits in LOGITS)
        s, t = int(student.argmax()), int(teacher.argmax())

        def right(answer: int, i: int = i) -> float:
            return float(answer == truth[i]) if truth.ndim == 1 else float(truth[i, answer])

        taught = bool(teacher.max() > student.max())
        positive, negative = (right(t), right(s)) if s != t else (0.0, 0.0)
        sums["own"] += right(s)
        sums["other"] += right(t)
        sums["positive"] += positive
        sums["negative"] += negative
        sums["taught_positive"] += positive * taught
        sums["taught_negative"] += negative * taught
        sums["taught"] += taught
        sums["alike"] += s == t
        # by the true class's probability: the true class is the teacher's answer in the one case, else the student's
        sums["net"] += positive * bool(teacher[t] > student[t]) - negative * bool(teacher[s] > student[s])
    return {name: 100 * value / N for name, value in sums.items()}


@pytest.mark.parametrize("truth", [TARGET, PROBS], ids=["labels", "probabilities"])
@pytest.mark.parametrize("rows", [50, 4096])
def test_as_a_loop_says(truth: Tensor, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainfinder.metrics.pair_features.ROWS", rows)
    student, teacher = answers()
    found, expected = measure_pair(student, teacher, truth, parameters=1000), naive(truth)
    assert 100 * found.student_accuracy == pytest.approx(expected["own"], abs=1e-4)
    assert 100 * found.teacher_accuracy == pytest.approx(expected["other"], abs=1e-4)
    assert found.delta_acc_pp == pytest.approx(expected["other"] - expected["own"], abs=1e-4)
    assert found.positive_flips_pp == pytest.approx(expected["positive"], abs=1e-4)
    assert found.negative_flips_pp == pytest.approx(expected["negative"], abs=1e-4)
    assert found.taught_positive_pp == pytest.approx(expected["taught_positive"], abs=1e-4)
    assert found.taught_negative_pp == pytest.approx(expected["taught_negative"], abs=1e-4)
    assert found.supervised_net_pp == pytest.approx(expected["net"], abs=1e-4)
    assert 100 * found.teacher_share == pytest.approx(expected["taught"], abs=1e-4)
    assert 100 * found.agreement == pytest.approx(expected["alike"], abs=1e-4)
    assert found.log10_parameters == 3.0
    confidence = [100 * float(logits.softmax(1).amax(1).mean()) for logits in LOGITS]
    assert found.student_overconfidence_pp == pytest.approx(confidence[0] - expected["own"], abs=1e-4)
    assert found.teacher_overconfidence_pp == pytest.approx(confidence[1] - expected["other"], abs=1e-4)


def test_flips_and_headroom_are_those_of_a_scan() -> None:
    student, teacher = answers()
    found, ceilings = measure_pair(student, teacher, TARGET), ceilings_of(student, [teacher], TARGET)
    assert found.headroom_pp == pytest.approx(ceilings.headroom_pp)
    assert found.positive_flips_pp - found.negative_flips_pp == pytest.approx(found.delta_acc_pp)
    choice = most_confident(torch.stack([logits.softmax(1) for logits in LOGITS], dim=1))
    assert found.teacher_share == pytest.approx(float((choice == 1).double().mean()))
    # what the surer of both has over the student is what the partition sends to the teacher, right less wrong
    routed = 100 * (ceilings.routed_accuracy - found.student_accuracy)
    assert found.taught_positive_pp - found.taught_negative_pp == pytest.approx(routed)


@pytest.mark.parametrize("samples", [40, 1000])
def test_the_target_is_the_product_with_a_teacher_cooled_by_class(
    samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gainfinder.metrics.pair_features.COOLING_SAMPLES", samples)
    stride = 3 if samples == 40 else 1
    student, teacher = answers()
    found = measure_pair(student, teacher, TARGET)
    temperatures = class_temperatures([logits[::stride] for logits in LOGITS])
    right = 0
    for i in range(N):
        logs = torch.zeros(C, dtype=torch.float64)
        for model, logits in enumerate(LOGITS):
            cooled = (logits[i].double() / temperatures[model, int(logits[i].argmax())]).softmax(0)
            logs += torch.log(0.99 * cooled + 0.01 / C) / 2
        right += int(logs.argmax() == TARGET[i])
    assert found.target_headroom_pp == pytest.approx(100 * (right / N - found.student_accuracy))


def test_without_logits_what_needs_them_is_not_known() -> None:
    (student, teacher), (bare_student, bare_teacher) = answers(), answers(keep_logits=False)
    found, whole = measure_pair(bare_student, bare_teacher, TARGET), measure_pair(student, teacher, TARGET)
    assert found.supervised_net_pp is found.target_headroom_pp is found.log10_parameters is None
    assert found.taught_positive_pp == whole.taught_positive_pp and found.headroom_pp <= whole.headroom_pp
    assert set(FEATURES) - found.values().keys() == {"supervised_net_pp", "target_headroom_pp", "log10_parameters"}


def test_ties_stay_with_the_student_and_a_broken_teacher_teaches_nothing() -> None:
    student, _ = answers()
    same = measure_pair(student, student, TARGET)
    assert (same.teacher_share, same.positive_flips_pp, same.headroom_pp, same.agreement) == (0.0, 0.0, 0.0, 1.0)
    broken = replace(student, confidence_N=torch.full((N,), torch.nan), predicted_N=(student.predicted_N + 1) % C)
    assert isinstance(measure_pair(student, broken, TARGET), PairFeatures)
    assert measure_pair(student, broken, TARGET).teacher_share == 0.0
