"""Matching the classes of data and models, or of two models, by name or by a map that the user gives.

Names match exactly, or up to letter case, surrounding space and the separators `_`, `-` and space (and Unicode
spelling: file systems differ). Names that this would confuse match exactly only.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError, GainfinderError, ModelError
from ..references import shown, suggest
from .label_map import LabelMap
from .order import order_doubt

_SHOWN_NAMES = 5
_SHOWN_PAIRS = 3
_SHOWN_DROPPED = 3
_MOST_DIGITS = 18
_REMEDY = "?classes= in the model reference sets a model's class names"


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """The index of each class of a source among the classes of a target.

    Attributes:
        order: index of each source class among the target's classes; None for the same position.
        note: one line for the user on how they were matched; None where there is nothing to say.
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
    """The index of each class of labelled data among a model's classes.

    Both named and every name of the data found: by name, and the data may hold fewer classes than the model. Both
    named, none found and equal counts: by position, with a note. A side without names: by position, for equal counts.

    Args:
        data_names: class names in the order of the labels; None where the data name no classes.
        model_names: class names in the order of the logits; None where the model names none.
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

    Example:
        >>> names = ["cat", "cow", "dog"]
        >>> match_classes(["dog", "Cat"], names, data="pets", model="m", data_count=2, model_count=3).order
        (2, 0)
        >>> match_classes(None, ["cat", "dog"], data="pets", model="m", data_count=2, model_count=2).order is None
        True
    """
    source = _Side(what=data, names=data_names, count=data_count)
    return _match(source, _Side(what=model, names=model_names, count=model_count), error=DataError)


@dataclass(frozen=True, kw_only=True)
class TeacherMatch:
    """How a teacher's classes become a student's.

    Attributes:
        label_map: map from the teacher's classes to the student's; None for the same position.
        note: one line for the user on how they were matched; None where there is nothing to say.
    """

    label_map: LabelMap | None
    note: str | None = None


def align_teacher(
    student_names: Sequence[str] | None,
    teacher_names: Sequence[str] | None,
    *,
    student: str,
    teacher: str,
    student_count: int,
    teacher_count: int,
) -> TeacherMatch:
    """Match a teacher's classes to a student's, so that the teacher's logits can be put in the student's order.

    Both named: by name. Classes that only the teacher has are left out, classes that only the student has
    get no probability from it, and either gives a note. Both named, none found and equal counts: by
    position, with a note. A side without names: by position, for equal counts.

    Args:
        student_names: class names in the order of the student's logits; None where it names none.
        teacher_names: class names in the order of the teacher's logits; None where it names none.
        student: reference of the student, for messages.
        teacher: reference of the teacher, for messages.
        student_count: number of the student's classes.
        teacher_count: number of the teacher's classes.

    Returns:
        For equal counts with all names found, a permutation.

    Raises:
        ModelError: counts that differ where no name helps, or a name that occurs twice.
        ValueError: a count that is not the number of names.

    Example:
        >>> found = align_teacher(["a", "b"], ["b", "a"], student="s", teacher="t", student_count=2, teacher_count=2)
        >>> found.label_map.order
        (1, 0)
    """
    ours = _Side(what=student, names=student_names, count=student_count)
    theirs = _Side(what=teacher, names=teacher_names, count=teacher_count)
    found = None if ours.names is None or theirs.names is None else _find(ours.names, theirs.names)
    if found is None or all(index is None for index in found):
        if student_count != teacher_count:
            raise ModelError(_no_match(ours, theirs))
        return TeacherMatch(label_map=None, note=_match(ours, theirs, error=ModelError).note)
    if None not in found and student_count == teacher_count:
        order = _match(ours, theirs, error=ModelError).order
        assert order is not None
        return TeacherMatch(label_map=LabelMap.from_order(order, outputs=teacher_count))
    assert ours.names is not None and theirs.names is not None
    matched = [(position, index) for position, index in enumerate(found) if index is not None]
    _refuse_duplicates(ours, [ours.names[position] for position, _ in matched], error=ModelError)
    _refuse_duplicates(theirs, [theirs.names[index] for _, index in matched], error=ModelError)
    label_map = LabelMap.from_order(found, outputs=teacher_count)
    gaps = _gaps(label_map, ours, theirs)
    return TeacherMatch(label_map=label_map, note=f"{_classes(len(matched))} matched by name; {gaps}")


def map_teacher(
    pairs: Sequence[tuple[str, str]],
    student_names: Sequence[str] | None,
    teacher_names: Sequence[str] | None,
    *,
    student: str,
    teacher: str,
    student_count: int,
    teacher_count: int,
    where: str,
) -> TeacherMatch:
    """Match a teacher's classes to a student's as `align_teacher` does, by a map that the user gives.

    Args:
        pairs: (class of the teacher, class of the student), each a name or an index from 0. A name wins over an index.
            Several of the teacher's classes may map to one of the student's; either side may be covered in part.
        student_names: class names in the order of the student's logits; None where it names none.
        teacher_names: class names in the order of the teacher's logits; None where it names none.
        student: reference of the student, for messages.
        teacher: reference of the teacher, for messages.
        student_count: number of the student's classes.
        teacher_count: number of the teacher's classes.
        where: name of the file that the pairs were read from, for messages.

    Returns:
        The map; a note where a class of either side is left out.

    Raises:
        DataError: no pair, a class that is unknown, or one of the teacher's that maps to two of the student's.
        ValueError: a count that is not the number of names.

    Example:
        >>> pairs = [("tabby", "cat"), ("1", "cat"), ("pug", "1")]
        >>> found = map_teacher(pairs, ["cat", "dog"], ["tabby", "lynx", "pug"],
        ...     student="s", teacher="t", student_count=2, teacher_count=3, where="map.json")
        >>> found.label_map.targets
        (0, 0, 1)
    """
    ours = _Side(what=student, names=student_names, count=student_count)
    theirs = _Side(what=teacher, names=teacher_names, count=teacher_count)
    if not pairs:
        raise DataError(f"{where}: the label map is empty: expected pairs of a teacher's class and a student's")
    sources = _positions([pair[0] for pair in pairs], theirs, role="the teacher", where=where)
    targets = _positions([pair[1] for pair in pairs], ours, role="the student", where=where)
    whole: list[int | None] = [None] * teacher_count
    for pair, source, target in zip(pairs, sources, targets, strict=True):
        if whole[source] not in (None, target):
            first = next(other for other, position in zip(pairs, sources, strict=True) if position == source)
            raise DataError(
                f"{where}: the teacher's class {pair[0]!r} is mapped to {first[1]!r} and to {pair[1]!r}: expected one "
                "of the student's classes for each of the teacher's"
            )
        whole[source] = target
    label_map = LabelMap(targets=tuple(whole), num_classes=student_count)
    gaps = _gaps(label_map, ours, theirs)
    return TeacherMatch(label_map=label_map, note=f"label map {where}: {gaps}" if gaps else None)


@dataclass(frozen=True, kw_only=True)
class _Side:
    what: str
    names: Sequence[str] | None
    count: int

    def __post_init__(self) -> None:
        if self.names is not None and len(self.names) != self.count:
            raise ValueError(f"{self.what}: expected {self.count} class names, got {len(self.names)}")


def _no_match(ours: _Side, theirs: _Side) -> str:
    """Why a teacher of another number of classes cannot be matched by name."""
    counts = f"{theirs.what} has {_classes(theirs.count)} and the student {ours.what} has {_classes(ours.count)}"
    nameless = next((side for side in (theirs, ours) if side.names is None), None)
    if nameless is not None:
        reason = f"{nameless.what} names none, so they cannot be matched by name; {_REMEDY}, and"
    else:
        assert ours.names is not None and theirs.names is not None
        reason = f"no name is common ({_first(theirs.names)} and {_first(ours.names)});"
    return f"{counts}: {reason} `label_map=FILE` says which of the teacher's classes is which of the student's"


def _gaps(label_map: LabelMap, ours: _Side, theirs: _Side) -> str:
    """Which classes a map leaves out, on either side; empty where it covers both."""
    parts = []
    if label_map.unmatched:
        shown = _listed(ours, label_map.unmatched, known=theirs.names)
        verb = "has" if len(label_map.unmatched) == 1 else "have"
        parts.append(
            f"{len(label_map.unmatched)} of the {_classes(ours.count)} of the student {ours.what} {verb} no "
            f"counterpart in {theirs.what} and no probability from it: {shown}"
        )
    if label_map.left_out:
        shown = _listed(theirs, label_map.left_out, known=None)
        verb = "is" if len(label_map.left_out) == 1 else "are"
        parts.append(
            f"{len(label_map.left_out)} of the {_classes(theirs.count)} of {theirs.what} {verb} left out, their "
            f"probability dropped: {shown}"
        )
    return "; ".join(parts)


def _listed(side: _Side, positions: Sequence[int], *, known: Sequence[str] | None) -> str:
    """The first of some classes, by name where there are names; with their near matches among `known`."""
    names = [str(i) if side.names is None else side.names[i] for i in positions[:_SHOWN_DROPPED]]
    shown = ", ".join(repr(name) if known is None else _with_near(name, known) for name in names)
    return shown + (f" and {len(positions) - len(names)} more" if len(positions) > len(names) else "")


def _positions(texts: Sequence[str], side: _Side, *, role: str, where: str) -> list[int]:
    """The index of each class that a label map names."""
    unique = list(dict.fromkeys(texts))
    found = [None] * len(unique) if side.names is None else _find(unique, side.names, distinct=False)
    positions = {}
    for text, position in zip(unique, found, strict=True):
        if position is not None:
            assert side.names is not None
            _refuse_duplicates(side, [side.names[position]], error=DataError)
        positions[text] = _as_index(text, side, role=role, where=where) if position is None else position
    return [positions[text] for text in texts]


def _as_index(text: str, side: _Side, *, role: str, where: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]+", text.strip()):
        given = text if len(text) <= _MOST_DIGITS else shown(text)
        if len(text.strip()) > _MOST_DIGITS or not 0 <= int(text) < side.count:
            raise DataError(
                f"{where}: class {given} of {role} is out of range: {side.what} has {_classes(side.count)}, expected 0 "
                f"to {side.count - 1}"
            )
        return int(text)
    if side.names is None:
        raise DataError(
            f"{where}: {text!r} is no class of {role} {side.what}, which names none: give indices from 0 to "
            f"{side.count - 1}, or its names ({_REMEDY})"
        )
    raise DataError(
        f"{where}: {text!r} is no class of {role} {side.what}{suggest(text, side.names)}; expected one of its "
        f"{_classes(side.count)} ({_first(side.names)}) or an index from 0"
    )


def _match(source: _Side, target: _Side, *, error: type[GainfinderError]) -> ClassMatch:
    if source.names is None or target.names is None:
        if source.count != target.count:
            remedy = _REMEDY if target.names is None else f"expected all {_classes(target.count)}, or names for them"
            nameless = target if target.names is None else source
            raise error(
                f"{source.what} has {_classes(source.count)} and {target.what} has {_classes(target.count)}: "
                f"{nameless.what} names none, and matching by position needs equal counts; {remedy}"
            )
        return ClassMatch(order=None, note=_doubt(source, target))
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
    _refuse_duplicates(source, source.names, error=error)
    _refuse_duplicates(target, [target.names[index] for index in found if index is not None], error=error)
    return ClassMatch(order=tuple(index for index in found if index is not None))


def _doubt(source: _Side, target: _Side) -> str | None:
    """A note where a model without names may have been trained under another order than the other side stands in."""
    if target.names is None and source.names is not None:
        return order_doubt(source.names, named=source.what, nameless=target.what)
    if source.names is None and target.names is not None:
        return order_doubt(target.names, named=target.what, nameless=source.what)
    return None


def _find(source_names: Sequence[str], target_names: Sequence[str], *, distinct: bool = True) -> list[int | None]:
    """For each source name the index of the target name that it matches, exactly or else normalised.

    Args:
        source_names: names to look up.
        target_names: names to find.
        distinct: whether two source names are two classes, however alike.
    """
    exact = {name: index for index, name in enumerate(target_names)}
    loose = {_normalised(name): index for index, name in enumerate(target_names)}
    # A normalised name that stands for two different names on one side is ambiguous.
    for names in (source_names, target_names) if distinct else (target_names,):
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
    doubt = order_doubt(source_names, named=source.what, nameless=target.what, because="has other names")
    return ClassMatch(
        order=None,
        note=f"{source.what} and {target.what} have no class name in common, so their {_classes(source.count)} are "
        f"matched by position: {shown}; if that is wrong, {_REMEDY}" + (f"; {doubt}" if doubt else ""),
    )


def _refuse_duplicates(side: _Side, names: Sequence[str], *, error: type[GainfinderError]) -> None:
    all_names = Counter(side.names)
    duplicate = next((name for name in names if all_names[name] > 1), None)
    if duplicate is not None:
        raise error(
            f"the class name {duplicate!r} occurs {all_names[duplicate]} times in {side.what}: expected it once, "
            f"since the two cannot be told apart by name; {_REMEDY}"
        )


def _normalised(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _with_near(name: str, known: Sequence[str]) -> str:
    suggestion = suggest(name, known).removeprefix("; ")
    return f"{name!r} ({suggestion})" if suggestion else repr(name)


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN_PAIRS])) + (", …" if len(names) > _SHOWN_PAIRS else "")


def _classes(count: int) -> str:
    return f"{count} class" if count == 1 else f"{count} classes"
