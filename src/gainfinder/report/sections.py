"""What a page shows of a transfer, ready to be laid out: figures, tables, sentences, pictures or texts."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import find_method
from ..predictions import Predictions
from ..references import short_names
from ..results import GuardDecision, TransferMetrics, changed_samples
from . import charts, rows
from .charts import Figure
from .findings import Finding, findings, next_steps
from .records import TransferRecord


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number at the top of the page, with its label and a note such as its interval."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A thumbnail with its label and what each model predicts for it.

    Attributes:
        source: the image as a `data:` URL; None of a text.
        texts: excerpts of a text, or of both of a pair; of an image none.
        label: name of its class, or None.
        before: class predicted before the transfer, with its probability.
        after: class predicted after it, likewise.
        teachers: for each teacher whose predictions are there, its short name and its predicted class, likewise.
    """

    source: str | None
    texts: tuple[str, ...]
    label: str | None
    before: str
    after: str
    teachers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class TransferSection:
    """A transfer, whole or a step of a sequence.

    Attributes:
        title: a line that names student and teachers.
        noun: what a sample is: `image` or `text`.
        place: of samples in places what one of them is, one of which each is measured on; else None.
        metrics: the metrics of the transfer.
        tiles: the numbers at the top of the page.
        findings: what the transfer means, in plain words.
        next_steps: suggestions of what to try.
        measures: chart of Δ_transf, gain and loss; None without labels, as all figures.
        epochs: chart of gain and loss over epochs.
        classes: chart of gains by class.
        partition: chart of whom the partition lets teach; None of several transfers, which have their own.
        partition_is_own: whether the method has that partition.
        soft: whether in training all models taught, weighted by confidence.
        pooled: whether they taught every sample together.
        teachers_known: whether predictions of a teacher are there.
        class_rows: rows of the table of classes, one a class.
        guard_rows: rows of the table of the guard, one a point that it tried.
        pictures: thumbnails by kind (`gained`, `lost`; without labels `changed`).
        changed: number of samples of each kind, shown or not.
        guarded: whether a guard chose what was kept.
        steps: sections of a sequence's or soup's transfers.
    """

    title: str
    noun: str
    place: str | None
    metrics: TransferMetrics
    tiles: tuple[Tile, ...]
    findings: tuple[Finding, ...]
    next_steps: tuple[str, ...]
    measures: Figure | None
    epochs: Figure | None
    classes: Figure | None
    partition: Figure | None
    partition_is_own: bool
    soft: bool
    pooled: bool
    teachers_known: bool
    class_rows: tuple[dict[str, Any], ...]
    guard_rows: tuple[dict[str, Any], ...]
    pictures: Mapping[str, tuple[Picture, ...]]
    changed: Mapping[str, int]
    guarded: bool
    steps: "tuple[TransferSection, ...]"

    @property
    def step_names(self) -> list[str]:
        """A short name for the teacher of each step."""
        names = short_names([step.metrics.teachers[0] for step in self.steps])
        return [names[step.metrics.teachers[0]] for step in self.steps]

    @property
    def chosen_trial(self) -> int | None:
        """The place of the trial, of the last round, whose recipe the run took; None without trials."""
        chosen = (self.metrics.optimizer, self.metrics.learning_rate)
        places = [place for place, one in enumerate(self.metrics.trials) if (one.optimizer, one.lr) == chosen]
        return places[-1] if places else None

    @property
    def figures(self) -> list[Figure]:
        """The figures that there are."""
        return [one for one in (self.measures, self.epochs, self.classes, self.partition) if one is not None]


def transfer_section(record: TransferRecord, *, images: bool = True) -> TransferSection:
    """The section of a transfer.

    Args:
        record: the transfer, as read from its folder.
        images: whether thumbnails are shown.
    """
    classes = rows.class_rows(record) if record.labelled else []
    has_partition = (
        record.labelled and bool(record.known_teachers) and find_method(record.metrics.method).needs_teachers
    )
    return TransferSection(
        title=transfer_title(record.metrics),
        noun=record.noun,
        place=record.place,
        metrics=record.metrics,
        tiles=tuple(_tiles(record)),
        findings=tuple(findings(record)),
        next_steps=tuple(next_steps(record)),
        measures=charts.measures(rows.measure_rows(record), noun=record.noun) if record.labelled else None,
        epochs=_epochs(record),
        classes=charts.over_classes(classes, noun=record.noun)
        if any(row["positive_flips"] or row["lost"] for row in classes)
        else None,
        partition=_partition(record) if has_partition else None,
        partition_is_own=rows.partition_of(record)[1],
        soft=find_method(record.metrics.method).soft,
        pooled=find_method(record.metrics.method).pooling is not None,
        teachers_known=bool(record.known_teachers),
        class_rows=tuple(classes),
        guard_rows=tuple(_guard_rows(record.metrics.guard)),
        pictures=_pictures(record) if images else {},
        changed={kind: len(ids) for kind, ids in changed_samples(record.before, record.after).items()},
        guarded=bool(record.guards),
        steps=tuple(transfer_section(step, images=images) for step in record.steps),
    )


def transfer_title(metrics: TransferMetrics) -> str:
    """What learned from what, in short names."""
    student = next(iter(short_names([metrics.student]).values()))
    if not find_method(metrics.method).needs_teachers:
        return f"What {student} learned from labels"
    teachers = short_names(list(dict.fromkeys(metrics.teachers))).values()
    return f"What {student} learned from {', '.join(teachers)}"


def _tiles(record: TransferRecord) -> list[Tile]:
    m = record.metrics
    if m.transfer_delta_ci_pp is None or m.knowledge_gain_ci is None or m.knowledge_loss_ci is None:  # no labels
        changed = Tile(value=f"{1 - m.agreement:.1%}", label="of its answers changed")
        confidence = Tile(
            value=f"{m.confidence_after:.2f}", label="mean confidence", note=f"{m.confidence_before:.2f} before"
        )
        return [changed, confidence, *_taught(m)]
    low, high = m.transfer_delta_ci_pp
    tiles = [
        Tile(value=f"{m.transfer_delta_pp:+.2f} pp", label="accuracy", note=f"95 %: {low:+.2f} to {high:+.2f}"),
        Tile(value=f"{m.accuracy_after:.2%}", label="right after", note=f"{m.accuracy_before:.2%} before"),
        Tile(value=f"{m.knowledge_gain:.2%}", label="gained", note=_interval(m.knowledge_gain_ci)),
        Tile(value=f"{m.knowledge_loss:.2%}", label="lost", note=_interval(m.knowledge_loss_ci)),
    ]
    if m.transfer_rate is not None:
        note = f"{m.positive_flips:.2%} of {record.noun}s"
        whose = "the teacher's" if len(m.teachers) == 1 else "the teachers'"
        tiles.append(Tile(value=f"{m.transfer_rate:.0%}", label=f"of {whose} knowledge arrived", note=note))
    if m.headroom_captured is not None:
        note = f"of {m.headroom_pp:+.2f} pp by an ensemble"
        tiles.append(Tile(value=f"{m.headroom_captured:.0%}", label="of the headroom captured", note=note))
    return [*tiles, *_taught(m)]


def _taught(metrics: TransferMetrics) -> list[Tile]:
    if metrics.teacher_share is None:
        return []
    whom = "teacher" if len(metrics.teachers) == 1 else "teachers"
    return [Tile(value=f"{metrics.teacher_share:.0%}", label=f"taught by the {whom}", note="of training views")]


def _interval(bounds: Sequence[float]) -> str:
    return f"95 %: {bounds[0]:.2%} to {bounds[1]:.2%}"


def _epochs(record: TransferRecord) -> Figure | None:
    # The epochs of a soup belong to separate transfers, which have charts of their own.
    if not record.labelled or not record.epochs or (record.steps and not record.sequential):
        return None
    steps = rows.step_rows(record) if record.sequential else ()
    return charts.over_epochs(rows.epoch_rows(record), steps=steps, noun=record.noun)


def _partition(record: TransferRecord) -> Figure | None:
    found = rows.partition_rows(record)
    return charts.over_partition(found) if found else None


def _guard_rows(guard: GuardDecision | None) -> list[dict[str, Any]]:
    """What the guard tried, its figures as text: percentage points, or nats where it judged by information."""
    if guard is None:
        return []
    kept = (guard.alpha, guard.bn_reestimated)
    found = []
    for point in guard.points:
        form, unit = ("{:+.4f}", "nats") if point.measure == "information" else ("{:+.2f}", "pp")
        figures = {"gain": point.gain, "error": point.error, "sure_gain": point.sure_gain}
        texts = {key: "–" if value is None else form.format(value) for key, value in figures.items()}
        texts["error"] = texts["error"].removeprefix("+")
        is_kept = (point.alpha, point.bn_reestimated) == kept
        found.append({**point.to_dict(), **texts, "unit": unit, "kept": is_kept})
    return found


def _pictures(record: TransferRecord) -> dict[str, tuple[Picture, ...]]:
    position = {sample_id: i for i, sample_id in enumerate(record.before.ids)}
    teachers = [(number, one) for number, one in enumerate(record.teachers, start=1) if one is not None]
    found: dict[str, list[Picture]] = {}
    for one in record.thumbnails:
        if one.id not in position:
            continue
        i = position[one.id]
        names = record.before.class_names
        target = None if record.before.target is None else int(record.before.target[i])
        picture = Picture(
            source=data_url(one.content) if isinstance(one.content, bytes) else None,
            texts=() if isinstance(one.content, bytes) else one.content,
            label=None if target is None else str(target) if names is None else names[target],
            before=_predicted(record.before, i),
            after=_predicted(record.after, i),
            teachers=tuple(
                (f"teacher {number}" if len(record.teachers) > 1 else "teacher", _predicted(teacher, i))
                for number, teacher in teachers
            ),
        )
        found.setdefault(one.kind, []).append(picture)
    return {kind: tuple(pictures) for kind, pictures in found.items()}


def data_url(image: bytes) -> str:
    """An encoded image as a `data:` URL."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _predicted(predictions: Predictions, i: int) -> str:
    probs = predictions.logits[i].softmax(dim=0)
    c = int(predictions.logits[i].argmax())
    name = str(c) if predictions.class_names is None else predictions.class_names[c]
    return f"{name} {float(probs[c]):.0%}"
