"""Which models of a zoo to learn from, and how much to expect, before any training.

A rule that was fitted to measured transfers (`rules.py`, `rule_table.py`) says it from what is known of each pair.
Where none was measured to choose better than the most accurate teacher, that is the rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config import RULES, Rule
from ..errors import SettingsError
from ..predictions import IMAGE
from ..references import suggest
from .pair_features import PairFeatures, measure_pair
from .pairs import PredictedClasses, chosen_teachers, same_samples
from .rule_scores import FEWEST_STUDENTS
from .rule_table import TABLES
from .rules import BASELINE, FORMS, FittedRule, RuleScore, RuleTable
from .scanned import ScanFailure, TeacherChoice
from .stand_ins import pooled_probs


@dataclass(frozen=True, kw_only=True)
class RankedTeacher:
    """A teacher, what to expect of it, and what that is expected from.

    Attributes:
        teacher: reference of the teacher.
        expected_delta_pp: the transfer delta to expect, percentage points.
        interval_pp: where about 95 % of such transfers lie, if they err as those measured did; None where that is not
            known.
        reaches_beyond: features that the rule was not fitted to values like these of: the expectation is a guess there.
        features: what is known of student and teacher; by labels, or estimated without.
    """

    teacher: str
    expected_delta_pp: float
    interval_pp: tuple[float, float] | None
    reaches_beyond: tuple[str, ...]
    features: PairFeatures


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Teachers for one student, the best first.

    Attributes:
        student: reference of the student.
        student_accuracy: its accuracy; an estimate without labels.
        parameters: number of its weights; None where only predictions are known.
        samples: number of images.
        noun: what a sample is: `image` or `text`.
        labelled: whether these carry labels; without, all is estimated by the models together.
        rule: the rule that was used, with its numbers.
        meaning: what the rule takes for the best teacher, in words.
        score: how well it was measured to choose.
        baseline: likewise of the baseline, the most accurate teacher.
        source: the transfers that both were measured on.
        transfers: their number.
        teachers: the teachers.
        chosen: those that are best together, where a number was asked for, by a greedy choice (`ensembles.py`).
        failed: models that were left out.
        broken: `where: reason` of each image that could not be decoded.
    """

    student: str
    student_accuracy: float
    parameters: int | None
    samples: int
    noun: str
    labelled: bool
    rule: FittedRule
    meaning: str
    score: RuleScore
    baseline: RuleScore
    source: str
    transfers: int
    teachers: tuple[RankedTeacher, ...]
    chosen: tuple[TeacherChoice, ...] = ()
    failed: tuple[ScanFailure, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def best(self) -> RankedTeacher:
        """The first teacher."""
        return self.teachers[0]

    @property
    def advice(self) -> str:
        """What to do, in one line."""
        best = self.best
        expected = f"{best.expected_delta_pp:+.1f} pp"
        if best.interval_pp is not None:
            expected += f" ({best.interval_pp[0]:+.1f} to {best.interval_pp[1]:+.1f})"
        if best.expected_delta_pp <= 0:
            return f"Learn from none of them: from the first, {best.teacher}, expect {expected}."
        unsure = best.interval_pp is None or best.interval_pp[0] <= 0
        doubt = "; whether it gains anything only a transfer with a guard tells" if unsure else ""
        return f"Learn from {best.teacher}: expect {expected}{doubt}."

    @property
    def basis(self) -> str:
        """By which rule, and how well it did, in a few words."""
        one, others = self.score, self.baseline
        did = f"its choice was {one.regret_pp:.2f} pp below the best teacher on average"
        did += "" if one.correlation is None else f", rank correlation {one.correlation:.2f}"
        if one.students < FEWEST_STUDENTS and self.rule.name == BASELINE:
            why = f"too few students were measured to tell whether another rule chooses better; {did}"
        elif self.rule.name == BASELINE:
            why = f"no other rule was measured to choose surely better; {did}"
        elif one.beats_baseline:
            why = f"measured to choose better than the most accurate teacher; {did}, of that one {others.regret_pp:.2f}"
        else:
            why = f"not measured to choose better than the most accurate; {did}, of that one {others.regret_pp:.2f}"
        measured = f"{self.transfers} transfers, {one.students} students with a choice, each without its own model"
        return f"By {self.meaning}: {why} ({measured}; {self.source})."

    def to_dict(self) -> dict[str, Any]:
        """The ranking as plain values, as `--json` prints it."""
        values = asdict(self)
        if self.noun == IMAGE:
            del values["noun"]
        return {**values, "advice": self.advice, "basis": self.basis}


def rank_predictions(
    models: Sequence[PredictedClasses],
    *,
    num_classes: int,
    student: str,
    parameters: int | None = None,
    by: Rule | None = None,
    choose: int | None = None,
    tables: Sequence[RuleTable] = TABLES,
) -> Ranking:
    """Rank the other models as teachers of one.

    The rule is the first of the table whose features are known for all teachers. Between equal teachers that of more of
    the rule's first feature comes first, then the one named first.

    Args:
        models: two or more models' predictions of the same images.
        num_classes: number of classes.
        student: reference of the student, one of the models.
        parameters: number of the student's weights; None where it is unknown.
        by: name of the rule to use; None for the best that is known.
        choose: number of teachers to choose that are best together, at most; None for no such choice.
        tables: rules with their numbers, with labels and without.

    Raises:
        DataError: the images or their labels differ.
        SettingsError: the student is none of the models, there is no such rule, or it needs what is not known.
    """
    same_samples(models)
    names, target_N = [one.model for one in models], models[0].target
    if student not in names:
        raise SettingsError(
            f"student is {student!r}, which is none of the {len(names)} models that could be compared"
            f"{suggest(student, names)}"
        )
    answers = {one.model: one.answers for one in models}
    truth = pooled_probs([*answers.values()], num_classes) if target_N is None else target_N
    found = {
        name: measure_pair(answers[student], other, truth, parameters=parameters)
        for name, other in answers.items()
        if name != student
    }
    table = next(one for one in tables if one.labelled is (target_N is not None))
    rule = _rule(table, [one.values() for one in found.values()], by)
    ranked = sorted(found.items(), key=lambda one: rule.order(one[1].values()), reverse=True)
    return Ranking(
        student=student,
        student_accuracy=ranked[0][1].student_accuracy,
        parameters=parameters,
        samples=len(models[0].ids),
        noun=models[0].noun,
        labelled=target_N is not None,
        rule=rule,
        meaning=next(form.meaning for form in FORMS if form.name == rule.name),
        score=table.score(rule.name),
        baseline=table.score(BASELINE),
        source=table.source,
        transfers=table.transfers,
        teachers=tuple(_ranked(name, features, rule) for name, features in ranked),
        chosen=()
        if choose is None
        else chosen_teachers(names, [*answers.values()], target_N, num_classes, student=student, most=choose),
        broken=models[0].broken,
    )


def _rule(table: RuleTable, known: Sequence[Mapping[str, float]], by: Rule | None) -> FittedRule:
    """The rule asked for, or the first that can be used."""
    if by is None:
        return next(one for one in table.rules if all(one.expected(features) is not None for features in known))
    rule = next((one for one in table.rules if one.name == by), None)
    if by not in RULES:
        raise SettingsError(f"there is no rule {by!r}{suggest(by, RULES)}; expected one of {', '.join(RULES)}")
    if rule is None:
        raise SettingsError(f"the rule {by!r} is not fitted: the measured transfers lack what it needs")
    lacking = sorted({name for name, _ in rule.coefficients for features in known if name not in features})
    if lacking:
        raise SettingsError(f"the rule {by!r} needs {', '.join(lacking)}, which is not known of these models")
    return rule


def _ranked(name: str, features: PairFeatures, rule: FittedRule) -> RankedTeacher:
    values = features.values()
    expected = rule.order(values)[0]
    return RankedTeacher(
        teacher=name,
        expected_delta_pp=expected,
        interval_pp=rule.interval(expected),
        reaches_beyond=rule.reaches_beyond(values),
        features=features,
    )
