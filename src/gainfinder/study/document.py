"""A study's file: which students learn from which teachers, by which settings, on which images.

[study]
students = ["vit_a", "resnet20"]
teachers = ["convnext_a", ["vit_b", "convnext_a", "regnet_a"]]   # a list in it: several that teach one student

[paths]                        # stand for {zoo} in references; --set paths.zoo=… replaces them
zoo = "zoo"

[models]                       # names for references; a name that is not here is a reference itself
vit_a = "local-dir:{zoo}/vit_a"
resnet20 = { reference = "file:nets.py:resnet20@{zoo}/resnet20.safetensors", family = "CNN" }

[data]                         # or several, [data.NAME] each
data = "images.parquet"
val = "test.parquet#2/2"

[settings]                     # of all cells: any setting of a transfer
epochs = 2

[axes]                         # each combination of these values
seed = [0, 1, 2]

[variants.kl]                  # settings that go together; each variant is another axis value
method = "kl"

[[exclude]]                    # cells that match all keys of a rule; [[only]] keeps those that match one
student = "vit_*"
teacher = "vit_*"
"""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import SETTINGS, TomlFile
from ..errors import SettingsError
from ..references import shown_value, suggest, trusting

MOST_COMBINATIONS = 100_000
"""Combinations of students, teachers, images, variants and axes: to write so many down takes a minute."""
LONGEST_NAME = 100
"""Characters of a study's name, which is in the title of its report."""
FIXED_KEYS = ("student", "teacher", "teacher_count", "data", "variant")
"""Keys of a rule besides the settings."""
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w-]*)\}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StudySection(_Section):
    """The heart of a study.

    Attributes:
        students: names of models, or references.
        teachers: likewise; several in a list teach one student together.
        name: the study's name; by default the file's.
        about: what it is for.
        with_itself: whether a student that is among the teachers learns from its own copy, too: what that changes is
            no teacher's.
        bank: whether cells share the frozen models' logits for their views.
        keep: `all`: each cell keeps its student and predictions; `results`: its measures alone.
    """

    students: list[str] = Field(min_length=1)
    teachers: list[str | list[str]] = Field(min_length=1)
    name: str = ""
    about: str = ""
    with_itself: bool = False
    bank: bool = True
    keep: Literal["all", "results"] = "all"


class ModelSection(_Section):
    """A model of a study.

    Attributes:
        reference: its reference.
        family: family for tables and figures, such as CNN, Transformer or MLP; by default by its reference.
        label_map: file that maps its classes to its student's, where it teaches.
    """

    reference: str
    family: str | None = None
    label_map: str | None = None


class DataSection(_Section):
    """Images of a study.

    Attributes:
        data: reference of the images to learn from.
        val: reference of the images to measure on; None sets a tenth of `data` apart.
        guard_data: reference of the images for the guard; None likewise.
        referees: models that judge without labels and never teach.
    """

    data: str
    val: str | None = None
    guard_data: str | None = None
    referees: list[str] = []


class StudyDocument(_Section):
    """A study as its file and the overrides give it, placeholders in references still there.

    Attributes:
        study: students, teachers and how cells are run.
        paths: values of the placeholders in references.
        models: models by name.
        data: images by name.
        settings: settings of all cells.
        axes: values of further settings, of which every combination is run.
        variants: settings that go together, by the variant's name.
        exclude: rules; a cell that matches all keys of one is left out.
        only: rules; where there are any, a cell has to match one.
    """

    study: StudySection
    paths: dict[str, str] = {}
    models: dict[str, ModelSection] = {}
    data: dict[str, DataSection]
    settings: dict[str, Any] = {}
    axes: dict[str, list[Any]] = {}
    variants: dict[str, dict[str, Any]] = {}
    exclude: list[dict[str, Any]] = []
    only: list[dict[str, Any]] = []

    def reference(self, name: str) -> str:
        """The reference of a model by its name, or of one that is a reference itself, its placeholders replaced."""
        return self.filled(self.models[name].reference if name in self.models else name)

    def filled(self, reference: str) -> str:
        """A reference with its placeholders replaced."""
        return _PLACEHOLDER.sub(lambda found: self.paths.get(found[1], found[0]), reference)

    def trusting(self, names: Sequence[str]) -> "StudyDocument":
        """The study, its `hf:` models of these names with leave to run code of their own; a file cannot give it.

        Args:
            names: repositories or folders, as for `references.trusting`.

        Raises:
            BadReference: a name is that of no model of the study.
        """
        if not names:
            return self
        given = [*(one.reference for one in self.models.values()), *_direct(self)]
        trusted = dict(zip(given, trusting([self.filled(one) for one in given], names), strict=True))

        def of(name: str) -> str:
            return name if name in self.models else trusted[name]

        teachers = [of(one) if isinstance(one, str) else [*map(of, one)] for one in self.study.teachers]
        students = [*map(of, self.study.students)]
        return self.model_copy(
            update={
                "study": self.study.model_copy(update={"students": students, "teachers": teachers}),
                "models": {
                    name: one.model_copy(update={"reference": trusted[one.reference]})
                    for name, one in self.models.items()
                },
                "data": {
                    name: one.model_copy(update={"referees": [*map(of, one.referees)]})
                    for name, one in self.data.items()
                },
            }
        )

    def to_json(self) -> str:
        """The document as JSON, which `from_json` reads."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "StudyDocument":
        """What `to_json` wrote.

        Raises:
            SettingsError: it is something else.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SettingsError(f"not a study as gainfinder writes it: {error.errors()[0]['msg']}") from error


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyDocument:
    """Read and check a study's file.

    Args:
        path: the TOML file.
        overrides: `KEY=VALUE`, each replaces a value of the file: keys of nested tables with dots between them, the
            value as in TOML, or a plain text.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong: the line, and the nearest right key, are named.
    """
    file = _StudyFile.read(path, what="study")
    for override in overrides:
        _merge(file.document, _override(override))
    file.refuse_unusable()
    study = file.study()
    if not study.study.name:
        study = study.model_copy(update={"study": study.study.model_copy(update={"name": file.path.stem})})
    name = study.study.name
    if len(name) > LONGEST_NAME or not name.isprintable() or not name.strip():
        raise file.fail(
            ("study", "name"),
            f"study.name is {shown_value(name)}: expected a name of 1 to {LONGEST_NAME} characters on one line",
        )
    return study


class _StudyFile(TomlFile):
    """The file of a study."""

    def study(self) -> StudyDocument:
        """The study, checked.

        Raises:
            SettingsError: something in it is wrong.
        """
        document = self.document
        self.check_keys((), document, list(StudyDocument.model_fields))
        for name in ("study", "data"):
            if not isinstance(document.get(name), dict):
                raise SettingsError(f"{self.path}: has no table [{name}]; a study needs one")
        shaped = {**document, "models": _models(document), "data": _named_data(document["data"])}
        self.check_settings(("settings",), shaped.get("settings", {}))
        for name, values in _table(shaped, "variants").items():
            self.check_settings(("variants", name), values)
        self._check_axes(_table(shaped, "axes"))
        try:
            study = StudyDocument.model_validate(shaped)
        except ValidationError as error:
            raise self._mistake_of(error, single=shaped["data"] is not document["data"]) from None
        self._check_rules(study)
        self._check_references(study)
        self._check_names(study)
        for name, value in study.paths.items():
            self.check_secret(("paths", name), value)
        self.check_secret(("study", "about"), study.study.about)
        return study

    def _mistake_of(self, error: ValidationError, *, single: bool) -> SettingsError:
        loc = error.errors(include_url=False)[0]["loc"]
        path = [part for part in loc if not (isinstance(part, str) and part in {"str", "list[str]"})]
        if single and path[:2] == ["data", "data"]:
            path = ["data", *path[2:]]
        return self.mistake(error, path, _fields_at(path[:-1]))

    def _check_axes(self, axes: Mapping[str, Any]) -> None:
        self.check_keys(("axes",), axes, [one.name for one in SETTINGS])
        for key, values in axes.items():
            if not isinstance(values, list) or not values:
                raise self.fail(
                    ("axes", key), f"axes.{key} is {shown_value(values)}: expected a list of values, at least one"
                )
        if (count := math.prod(map(len, axes.values()))) > MOST_COMBINATIONS:
            raise self.fail(
                ("axes",),
                f"the axes have {count:,} combinations: expected at most {MOST_COMBINATIONS:,}; take values out",
            )
        for key, values in axes.items():
            for value in values:
                self.check_setting(("axes", key), key, value, item=True)

    def _check_rules(self, study: StudyDocument) -> None:
        known = [*FIXED_KEYS, *(one.name for one in SETTINGS)]
        for kind in ("exclude", "only"):
            for number, rule in enumerate(getattr(study, kind)):
                if not rule:
                    raise self.fail((kind, number), f"an empty rule in {kind} matches every cell: give it keys")
                self.check_keys((kind, number), rule, known)

    def _check_references(self, study: StudyDocument) -> None:
        for path, reference in _references(study):
            self.check_reference(path, reference)
            for name in _PLACEHOLDER.findall(reference):
                if name not in study.paths:
                    known = ", ".join(study.paths) or "none"
                    raise self.fail(
                        path,
                        f"{reference!r} has the placeholder {{{name}}}{suggest(name, study.paths)}, which is no key of "
                        f"[paths]; known: {known}",
                    )

    def _check_names(self, study: StudyDocument) -> None:
        """Refuse a name that looks like one of [models] and is none: a typing error would be loaded as a reference."""
        if not study.models:
            return
        for key, names in (("students", study.study.students), ("teachers", study.study.teachers)):
            for name in _flat(names):
                near = suggest(name, study.models)
                if name not in study.models and near:
                    raise self.fail(("study", key), f"{name!r} is no model of [models]{near}", value=name)


def _fields_at(path: Sequence[Any]) -> list[str]:
    """The keys that are known at a place of the document."""
    sections: dict[str, type[BaseModel]] = {"study": StudySection, "models": ModelSection, "data": DataSection}
    return list((sections[path[0]] if path else StudyDocument).model_fields)


def _references(study: StudyDocument) -> Iterable[tuple[tuple[str, ...], str]]:
    for name, model in study.models.items():
        yield ("models", name), model.reference
        if model.label_map is not None:
            yield ("models", name, "label_map"), model.label_map
    for name in (*study.study.students, *_flat(study.study.teachers)):
        yield ("study", "students" if name in study.study.students else "teachers"), name
    for name, images in study.data.items():
        for key in ("data", "val", "guard_data"):
            if (reference := getattr(images, key)) is not None:
                yield ("data", key) if name == "data" else ("data", name, key), reference
        for reference in images.referees:
            yield ("data", "referees") if name == "data" else ("data", name, "referees"), reference


def _direct(study: StudyDocument) -> list[str]:
    """The students, teachers and referees that are no names of [models] but references themselves."""
    referees = [name for one in study.data.values() for name in one.referees]
    names = [*study.study.students, *_flat(study.study.teachers), *referees]
    return [name for name in dict.fromkeys(names) if name not in study.models]


def _flat(names: Iterable[str | list[str]]) -> list[str]:
    return [name for one in names for name in ([one] if isinstance(one, str) else one)]


def _named_data(data: dict[str, Any]) -> dict[str, Any]:
    """Images by name; those of a study with one kind are called data."""
    return data if data and all(isinstance(one, dict) for one in data.values()) else {"data": data}


def _models(document: Mapping[str, Any]) -> dict[str, Any]:
    """Models by name; one that is a text is its reference."""
    models = _table(document, "models")
    return {name: {"reference": one} if isinstance(one, str) else one for name, one in models.items()}


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name, {})
    return found if isinstance(found, dict) else {}


def _override(text: str) -> dict[str, Any]:
    """`KEY=VALUE` as a document of that value alone."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"`set` is {text!r}: expected KEY=VALUE, such as settings.epochs=1")
    for source in (f"{key} = {value}", f"{key} = {json.dumps(value, ensure_ascii=False)}"):
        try:
            return tomllib.loads(source)
        except (ValueError, RecursionError):
            continue
    raise SettingsError(f"`set` is {text!r}: {key!r} is no key of a table, such as settings.epochs")


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
