"""How a setting is declared, once: flags, completion, messages and tables are derived from the declaration.

A setting is a field of a pydantic model whose annotation carries a `Setting`:

    epochs: Annotated[Count | None, Setting(help="Passes over the images; default {fallback}.", fallback=5)] = None
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..references import shown_value, suggest

BOUNDS = ("ge", "gt", "le", "lt")
MOST = 1_000_000_000
"""Upper bound of counts and of numbers without another one, which nobody meets but by a slip."""
LARGEST_SEED = 2**63 - 1
"""Upper bound of a seed, and below 0 its lower one: whole numbers of 64 bits."""
UNTOLD = (MOST, LARGEST_SEED)
"""Upper bounds that the message for what is beyond them tells, and no table."""
RANGE_ERRORS = {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}
"""pydantic's error types for a value of the right type that is out of range."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Metadata of a setting besides its type, range and default.

    Attributes:
        help: one sentence, for the flag, tables and Python; `{fallback}` stands for the value of `fallback`.
        more: further text for the documentation, after `help`.
        fallback: the value of a setting that is None, where neither method nor preset has one; None where a rule
            decides.
        rule: the rule that decides a setting that is None, in words.
        expected: the expected values in words, for messages; by default derived from type and range.
        choices: possible values that the type does not list, for completion.
        changes_results: whether two transfers that differ in it alone can give different students.
    """

    help: str
    more: str = ""
    fallback: Any = None
    rule: str = ""
    expected: str = ""
    choices: tuple[str, ...] = ()
    changes_results: bool = True


@dataclass(frozen=True, kw_only=True)
class DeclaredSetting:
    """A setting and its metadata, read from a field of the model.

    Attributes:
        name: name in Python; the flag has dashes for its underscores.
        type: the annotation without metadata, such as `int | None`.
        default: default of the field; None stands for the rule.
        bounds: the smallest and largest number: some of `ge`, `gt`, `le`, `lt`.
        literals: strings that the type allows.
        about: the other metadata.
    """

    name: str
    type: Any
    default: Any
    bounds: Mapping[str, float] = field(default_factory=dict)
    literals: tuple[str, ...] = ()
    about: Setting

    @property
    def word(self) -> str:
        """The name in messages and flags, with dashes."""
        return self.name.replace("_", "-")

    @property
    def help(self) -> str:
        """The sentence for flags and tables."""
        value = self.about.fallback
        return self.about.help.replace("{fallback}", f"{value:g}" if isinstance(value, float) else f"{value}")

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that a value can have, None and words aside."""
        members = get_args(self.type) if _is_union(self.type) else (self.type,)
        return tuple(kind for kind in members if kind is not types.NoneType and get_origin(kind) is not Literal)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values to choose from, where there are only so many; else empty."""
        return self.about.choices or (() if self.kinds else self.literals)

    @property
    def range(self) -> str:
        """The allowed values in words, such as `1 or more`; empty where any value of the type is."""
        if self.about.expected:
            return self.about.expected
        if self.choices:
            return self.choices[0] if len(self.choices) == 1 else f"one of {', '.join(self.choices)}"
        return ", or ".join([*([_number_range(self.bounds)] if self.bounds else []), *self.literals])

    def expected(self, *, right_type: bool) -> str:
        """The expected values in words, for a message."""
        if right_type or self.choices or self.about.expected:
            return self.range
        words = {bool: "True or False", int: "a whole number", float: "a finite number"}
        word = next((words[kind] for kind in self.kinds if kind in words), "text")
        return f"{word}, {self.range}" if self.range else word


def declared_settings(model: type[BaseModel]) -> tuple[DeclaredSetting, ...]:
    """The settings of a model, in its order."""
    hints, plain = get_type_hints(model, include_extras=True), get_type_hints(model)
    found = []
    for name, info in model.model_fields.items():
        metadata = [*_metadata(hints[name])]
        about = next((one for one in metadata if isinstance(one, Setting)), None)
        if about is not None:
            bounds = {key: getattr(one, key) for one in metadata for key in BOUNDS if hasattr(one, key)}
            found.append(
                DeclaredSetting(
                    name=name,
                    type=plain[name],
                    default=info.default,
                    bounds=bounds,
                    literals=tuple(_literals(plain[name])),
                    about=about,
                )
            )
    return tuple(found)


def first_mistake(settings: Sequence[DeclaredSetting], error: ValidationError, given: Mapping[str, Any]) -> str:
    """One line on what pydantic found first: a name that is unknown, else a value out of range.

    Args:
        settings: the settings of the model.
        error: error that pydantic raised.
        given: the given values by name.
    """
    known = {one.name: one for one in settings}
    mistakes = error.errors(include_url=False, include_context=False)
    for mistake in mistakes:
        if mistake["type"] == "extra_forbidden":
            name = str(mistake["loc"][0])
            return f"unknown setting {name!r}{suggest(name, known)}; known: {', '.join(known)}"
    if not mistakes[0]["loc"]:
        return f"settings are {shown_value(mistakes[0]['input'])}: expected a table of settings by name"
    name = str(mistakes[0]["loc"][0])
    types_found = {one["type"] for one in mistakes if one["loc"][0] == name}
    expected = known[name].expected(right_type=bool(types_found & RANGE_ERRORS))
    largest = known[name].bounds.get("le")
    if types_found & {"less_than_equal", "greater_than_equal"} and largest == LARGEST_SEED:
        expected = "a whole number of 64 bits"
    elif "less_than_equal" in types_found and largest == MOST:
        expected += f", and at most {MOST:,}"
    return f"{known[name].word} is {shown_value(given[name])}: expected {expected}"


def type_text(hint: Any) -> str:
    """An annotation as source: `int | Literal['auto'] | None`."""
    if _is_union(hint):
        members = sorted(get_args(hint), key=lambda one: one is types.NoneType)
        return " | ".join(type_text(one) for one in members)
    if hint is types.NoneType:
        return "None"
    if get_origin(hint) is not None:
        name = getattr(hint, "__name__", None) or get_origin(hint).__name__
        inner = (f'"{one}"' if get_origin(hint) is Literal else type_text(one) for one in get_args(hint))
        return f"{name}[{', '.join(inner)}]"
    return str(hint.__name__)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _metadata(hint: Any) -> Iterator[Any]:
    """All metadata of `Annotated` anywhere in an annotation; a pydantic field is replaced by its constraints."""
    if get_origin(hint) is Annotated:
        for one in hint.__metadata__:
            yield from one.metadata if isinstance(one, FieldInfo) else (one,)
        yield from _metadata(hint.__origin__)
    elif _is_union(hint):
        for member in get_args(hint):
            yield from _metadata(member)


def _literals(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif _is_union(hint):
        for member in get_args(hint):
            yield from _literals(member)


def _number_range(bounds: Mapping[str, float]) -> str:
    """A range in words.

    >>> _number_range({"ge": 1}), _number_range({"gt": 0}), _number_range({"ge": 0, "lt": 1})
    ('1 or more', 'more than 0', 'from 0 to below 1')
    """
    if bounds.get("ge") == -LARGEST_SEED:
        return ""
    low = f"{bounds['ge']:g}" if "ge" in bounds else f"{bounds['gt']:g}"
    if not {"le", "lt"} & bounds.keys() or bounds.get("le") in UNTOLD:
        return f"{low} or more" if "ge" in bounds else f"more than {low}"
    high = f"to {bounds['le']:g}" if "le" in bounds else f"to below {bounds['lt']:g}"
    return f"from {low} {high}" if "ge" in bounds else f"above {low} and up {high}"
