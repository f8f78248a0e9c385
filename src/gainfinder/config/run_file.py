"""A transfer in a file: TOML that a person writes, or what was asked for, in the `config.json` of a result.

student = "local-dir:zoo/vit_a"
teachers = ["resnet20.pt", "convnext_a"]      # or one, without brackets
data = "photos"
val = "test.parquet"                          # likewise guard_data, label_maps, referees
out = "better"

[settings]                                    # any setting of a transfer
epochs = 20
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import SettingsError
from ..files import parse_json, user_path, write_text
from ..redaction import HIDDEN, redacted
from ..references import TRUST, join_query, shown_value, split_query
from .settings import SETTINGS, TransferConfig
from .spec import TransferSpec
from .toml_file import TomlFile, read_text

REQUEST = "request"
"""Key of a result's `config.json` for what was asked for."""
LISTS = ("teachers", "label_maps", "referees")
REQUIRED = {"student": "student", "teachers": "teacher", "data": "data"}
"""What a transfer cannot do without, and the name of the option that gives it."""


class RunFile(BaseModel):
    """What a file says of a transfer; what it leaves out may be given beside it.

    Attributes:
        student: as in `TransferSpec`, like those below.
        teachers: the teachers.
        data: the transfer images.
        val: the images to measure on.
        guard_data: the images for the guard.
        label_maps: files that map classes.
        referees: models that judge.
        out: the result folder.
        ask: labels to ask for afterwards, 1 or more.
        settings: settings by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    student: str | None = None
    teachers: list[str] = []
    data: str | None = None
    val: str | None = None
    guard_data: str | None = None
    label_maps: list[str] = []
    referees: list[str] = []
    out: str | None = None
    ask: Annotated[int, Field(ge=1)] | None = None
    settings: dict[str, Any] = {}

    @field_validator(*LISTS, mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def updated(self, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Self:
        """The same with what is given beside it in its place.

        Args:
            given: values of the fields, by name; those that are None or empty change nothing.
            settings: settings by name.
        """
        changes = {name: value for name, value in given.items() if value not in (None, [], ())}
        return self.model_copy(update={**changes, "settings": {**self.settings, **settings}})

    def spec(self) -> TransferSpec:
        """The transfer.

        Raises:
            SettingsError: there is no student, teacher or data, or settings do not go together.
        """
        for name, option in REQUIRED.items():
            if not getattr(self, name):
                raise SettingsError(f"no {option} is given: give `{option}`, or `config`, a file that names it")
        names = {*TransferSpec.model_fields} - {"config"}
        fields = {name: getattr(self, name) for name in names}
        return TransferSpec(**fields, config=TransferConfig(**self.settings))

    def write(self, path: Path, *, by_rule: Mapping[str, Any]) -> None:
        """Write it as a TOML file, atomically; one that is there stays.

        Args:
            path: the file.
            by_rule: settings that are not given, as they were resolved; they are in it as comments.

        Raises:
            SettingsError: there is a file of that name, or what would be written could not be read, such as secrets.
            GainfinderError: it cannot be written.
        """
        if path.exists():
            raise SettingsError(f"{path}: exists, and is not overwritten: choose another name for `write`")
        text = self._toml(by_rule)
        _RunFile(path, text, tomllib.loads(text)).run()
        write_text(path, text)

    def _toml(self, by_rule: Mapping[str, Any]) -> str:
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"settings"})
        settings = TransferConfig(**self.settings).model_dump(mode="json", include={*self.settings})
        lines = [
            "# A transfer, for `gainfinder transfer --config FILE`; options beside it go over what is here.",
            "# Relative paths start where the command is given.",
            *(f"{name} = {_toml(value)}" for name, value in values.items()),
            "",
            "[settings]",
            *(f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None),
        ]
        if by_rule:
            lines += ["", "# By rule or default; without its # one is fixed at what it is now:"]
            lines += [f"# {name} = {_toml(value)}" for name, value in by_rule.items()]
        return "\n".join([*lines, ""])


def request_of(spec: TransferSpec) -> RunFile:
    """What a specification says, for a file: settings at their default left out, and no leave to run a model's code.

    Secrets are hidden; `read_run` names what is to be given again.
    """
    document = spec.model_dump(mode="json", exclude_defaults=True)
    document["settings"] = document.pop("config", {})
    document["student"] = _untrusted(spec.student)
    for name in ("teachers", "referees"):
        document[name] = [*map(_untrusted, getattr(spec, name))]
    return RunFile.model_validate(_redacted(document))


def read_run(path: str | Path) -> RunFile:
    """Read and check the file of a transfer: TOML, or the `config.json` of a result.

    Args:
        path: the file.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong: the line of a TOML file, and the nearest right
            key, are named.
    """
    file = user_path(path, what="run", error=SettingsError)
    text = read_text(file, what="run")
    is_json = file.suffix.lower() == ".json" or text.lstrip().startswith("{")
    found = _read_json(file, text) if is_json else _RunFile.parsed(file, text)
    found.refuse_unusable()
    return found.run()


class _RunFile(TomlFile):
    """The file of a transfer."""

    def run(self) -> RunFile:
        """What it says, checked.

        Raises:
            SettingsError: something in it is wrong.
        """
        names = [one.name for one in SETTINGS]
        if misplaced := next((key for key in self.document if key in names), None):
            raise self.fail((misplaced,), f"{misplaced!r} is a setting: write it under [settings]")
        known = list(RunFile.model_fields)
        self.check_keys((), self.document, known)
        self.check_settings(("settings",), self.document.get("settings", {}))
        try:
            run = RunFile.model_validate(self.document)
        except ValidationError as error:
            raise self.mistake(error, error.errors(include_url=False)[0]["loc"], known) from None
        for name, value in run.model_dump(exclude={"settings", "ask"}, exclude_none=True).items():
            for reference in [value] if isinstance(value, str) else value:
                self._check_reference(name, reference)
        return run

    def _check_reference(self, name: str, reference: str) -> None:
        if HIDDEN in reference:
            option = REQUIRED.get(name, name)
            raise self.fail((name,), f"{name} is {reference!r}, a secret of which was taken out: give `{option}`")
        self.check_reference((name,), reference)


def _read_json(file: Path, text: str) -> _RunFile:
    """The request in a result's configuration; or the same keys as in TOML."""
    try:
        document = parse_json(text)
    except ValueError as error:
        raise SettingsError(f"{file}: is no JSON, or damaged: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(
            f"{file}: is {shown_value(document)}, not as gainfinder wrote it: expected the `config.json` of a result, "
            "or an object with the keys of a transfer; is it damaged?"
        )
    if "transfer_delta_pp" in document:
        beside = file.with_name("config.json")
        raise SettingsError(f"{file}: holds what a result measured; what was asked for is in {beside}: give that")
    if "environment" not in document:
        return _RunFile(file, "", document)
    if isinstance(request := document.get(REQUEST), dict):
        return _RunFile(file, "", request)
    command = document["environment"].get("command") if isinstance(document["environment"], dict) else None
    told = f"; it was started by: {command}" if isinstance(command, str) else ""
    raise SettingsError(
        f"{file}: does not hold what was asked for: an earlier version wrote it, or models or images were objects in "
        f"Python, or it is a step or a control of another transfer, whose folder is the one to take{told}"
    )


def _untrusted(reference: str) -> str:
    """A model reference without leave to run the model's own code."""
    base, query = split_query(reference)
    return join_query(base, tuple(one for one in query if one[0] != TRUST))


def _redacted(value: Any) -> Any:
    """A nested value with every text in it redacted."""
    if isinstance(value, dict):
        return {key: _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [*map(_redacted, value)]
    return redacted(value) if isinstance(value, str) else value


def _toml(value: Any) -> str:
    """A text, number, truth value or list of them as TOML, which spells them as JSON does, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
