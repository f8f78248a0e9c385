"""Rows for charts and tables, from the files of a result folder; `about` is the text shown on hover."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..config import Partition, find_method
from ..metrics import by_class, by_partition
from ..references import short_names
from .records import TransferRecord

Row = dict[str, Any]
Rows = list[Row]
SHORT = 40
"""Characters of a name in a sentence."""
RIGHT_TO_LEFT = {"R", "AL", "RLE", "RLO", "RLI", "LRO"}
CEILINGS = ("oracle_accuracy", "routed_accuracy", "mean_accuracy", "headroom_pp")
"""What there is to win, of a pair or of all models; scans of earlier versions have none of it."""
GROUPS = {
    "both": "both right",
    "teacher": "only the teacher right",
    "student": "only the student right",
    "neither": "neither right",
}


def measure_rows(record: TransferRecord) -> list[Row]:
    """Δ_transf, gain and loss with their 95 % intervals, and what goes beyond the control, where there is one."""
    metrics, control = record.metrics, record.metrics.control
    changes = (
        ("Δ accuracy", "delta", 1, metrics.transfer_delta_pp, metrics.transfer_delta_ci_pp),
        ("gained", "gain", 100, metrics.knowledge_gain, metrics.knowledge_gain_ci),
        ("lost", "loss", 100, metrics.knowledge_loss, metrics.knowledge_loss_ci),
        *([] if control is None else [("beyond control", "delta", 1, control.beyond_pp, control.beyond_ci_pp)]),
    )
    rows = [
        (name, kind, times * value, *(times * bound for bound in interval))
        for name, kind, times, value, interval in changes
        if value is not None and interval is not None
    ]
    return [
        {
            "measure": name,
            "kind": kind,
            "value_pp": value,
            "low_pp": low,
            "high_pp": high,
            "about": f"{name}: {value:{sign}.2f} points of all {record.noun}s, "
            f"95 % interval {low:{sign}.2f} to {high:{sign}.2f}",
        }
        for name, kind, value, low, high in rows
        for sign in ("+" if kind == "delta" else "",)
    ]


def epoch_rows(record: TransferRecord) -> list[Row]:
    """Gain and loss after each epoch, from before the first; of a sequence, since its beginning."""
    total = record.sequential
    names = {"gained": "total_gain", "lost": "total_loss"} if total else {
        "gained": "knowledge_gain", "lost": "knowledge_loss"}  # fmt: skip
    rows = [{"epoch": 0, "kind": kind, "share": 0.0, "about": "before the transfer"} for kind in names]
    for number, row in enumerate(record.epochs, start=1):
        by = f" of teacher {row.step}" if total else ""
        for kind, name in names.items():
            share = getattr(row, name)
            about = f"{kind} after epoch {row.epoch}{by}: {share:.2%} of all {record.noun}s"
            rows.append({"epoch": number, "kind": kind, "share": share, "about": about})
    return rows


def step_rows(record: TransferRecord) -> list[Row]:
    """Where each teacher of a sequence ends, in epochs since the beginning."""
    names = short_names(list(record.metrics.teachers))
    last = {row.step: number for number, row in enumerate(record.epochs, start=1)}
    return [
        {
            "epoch": last[number],
            "step": number,
            "teacher": name,
            "about": f"teacher {number}: {name}",
        }
        for number, step in enumerate(record.metrics.steps, start=1)
        for name in (names.get(step.teacher, step.teacher),)
        if number in last
    ]


def class_rows(record: TransferRecord) -> list[Row]:
    """What each class had to learn and what became of it, the classes with most of it first.

    Two classes of one name (ImageNet has such) are told apart by their index.
    """
    knowledge = by_class(record.before, record.after, record.known_teachers)
    rows = [
        {
            "name": name,
            "samples": one.samples,
            "right_before": one.right_before,
            "right_after": one.right_after,
            "positive_flips": one.positive_flips,
            "transferred": one.transferred,
            "gained": one.gained,
            "lost": one.lost,
            "about": f"{name}: {counted(one.samples, record.noun)}; the teacher alone had {one.positive_flips:,} right"
            f", of these {one.transferred:,} arrived; {one.gained:,} gained in all, {one.lost:,} lost",
        }
        for name, one in zip(distinct([one.name for one in knowledge]), knowledge, strict=True)
    ]
    return sorted(rows, key=lambda row: (-int(str(row["positive_flips"])), -int(str(row["gained"]))))


def partition_of(record: TransferRecord) -> tuple[Partition, bool]:
    """The partition to judge, and whether it is the method's own.

    For a method without one, it is the partition by confidence.
    """
    partition = find_method(record.metrics.method).partition
    return partition or "confidence", partition is not None


def partition_rows(record: TransferRecord) -> list[Row]:
    """By who is right, the shares of images that the teacher and the initial student would teach.

    None of a sequence or soup: each of its teachers is compared with the student of its own step alone.
    """
    if record.steps:
        return []
    partition, _ = partition_of(record)
    temperatures: Sequence[float] | None = record.metrics.temperatures
    if temperatures is not None:
        known = (True, *(teacher is not None for teacher in record.teachers))
        temperatures = [one for one, there in zip(temperatures, known, strict=True) if there]
    groups = by_partition(record.before, record.known_teachers, partition, temperatures=temperatures)
    rows = []
    for group in groups:
        if not group.samples:
            continue
        name = f"{GROUPS[group.right]} ({group.samples:,})"
        for rank, (by, count) in enumerate(
            (("teacher", group.to_teacher), ("initial student", group.samples - group.to_teacher))
        ):
            share = count / group.samples
            of = counted(group.samples, record.noun)
            about = f"{GROUPS[group.right]}: {count:,} of {of} ({share:.0%}) taught by the {by}"
            rows.append(
                {"group": name, "right": group.right, "taught_by": by, "rank": rank, "count": count,
                 "samples": group.samples, "share": share, "about": about}
            )  # fmt: skip
    return rows


def pair_rows(document: dict[str, Any]) -> list[Row]:
    """The pairs of a scan with short names."""
    name = short_names([model["model"] for model in document["models"]])
    return [
        {
            **dict.fromkeys(CEILINGS),
            **pair,
            "student_name": name[pair["student"]],
            "teacher_name": name[pair["teacher"]],
            "about": _about_pair(pair, name),
        }
        for pair in document["pairs"]
    ]


def _about_pair(pair: Row, name: dict[str, str]) -> str:
    entropy = "" if pair["flip_entropy"] is None else f"; entropy {pair['flip_entropy']:.2f} nats"
    return (
        f"{name[pair['teacher']]} teaches {name[pair['student']]}: right where the student is wrong on "
        f"{pair['positive_flips']:.2%}, wrong where it is right on {pair['negative_flips']:.2%}; accuracy "
        f"{pair['delta_acc_pp']:+.2f} pp{entropy}"
    )


def counted(count: int, what: str) -> str:
    """A count with its noun.

    Example:
        >>> counted(1, "image"), counted(1200, "image"), counted(2, "class")
        ('1 image', '1,200 images', '2 classes')
    """
    return f"{count:,} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


def with_article(noun: str) -> str:
    """A noun with its indefinite article.

    >>> with_article("image"), with_article("text")
    ('an image', 'a text')
    """
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(75), duration(7300)
    ('1:15', '2:01:40')
    """
    whole = round(seconds)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def distinct(names: Sequence[str]) -> list[str]:
    """Names that differ: equal ones with their number, from 0.

    Example:
        >>> distinct(["crane", "tench", "crane"])
        ['crane (0)', 'tench', 'crane (2)']
    """
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def quoted(name: str) -> str:
    """A name in a sentence: on one line, not too long, and its direction of writing without effect on the rest.

    Example:
        >>> quoted("tench")
        'tench'
        >>> quoted("a loaf of French bread, as it is sold by bakers")
        'a loaf of Fre…d, as it is sold by bakers'
    """
    line = " ".join(name.split())
    short = line if len(line) <= SHORT else f"{line[: SHORT // 3]}…{line[SHORT // 3 + 1 - SHORT :]}"
    strange = any(unicodedata.bidirectional(letter) in RIGHT_TO_LEFT for letter in short)
    return f"\u2068{short}\u2069" if strange else short
