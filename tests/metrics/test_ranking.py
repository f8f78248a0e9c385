"""Teachers in the order of the rule, with what that is worth; the baseline where nothing was measured to beat it."""

from dataclasses import replace

import pytest
import torch

from gainfinder.config import Rule
from gainfinder.errors import DataError, SettingsError
from gainfinder.metrics import FittedRule, PredictedClasses, Ranking, RuleScore, RuleTable, rank_predictions
from gainfinder.predictions import Predictions

N, C = 400, 5
SEED = torch.Generator().manual_seed(2)
TARGET = torch.randint(0, C, (N,), generator=SEED)


def model(name: str, strength: float, *, labelled: bool = True, classes: int = C) -> PredictedClasses:
    """A model that is the better the stronger it is, in the first so many classes."""
    logits = torch.randn(N, C, generator=torch.Generator().manual_seed(len(name) + int(10 * strength)))
    logits[torch.arange(N), TARGET] += strength * TARGET.lt(classes)
    ids = tuple(map(str, range(N)))
    return PredictedClasses.of(Predictions(model=name, ids=ids, logits=logits, target=TARGET if labelled else None))


def models(*, labelled: bool = True) -> list[PredictedClasses]:
    strengths = {"weak": 0.5, "student": 1.0, "better": 2.0, "best": 3.0}
    return [model(name, strength, labelled=labelled) for name, strength in strengths.items()]


def score(name: str, regret: float, *, students: int, better: bool = False) -> RuleScore:
    return RuleScore(
        name=name, students=students, regret_pp=regret, regret_ci_pp=(0.0, 1.0), correlation=0.5,
        correlation_ci=(0.0, 1.0), over_all=None, beats_baseline=better,
    )  # fmt: skip


def table(*, better: bool, students: int = 8, labelled: bool = True) -> RuleTable:
    """Disagreement is what a rule of a made study goes by; it beats the baseline or does not."""
    accuracy = FittedRule(
        name="accuracy", coefficients=(("delta_acc_pp", 0.1),), intercept=0.0, ranges=(("delta_acc_pp", -50.0, 50.0),),
        error_pp=1.0,
    )  # fmt: skip
    balance = replace(accuracy, name="balance", coefficients=(("agreement", -10.0),), ranges=(("agreement", 0.9, 1.0),))
    capacity = replace(accuracy, name="capacity", coefficients=(("log10_parameters", 1.0),), ranges=())
    scores = {
        "accuracy": score("accuracy", 0.4, students=students),
        "balance": score("balance", 0.1, students=students, better=better),
        "capacity": score("capacity", 0.0, students=students, better=better),
    }
    rules = (capacity, balance, accuracy) if better else (accuracy, balance, capacity)
    return RuleTable(
        source="made", transfers=40, students=students, teachers=9, labelled=labelled, rules=rules,
        scores=tuple(scores[rule.name] for rule in rules),
    )  # fmt: skip


def ranked(found: list[PredictedClasses], *, by: Rule | None = None, rules: RuleTable | None = None) -> Ranking:
    return rank_predictions(found, num_classes=C, student="student", by=by, tables=(rules or table(better=False),))


def test_the_baseline_is_used_and_said_where_nothing_beats_it() -> None:
    found = ranked(models())
    assert [one.teacher for one in found.teachers] == ["best", "better", "weak"]
    assert found.rule.name == "accuracy" and found.best.teacher == "best"
    assert found.basis == (
        "By the most accurate teacher: no other rule was measured to choose surely better; its choice was 0.40 pp "
        "below the best teacher on average, rank correlation 0.50 (40 transfers, 8 students with a choice, each "
        "without its own model; made)."
    )
    few = ranked(models(), rules=table(better=False, students=2))
    assert "too few students were measured to tell whether another rule chooses better" in few.basis
    for one in found.teachers:
        assert one.expected_delta_pp == pytest.approx(one.features.delta_acc_pp / 10)
        assert one.interval_pp == pytest.approx((one.expected_delta_pp - 1.959964, one.expected_delta_pp + 1.959964))
    assert found.student_accuracy == pytest.approx(float((models()[1].predicted == TARGET).double().mean()))


def test_a_rule_that_was_measured_better_is_used_if_all_it_needs_is_known() -> None:
    known = ranked(models(), rules=table(better=True))
    assert known.rule.name == "balance"  # capacity comes first, and the number of weights is not known
    assert [one.features.agreement for one in known.teachers] == sorted(
        one.features.agreement for one in known.teachers
    )
    assert (
        "measured to choose better than the most accurate teacher" in known.basis and "of that one 0.40" in known.basis
    )
    assert all(one.reaches_beyond == ("agreement",) for one in known.teachers)
    sized = rank_predictions(models(), num_classes=C, student="student", parameters=100, tables=(table(better=True),))
    assert sized.rule.name == "capacity" and {one.expected_delta_pp for one in sized.teachers} == {2.0}
    assert [one.teacher for one in sized.teachers] == ["weak", "better", "best"]  # equal: as they were named


def test_a_rule_can_be_asked_for() -> None:
    found = ranked(models(), by="balance")
    assert found.rule.name == "balance" and "not measured to choose better than the most accurate" in found.basis
    with pytest.raises(SettingsError, match="'capacity' needs log10_parameters, which is not known"):
        ranked(models(), by="capacity")
    with pytest.raises(SettingsError, match="rule 'target' is not fitted"):
        ranked(models(), by="target")
    with pytest.raises(SettingsError, match="no rule 'acuracy'; near matches: accuracy"):
        ranked(models(), by="acuracy")  # type: ignore[arg-type]


def test_advice() -> None:
    found = ranked(models())
    best = found.best
    assert best.expected_delta_pp > 1.96 and best.interval_pp is not None
    assert found.advice == (
        f"Learn from best: expect {best.expected_delta_pp:+.1f} pp "
        f"({best.interval_pp[0]:+.1f} to {best.interval_pp[1]:+.1f})."
    )
    unsure = replace(found, teachers=(replace(best, interval_pp=(-0.1, 9.0)),))
    assert unsure.advice.endswith("only a transfer with a guard tells.")
    worse = ranked(models()[:2])
    assert worse.advice.startswith("Learn from none of them: from the first, weak, expect -")


def test_without_labels_the_order_comes_from_all_models_together() -> None:
    found = ranked(models(labelled=False), rules=table(better=False, labelled=False))
    assert not found.labelled and [one.teacher for one in found.teachers] == ["best", "better", "weak"]
    known = ranked(models())
    assert found.best.features.agreement == known.best.features.agreement
    assert found.best.features.delta_acc_pp != known.best.features.delta_acc_pp


def test_a_set_is_chosen_by_what_each_adds() -> None:
    low, high = model("low", 5.0, classes=2), replace(model("high", 4.0, classes=C))
    found = rank_predictions([*models(), low, high], num_classes=C, student="student", choose=2)
    assert found.chosen[0].teacher == "high" and len(found.chosen) == 2
    assert rank_predictions(models(), num_classes=C, student="student").chosen == ()


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(SettingsError, match=r"'studnt', which is none of the 4 models .*near matches: student"):
        rank_predictions(models(), num_classes=C, student="studnt")
    other = replace(models()[2], ids=tuple(f"x{number}" for number in range(N)))
    with pytest.raises(DataError, match="not for the same images"):
        ranked([*models()[:2], other])
