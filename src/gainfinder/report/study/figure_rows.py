"""The rows that the figures draw: means with their intervals and numbers, of a study's pairs and of the authors'.

Every row says in `about` what its mark is. Shares are in [0, 1], names that end in `_pp` are percentage points.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...config import find_method
from ...study import EpochRow, StudyRow
from .grouping import Arm, Pair, Results, mean
from .overview import ArmSummary, share_of
from .published_results import TEACHERS, PublishedStudent, published_of
from .table import formatted
from .uncertainty import Array, Range, mean_interval, top_mean_interval

Row = dict[str, Any]
BINS = 8
TOP = 0.25
"""Share of a bin's pairs, the best ones, whose mean the paper shows."""
TOP_CLASSES = (2, 5, 20, 50, 100)
HERE, AUTHORS = "this study", "the authors"
TOP_MEAN, PLAIN_MEAN = "mean of the best 25 %", "mean of all"
ALIKE_ACCURACY_PP = 2.0
"""Students that differ by no more are alike in accuracy."""
ALIKE_SIZE = 1.5
"""Students are alike in size where the larger has no more than so many times the smaller's weights."""


def kind_of(method: str) -> str:
    """What the paper tells methods apart by: `features`, `retention` (continual learning) or `distillation`."""
    found = find_method(method)
    if found.needs_features:
        return "features"
    return "retention" if found.interpolated or found.needs_initial_student else "distillation"


def success_rows(summaries: Sequence[ArmSummary]) -> tuple[list[Row], list[Row]]:
    """Success rates over students (Fig. 4a, Fig. 6), each method's followed by the authors'.

    Returns:
        A row a box, and a row a student.
    """
    boxes, points = [], []
    for one in summaries:
        label, kind = one.arm.name, kind_of(one.arm.method)
        if one.student_success:
            boxes.append(_box(label, kind, HERE, one.student_success) | _mean_of_pairs(label, one))
            points += [_point(label, kind, HERE, *item) for item in one.student_success.items()]
        theirs = {student.student: student.success for student in published_of(one.arm.method)}
        if theirs and not any(box["label"] == _of_authors(one.arm.method) for box in boxes):
            theirs_label = _of_authors(one.arm.method)
            share, pairs = mean(list(theirs.values())), TEACHERS * len(theirs)
            low, high = mean_interval(list(theirs.values())) or (None, None)
            box = _box(theirs_label, kind, AUTHORS, theirs)
            about = f"{theirs_label}: {share:.1%} of {pairs} pairs"
            boxes.append(box | {"mean": share, "mean_low": low, "mean_high": high, "pairs": pairs, "planned": pairs,
                                "about_mean": about})  # fmt: skip
            points += [_point(theirs_label, kind, AUTHORS, *item) for item in theirs.items()]
    return boxes, points


def _of_authors(method: str) -> str:
    return f"{method}, authors"


def _box(label: str, kind: str, source: str, rates: dict[str, float]) -> Row:
    values = np.array(list(rates.values()))
    low, q1, median, q3, high = (float(one) for one in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return {
        "label": label, "kind": kind, "source": source, "lowest": low, "q1": q1, "median": median, "q3": q3,
        "highest": high, "students": len(values),
        "about": f"{label}: median {median:.1%} over {len(values)} students, quartiles {q1:.1%} and {q3:.1%}",
    }  # fmt: skip


def _mean_of_pairs(label: str, one: ArmSummary) -> Row:
    low, high = one.success.interval or (None, None)
    text = f"{label}: {one.success.value:.1%} of {one.success.counted} pairs" + _told(one.success.interval, "{:.1%}")
    return {
        "mean": one.success.value, "mean_low": low, "mean_high": high, "pairs": one.success.pairs,
        "planned": one.success.planned, "about_mean": text,
    }  # fmt: skip


def _point(label: str, kind: str, source: str, student: str, rate: float) -> Row:
    return {"label": label, "kind": kind, "source": source, "student": student, "success": rate,
            "about": f"{student}, {label}: {rate:.1%} of its teachers"}  # fmt: skip


def binned_rows(results: Results, arms: Iterable[Arm]) -> list[Row]:
    """Δ_transf in bins of equal width by Δ_acc (Fig. 4b, 9, 10): mean of the best quarter of each, and of all.

    Eight bins over the range of all arms' pairs; a value at an inner edge belongs to the bin above. Of n pairs the best
    quarter are ⌈n/4⌉. Intervals: bootstrap over a bin's pairs.
    """
    arms = list(arms)
    pairs = {
        arm: [one for one in results.of(arm) if one.delta is not None and _strength(one) is not None] for arm in arms
    }
    strengths = [_strength(one) for found in pairs.values() for one in found]
    if not strengths or min(strengths) == max(strengths):
        return []
    edges = np.linspace(min(strengths), max(strengths), BINS + 1)
    rows: list[Row] = []
    for arm, found in pairs.items():
        deltas = np.array([one.delta for one in found])
        place = np.clip(np.searchsorted(edges, [_strength(one) for one in found], side="right") - 1, 0, BINS - 1)
        for number in range(BINS):
            inside = deltas[place == number]
            if inside.size:
                rows += _bin_rows(results, arm, number, edges, inside)
    return rows


def _strength(pair: Pair) -> Any:
    return pair.mean("delta_acc_pp")


def _bin_rows(results: Results, arm: Arm, number: int, edges: Array, deltas: Array) -> Iterable[Row]:
    best = np.sort(deltas)[::-1][: math.ceil(TOP * len(deltas))]
    low_pp, high_pp = float(edges[number]), float(edges[number + 1])
    for measure, value, interval in (
        (TOP_MEAN, float(best.mean()), top_mean_interval(deltas, TOP)),
        (PLAIN_MEAN, float(deltas.mean()), mean_interval(deltas.tolist())),
    ):
        yield {
            "data": results.data, "method": arm.name, "bin": number + 1, "low_pp": low_pp, "high_pp": high_pp,
            "centre_pp": (low_pp + high_pp) / 2, "measure": measure, "value_pp": value, "pairs": len(deltas),
            **_ends(interval),
            "about": f"{arm.name}, teachers {low_pp:+.1f} to {high_pp:+.1f} pp from the student: {measure} "
            f"{formatted(value)} pp, {len(deltas)} pairs" + _told(interval),
        }  # fmt: skip


def top_class_rows(results: Results) -> list[Row]:
    """Transfer rate of the classes that hold the top share of positive flips, by the student's family (Fig. 5a)."""
    rows = []
    for arm in results.arms:
        rates = {top: results.matrix(arm, f"transfer_rate_top_{top}") for top in TOP_CLASSES}
        gains = {top: results.matrix(arm, f"class_gain_ratio_top_{top}") for top in TOP_CLASSES}
        overall = share_of(results.matrix(arm, "transfer_rate"), planned=0).value
        for family, top in itertools.product(_families(results, results.students), TOP_CLASSES):
            members = [i for i, one in enumerate(results.students) if results.families.get(one) == family]
            rate, gain = (share_of(found[top][members], planned=0) for found in (rates, gains))
            if rate.value is None:
                continue
            rows.append({
                "method": arm.name, "family": family, "top": f"{top} %", "rate": rate.value, **_ends(rate.interval),
                "overall": overall, "pairs": rate.pairs, "class_gain_ratio": gain.value,
                "about": f"{arm.name}, {family} students, classes with the top {top} %: {rate.value:.1%} of these "
                f"positive flips arrived, {rate.pairs} pairs" + _told(rate.interval, "{:.1%}"),
            })  # fmt: skip
    return rows


def size_rows(results: Results) -> list[Row]:
    """Transfer rate against the student's size (Fig. 5b): its mean over teachers, with the interval over them."""
    rows = []
    for arm, student in itertools.product(results.arms, results.students):
        pairs = results.of(arm, student=student)
        values = [one for one in (pair.mean("transfer_rate") for pair in pairs) if one is not None]
        size = parameters_m(pairs)
        if not values or size is None:
            continue
        interval = mean_interval(values)
        rows.append({
            "method": arm.name, "student": student, "family": results.families.get(student, ""), "parameters_m": size,
            "rate": mean(values), **_ends(interval), "teachers": len(values), "planned": len(pairs),
            "about": f"{student}, {size:.3g} M weights, {arm.name}: {mean(values):.1%} arrived, mean of {len(values)} "
            f"teachers" + _told(interval, "{:.1%}"),
        })  # fmt: skip
    return rows


def parameters_m(pairs: Sequence[Pair]) -> float | None:
    """A student's number of weights in millions, by its finished cells."""
    found = (cell.parameters for pair in pairs for cell in pair.known)
    return next((one / 1e6 for one in found if one is not None), None)


def knowledge_rows(results: Results, arms: Iterable[Arm]) -> list[Row]:
    """Knowledge gain against loss, a row a pair (Fig. 7)."""
    rows = []
    for arm in arms:
        for pair in results.of(arm):
            gain, loss = pair.mean("knowledge_gain"), pair.mean("knowledge_loss")
            if gain is None or loss is None:
                continue
            size = parameters_m([pair])
            rows.append({
                "method": arm.name, "student": pair.student, "teacher": pair.teacher,
                "family": results.families.get(pair.student, ""),
                "teacher_family": results.families.get(pair.teacher, ""),
                "gain": gain, "loss": loss, "delta_pp": pair.delta, "parameters_m": size,
                "teacher_accuracy": pair.mean("teacher_accuracy"),
                "about": f"{pair.student} from {pair.teacher}, {arm.name}: gained {gain:.2%}, lost {loss:.2%}",
            })  # fmt: skip
    return rows


def student_knowledge_rows(results: Results, arms: Iterable[Arm]) -> list[Row]:
    """Mean knowledge gain against mean loss, a row a student, this study's and the authors' (as Fig. 7)."""
    rows = []
    for arm in arms:
        theirs = published_of(arm.method)
        for student in results.students:
            pairs = [one for one in results.of(arm, student=student) if one.delta is not None]
            if pairs and theirs:
                gains, losses = (
                    [float(p.mean(name) or 0) for p in pairs] for name in ("knowledge_gain", "knowledge_loss")
                )
                family = results.families.get(student, "")
                about = {"source": HERE, "method": arm.method, "student": student, "family": family}
                rows.append(_knowledge(about, mean(gains), mean(losses), teachers=len(pairs)))
        rows += [_published_knowledge(one) for one in theirs if any(row["method"] == arm.method for row in rows)]
    return list({(row["source"], row["method"], row["student"]): row for row in rows}.values())


def _published_knowledge(one: PublishedStudent) -> Row:
    about = {"source": AUTHORS, "method": one.method, "student": one.student, "family": one.family}
    return _knowledge(about, one.gain_pp / 100, one.loss_pp / 100, teachers=TEACHERS)


def _knowledge(about: Row, gain: float, loss: float, *, teachers: int) -> Row:
    told = (
        f"{about['student']}, {about['method']}, {about['source']}: gained {gain:.2%}, lost {loss:.2%}, mean of "
        f"{teachers} teachers"
    )
    return {**about, "gain": gain, "loss": loss, "teachers": teachers, "about": told}


def alike_rows(results: Results, arm: Arm) -> tuple[list[Row], list[Row]]:
    """Students alike in two of accuracy, size and family that differ in the third (Fig. 8).

    Returns:
        A row a student and property, and two rows an edge between two students.
    """
    students = {name: one for name in results.students if (one := _student(results, arm, name)) is not None}
    points: dict[tuple[str, str], Row] = {}
    edges = []
    for first, second in itertools.combinations(students.values(), 2):
        differs = _difference(first, second)
        if differs is None:
            continue
        name = f"{first['student']} and {second['student']}"
        for one in (first, second):
            row = {**one, "property": differs, "edge": name}
            edges.append(row)
            points[differs, one["student"]] = {k: v for k, v in row.items() if k != "edge"}
    return list(points.values()), edges


def _student(results: Results, arm: Arm, name: str) -> Row | None:
    pairs = results.of(arm, student=name)
    deltas = [one.delta for one in pairs if one.delta is not None]
    accuracy = next((one.mean("accuracy_before") for one in pairs if one.mean("accuracy_before") is not None), None)
    size = parameters_m(pairs)
    if not deltas or accuracy is None or size is None:
        return None
    interval = mean_interval(deltas)
    return {
        "student": name, "family": results.families.get(name, ""), "accuracy": accuracy, "parameters_m": size,
        "delta_pp": mean(deltas), **_ends(interval), "teachers": len(deltas),
        "about": f"{name} ({accuracy:.1%}, {size:.3g} M): {formatted(mean(deltas))} pp, mean of {len(deltas)} teachers"
        + _told(interval),
    }  # fmt: skip


def _difference(first: Row, second: Row) -> str | None:
    """The one property in which two students differ; None where it is none, or more than one."""
    ratio = first["parameters_m"] / second["parameters_m"]
    differ = {
        "accuracy": 100 * abs(first["accuracy"] - second["accuracy"]) > ALIKE_ACCURACY_PP,
        "size": max(ratio, 1 / ratio) > ALIKE_SIZE,
        "family": first["family"] != second["family"],
    }
    found = [name for name, one in differ.items() if one]
    return found[0] if len(found) == 1 else None


def sequence_rows(epochs: Sequence[EpochRow], cells: dict[str, tuple[str, StudyRow]]) -> list[Row]:
    """Gain, loss and delta over the epochs of sequences of teachers (Fig. 11), and where each teacher ends.

    Args:
        epochs: the epochs of all sequences.
        cells: of each cell of the data set its arm's name and its row.

    Returns:
        Rows with `kind` gained, lost or delta, and `value_pp`; and one with `kind` end for each teacher.
    """
    rows: list[Row] = []
    for cell, found in itertools.groupby(epochs, key=lambda one: one.cell):
        if cell not in cells:
            continue
        arm, about = cells[cell]
        panel = f"{about.student}, {arm}"
        base = {"panel": panel, "cell": cell, "student": about.student, "method": arm, "seed": about.seed}
        last = 0
        for step, of_step in itertools.groupby(found, key=lambda one: one.step):
            here = list(of_step)
            for one in here:
                rows += _epoch_rows(base, one, last + one.epoch)
            last += max(one.epoch for one in here)
            teacher = here[0].teacher
            told = f"{panel}: teacher {step}, {teacher}, ends after epoch {last}"
            rows.append({**base, "epoch": last, "kind": "end", "value_pp": None, "step": step, "teacher": teacher,
                         "about": told})  # fmt: skip
    return rows


def _epoch_rows(base: Row, one: EpochRow, epoch: int) -> Iterable[Row]:
    values = (("gained", one.total_gain, 100), ("lost", one.total_loss, 100), ("delta", one.total_delta_pp, 1))
    for kind, value, scale in values:
        if value is not None:
            told = f"{base['panel']}, epoch {epoch} ({one.teacher}): {kind} {scale * value:.2f} pp"
            yield {**base, "epoch": epoch, "kind": kind, "value_pp": scale * value, "step": one.step,
                   "teacher": one.teacher, "about": told}  # fmt: skip


def _families(results: Results, names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(results.families.get(name, "") for name in names))


def _ends(interval: Range | None) -> Row:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _told(interval: Range | None, form: str = "{:+.2f}") -> str:
    return "" if interval is None else f" (95 %: {formatted(interval[0], form)} to {formatted(interval[1], form)})"
