"""A whole transfer as a value: who learns, who teaches, from which images, by which settings.

Nothing is loaded: models and images are references. Specifications can be compared, hashed and stored.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

from pydantic import BaseModel, TypeAdapter, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from ..errors import SettingsError
from ..references import suggest, trusting
from .differences import differing
from .settings import TransferConfig

MULTI_TEACHER_SETTINGS = ("strategy", "order")
"""Settings that have no effect with a single teacher."""


class TransferSpec(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A transfer, specified by references and settings; hashable, and to and from JSON.

    Attributes:
        student: reference of the model that learns.
        teachers: references of the models that teach, one or more.
        data: reference of the images to learn from.
        val: reference of the images to measure on; None sets a tenth of `data` apart.
        guard_data: reference of the images for the guard; None likewise.
        label_maps: files that map a teacher's classes to the student's: none, one for all teachers,
            or one each.
        referees: references of models that judge without labels and never teach.
        config: the settings.

    Raises:
        SettingsError: there is no teacher, a name is unknown, or a value is of another type or out of range.
    """

    student: str
    teachers: tuple[str, ...]
    data: str
    val: str | None = None
    guard_data: str | None = None
    label_maps: tuple[str, ...] = ()
    referees: tuple[str, ...] = ()
    config: TransferConfig = TransferConfig()

    @model_validator(mode="wrap")
    @classmethod
    def _settings_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise SettingsError(f"specification of a transfer: {_mistake(error, cls.model_fields)}") from None

    @model_validator(mode="after")
    def _has_teachers(self) -> Self:
        if not self.teachers:
            raise SettingsError("expected at least one teacher, got none")
        return self

    def trusting(self, names: Sequence[str]) -> Self:
        """The same, its `hf:` models of these names with leave to run code of their own; a file cannot give it.

        Args:
            names: repositories or folders, as for `references.trusting`.

        Raises:
            BadReference: a name is that of no model of the transfer.
        """
        student, *others = trusting([self.student, *self.teachers, *self.referees], names)
        count = len(self.teachers)
        changes = {"student": student, "teachers": tuple(others[:count]), "referees": tuple(others[count:])}
        return self.model_copy(update=changes)

    def to_json(self) -> str:
        """The specification as JSON, with every field."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The specification that `to_json` wrote, or one with some of its fields.

        Raises:
            SettingsError: the text is not JSON, or no specification.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SettingsError(f"specification of a transfer: {_mistake(error, cls.model_fields)}") from None

    def digest(self) -> str:
        """64 hexadecimal digits that are the same where the references and the settings that change results are.

        Settings at their default do not count, so that those of later versions change no digest. References count as
        they are written: what is in a file or folder is not looked at.
        """
        default = {"config": TransferConfig().result_settings()}
        found = self._result_fields()
        found["config"] = {
            name: value for name, value in found["config"].items() if value != default["config"].get(name)
        }
        return hashlib.sha256(TypeAdapter(dict[str, Any]).dump_json(_sorted(found))).hexdigest()

    def differences(self, other: "TransferSpec") -> list[str]:
        """Where another specification differs in what changes results, each as `key: X in the folder, Y asked for`.

        Empty where both have one digest.
        """
        return [one.asked for one in differing(self._result_fields(), other._result_fields())]

    def _result_fields(self) -> dict[str, Any]:
        settings = self.config.result_settings()
        if len(self.teachers) == 1:
            settings = {name: value for name, value in settings.items() if name not in MULTI_TEACHER_SETTINGS}
        none: set[str] = set() if self.referees else {"referees"}
        return {**self.model_dump(mode="json", exclude={"config", *none}), "config": settings}


def _mistake(error: ValidationError, known: Iterable[str]) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown field {where!r}{suggest(where, known)}; known: {', '.join(known)}"
    return f"{where}: {first['msg']}" if where else first["msg"]


def _sorted(value: Any) -> Any:
    """A nested mapping with its keys in order."""
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value
