"""What stands in for labels, as loops over pairs and samples say; with the logits of all classes and without."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from gainfinder.metrics import Answers, estimated_strengths, measure_stand_ins, pooled_probs
from gainfinder.metrics import stand_ins as module
from gainfinder.metrics.stand_ins import expected_accuracy
from gainfinder.predictions import Predictions

N, C, M = 90, 5, 4
SEED = torch.Generator().manual_seed(3)
TARGET = torch.randint(0, C, (N,), generator=SEED)
PREDICTIONS = []
for number in range(M):
    logits = 2 * torch.randn(N, C, generator=SEED)
    logits[torch.arange(N), TARGET] += number
    PREDICTIONS.append(Predictions(model=f"m{number}", ids=tuple(map(str, range(N))), logits=logits, target=None))


def answers(*, keep_logits: bool) -> list[Answers]:
    return [Answers.of(one, keep_logits=keep_logits) for one in PREDICTIONS]


def naive_pool(sample: int, *, keep_logits: bool) -> list[float]:
    product = torch.ones(C, dtype=torch.float64)
    for one in PREDICTIONS:
        probs = one.logits[sample].double().softmax(0)
        if not keep_logits:
            sure, at = probs.max(0)
            probs = ((1 - sure) / (C - 1)).repeat(C)
            probs[at] = sure
        product *= probs
    return (product / product.sum()).tolist()


@pytest.mark.parametrize("keep_logits", [True, False])
def test_as_loops_say(keep_logits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLES", 32)
    monkeypatch.setattr(module, "ROWS", 32)
    models = answers(keep_logits=keep_logits)
    found, pooled = measure_stand_ins(models, C), pooled_probs(models, C)
    naive = [naive_pool(sample, keep_logits=keep_logits) for sample in range(N)]
    assert pooled.tolist() == [pytest.approx(row, abs=1e-5) for row in naive]
    predicted = [one.predicted.tolist() for one in PREDICTIONS]
    confidence = [one.confidence.tolist() for one in PREDICTIONS]
    for s in range(M):
        assert float(found.estimated_accuracy_M[s]) == pytest.approx(
            sum(naive[i][predicted[s][i]] for i in range(N)) / N, abs=1e-5
        )
        for t in range(M):
            differ = [i for i in range(N) if predicted[s][i] != predicted[t][i]]
            surer = [i for i in differ if confidence[t][i] > confidence[s][i]]
            flips = sum(naive[i][predicted[t][i]] for i in differ) / N
            assert float(found.disagreement_MM[s, t]) == pytest.approx(len(differ) / N, abs=1e-12)
            assert float(found.surer_disagreement_MM[s, t]) == pytest.approx(len(surer) / N, abs=1e-12)
            assert float(found.estimated_positive_flips_MM[s, t]) == pytest.approx(flips, abs=1e-5)
            kappa = cohen_kappa_score(predicted[s], predicted[t])
            assert float(found.kappa_MM[s, t]) == pytest.approx(kappa, abs=1e-12)
    difference = found.estimated_positive_flips_MM - found.estimated_positive_flips_MM.T
    accuracy_M = found.estimated_accuracy_M
    assert difference.tolist() == [pytest.approx(row, abs=1e-6) for row in (accuracy_M - accuracy_M[:, None]).tolist()]
    if keep_logits:
        assert found.strength_M is not None
        assert found.strength_M.tolist() == pytest.approx(estimated_strengths(PREDICTIONS))
    else:
        assert found.strength_M is None


def test_estimates_order_models_that_err_independently() -> None:
    found = measure_stand_ins(answers(keep_logits=True), C).estimated_accuracy_M.tolist()
    assert found == sorted(found) and found[-1] - found[0] > 0.2


def test_one_model_alone_rules_no_class_out_and_chance_agreement_has_no_kappa() -> None:
    masked = PREDICTIONS[0].logits.clone()
    masked[:, 2] = -math.inf
    models = [Answers.of(replace(PREDICTIONS[0], logits=masked)), *answers(keep_logits=True)[1:]]
    pooled = pooled_probs(models, C)
    assert bool(pooled.isfinite().all())
    sure = [Answers(predicted_N=torch.zeros(3, dtype=torch.int64), confidence_N=torch.ones(3))] * 2
    found = measure_stand_ins(sure, C)
    assert found.kappa_MM.isnan().all() and found.disagreement_MM.sum() == 0
    assert pooled_probs(sure, C)[:, 0].tolist() == pytest.approx([1, 1, 1])


def test_a_model_alone() -> None:
    found = measure_stand_ins(answers(keep_logits=True)[:1], C)
    assert found.agreement_M.tolist() == [1.0]
    assert found.estimated_accuracy_M.tolist() == pytest.approx([float(PREDICTIONS[0].confidence.mean())])


def test_expected_accuracy_by_certain_probabilities_is_counted() -> None:
    certain = torch.nn.functional.one_hot(TARGET, C).float()
    for one in PREDICTIONS:
        assert expected_accuracy(one.predicted, certain) == pytest.approx(expected_accuracy(one.predicted, TARGET))
