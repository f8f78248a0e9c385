"""Prepares a finished transfer to be run again, as it was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config import read_run
from ..errors import RunFolderError
from ..results import RunFolder, changed_since, finished
from .describe import describe
from .prepare import PreparedTransfer, prepare_spec

SUFFIX = "-repeat"
"""Behind a result folder's name, for the folder of its repetition."""


@dataclass(frozen=True, kw_only=True)
class PreparedRepetition:
    """A transfer, ready to be run again.

    Attributes:
        prepared: the transfer.
        out: folder for the new result.
        settings: what results depend on and is not as it was, each as `key: X in the folder, Y asked for`.
        environment: versions, machine and processes that are not as they were, likewise.
    """

    prepared: PreparedTransfer = field(repr=False)
    out: Path
    settings: list[str]
    environment: list[str]


def prepare_repetition(
    folder: Path, out: Path | None, *, trusted: Sequence[str] = (), command: str | None = None
) -> PreparedRepetition:
    """Load and check all that a finished transfer was asked for with; write nothing.

    Trackers are left out: the measures were logged when it was run first.

    Args:
        folder: the result folder.
        out: folder for the new result; None for one beside it.
        trusted: names of `hf:` models that may run code of their own, as for `references.trusting`.
        command: the command that asks for it.

    Raises:
        RunFolderError: the folder holds no finished transfer, or `out` a different run.
        SettingsError: the folder does not hold what was asked for.
        GainfinderError: models or images are not there any more, or cannot be used.
    """
    first = RunFolder(folder)
    finished(first)
    named = folder if folder.name not in ("", "..") else folder.resolve()
    target = named.with_name(named.name + SUFFIX) if out is None else out
    if target.resolve() == folder.resolve():
        raise RunFolderError(f"{target}: is the result to repeat: choose another `out`")
    spec = read_run(first.config).spec().trusting(trusted)
    if spec.config.both is not None:
        raise RunFolderError(
            f"{folder}: was learned live with {spec.teachers[0]}, which takes both: run `gainfinder transfer --config "
            f"{first.config} --out NEW`"
        )
    prepared = prepare_spec(spec.model_copy(update={"config": spec.config.replace(track=())}), command=command)
    config = describe(prepared)
    RunFolder(target).check(config)
    settings, environment = changed_since(first, config)
    return PreparedRepetition(prepared=prepared, out=target, settings=settings, environment=environment)
