"""How well rules choose teachers: fitted to measured transfers without one model at a time, and asked about that model.

Ours; the paper has no such measure. Shapes: S students, B resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .rules import BASELINE, FORMS, LEVEL, FittedRule, RuleForm, RuleScore, RuleTable, fit_rule
from .tracking import rank_correlation

ANY = "random"
"""Any teacher, as the score of a rule."""
FEWEST_STUDENTS = 5
"""Of fewer, a bootstrap over students tells nothing."""
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class MeasuredTransfer:
    """A transfer that was made, and what was known before.

    Attributes:
        student: name of the student.
        teacher: name of the teacher.
        features: features by name.
        delta_pp: its transfer delta, percentage points.
    """

    student: str
    teacher: str
    features: Mapping[str, float]
    delta_pp: float


def measure_rules(
    transfers: Sequence[MeasuredTransfer], *, source: str, labelled: bool, forms: Sequence[RuleForm] = FORMS
) -> RuleTable:
    """Fit rules to transfers and tell how well they choose for a student that they do not know.

    For each student all transfers in which it is student or teacher are left out of the fit. A rule beats the baseline
    if its regret is surely smaller, or if it is no larger and the rank correlation is surely greater: if the interval
    of the difference, a bootstrap over the students at a level of 1 − 5 % / number of rules, does not hold 0. Of fewer
    than `FEWEST_STUDENTS` students nothing is sure.

    Args:
        transfers: the transfers, at most one for each student and teacher.
        source: what they are, for the table.
        labelled: whether their features were measured by labels.
        forms: the rules, the baseline among them. One that needs what a transfer does not have is left out.

    Raises:
        ValueError: no student has two teachers or more, or there are too few transfers to fit the baseline.
    """
    tried = [(form, found) for form in forms if (found := _choices(transfers, _fitting(form))) is not None]
    baseline = next((found for form, found in tried if form.name == BASELINE), None)
    if baseline is None or not baseline.regrets:
        raise ValueError(f"{source}: expected a student with two teachers, and others to fit the rules to")
    rules: dict[str, FittedRule] = {}
    scores: dict[str, RuleScore] = {}
    for form, found in tried:
        rule = fit_rule(form, [one.features for one in transfers], _deltas(transfers))
        assert rule is not None, "there are more transfers than without one model"
        rules[form.name] = replace(rule, error_pp=_error_pp(transfers, form))
        better = form.name != BASELINE and _beats(found, baseline, rules=len(tried) - 1)
        scores[form.name] = replace(_score(form.name, found), beats_baseline=better)
    names = sorted(rules, key=lambda name: _preference(scores[name]))
    return RuleTable(
        source=source,
        transfers=len(transfers),
        students=len({one.student for one in transfers}),
        teachers=len({one.teacher for one in transfers}),
        labelled=labelled,
        rules=tuple(rules[name] for name in names),
        scores=(*(scores[name] for name in names), _score(ANY, _any_teacher(transfers))),
    )


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """What came of a rule's choices, by student; and the correlation over all transfers."""

    regrets: Mapping[str, float]
    correlations: Mapping[str, float]
    over_all: float | None


def _choices(
    transfers: Sequence[MeasuredTransfer], fit: Callable[[Sequence[MeasuredTransfer]], FittedRule | None]
) -> _Choices | None:
    """A rule's choices for each student; None where it cannot be fitted without one."""
    regrets, correlations, expected, measured = {}, {}, [], []
    for student in dict.fromkeys(one.student for one in transfers):
        own = [one for one in transfers if one.student == student]
        rule = fit(_without(transfers, student))
        if rule is None:
            return None
        orders = [rule.order(one.features) for one in own]
        deltas = [one.delta_pp for one in own]
        expected += [order[0] for order in orders]
        measured += deltas
        if len(own) > 1:
            regrets[student] = max(deltas) - deltas[orders.index(max(orders))]
        places = torch.tensor([sorted(orders).index(order) for order in orders])
        alike = rank_correlation(places, torch.tensor(deltas))
        if alike is not None:
            correlations[student] = alike
    return _Choices(
        regrets=regrets,
        correlations=correlations,
        over_all=rank_correlation(torch.tensor(expected), torch.tensor(measured)),
    )


def _any_teacher(transfers: Sequence[MeasuredTransfer]) -> _Choices:
    regrets = {}
    for student in dict.fromkeys(one.student for one in transfers):
        deltas = [one.delta_pp for one in transfers if one.student == student]
        if len(deltas) > 1:
            regrets[student] = max(deltas) - sum(deltas) / len(deltas)
    return _Choices(regrets=regrets, correlations={}, over_all=None)


def _fitting(form: RuleForm) -> Callable[[Sequence[MeasuredTransfer]], FittedRule | None]:
    return lambda known: fit_rule(form, [one.features for one in known], _deltas(known))


def _without(transfers: Sequence[MeasuredTransfer], *models: str) -> list[MeasuredTransfer]:
    return [one for one in transfers if one.student not in models and one.teacher not in models]


def _deltas(transfers: Sequence[MeasuredTransfer]) -> Tensor:
    return torch.tensor([one.delta_pp for one in transfers], dtype=torch.float64)


def _error_pp(transfers: Sequence[MeasuredTransfer], form: RuleForm) -> float | None:
    """Root mean square error, each transfer without all others of its student and of its teacher."""
    errors = []
    for one in transfers:
        rule = _fitting(form)(_without(transfers, one.student, one.teacher))
        expected = None if rule is None else rule.expected(one.features)
        if expected is not None:
            errors.append(expected - one.delta_pp)
    return (sum(error**2 for error in errors) / len(errors)) ** 0.5 if errors else None


def _score(name: str, found: _Choices) -> RuleScore:
    regrets, correlations = [*found.regrets.values()], [*found.correlations.values()]
    return RuleScore(
        name=name,
        students=len(regrets),
        regret_pp=sum(regrets) / len(regrets),
        regret_ci_pp=bootstrap_mean(regrets, level=LEVEL),
        correlation=sum(correlations) / len(correlations) if correlations else None,
        correlation_ci=bootstrap_mean(correlations, level=LEVEL) if correlations else None,
        over_all=found.over_all,
    )


def _beats(found: _Choices, baseline: _Choices, *, rules: int) -> bool:
    """Whether a rule chooses surely better; see `measure_rules`."""
    level = 1 - (1 - LEVEL) / rules
    regrets = [found.regrets[student] - baseline.regrets[student] for student in found.regrets]
    both = found.correlations.keys() & baseline.correlations.keys()
    correlations = [found.correlations[one] - baseline.correlations[one] for one in found.correlations if one in both]
    if len(regrets) >= FEWEST_STUDENTS and bootstrap_mean(regrets, level=level)[1] < 0:
        return True
    enough = len(correlations) >= FEWEST_STUDENTS and sum(regrets) <= 0
    return enough and bootstrap_mean(correlations, level=level)[0] > 0


def bootstrap_mean(values: Sequence[float], *, level: float) -> tuple[float, float]:
    """Percentile interval of a mean, by a bootstrap of a fixed seed.

    Args:
        values: S numbers, 1 or more.
        level: between 0 and 1, both excluded.

    Returns:
        Low and high end.

    Example:
        >>> bootstrap_mean([2.0, 2.0, 2.0], level=0.95)
        (2.0, 2.0)
    """
    values_S = torch.tensor(values, dtype=torch.float64)
    drawn_BS = torch.randint(len(values), (RESAMPLES, len(values)), generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values_S[drawn_BS].mean(dim=1).quantile(ends).tolist()
    return low, high


def _preference(score: RuleScore) -> tuple[int, float]:
    """Those that beat the baseline first, by regret; the baseline; then the others, by regret."""
    place = 0 if score.beats_baseline else 1 if score.name == BASELINE else 2
    return place, score.regret_pp
