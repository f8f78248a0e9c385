"""A study's rows, grouped: arms, and of each the pairs of a student with a teacher, their seeds averaged."""

import functools
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ...config import find_method
from ...predictions import IMAGE
from ...study import StudyRow
from .uncertainty import Array

DELTA = "transfer_delta_pp"
Value = TypeVar("Value")
_ArmKey = tuple[str, str, bool, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What distinguishes transfers of the same student, teachers and images, seeds and strategies aside.

    Attributes:
        name: its name in tables and figures, unique in the study.
        variant: name of the variant; empty where the study has none.
        method: name of the method.
        supervised: whether training may read labels.
        axes: the values of the study's other axes.
    """

    name: str
    variant: str
    method: str
    supervised: bool
    axes: tuple[tuple[str, str], ...] = ()

    @property
    def recipe(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What an arm has beside its method: arms that agree in it differ in the method alone."""
        return self.variant.replace(self.method, "\0", 1), self.axes


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A student with its teacher, or several, in one arm: cells that differ in the seed alone.

    Attributes:
        arm: the arm.
        data: name of the images.
        student: name of the student.
        teacher: name of the teacher; of several, joined.
        strategy: strategy of several teachers, and their order where it is not `ascending`; empty with one.
        cells: a row a seed.
    """

    arm: Arm
    data: str
    student: str
    teacher: str
    strategy: str = ""
    cells: tuple[StudyRow, ...]

    @functools.cached_property
    def known(self) -> tuple[StudyRow, ...]:
        """The cells that are done and measured with labels."""
        return tuple(one for one in self.cells if one.state == "done" and one.transfer_delta_pp is not None)

    @property
    def state(self) -> str:
        """Why there is no value: `running`, `failed`, `missing` or `no labels`; `done` where there is one."""
        if self.known:
            return "done"
        states = {one.state for one in self.cells}
        return next((one for one in ("running", "failed", "missing") if one in states), "no labels")

    @property
    def sample(self) -> StudyRow:
        """A cell: a done one where there is any."""
        return (self.known or self.cells)[0]

    @property
    def delta(self) -> float | None:
        """Δ_transf, the mean over seeds, percentage points."""
        return self.mean(DELTA)

    def mean(self, measure: str) -> float | None:
        """The mean of a field of the rows over the seeds that are done; None where none has it."""
        values = [getattr(one, measure) for one in self.known]
        found = [float(one) for one in values if one is not None]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True, kw_only=True)
class Results:
    """All pairs of a study on one data set.

    Attributes:
        data: name of the images.
        arms: the arms, in the study's order.
        students: names of the students, likewise.
        teachers: names of single teachers, likewise.
        pairs: pairs with a single teacher that is not the student itself.
        groups: students with several teachers.
        own: students that learn from their own copy, a control.
        families: the family of each model.
    """

    data: str
    arms: tuple[Arm, ...]
    students: tuple[str, ...]
    teachers: tuple[str, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[Pair, ...] = ()
    own: tuple[Pair, ...] = ()
    families: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def noun(self) -> str:
        """What a sample is, as far as any cell is done: `image` or `text`."""
        cells = (cell for pair in (*self.pairs, *self.groups, *self.own) for cell in pair.cells)
        return next((cell.noun for cell in cells if cell.noun != IMAGE), IMAGE)

    @functools.cached_property
    def _by_arm(self) -> dict[Arm, dict[tuple[str, str], Pair]]:
        found: dict[Arm, dict[tuple[str, str], Pair]] = {arm: {} for arm in self.arms}
        for pair in self.pairs:
            found[pair.arm][pair.student, pair.teacher] = pair
        return found

    @functools.cached_property
    def _matrices(self) -> dict[tuple[Arm, str], Array]:
        return {}

    def of(self, arm: Arm, *, student: str | None = None) -> list[Pair]:
        """The pairs of an arm, done or not; of one student where it is named."""
        return [one for one in self._by_arm[arm].values() if student in (None, one.student)]

    def pair(self, arm: Arm, student: str, teacher: str) -> Pair | None:
        """A pair; None where the study does not have it."""
        return self._by_arm[arm].get((student, teacher))

    def matrix(self, arm: Arm, measure: str = DELTA) -> Array:
        """A measure of all pairs of an arm.

        Returns:
            float (S, T), a row a student and a column a teacher; NaN where a pair is missing or has no such measure. It
            is the same array each time and cannot be written to.
        """
        if (arm, measure) in self._matrices:
            return self._matrices[arm, measure]
        found = np.full((len(self.students), len(self.teachers)), np.nan)
        row = {name: i for i, name in enumerate(self.students)}
        column = {name: i for i, name in enumerate(self.teachers)}
        for pair in self.of(arm):
            value = pair.mean(measure)
            if value is not None:
                found[row[pair.student], column[pair.teacher]] = value
        found.flags.writeable = False
        self._matrices[arm, measure] = found
        return found

    def success(self, arm: Arm) -> Array:
        """1 for a pair whose Δ_transf is above 0, else 0; as `matrix`."""
        return above_zero(self.matrix(arm))

    def arms_of(self, *methods: str) -> list[Arm]:
        """The arms with a method of these names."""
        return [arm for arm in self.arms if arm.method in methods]

    def matched(self, first: str, second: str) -> Iterator[tuple[Arm, Arm]]:
        """Arms of two methods that agree in all else; where none do, each with each."""
        each = list(itertools.product(self.arms_of(first), self.arms_of(second)))
        yield from [(a, b) for a, b in each if a.recipe == b.recipe] or each


def above_zero(values: Array) -> Array:
    """1 where a value is above 0, strictly, 0 where it is not, NaN where there is none."""
    return np.where(np.isnan(values), np.nan, (values > 0).astype(float))


def group_rows(rows: Sequence[StudyRow]) -> dict[str, Results]:
    """The rows of a study by data set, in the study's order."""
    arms = _arms(rows)
    found: dict[tuple[str, Arm, str, str, str], list[StudyRow]] = {}
    for row in rows:
        strategy = _strategy(row)
        found.setdefault((row.data, arms[_arm_key(row)], row.student, row.teacher, strategy), []).append(row)
    pairs = [
        Pair(arm=arm, data=data, student=student, teacher=teacher, strategy=strategy, cells=tuple(cells))
        for (data, arm, student, teacher, strategy), cells in found.items()
    ]
    families = {row.student: row.student_family for row in rows}
    families |= {row.teacher: row.teacher_family for row in rows if row.teacher_count == 1}
    names = dict.fromkeys(row.data for row in rows)
    return {name: _results(name, [one for one in pairs if one.data == name], families) for name in names}


def learns_from_itself(arm: Arm) -> bool:
    """Whether the frozen initial student is among the models that teach, by a partition or a pool."""
    return find_method(arm.method).needs_initial_student


def _results(data: str, pairs: Sequence[Pair], families: Mapping[str, str]) -> Results:
    single = [one for one in pairs if one.sample.teacher_count == 1]
    others = [one for one in single if one.student != one.teacher]
    return Results(
        data=data,
        arms=_once(one.arm for one in pairs),
        students=_once(one.student for one in pairs),
        teachers=_once(one.teacher for one in others),
        pairs=tuple(others),
        groups=tuple(one for one in pairs if one.sample.teacher_count > 1),
        own=tuple(one for one in single if one.student == one.teacher),
        families=families,
    )


def _once(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(values))


def _arm_key(row: StudyRow) -> _ArmKey:
    return row.variant, row.method, row.supervised, tuple(sorted(row.axes.items()))


def _arms(rows: Sequence[StudyRow]) -> dict[_ArmKey, Arm]:
    """The arms by what makes them, with names that differ."""
    keys = _once(map(_arm_key, rows))
    values: dict[str, set[str]] = {}
    for key in keys:
        for name, value in key[3]:
            values.setdefault(name, set()).add(value)
    plain = {key: _plain_name(key, values) for key in keys}
    for addition in (lambda key: key[1], lambda key: "labels" if key[2] else "no labels"):
        taken = list(plain.values())
        plain = {
            key: f"{name}, {addition(key)}" if taken.count(name) > 1 and addition(key) != name else name
            for key, name in plain.items()
        }
    return {
        key: Arm(name=name, variant=key[0], method=key[1], supervised=key[2], axes=key[3])
        for key, name in plain.items()
    }


def _plain_name(key: _ArmKey, values: Mapping[str, set[str]]) -> str:
    varying = [f"{name} {value}" for name, value in key[3] if len(values[name]) > 1]
    return ", ".join([key[0] or key[1], *varying])


def _strategy(row: StudyRow) -> str:
    if row.strategy is None:
        return ""
    plain = row.strategy != "sequential" or row.order in (None, "ascending")
    return row.strategy if plain else f"{row.strategy}, {row.order}"


def mean(values: Sequence[float]) -> float:
    """The mean of one value or more."""
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None
