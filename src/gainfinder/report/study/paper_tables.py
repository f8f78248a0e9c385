"""The paper's Tables 1, 2, 3, 7 and 8: what single teachers gave, by student, method and pair."""

import numpy as np

from .cells import (
    MODELS,
    PP,
    SPREAD,
    Omitted,
    bounded,
    delta_cell,
    mean_cell,
    measured,
    over_teachers,
    percent,
    slug,
    total,
)
from .grouping import Arm, Results, learns_from_itself
from .overview import share_of
from .table import StudyTable, TableCell, number, words
from .uncertainty import Array


def student_table(results: Results) -> StudyTable | Omitted:
    """Table 1: Δ_transf over teachers by student and method."""
    arms = [arm for arm in results.arms if results.of(arm)]
    if not arms:
        return Omitted(label="Table 1", reason="no cells with a single teacher")
    means = [share_of(results.matrix(arm), planned=len(results.of(arm))) for arm in arms]
    success = [share_of(results.success(arm), planned=len(results.of(arm))) for arm in arms]
    blank = (words(""),) * 3
    return StudyTable(
        name="table-1",
        title="Table 1: transfer delta by student and method",
        columns=("student", "family", "parameters M", "accuracy %", *(arm.name for arm in arms)),
        rows=(
            *(
                (*about(results, student), *(over_teachers(results.of(arm, student=student)) for arm in arms))
                for student in results.students
            ),
            (words("all pairs"), *blank, *map(total, means)),
            (words("success, all pairs"), *blank, *(bounded(one.value, one.interval, "{:.0%}") for one in success)),
        ),
        words=2,
        totals=2,
        notes=(f"{PP} {SPREAD}. All pairs: mean, interval, number of pairs. {MODELS}",),
    )


def examples_table(results: Results) -> StudyTable | Omitted:
    """Table 2: each student with the strongest and with the weakest of its teachers."""
    strength = strengths(results)
    arms = [arm for arm in results.arms if learns_from_itself(arm) and results.of(arm)]
    rows = []
    for student in results.students:
        known = {teacher: strength[student, teacher] for teacher in results.teachers if (student, teacher) in strength}
        stronger = [one for one in known if known[one] > 0]
        weaker = [one for one in known if known[one] < 0]
        if not stronger or not weaker:
            continue
        for arm in arms:
            row = [words(student), words(arm.name)]
            for teacher in (max(stronger, key=known.__getitem__), min(weaker, key=known.__getitem__)):
                row += [words(teacher), number(known[teacher]), measured(results.pair(arm, student, teacher))]
            rows.append(tuple(row))
    if not rows:
        return Omitted(
            label="Table 2",
            reason="no student with a stronger and a weaker teacher by a method that partitions the data",
        )
    return StudyTable(
        name="table-2",
        title="Table 2: students with a stronger and a weaker teacher",
        columns=("student", "method", "stronger teacher", "Δ_acc", "Δ_transf", "weaker teacher", "Δ_acc", "Δ_transf"),
        rows=tuple(rows),
        words=2,
        notes=(
            "Of each student's teachers the strongest above it and the weakest below it, whatever they gave. "
            f"{PP} Intervals in brackets: 95 %, over the {results.noun}s measured on; of several seeds the mean of "
            "their ends.",
        ),
    )


def labels_table(results: Results) -> StudyTable | Omitted:
    """Table 3: a partition with labels beside the same without."""
    names = {arm.method for arm in results.arms}
    matched = [pair for name in sorted(names) if f"{name}-u" in names for pair in results.matched(name, f"{name}-u")]
    matched = [(one, other) for one, other in matched if results.of(one) and results.of(other)]
    if not matched:
        return Omitted(label="Table 3", reason="no cells of a method with labels (kl-dp) and without (kl-dp-u)")
    rows: list[tuple[TableCell, ...]] = []
    totals = []
    for with_labels, without in matched:
        first_ST, second_ST = results.matrix(with_labels), results.matrix(without)
        name = words(f"{with_labels.name} and {without.name}")
        for i, student in enumerate(results.students):
            ours, others = results.of(with_labels, student=student), results.of(without, student=student)
            if ours or others:
                difference = share_of((second_ST - first_ST)[i : i + 1], planned=min(len(ours), len(others)))
                rows.append((words(student), name, over_teachers(ours), over_teachers(others), total(difference)))
        difference = share_of(second_ST - first_ST, planned=len(results.of(without)))
        shares = [
            share_of(m, planned=len(results.of(arm))) for m, arm in ((first_ST, with_labels), (second_ST, without))
        ]
        totals.append((words("all pairs"), name, *map(total, (*shares, difference))))
    return StudyTable(
        name="table-3",
        title="Table 3: data partitioning with labels and without",
        columns=("student", "methods", "supervised", "unsupervised", "unsupervised − supervised"),
        rows=(*rows, *totals),
        words=2,
        totals=len(totals),
        notes=(
            f"{PP} {SPREAD}. Difference: on the teachers that both have; its interval of a "
            f"student is over teachers. {MODELS}",
        ),
    )


def pair_tables(results: Results) -> list[StudyTable | Omitted]:
    """Table 7: Δ_transf pair by pair, a table a method."""
    arms = [arm for arm in results.arms if results.of(arm)]
    if not arms:
        return [Omitted(label="Table 7", reason="no cells with a single teacher")]
    return [_pair_table(results, arm) for arm in arms]


def _pair_table(results: Results, arm: Arm) -> StudyTable:
    teachers = [one for one in results.teachers if any(pair.teacher == one for pair in results.of(arm))]
    students = [one for one in results.students if results.of(arm, student=one)]
    several = max((len(pair.cells) for pair in results.of(arm)), default=1) > 1
    return StudyTable(
        name=f"table-7-{slug(arm.name)}",
        title=f"Table 7: transfer delta pair by pair, {arm.name}",
        columns=("student", *teachers, "over teachers"),
        rows=tuple(
            (
                words(student),
                *(delta_cell(results.pair(arm, student, teacher)) for teacher in teachers),
                over_teachers(results.of(arm, student=student)),
            )
            for student in students
        ),
        notes=(
            f"{PP} Columns are teachers; · is no pair of the study. Over teachers: {SPREAD}."
            + (" Mean over seeds ± their standard deviation." if several else ""),
        ),
    )


def flips_table(results: Results) -> StudyTable | Omitted:
    """Table 8: how positive and negative flips change."""
    rows: list[tuple[TableCell, ...]] = []
    for arm in results.arms:
        positive_ST = results.matrix(arm, "positive_flips_after") - results.matrix(arm, "positive_flips")
        negative_ST = results.matrix(arm, "negative_flips_after") - results.matrix(arm, "negative_flips")
        if np.isnan(positive_ST).all():
            continue
        for i, student in enumerate(results.students):
            planned = len(results.of(arm, student=student))
            if planned:
                changes = (change(positive_ST[i], planned=planned), change(negative_ST[i], planned=planned))
                rows.append((words(student), words(arm.name), *changes))
        rows.append((words("all pairs"), words(arm.name), *(
            total(share_of(100 * one, planned=len(results.of(arm)))) for one in (positive_ST, negative_ST)
        )))  # fmt: skip
    if not rows:
        return Omitted(label="Table 8", reason="no finished cells whose teacher's predictions are known")
    return StudyTable(
        name="table-8",
        title="Table 8: change of positive and negative flips between teacher and student, after less before",
        columns=("student", "method", "Δρ_pos", "Δρ_neg"),
        rows=tuple(rows),
        words=2,
        notes=(
            f"In percentage points of all {results.noun}s. ρ_pos: teacher right, student wrong; ρ_neg: the other way "
            f"round. {SPREAD}. {MODELS}",
        ),
    )


def strengths(results: Results) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for pair in results.pairs:
        value = pair.mean("delta_acc_pp")
        if value is not None:
            found.setdefault((pair.student, pair.teacher), value)
    return found


def about(results: Results, student: str) -> tuple[TableCell, ...]:
    cells = [cell for pair in results.pairs if pair.student == student for cell in pair.known]
    parameters = next((cell.parameters for cell in cells if cell.parameters is not None), None)
    accuracy = next((cell.accuracy_before for cell in cells if cell.accuracy_before is not None), None)
    return (
        words(student),
        words(results.families.get(student, "")),
        number(None if parameters is None else parameters / 1e6, "{:.2f}"),
        number(percent(accuracy), "{:.2f}"),
    )


def change(values_T: Array, *, planned: int) -> TableCell:
    return mean_cell((100 * values_T[~np.isnan(values_T)]).tolist(), planned=planned)
