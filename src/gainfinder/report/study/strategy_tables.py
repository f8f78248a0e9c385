"""The paper's Tables 4 and 9: several teachers, one after another, at once, or averaged, beside each of them alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .cells import PP, Omitted, bounded, measured
from .grouping import Arm, Pair, Results, learns_from_itself, mean
from .table import NONE, StudyTable, TableCell, number, words
from .uncertainty import mean_interval

STRATEGIES = ("sequential", "parallel", "soup")


def partition_strategies_table(results: Results) -> StudyTable | Omitted:
    """Table 4: several teachers, one after another, at once, or averaged, beside each alone."""
    arms = [arm for arm in results.arms if learns_from_itself(arm)]
    return _strategies_table(results, arms, number=4, reason="no cells with several teachers and data partitioning")


def vanilla_strategies_table(results: Results) -> StudyTable | Omitted:
    """Table 9: the same by methods without partitioning, of which vanilla KL is the paper's."""
    arms = [arm for arm in results.arms if not learns_from_itself(arm)]
    return _strategies_table(results, arms, number=9, reason="no cells with several teachers and method kl")


def _strategies_table(results: Results, arms: Sequence[Arm], *, number: int, reason: str) -> StudyTable | Omitted:
    groups = [one for one in results.groups if one.arm in arms]
    if not groups:
        return Omitted(label=f"Table {number}", reason=reason)
    found = dict.fromkeys(one.strategy for one in groups)
    strategies = sorted(found, key=lambda one: (STRATEGIES.index(one.split(",")[0]), one))
    rows, totals = [], []
    for arm in arms:
        units = list(strategy_rows(results, arm))
        rows += [_strategy_row(one, arm, strategies) for one in units]
        totals += [_strategy_total(units, arm, strategies)] if units else []
    return StudyTable(
        name=f"table-{number}",
        title=f"Table {number}: several teachers, "
        + ("with data partitioning" if number == 4 else "without data partitioning"),
        columns=("student", "method", "each teacher alone", "best alone", "mean alone", *strategies),
        rows=(*rows, *totals),
        words=3,
        totals=len(totals),
        notes=(
            f"{PP} Last rows: means over the students that have every value of the row, intervals over them (95 %, "
            "bootstrap, 2,000 resamples, seed 0). The best alone is chosen by the labels that measure it, so it is a "
            "little too high.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class StrategyUnit:
    """A student with a set of teachers, in one arm.

    Attributes:
        student: name of the student.
        teachers: names of the teachers.
        alone: Δ_transf from each of them alone; None where it is missing.
        together: the pair of each strategy.
    """

    student: str
    teachers: tuple[str, ...]
    alone: tuple[float | None, ...]
    together: dict[str, Pair]

    @property
    def best(self) -> float | None:
        """The best single teacher's; None unless all are known."""
        known = [one for one in self.alone if one is not None]
        return max(known) if len(known) == len(self.alone) else None

    @property
    def mean(self) -> float | None:
        """The mean of the single teachers; likewise."""
        known = [one for one in self.alone if one is not None]
        return mean(known) if len(known) == len(self.alone) else None


def strategy_rows(results: Results, arm: Arm) -> Iterator[StrategyUnit]:
    """Each student with each set of teachers of an arm."""
    found: dict[tuple[str, str], dict[str, Pair]] = {}
    for group in results.groups:
        if group.arm == arm:
            found.setdefault((group.student, group.teacher), {})[group.strategy] = group
    for (student, _), together in found.items():
        teachers = next(iter(together.values())).sample.teachers
        single = [results.pair(arm, student, teacher) for teacher in teachers]
        alone = tuple(None if one is None else one.delta for one in single)
        yield StrategyUnit(student=student, teachers=teachers, alone=alone, together=together)


def _strategy_row(one: StrategyUnit, arm: Arm, strategies: Sequence[str]) -> tuple[TableCell, ...]:
    alone = zip(one.teachers, one.alone, strict=True)
    return (
        words(one.student),
        words(arm.name),
        words("; ".join(f"{name} {'missing' if delta is None else f'{delta:+.2f}'}" for name, delta in alone)),
        number(one.best, missing="missing"),
        number(one.mean, missing="missing"),
        *(measured(one.together.get(strategy)) for strategy in strategies),
    )


def _strategy_total(units: Sequence[StrategyUnit], arm: Arm, strategies: Sequence[str]) -> tuple[TableCell, ...]:
    there = [name for name in strategies if any(name in unit.together for unit in units)]
    table = [
        [unit.best, unit.mean, *(unit.together[s].delta if s in unit.together else None for s in there)]
        for unit in units
    ]
    complete = [row for row in table if None not in row]
    columns = dict(zip(["best", "mean", *there], zip(*complete, strict=True), strict=True)) if complete else {}
    counted = f"{len(complete)} of {len(units)} students"
    cells = []
    for name in ("best", "mean", *strategies):
        values = [float(one) for one in columns.get(name, ()) if one is not None]
        cells.append(bounded(mean(values), mean_interval(values)) if values else words(NONE))
    return (words("mean"), words(arm.name), words(counted), *cells)
