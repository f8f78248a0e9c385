"""Rules are fitted as other libraries fit them; without what they need they say nothing; one feature never turns."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from gainfinder.config import RULES
from gainfinder.metrics import FEATURES, FORMS, FittedRule, fit_rule
from gainfinder.metrics.rules import PENALTY

FORM = {form.name: form for form in FORMS}
GENERATOR = np.random.default_rng(5)


def rows(count: int, names: tuple[str, ...]) -> list[dict[str, float]]:
    return [dict(zip(names, GENERATOR.normal(3, 2, len(names)).tolist(), strict=True)) for _ in range(count)]


def test_the_forms_are_those_that_can_be_asked_for() -> None:
    assert tuple(FORM) == RULES
    assert all(set(form.features) <= set(FEATURES) for form in FORMS)


@pytest.mark.parametrize("name", [form.name for form in FORMS if len(form.features) > 1])
def test_a_linear_rule_is_a_ridge_regression(name: str) -> None:
    known = rows(9, FORM[name].features)
    delta = torch.from_numpy(GENERATOR.normal(1, 2, 9))
    found = fit_rule(FORM[name], known, delta)
    assert found is not None
    x = np.array([list(row.values()) for row in known])
    scaler = StandardScaler().fit(x)
    ridge = Ridge(alpha=PENALTY).fit(scaler.transform(x), delta.numpy())
    for row, expected in zip(known, ridge.predict(scaler.transform(x)), strict=True):
        assert found.expected(row) == pytest.approx(float(expected))
    assert found.ranges == tuple(
        (feature, float(x[:, at].min()), float(x[:, at].max())) for at, feature in enumerate(FORM[name].features)
    )


def test_a_factor_is_that_of_least_squares_through_zero() -> None:
    known, delta = rows(6, ("headroom_pp",)), torch.from_numpy(GENERATOR.normal(2, 1, 6))
    found = fit_rule(FORM["headroom"], known, delta)
    assert found is not None and found.intercept == 0.0
    x = np.array([[row["headroom_pp"]] for row in known])
    assert found.coefficients[0][1] == pytest.approx(np.linalg.lstsq(x, delta.numpy(), rcond=None)[0][0])


@pytest.mark.parametrize("name", ["accuracy", "headroom"])
def test_more_of_a_single_feature_is_better_whatever_transfers_say(name: str) -> None:
    feature = FORM[name].features[0]
    known = [{feature: float(number)} for number in range(1, 6)]
    found = fit_rule(FORM[name], known, torch.tensor([5.0, 4.0, 3.0, 2.0, -20.0]))
    assert found is not None and found.coefficients[0][1] == 0.0
    assert found.expected(known[0]) == found.expected(known[4])
    assert max(known, key=found.order) == known[4]


def test_too_few_rows_or_a_missing_feature_fit_nothing() -> None:
    known = rows(3, FORM["balance"].features)
    assert fit_rule(FORM["balance"], known, torch.zeros(3)) is None
    assert fit_rule(FORM["accuracy"], [{"headroom_pp": 1.0}] * 5, torch.zeros(5)) is None
    same = fit_rule(FORM["accuracy"], [{"delta_acc_pp": 2.0}] * 5, torch.ones(5))
    assert same is not None and same.expected({"delta_acc_pp": 7.0}) == 1.0


def test_what_a_rule_says() -> None:
    rule = FittedRule(
        name="headroom", coefficients=(("headroom_pp", 0.5),), intercept=0.0, ranges=(("headroom_pp", 1.0, 9.0),)
    )
    assert rule.interval(4.0) is None
    known = FittedRule(**{**vars(rule), "error_pp": 2.0})
    assert known.interval(4.0) == pytest.approx((4 - 2 * 1.959964, 4 + 2 * 1.959964))
    assert rule.reaches_beyond({"headroom_pp": 9.5}) == ("headroom_pp",)
    assert rule.reaches_beyond({"headroom_pp": 9.0}) == ()
    assert rule.expected({"positive_flips_pp": 1.0}) is None
