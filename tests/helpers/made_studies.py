"""Rows of studies that were never run: what a report is made of, with numbers that are known."""

from typing import Any

import numpy as np

from gainfinder.report.study.published_results import published_of
from gainfinder.study import TOGETHER, EpochRow, StudyDocument, StudyRow

FAMILIES = ("CNN", "Transformer", "MLP")
METHODS = ("kl", "kl-dp", "kl-dp-u", "cd")


def made_row(student: str, teacher: str, delta_pp: float | None, **fields: Any) -> StudyRow:
    """A cell: done with that transfer delta, or missing without one.

    Args:
        student: name of the student.
        teacher: name of the teacher, or names joined.
        delta_pp: its transfer delta, percentage points.
        **fields: further fields of the row.
    """
    about: dict[str, Any] = {
        "cell": "-".join(map(str, (student, teacher, *fields.values()))), "student": student, "teacher": teacher,
        "teacher_count": len(teacher.split(TOGETHER)), "student_family": "CNN", "teacher_family": "MLP", "data": "data",
        "variant": "", "method": "kl", "strategy": None, "order": None, "supervised": True, "seed": 0,
    }  # fmt: skip
    if delta_pp is None:
        return StudyRow(**{**about, "state": "missing", **fields})
    measured = {
        "state": "done", "samples": 1000, "parameters": 1_000_000, "accuracy_before": 0.7, "teacher_accuracy": 0.6,
        "accuracy_after": 0.7 + delta_pp / 100, "delta_acc_pp": -10.0, "transfer_delta_pp": delta_pp,
        "transfer_delta_low_pp": delta_pp - 0.5, "transfer_delta_high_pp": delta_pp + 0.5,
        "knowledge_gain": 0.05 + delta_pp / 100, "knowledge_loss": 0.05, "positive_flips": 0.1, "negative_flips": 0.2,
        "positive_flips_after": 0.09, "negative_flips_after": 0.2, "transfer_rate": 0.3,
        **{f"transfer_rate_top_{top}": 0.3 + 0.1 * (top < 50) for top in (2, 5, 20, 50, 100)},
    }  # fmt: skip
    return StudyRow(**{**about, **measured, **fields})


def made_study(
    *, students: int = 6, teachers: int = 4, methods: tuple[str, ...] = METHODS, holes: float = 0.0, seed: int = 0
) -> tuple[list[StudyRow], list[EpochRow]]:
    """A study of many pairs, and of three students with two teachers by each strategy, with its sequences' epochs."""
    draw = np.random.Generator(np.random.PCG64(seed))
    known = published_of("kl")[:students]
    strength = {f"teacher_{i}": float(draw.uniform(0.5, 0.85)) for i in range(teachers)}
    bonus = dict(zip(methods, draw.normal(0, 0.3, len(methods)), strict=True))
    rows, epochs = [], []
    for i, student in enumerate(known):
        accuracy = 0.6 + 0.02 * (i % 7)
        for method in methods:
            for j, teacher in enumerate(strength):
                ahead = strength[teacher] - accuracy
                about = {
                    "method": method, "variant": method, "supervised": not method.endswith("-u"),
                    "student_family": student.family, "teacher_family": FAMILIES[j % 3], "accuracy_before": accuracy,
                    "parameters": int(1e6 * student.parameters_m), "teacher_accuracy": strength[teacher],
                    "delta_acc_pp": 100 * ahead, "transfer_rate": float(draw.uniform(0.2, 0.4)),
                }  # fmt: skip
                delta = None if draw.random() < holes else float(bonus[method] + 2 * ahead + draw.normal(0, 0.2))
                rows.append(made_row(student.student, teacher, delta, **(about if delta is not None else _bare(about))))
    for student in known[:3]:
        for strategy in ("sequential", "parallel", "soup"):
            about = {"method": "kl-dp", "variant": "kl-dp", "strategy": strategy, "order": "ascending"}
            row = made_row(student.student, TOGETHER.join(("teacher_0", "teacher_1")), 0.5, **about)
            rows.append(row)
            epochs += made_epochs(row) if strategy == "sequential" else []
    return rows, epochs


def _bare(about: dict[str, Any]) -> dict[str, Any]:
    """What is known of a cell that is missing."""
    return {name: about[name] for name in ("method", "variant", "supervised", "student_family", "teacher_family")}


def made_epochs(row: StudyRow, *, each: int = 2) -> list[EpochRow]:
    """The epochs of a sequence, so many for each teacher."""
    return [
        EpochRow(
            cell=row.cell, student=row.student, teachers=row.teacher, variant=row.variant, method=row.method,
            step=step, teacher=teacher, epoch=epoch, total_delta_pp=0.1 * step, total_gain=0.02, total_loss=0.01,
        )
        for step, teacher in enumerate(row.teachers, start=1)
        for epoch in range(1, each + 1)
    ]  # fmt: skip


def made_document(name: str = "made") -> StudyDocument:
    """A study's document, for its name."""
    return StudyDocument.model_validate(
        {"study": {"students": ["a"], "teachers": ["b"], "name": name}, "data": {"data": {"data": "digits"}}}
    )
