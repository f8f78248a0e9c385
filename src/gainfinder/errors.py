"""Everything gainfinder raises on purpose.

    GainfinderError          a user's mistake; the command line prints it as one line and exits with 2
    ├── BadReference         a model or data reference that cannot be parsed or names nothing
    ├── ModelError           a model that cannot be loaded, or whose outputs cannot be used
    ├── DataError            images or labels that cannot be used
    │   └── BrokenImage      one image that cannot be decoded; collected, and an error only above a share
    ├── SettingsError        settings that contradict each other or the device
    │   └── OutOfMemory      more images at once than the device's memory holds
    ├── RunFolderError       a result folder that holds something else, is in use, or is damaged
    ├── BankError            a bank that has no room or cannot be written
    └── MissingExtra         an optional package that is not installed

A message says what failed, what was expected, what was got and where, and what to do, in one line.
"""


class GainfinderError(Exception):
    """Base of all errors that a user can fix."""


class BadReference(GainfinderError):
    """A model or data reference that cannot be parsed or names nothing."""


class ModelError(GainfinderError):
    """A model that cannot be loaded, or whose outputs cannot be used."""


class DataError(GainfinderError):
    """Images or labels that cannot be used."""


class BrokenImage(DataError):
    """One image that cannot be decoded.

    Args:
        where: path (or archive member, or row) of the image.
        reason: message of the decoder.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason

    def __reduce__(self) -> tuple[type["BrokenImage"], tuple[str, str]]:
        return (BrokenImage, (self.where, self.reason))


class SettingsError(GainfinderError):
    """Settings that contradict each other or the device."""


class OutOfMemory(SettingsError):
    """More images at once than the device's memory holds."""


class RunFolderError(GainfinderError):
    """A result folder that holds something else, is in use, or is damaged."""


class BankError(GainfinderError):
    """A bank that has no room for what is to be kept, or cannot be written."""


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
