"""Rules that say from what is known before training how much a student will learn: few numbers, fitted to transfers.

A rule is a linear function of a few features (`pair_features.py`). Ours; the paper has no such rule.
Shapes: R rows (measured transfers), F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

BASELINE = "accuracy"
"""The rule that every other one has to beat: the most accurate teacher."""
PENALTY = 1.0
"""Of the squares of the coefficients, of features divided by their deviation: like a row for each that speaks for 0."""
LEVEL = 0.95
_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, kw_only=True)
class RuleForm:
    """A rule before it is fitted.

    Attributes:
        name: its name.
        features: names of the features it needs; of a single one more is better, whatever transfers say.
        factor: whether it is one feature times a factor, without a constant; else linear, with one.
        meaning: what it takes for the best teacher, in words.
    """

    name: str
    features: tuple[str, ...]
    factor: bool
    meaning: str


FORMS = (
    RuleForm(
        name=BASELINE,
        features=("delta_acc_pp",),
        factor=False,
        meaning="the most accurate teacher",
    ),
    RuleForm(
        name="headroom",
        features=("headroom_pp",),
        factor=True,
        meaning="the largest headroom of an ensemble with the teacher",
    ),
    RuleForm(
        name="flips",
        features=("positive_flips_pp",),
        factor=True,
        meaning="the most positive flips",
    ),
    RuleForm(
        name="target",
        features=("target_headroom_pp",),
        factor=True,
        meaning="the target that is most often right",
    ),
    RuleForm(
        name="partition",
        features=("taught_positive_pp", "taught_negative_pp"),
        factor=False,
        meaning="the flips that the partition would send to the teacher, positive and negative",
    ),
    RuleForm(
        name="balance",
        features=("positive_flips_pp", "negative_flips_pp", "agreement"),
        factor=False,
        meaning="positive and negative flips and agreement",
    ),
    RuleForm(
        name="calibrated",
        features=("headroom_pp", "student_overconfidence_pp", "teacher_overconfidence_pp"),
        factor=False,
        meaning="headroom, and how far both models' confidences exceed their accuracies",
    ),
    RuleForm(
        name="capacity",
        features=("headroom_pp", "delta_acc_pp", "log10_parameters"),
        factor=False,
        meaning="headroom, difference in accuracy and the student's size",
    ),
)
"""The rules that are tried, the baseline first. Few: of many, one would fit by chance."""


@dataclass(frozen=True, kw_only=True)
class FittedRule:
    """A rule with its numbers.

    Attributes:
        name: name of its form.
        coefficients: name and coefficient of each feature, percentage points of transfer delta for one of the feature.
        intercept: constant term, percentage points.
        ranges: name, least and greatest value of each feature among the transfers that it was fitted to.
        error_pp: root mean square of expected less measured delta over transfers whose student and teacher both had no
            part in the fit; None where there are none to fit to without them.
    """

    name: str
    coefficients: tuple[tuple[str, float], ...]
    intercept: float
    ranges: tuple[tuple[str, float, float], ...]
    error_pp: float | None = None

    def expected(self, features: Mapping[str, float]) -> float | None:
        """The transfer delta to expect, percentage points; None where a feature is not known.

        Args:
            features: features by name.

        Example:
            >>> rule = FittedRule(name="headroom", coefficients=(("headroom_pp", 0.5),), intercept=0.0, ranges=())
            >>> rule.expected({"headroom_pp": 8.0}), rule.expected({})
            (4.0, None)
        """
        if any(name not in features for name, _ in self.coefficients):
            return None
        return self.intercept + sum(coefficient * features[name] for name, coefficient in self.coefficients)

    def order(self, features: Mapping[str, float]) -> tuple[float, float]:
        """What teachers are sorted by, the greater the better: the expected delta, then the first feature.

        Args:
            features: features by name, with all that the rule needs.
        """
        expected = self.expected(features)
        assert expected is not None, "the rule's features are known"
        return expected, features[self.coefficients[0][0]]

    def interval(self, expected: float) -> tuple[float, float] | None:
        """About where 95 % of transfers between new models lie, if they err as those measured: expected ± 1.96 errors.

        Args:
            expected: as `expected` gives it.

        Returns:
            Low and high end, percentage points; None where the error is not known.
        """
        if self.error_pp is None:
            return None
        return expected - _QUANTILE * self.error_pp, expected + _QUANTILE * self.error_pp

    def reaches_beyond(self, features: Mapping[str, float]) -> tuple[str, ...]:
        """The features that lie outside of what the rule was fitted to: there it is a guess."""
        return tuple(name for name, low, high in self.ranges if not low <= features[name] <= high)


@dataclass(frozen=True, kw_only=True)
class RuleScore:
    """How well a rule chose, over measured transfers, each time without those of the student it chose for.

    Attributes:
        name: name of the rule.
        students: number of students with two measured teachers or more.
        regret_pp: delta of the best teacher measured less that of the teacher chosen, mean over students, percentage
            points.
        regret_ci_pp: 95 % interval of it, by a bootstrap over students.
        correlation: rank correlation of expected and measured delta within a student, mean over the students that have
            three teachers or more; None without any.
        correlation_ci: 95 % interval of it, likewise.
        over_all: rank correlation over all transfers; None of fewer than three.
        beats_baseline: whether it surely chose better than the baseline (`rule_scores.measure_rules`).
    """

    name: str
    students: int
    regret_pp: float
    regret_ci_pp: tuple[float, float]
    correlation: float | None
    correlation_ci: tuple[float, float] | None
    over_all: float | None
    beats_baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class RuleTable:
    """Rules fitted to the same transfers, with labels or without, and how well they did.

    Attributes:
        source: the file of transfers, and which rows of it.
        transfers: number of transfers.
        students: number of their students.
        teachers: number of their teachers.
        labelled: whether the features were measured by labels.
        rules: the rules, in the order in which they are preferred: those that beat the baseline, by regret; the
            baseline; the others.
        scores: the score of each rule, in the same order; then those of `random`, any teacher.
    """

    source: str
    transfers: int
    students: int
    teachers: int
    labelled: bool
    rules: tuple[FittedRule, ...]
    scores: tuple[RuleScore, ...]

    def score(self, name: str) -> RuleScore:
        """The score of a rule."""
        return next(one for one in self.scores if one.name == name)


def fit_rule(form: RuleForm, rows: Sequence[Mapping[str, float]], delta_pp_R: Tensor) -> FittedRule | None:
    """Fit a rule to measured transfers.

    A factor is that of least squares, through 0. A linear rule is a ridge regression with `PENALTY` on features in
    units of their standard deviation, and a constant that is free: with few rows, coefficients stay small. Of a single
    feature the coefficient is 0 or more: a rule such as "the most accurate teacher" does not turn round.

    Args:
        form: the rule.
        rows: features of R transfers by name.
        delta_pp_R: their measured transfer deltas, percentage points (R,).

    Returns:
        The rule; None where a feature is missing from a row, or there are no more rows than numbers to fit.

    Example:
        >>> form = next(one for one in FORMS if one.name == "headroom")
        >>> found = fit_rule(form, [{"headroom_pp": 2.0}, {"headroom_pp": 4.0}], torch.tensor([1.0, 2.0]))
        >>> found.coefficients, found.ranges
        ((('headroom_pp', 0.5),), (('headroom_pp', 2.0, 4.0),))
    """
    numbers = len(form.features) + (not form.factor)
    if len(rows) <= numbers or any(name not in row for row in rows for name in form.features):
        return None
    x_RF = torch.tensor([[row[name] for name in form.features] for row in rows], dtype=torch.float64)
    y_R = delta_pp_R.double()
    intercept = 0.0
    if form.factor:
        squares = float(x_RF.square().sum())
        slopes_F = ((x_RF.T @ y_R) / squares if squares > 0 else torch.zeros(1).double()).clamp_min(0)
    else:
        mean_F, scale_F = x_RF.mean(dim=0), x_RF.std(dim=0, correction=0)
        scale_F = torch.where(scale_F > 0, scale_F, 1.0)
        z_RF = (x_RF - mean_F) / scale_F
        gram_FF = z_RF.T @ z_RF + PENALTY * torch.eye(len(form.features), dtype=torch.float64)
        slopes_F = torch.linalg.solve(gram_FF, z_RF.T @ (y_R - y_R.mean())) / scale_F
        slopes_F = slopes_F.clamp_min(0) if len(slopes_F) == 1 else slopes_F
        intercept = float(y_R.mean() - slopes_F @ mean_F)
    return FittedRule(
        name=form.name,
        coefficients=tuple(zip(form.features, slopes_F.tolist(), strict=True)),
        intercept=intercept,
        ranges=tuple(
            (name, float(column_R.min()), float(column_R.max()))
            for name, column_R in zip(form.features, x_RF.T, strict=True)
        ),
    )
