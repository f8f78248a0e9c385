"""A TOML file that a person writes, its settings checked; mistakes are told with their lines.

Of a run (`run_file.py`) or of a study (`study/document.py`).
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from ..errors import BadReference, SettingsError
from ..files import read_user_text, user_path
from ..redaction import redacted
from ..references import refuse_trust, shown_value, suggest
from .settings import SETTINGS, TransferConfig
from .toml_lines import line_of

DEEPEST = 16
"""Tables and lists within each other, at most."""


class TomlFile:
    """The text of a file and the document in it.

    Args:
        path: the file, for messages.
        text: its text, which lines are found in.
        document: what it says.
    """

    def __init__(self, path: Path, text: str, document: dict[str, Any]) -> None:
        self.path = path
        self.text = text
        self.document = document

    @classmethod
    def read(cls, path: str | Path, *, what: str) -> Self:
        """Read a file.

        Args:
            path: the file, as the user gave it.
            what: what it holds, for messages, such as `study`.

        Raises:
            SettingsError: it cannot be read, or is no TOML.
        """
        file = user_path(path, what=what, error=SettingsError)
        return cls.parsed(file, read_text(file, what=what))

    @classmethod
    def parsed(cls, file: Path, text: str) -> Self:
        """A file whose text is read already.

        Raises:
            SettingsError: it is no TOML.
        """
        try:
            return cls(file, text, tomllib.loads(text))
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise SettingsError(f"{file}: is no TOML: {reason}") from error

    def refuse_unusable(self) -> None:
        """Refuse values nested deeply, and numbers that are not finite or beyond 64 bits, which nobody needs.

        Raises:
            SettingsError: there is one.
        """
        if problem := _unusable(self.document):
            raise SettingsError(f"{self.path}: {problem}")

    def fail(self, path: Sequence[str | int], message: str, *, value: object = None) -> SettingsError:
        """The error for a mistake at a place of the file.

        Args:
            path: keys and positions that lead there.
            message: what is wrong.
            value: the value, where it is an item of a list.
        """
        line = line_of(self.text, path, value)
        where = f"{self.path}, line {line}" if line is not None else f"{self.path}"
        return SettingsError(f"{where}: {message}")

    def check_keys(self, path: Sequence[str | int], table: Mapping[str, Any], known: Sequence[str]) -> None:
        """Refuse keys that are not known.

        Raises:
            SettingsError: there is one.
        """
        for key in table:
            if key not in known:
                raise self._unknown((*path, key), known)

    def check_settings(self, path: Sequence[str], table: Any) -> None:
        """Refuse what is no table of settings, each right by itself; what does not go together is seen later.

        Raises:
            SettingsError: it is none.
        """
        if not isinstance(table, dict):
            raise self.fail(path, f"{'.'.join(path)} is {shown_value(table)}: expected a table of settings")
        self.check_keys(path, table, [one.name for one in SETTINGS])
        for key, value in table.items():
            self.check_setting((*path, key), key, value)

    def check_setting(self, path: Sequence[str], key: str, value: Any, *, item: bool = False) -> None:
        """Refuse a value that is wrong by itself.

        Args:
            path: keys that lead to it.
            key: the setting's name.
            value: its value.
            item: whether the value is an item of a list at that place.

        Raises:
            SettingsError: it is.
        """
        try:
            TransferConfig(**{key: value})
        except SettingsError as error:
            if key.startswith("bank_") and "give its folder" in str(error):  # given elsewhere, or by a study
                return
            raise self.fail(path, str(error), value=value if item else None) from None

    def check_reference(self, path: Sequence[str], reference: str) -> None:
        """Refuse a reference that lets a model run code of its own, or that holds a secret.

        Raises:
            SettingsError: it does.
        """
        try:
            refuse_trust(reference, where=".".join(path))
        except BadReference as error:
            raise self.fail(path, str(error)) from None
        self.check_secret(path, reference)

    def check_secret(self, path: Sequence[str], value: str) -> None:
        """Refuse a password or token in what results, reports and logs would repeat.

        Raises:
            SettingsError: there is one.
        """
        if redacted(value) != value:
            raise self.fail(
                path,
                f"{'.'.join(path)} holds a password or token, {redacted(value)!r}, which reports would repeat; "
                "give it to the library that needs it by its environment variable, such as HF_TOKEN",
            )

    def mistake(self, error: ValidationError, path: Sequence[str | int], known: Sequence[str]) -> SettingsError:
        """The error for what pydantic found first.

        Args:
            error: error that pydantic raised.
            path: keys and positions that lead to the mistake in the file.
            known: the keys that are known where it stands.
        """
        first = error.errors(include_url=False)[0]
        if first["type"] == "extra_forbidden":
            return self._unknown(path, known)
        if first["type"] == "missing":
            return self.fail(path[:-1], f"{'.'.join(map(str, path))} is missing")
        given = first.get("input")
        return self.fail(path, f"{'.'.join(map(str, path))} is {shown_value(given)}: {first['msg'].lower()}")

    def _unknown(self, path: Sequence[str | int], known: Sequence[str]) -> SettingsError:
        key = path[-1]
        return self.fail(path, f"unknown key {key!r}{suggest(str(key), known)}; known: {', '.join(known)}")


def read_text(file: Path, *, what: str) -> str:
    """The text of a user's file.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return read_user_text(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{file}: cannot be read as a {what} ({reason})") from error


def _unusable(value: Any, key: str = "", depth: int = 0) -> str:
    if depth > DEEPEST:
        return f"{key} is nested more than {DEEPEST} deep; expected tables and lists as in the documentation"
    if isinstance(value, int | float) and not abs(value) < 2**63:
        return f"{key} is {shown_value(value)}: expected a finite number of 64 bits"
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    found = (_unusable(inner, f"{key}.{name}" if key else f"{name}", depth + 1) for name, inner in items)
    return next((problem for problem in found if problem), "")
