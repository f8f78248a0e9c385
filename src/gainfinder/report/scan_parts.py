"""Parts of a scan's page: areas of expertise, and how well stand-ins for labels do; and a page without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..references import short_names
from .records import ScanRecord
from .rows import Row

SHOWN_CLASSES = 12
"""Classes of an area of expertise that are named."""
SHOWN_PAIRS = 1000
"""Pairs of a scan without labels that are listed."""
STAND_INS = {
    "disagreement": "{noun}s on which the two disagree",
    "surer_disagreement": "{noun}s on which they disagree and the teacher is the surer",
    "estimated_positive_flips": "positive flips as all models together estimate them",
    "estimated_delta_acc_pp": "difference in accuracy as all models together estimate it",
    "agreement": "agreement with the other models",
    "strength": "agreement × information",
    "estimated_accuracy": "accuracy as all models together estimate it",
}
MEASURES = {"positive_flips": "positive flips", "delta_acc_pp": "difference in accuracy", "accuracy": "accuracy"}
KINDS = {
    "weak": "a weak teacher",
    "equal": "a teacher as good as the student",
    "strong": "a strong teacher",
    "chosen": "chosen for the student",
}


@dataclass(frozen=True, kw_only=True)
class ExpertisePart:
    """Areas of expertise.

    Attributes:
        pairs: the pairs shown: a line that names each, and rows of its areas.
        over_pairs: rows of the areas over all pairs.
        embeddings: what gave the similarity; None without.
    """

    pairs: tuple[tuple[str, tuple[Row, ...]], ...]
    over_pairs: tuple[Row, ...]
    embeddings: str | None


@dataclass(frozen=True, kw_only=True)
class TrackingPart:
    """How well stand-ins follow what they stand in for.

    Attributes:
        rows: a row a stand-in.
        students: a row a student, with the rank correlation of each stand-in of pairs over its teachers.
        columns: these stand-ins.
    """

    rows: tuple[Row, ...]
    students: tuple[tuple[str, tuple[float | None, ...]], ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UnlabelledScanSection:
    """A scan of images without labels.

    Attributes:
        title: title of the page.
        noun: what a sample is: `image` or `text`.
        document: the scan, as `scan.json` holds it.
        model_rows: the models by estimated accuracy, with short names, and the teacher of the most estimated flips.
        pair_rows: ordered pairs by estimated positive flips, the first of them.
        pair_count: number of all ordered pairs.
        teachers: those chosen for a student, with short names.
    """

    title: str
    noun: str
    document: Mapping[str, Any]
    model_rows: tuple[Row, ...]
    pair_rows: tuple[Row, ...]
    pair_count: int
    teachers: tuple[Row, ...]


def expertise_part(document: Mapping[str, Any]) -> ExpertisePart | None:
    """The areas of expertise in a scan; None in one of an earlier version, without labels, or without flips."""
    expertise = document.get("expertise")
    if not expertise or not expertise["pairs"]:
        return None
    name = _names(document)
    return ExpertisePart(
        pairs=tuple(
            (
                f"{name[pair['teacher']]} for {name[pair['student']]}: {KINDS[pair['kind']]}, "
                f"{pair['delta_acc_pp']:+.2f} pp in accuracy",
                tuple({**area, "classes": _first_classes(pair, area["size"])} for area in pair["areas"]),
            )
            for pair in expertise["pairs"]
        ),
        over_pairs=tuple(expertise["areas"]),
        embeddings=expertise["embeddings"],
    )


def tracking_part(document: Mapping[str, Any], *, noun: str) -> TrackingPart | None:
    """How well stand-ins do; None in a scan of an earlier version, without labels, or of two models."""
    found = [one for one in document.get("tracking") or () if one["spearman"] is not None]
    if not found:
        return None
    name, of_pairs = _names(document), [one for one in found if one["students"]]
    by_student = zip(*(one["students"] for one in of_pairs), strict=True)
    return TrackingPart(
        rows=tuple(
            {
                **one,
                "stand_in": STAND_INS[one["stand_in"]].format(noun=noun),
                "measure": MEASURES[one["measure"]],
                "median": _median([student["spearman"] for student in one["students"]]),
            }
            for one in found
        ),
        students=tuple(
            (name[student[0]["student"]], tuple(one["spearman"] for one in student)) for student in by_student
        ),
        columns=tuple(STAND_INS[one["stand_in"]].format(noun=noun) for one in of_pairs),
    )


def unlabelled_scan_section(record: ScanRecord) -> UnlabelledScanSection:
    """What a page shows of a scan without labels."""
    document = record.document
    name = _names(document)
    pairs = sorted(record.pairs.to_pylist(), key=lambda pair: -float(pair["estimated_positive_flips"]))
    best: dict[str, Row] = {}
    for pair in pairs:
        best.setdefault(pair["student"], pair)
    models = sorted(document["models"], key=lambda model: -float(model["estimated_accuracy"]))
    return UnlabelledScanSection(
        title=f"Where {len(models)} models disagree",
        noun=record.noun,
        document=document,
        model_rows=tuple(
            {
                **model,
                "name": name[model["model"]],
                "teacher": name[best[model["model"]]["teacher"]],
                "estimated_positive_flips": best[model["model"]]["estimated_positive_flips"],
            }
            for model in models
        ),
        pair_rows=tuple(
            {**pair, "student_name": name[pair["student"]], "teacher_name": name[pair["teacher"]]}
            for pair in pairs[:SHOWN_PAIRS]
        ),
        pair_count=len(pairs),
        teachers=tuple({**one, "name": name[one["teacher"]]} for one in document["teachers"]),
    )


def _names(document: Mapping[str, Any]) -> dict[str, str]:
    return short_names([model["model"] for model in document["models"]])


def _first_classes(pair: Mapping[str, Any], size: int) -> str:
    more = f" and {size - SHOWN_CLASSES} more" if size > SHOWN_CLASSES else ""
    return ", ".join(one["name"] for one in pair["classes"][: min(size, SHOWN_CLASSES)]) + more


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
