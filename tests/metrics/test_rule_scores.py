"""Rules are scored without the model that they choose for, and replace the baseline where they surely do better."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from gainfinder.metrics import FORMS, MeasuredTransfer, RuleTable, fit_rule, measure_rules
from gainfinder.metrics.rule_scores import ANY, bootstrap_mean
from gainfinder.metrics.rule_table import TABLES

ROOT = Path(__file__).parents[2]
STUDENTS, TEACHERS = 7, 6
FORM = {form.name: form for form in FORMS}


def transfers(by: str, *, noise: float = 0.0, students: int = STUDENTS) -> list[MeasuredTransfer]:
    """Transfers that give half of one feature, while the others say nothing."""
    generator = np.random.default_rng(1)
    found = []
    for student in range(students):
        for teacher in range(TEACHERS):
            features = {
                name: float(generator.uniform(0, 20))
                for name in ("delta_acc_pp", "headroom_pp", "positive_flips_pp", "negative_flips_pp", "agreement")
            }
            delta = features[by] / 2 + float(generator.normal(0, noise)) if noise else features[by] / 2
            found.append(
                MeasuredTransfer(student=f"s{student}", teacher=f"t{teacher}", features=features, delta_pp=delta)
            )
    return found


def test_a_rule_that_knows_replaces_the_baseline() -> None:
    table = measure_rules(transfers("headroom_pp"), source="made", labelled=True)
    first, score = table.rules[0], table.scores[0]
    assert first.name == "headroom" and score.beats_baseline
    assert first.coefficients == (("headroom_pp", pytest.approx(0.5)),) and first.error_pp == pytest.approx(0.0)
    assert (score.regret_pp, score.correlation, score.over_all) == pytest.approx((0.0, 1.0, 1.0))
    assert (table.transfers, table.students, table.teachers) == (STUDENTS * TEACHERS, STUDENTS, TEACHERS)
    assert [rule.name for rule in table.rules] == [one.name for one in table.scores[:-1]]
    assert table.score("accuracy").regret_pp > 1 and not table.score("accuracy").beats_baseline
    assert not {"target", "partition", "calibrated", "capacity"} & {rule.name for rule in table.rules}


@pytest.mark.parametrize("by", ["delta_acc_pp", "headroom_pp"])
def test_else_the_baseline_stays_first(by: str) -> None:
    """Where it knows best itself, and where a better rule was seen on too few students to be sure."""
    few = transfers(by, students=4 if by == "headroom_pp" else STUDENTS)
    table = measure_rules(few, source="made", labelled=False)
    assert table.rules[0].name == "accuracy" and not any(one.beats_baseline for one in table.scores)
    assert (table.score("headroom").regret_pp < table.score("accuracy").regret_pp) is (by == "headroom_pp")


def test_regret_correlation_and_error_as_loops_say() -> None:
    made = transfers("headroom_pp", noise=3.0)
    # a model that is student and teacher has no part in its own fit in either role
    made = [replace(one, student="t0") if one.student == "s0" else one for one in made]
    made = [one for one in made if one.student != one.teacher]
    table = measure_rules(made, source="made", labelled=True)
    form = FORM["balance"]
    regrets, correlations, expected, errors = [], [], [], []
    for student in dict.fromkeys(one.student for one in made):
        rest = [one for one in made if student not in (one.student, one.teacher)]
        rule = fit_rule(form, [one.features for one in rest], torch.tensor([one.delta_pp for one in rest]))
        assert rule is not None
        own = [one for one in made if one.student == student]
        said, deltas = [rule.expected(one.features) or 0.0 for one in own], [one.delta_pp for one in own]
        regrets.append(max(deltas) - deltas[int(np.argmax(said))])
        correlations.append(spearmanr(said, deltas).statistic)
        expected += said
    for one in made:
        both = {one.student, one.teacher}
        rest = [other for other in made if not both & {other.student, other.teacher}]
        rule = fit_rule(form, [other.features for other in rest], torch.tensor([other.delta_pp for other in rest]))
        assert rule is not None
        errors.append(rule.expected(one.features) - one.delta_pp)
    score = table.score("balance")
    assert score.regret_pp == pytest.approx(np.mean(regrets)) and score.students == len(regrets)
    assert score.correlation == pytest.approx(np.mean(correlations))
    assert score.over_all == pytest.approx(spearmanr(expected, [one.delta_pp for one in made]).statistic)
    balance = next(rule for rule in table.rules if rule.name == "balance")
    assert balance.error_pp == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    by_student = [[one.delta_pp for one in made if one.student == student] for student in {one.student for one in made}]
    assert table.score(ANY).regret_pp == pytest.approx(np.mean([max(one) - np.mean(one) for one in by_student]))


def test_the_interval_is_a_bootstrap_over_students() -> None:
    values = np.random.default_rng(1).normal(3, 2, 20).tolist()
    drawn = np.random.default_rng(0).choice(values, (20_000, 20)).mean(axis=1)
    assert bootstrap_mean(values, level=0.9) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.1)


def test_nothing_can_be_said_of_single_teachers() -> None:
    single = [one for one in transfers("headroom_pp") if one.teacher == "t0"]
    with pytest.raises(ValueError, match="expected a student with two teachers"):
        measure_rules(single, source="made", labelled=True)


@pytest.mark.parametrize("table", TABLES, ids=["labels", "none"])
def test_the_package_has_what_the_measured_transfers_give(table: RuleTable) -> None:
    with (ROOT / "benchmarks" / "ranking" / "transfers.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == table.source]
    made = [
        MeasuredTransfer(
            student=row["student"],
            teacher=row["teacher"],
            features={name: float(row[name]) for name in list(row)[5:] if row[name]},
            delta_pp=float(row["transfer_delta_pp"]),
        )
        for row in rows
        if row["labels"] == ("yes" if table.labelled else "no")
    ]
    found = measure_rules(made, source=table.source, labelled=table.labelled)
    assert [rule.name for rule in found.rules] == [rule.name for rule in table.rules]
    for ours, theirs in zip(found.rules, table.rules, strict=True):
        assert dict(ours.coefficients) == pytest.approx(dict(theirs.coefficients), rel=1e-3, abs=1e-4)
        assert (ours.intercept, ours.error_pp) == pytest.approx((theirs.intercept, theirs.error_pp), rel=1e-3, abs=1e-4)
    for mine, kept in zip(found.scores, table.scores, strict=True):
        assert (mine.name, mine.students, mine.beats_baseline) == (kept.name, kept.students, kept.beats_baseline)
        assert mine.regret_pp == pytest.approx(kept.regret_pp, abs=1e-3)
