"""Matching the classes of data and models, or of two models, by name.

Names match exactly, or up to letter case, surrounding space and the separators `_`, `-` and space (and Unicode
spelling: file systems differ). Names that this would confuse match exactly only.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import DataError, GainfinderError, ModelError
from .references import near

_SHOWN_NAMES = 5
_SHOWN_PAIRS = 3
_REMEDY = "?classes= in the model reference sets a model's class names"


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """Where the classes of a source lie among those of a target.

    Attributes:
        order: for each source class, its index among the target's classes; None for the same position.
        note: what the user should know of how they were matched, in one line; None where there is nothing to say.
    """

    order: tuple[int, ...] | None
    note: str | None = None


def match_classes(
    data_names: Sequence[str] | None,
    model_names: Sequence[str] | None,
    *,
    data: str,
    model: str,
    data_count: int,
    model_count: int,
) -> ClassMatch:
    """Where each class of labelled data lies among a model's classes.

    Both named and every name of the data found: by name, and the data may hold fewer classes than the model. Both
    named, none found and equal counts: by position, with a note. A side without names: by position, for equal counts.

    Args:
        data_names: in the order of the labels; None where the data name no classes.
        model_names: in the order of the logits; None where the model names none.
        data: reference of the data, for messages.
        model: reference of the model, for messages.
        data_count: number of classes of the data.
        model_count: number of classes of the model.

    Returns:
        `order[label of the data]` is the index of the model's logit. Two equal lists match in order, even where a name
        occurs twice in them (ImageNet has two cranes).

    Raises:
        DataError: counts that differ where names cannot help, only some names found, or a name that occurs twice.
        ValueError: a count that is not the number of names.

    >>> match_classes(["dog", "Cat"], ["cat", "cow", "dog"], data="pets", model="m", data_count=2, model_count=3).order
    (2, 0)
    >>> match_classes(None, ["cat", "dog"], data="pets", model="m", data_count=2, model_count=2).order is None
    True
    """
    source = _Side(what=data, names=data_names, count=data_count)
    return _match(source, _Side(what=model, names=model_names, count=model_count), error=DataError)


def align_teacher(
    student_names: Sequence[str] | None,
    teacher_names: Sequence[str] | None,
    *,
    student: str,
    teacher: str,
    student_count: int,
    teacher_count: int,
) -> ClassMatch:
    """Where each of a student's classes lies among a teacher's, so that the teacher's logits can be put in its order.

    As `match_classes`, but the counts must be equal: a by-name order is a permutation. Until label maps exist, models
    of differing classes cannot teach each other.

    Args:
        student_names: in the order of the student's logits; None where it names none.
        teacher_names: in the order of the teacher's logits; None where it names none.
        student: reference of the student, for messages.
        teacher: reference of the teacher, for messages.
        student_count: number of the student's classes.
        teacher_count: number of the teacher's classes.

    Returns:
        `teacher_logits[:, order]` has the student's order of classes.

    Raises:
        ModelError: counts that differ, only some names found, or a name that occurs twice.
        ValueError: a count that is not the number of names.

    >>> align_teacher(["a", "b"], ["b", "a"], student="s", teacher="t", student_count=2, teacher_count=2).order
    (1, 0)
    """
    if student_count != teacher_count:
        raise ModelError(
            f"{teacher} has {_classes(teacher_count)} and the student {student} has {_classes(student_count)}: "
            f"teacher and student need the same classes; choose a teacher with {student_count}"
        )
    source = _Side(what=student, names=student_names, count=student_count)
    return _match(source, _Side(what=teacher, names=teacher_names, count=teacher_count), error=ModelError)


@dataclass(frozen=True, kw_only=True)
class _Side:
    what: str
    names: Sequence[str] | None
    count: int

    def __post_init__(self) -> None:
        if self.names is not None and len(self.names) != self.count:
            raise ValueError(f"{self.what}: expected {self.count} class names, got {len(self.names)}")


def _match(source: _Side, target: _Side, *, error: type[GainfinderError]) -> ClassMatch:
    if source.names is None or target.names is None:
        if source.count != target.count:
            remedy = _REMEDY if target.names is None else f"expected all {_classes(target.count)}, or names for them"
            nameless = target if target.names is None else source
            raise error(
                f"{source.what} has {_classes(source.count)} and {target.what} has {_classes(target.count)}: "
                f"{nameless.what} names none, and matching by position needs equal counts; {remedy}"
            )
        return ClassMatch(order=None)
    if list(source.names) == list(target.names):
        return ClassMatch(order=tuple(range(source.count)))
    found = _find(source.names, target.names)
    missing = [name for name, index in zip(source.names, found, strict=True) if index is None]
    if len(missing) == source.count:
        return _by_position(source, target, source.names, target.names, error=error)
    if missing:
        shown = ", ".join(_with_near(name, target.names) for name in missing[:_SHOWN_NAMES])
        more = f" and {len(missing) - _SHOWN_NAMES} more" if len(missing) > _SHOWN_NAMES else ""
        raise error(
            f"{len(missing)} of the {_classes(source.count)} of {source.what} are not among the "
            f"{_classes(target.count)} of {target.what}: {shown}{more}; rename them, or {_REMEDY}"
        )
    _refuse_doubles(source, source.names, error=error)
    _refuse_doubles(target, [target.names[index] for index in found if index is not None], error=error)
    return ClassMatch(order=tuple(index for index in found if index is not None))


def _find(source_names: Sequence[str], target_names: Sequence[str]) -> list[int | None]:
    """For each source name the index of the target name that it matches, exactly or else normalised."""
    exact = {name: index for index, name in enumerate(target_names)}
    loose = {_normalised(name): index for index, name in enumerate(target_names)}
    # A normalised name that stands for two different names on one side says nothing about which is meant.
    for names in (source_names, target_names):
        for form, times in Counter(map(_normalised, set(names))).items():
            if times > 1:
                loose.pop(form, None)
    return [exact[name] if name in exact else loose.get(_normalised(name)) for name in source_names]


def _by_position(
    source: _Side,
    target: _Side,
    source_names: Sequence[str],
    target_names: Sequence[str],
    *,
    error: type[GainfinderError],
) -> ClassMatch:
    if source.count != target.count:
        raise error(
            f"{source.what} has {_classes(source.count)} ({_first(source_names)}) and {target.what} has "
            f"{_classes(target.count)} ({_first(target_names)}), with no name in common: expected common names, or "
            f"equal counts to match by position; {_REMEDY}"
        )
    pairs = list(zip(source_names, target_names, strict=True))[:_SHOWN_PAIRS]
    shown = ", ".join(f"{ours!r} = {theirs!r}" for ours, theirs in pairs) + (", …" if len(pairs) < source.count else "")
    return ClassMatch(
        order=None,
        note=f"{source.what} and {target.what} have no class name in common, so their {_classes(source.count)} are "
        f"matched by position: {shown}; if that is wrong, {_REMEDY}",
    )


def _refuse_doubles(side: _Side, names: Sequence[str], *, error: type[GainfinderError]) -> None:
    all_names = Counter(side.names)
    double = next((name for name in names if all_names[name] > 1), None)
    if double is not None:
        raise error(
            f"the class name {double!r} occurs {all_names[double]} times in {side.what}: expected it once, since the "
            f"two cannot be told apart by name; {_REMEDY}"
        )


def _normalised(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _with_near(name: str, known: Sequence[str]) -> str:
    suggestion = near(name, known).removeprefix("; ")
    return f"{name!r} ({suggestion})" if suggestion else repr(name)


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN_PAIRS])) + (", …" if len(names) > _SHOWN_PAIRS else "")


def _classes(count: int) -> str:
    return f"{count} class" if count == 1 else f"{count} classes"
