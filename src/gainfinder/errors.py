"""Everything gainfinder raises on purpose.

    GainfinderError          a user's mistake; the command line prints it as one line and exits with 2
    ├── BadReference         a model or data reference that cannot be parsed or names nothing
    ├── ModelError           a model that cannot be loaded, or whose outputs cannot be used
    │   ├── NotFinite        outputs that are NaN or infinite
    │   └── Diverged         training that has left all bounds; what it had reached before is kept
    ├── DataError            images or labels that cannot be used
    │   └── BrokenSample      one image that cannot be decoded; collected, and an error only above a share
    ├── SettingsError        settings that contradict each other or the device
    │   └── OutOfMemory      more images at once than the device's memory holds
    ├── RunFolderError       a result folder that holds something else, is in use, or is damaged
    │   └── DamagedFile      a file in one that is not as gainfinder wrote it
    ├── BankError            a bank that has no room or cannot be written
    ├── HubError             a model hub that cannot be reached or refuses, or holds something else under that name
    └── MissingExtra         an optional package that is not installed

A message says what failed, what was expected, what was got and where, and what to do, in one line. What an error holds
may be of any length and hold a secret; its message is short and does not.
"""

import re
from pathlib import Path
from typing import Any

from .redaction import redacted

NOT_AS_WRITTEN = "not as gainfinder wrote it"
LONGEST_WORD = 240
"""Characters in a row without a space of a message, such as a path or a number; of longer ones the ends are shown."""
LONGEST_MESSAGE = 4000
"""Characters of a message."""
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class GainfinderError(Exception):
    """Base of all errors that a user can fix."""

    def __str__(self) -> str:
        return readable(super().__str__())


def readable(message: str) -> str:
    """A message as it is shown: one line, without secrets, and of what is too long to be read only beginning and end.

    What would move a terminal's cursor, colour it or turn the direction of writing is escaped.

    >>> readable("https://me:secret@host/" + "x" * 300)[:20], len(readable("1" * 5000))
    ('https://***@host/xxx', 220)
    """
    line = _UNPRINTED.sub(_escaped, " ".join(redacted(message).splitlines()))
    words = _LONG_WORD.sub(_ends, line)
    if len(words) <= LONGEST_MESSAGE:
        return words
    return f"{words[: LONGEST_MESSAGE // 2]} … {words[-LONGEST_MESSAGE // 4 :]}"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _ends(found: re.Match[str]) -> str:
    word = found[0]
    return f"{word[:100]}…({len(word):,} characters)…{word[-100:]}"


class BadReference(GainfinderError):
    """A model or data reference that cannot be parsed or names nothing."""


class ModelError(GainfinderError):
    """A model that cannot be loaded, or whose outputs cannot be used."""


class NotFinite(ModelError):
    """Outputs of a model that are NaN or infinite."""


class Diverged(ModelError):
    """Training that has left all bounds: its loss or its weights are not finite, or the loss has grown beyond reason.

    Args:
        message: what happened, since when, what was kept and what to do.
        epoch: the epoch in which it began, from 1.
        step: the step of that epoch, from 1; None where it showed only when the student was measured.
        reason: what was seen, such as `the loss is not finite`.
        result: the `TransferResult` of the student as it was before; None where there is none yet.
    """

    def __init__(self, message: str, *, epoch: int, step: int | None, reason: str, result: Any = None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.reason = reason
        self.result = result


class DataError(GainfinderError):
    """Images or labels that cannot be used."""


class BrokenSample(DataError):
    """One image that cannot be decoded.

    Args:
        where: path (or archive member, or row) of the image.
        reason: message of the decoder.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason

    def __reduce__(self) -> tuple[type["BrokenSample"], tuple[str, str]]:
        return (BrokenSample, (self.where, self.reason))


class SettingsError(GainfinderError):
    """Settings that contradict each other or the device."""


class OutOfMemory(SettingsError):
    """More images at once than the device's memory holds."""


class RunFolderError(GainfinderError):
    """A result folder that holds something else, is in use, or is damaged."""


class DamagedFile(RunFolderError):
    """A file of a result folder that is not as gainfinder wrote it.

    Args:
        path: the file.
        reason: what is wrong with it.
        remedy: what was expected, or what to do; it depends on what the folder was wanted for.
    """

    def __init__(self, path: Path, reason: str, *, remedy: str) -> None:
        super().__init__(f"{path}: {NOT_AS_WRITTEN} ({reason}); {remedy}")
        self.path = path
        self.reason = reason


class BankError(GainfinderError):
    """A bank that has no room for what is to be kept, or cannot be written."""


class HubError(GainfinderError):
    """A model hub that cannot be reached, refuses what is sent, or holds something else under that name."""


class MissingExtra(GainfinderError):
    """An optional package that is not installed.

    Args:
        package: name of the package that is missing.
        extra: name of gainfinder's extra that installs it; None where none does.
        purpose: feature that needs the package.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        wanted = package if extra is None else f"'gainfinder[{extra}]'"
        super().__init__(f"{purpose} needs the package {package!r}: install it with `pip install {wanted}`")
