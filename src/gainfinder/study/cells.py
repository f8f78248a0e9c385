"""The cells of a study: every combination of student, teachers, images, variant and axes that no rule leaves out."""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..config import TransferConfig, TransferSpec, find_method
from ..errors import SettingsError
from .document import MOST_COMBINATIONS, StudyDocument

KEY_DIGITS = 16
"""Hexadecimal digits of a cell's key: two of a million cells have one key with a probability below 1e-7."""
BANK = "bank"
"""Folder of a study that its cells share: the frozen models' logits for their views."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One transfer of a study.

    Attributes:
        spec: the transfer.
        student: name of the student.
        teachers: names of the teachers.
        data: name of the images.
        variant: name of the variant; empty where the study has none.
        settings: the settings that the study gives it, by name.
        axes: of these the ones that vary over the study, variants aside.
    """

    spec: TransferSpec
    student: str
    teachers: tuple[str, ...]
    data: str
    variant: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    axes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @functools.cached_property
    def key(self) -> str:
        """Digest of the resolved references and settings: the name of its folder."""
        return self.spec.digest()[:KEY_DIGITS]

    @property
    def label(self) -> str:
        """The cell in words."""
        about = [self.variant, *(f"{name}={value}" for name, value in self.axes.items())]
        about += [self.data] if self.data != "data" else []
        return f"{self.student} from {', '.join(self.teachers)}" + "".join(f"; {one}" for one in about if one)


def study_cells(study: StudyDocument, out: Path) -> list[Cell]:
    """All cells of a study, each once, in the order in which they are best run.

    Cells that share a student, images and views follow each other: their frozen models' predictions, crops and logits
    are at hand. Two combinations that mean the same transfer, such as strategies of a single teacher, are one cell.

    Args:
        study: the study.
        out: the study's folder.

    Raises:
        SettingsError: settings of a cell do not go together, no cell is left, or there are too many.
    """
    if (count := _count(study)) > MOST_COMBINATIONS:
        raise SettingsError(
            f"study {study.study.name!r} has {count:,} combinations of students, teachers, images, variants and axes: "
            f"expected at most {MOST_COMBINATIONS:,}; take values out of its axes"
        )
    found: dict[str, Cell] = {}
    for cell in _combinations(study, out):
        if _is_kept(study, cell):
            found.setdefault(cell.key, cell)
    if not found:
        raise SettingsError(f"study {study.study.name!r} has no cell: every combination is excluded")
    return list(found.values())


def _count(study: StudyDocument) -> int:
    """The number of combinations, before any rule."""
    axes = math.prod(len(values) for values in study.axes.values())
    pairs = len(study.study.students) * len(study.study.teachers)
    return pairs * len(study.data) * max(1, len(study.variants)) * axes


def _combinations(study: StudyDocument, out: Path) -> Iterator[Cell]:
    variants = study.variants or {"": {}}
    names = list(study.axes)
    for data, student in itertools.product(study.data, study.study.students):
        for values in itertools.product(*study.axes.values()):
            axes = dict(zip(names, values, strict=True))
            for teachers, (variant, own) in itertools.product(_teachers(study), variants.items()):
                if student in teachers and not (study.study.with_itself and len(teachers) == 1):
                    continue
                settings = {**study.settings, **axes, **own}
                varying = {name: settings[name] for name in names if name not in own}
                yield _cell(
                    study,
                    out,
                    student=student,
                    teachers=teachers,
                    data=data,
                    variant=variant,
                    settings=settings,
                    axes=varying,
                )


def _teachers(study: StudyDocument) -> list[tuple[str, ...]]:
    return [(one,) if isinstance(one, str) else tuple(one) for one in study.study.teachers]


def _cell(
    study: StudyDocument,
    out: Path,
    *,
    student: str,
    teachers: tuple[str, ...],
    data: str,
    variant: str,
    settings: Mapping[str, Any],
    axes: Mapping[str, Any],
) -> Cell:
    images = study.data[data]
    try:
        spec = TransferSpec(
            student=study.reference(student),
            teachers=tuple(study.reference(teacher) for teacher in teachers),
            data=study.filled(images.data),
            val=None if images.val is None else study.filled(images.val),
            guard_data=_guard_data(study, data, settings),
            label_maps=_label_maps(study, teachers),
            referees=tuple(study.reference(name) for name in images.referees),
            config=_config(study, out, settings),
        )
    except SettingsError as error:
        which = f"{student} from {', '.join(teachers)}" + (f", variant {variant!r}" if variant else "")
        raise SettingsError(f"study {study.study.name!r}, {which}: {error}") from None
    return Cell(
        spec=spec,
        student=student,
        teachers=teachers,
        data=data,
        variant=variant,
        settings=settings,
        axes=axes,
    )


def _config(study: StudyDocument, out: Path, settings: Mapping[str, Any]) -> TransferConfig:
    """The settings of a cell, with the study's bank unless it gives another, or its method compares features."""
    if settings.get("both") is not None:
        raise SettingsError("`both` is no setting of a study, a cell of which has one student: name each way as a cell")
    method = settings.get("method")
    shares = study.study.bank and "bank" not in settings and not (method and find_method(method).needs_features)
    return TransferConfig(**{**settings, **({"bank": out / BANK} if shares else {})})


def _guard_data(study: StudyDocument, data: str, settings: Mapping[str, Any]) -> str | None:
    """Guard images are of no use to cells that switch the guard off."""
    images = study.data[data]
    config = TransferConfig(**{name: settings[name] for name in ("guard", "preset", "at_most") if name in settings})
    return study.filled(images.guard_data) if images.guard_data is not None and config.guarded else None


def _label_maps(study: StudyDocument, teachers: tuple[str, ...]) -> tuple[str, ...]:
    maps = [study.models[name].label_map if name in study.models else None for name in teachers]
    known = [study.filled(one) for one in maps if one is not None]
    if known and len(known) < len(teachers):
        raise SettingsError(
            f"{len(known)} of {len(teachers)} teachers have a `label_map`: expected one for each of them, or none"
        )
    return tuple(known)


def _is_kept(study: StudyDocument, cell: Cell) -> bool:
    if any(_matches(rule, cell) for rule in study.exclude):
        return False
    return not study.only or any(_matches(rule, cell) for rule in study.only)


def _matches(rule: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a cell matches all keys of a rule; of several teachers any may."""
    own: dict[str, tuple[Any, ...]] = {
        "student": (cell.student,),
        "teacher": cell.teachers,
        "teacher_count": (len(cell.teachers),),
        "data": (cell.data,),
        "variant": (cell.variant,),
    }
    for key, wanted in rule.items():
        values = own[key] if key in own else (getattr(cell.spec.config, key),)
        patterns = wanted if isinstance(wanted, list) else [wanted]
        if not any(_equals(value, pattern) for value in values for pattern in patterns):
            return False
    return True


def _equals(value: Any, pattern: Any) -> bool:
    if isinstance(value, str) and isinstance(pattern, str):
        return fnmatchcase(value, pattern)
    return bool(value == pattern) and isinstance(value, bool) == isinstance(pattern, bool)
