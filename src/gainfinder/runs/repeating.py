"""Prepares a finished transfer to be run again, as it was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import read_run
from ..errors import RunFolderError
from ..results import ROLES, RunFolder, changed_since, check_comparable, earlier_repetition, finished, pixels_comparable
from .describe import describe
from .prepare import PreparedTransfer, prepare_spec

SUFFIX = "-repeat"
"""Behind a result folder's name, for the folder of its repetition."""


@dataclass(frozen=True, kw_only=True)
class PreparedRepetition:
    """A transfer, ready to be run again.

    Attributes:
        prepared: the transfer.
        first: folder of the result to repeat.
        out: folder for the new result.
        finished: whether a finished repetition is there, so that nothing is run.
        obstacle: why it may not be run there, in words; None where it may.
        settings: what results depend on and is not as it was, a line each: `key: X then, Y now` of a setting; of
            weights and images that they are others.
        environment: versions, machine and processes that are not as they were, each as `key: X then, Y now`: those of
            the repetition that is there, or of now where it has to be run.
        contents: of the images in each role (`data`, `val`, `guard`) the number that were compared by their contents,
            and that of all.
    """

    prepared: PreparedTransfer = field(repr=False)
    first: Path
    out: Path
    finished: bool
    obstacle: str | None
    settings: list[str]
    environment: list[str]
    contents: dict[str, tuple[int, int]]

    def refuse_obstacle(self) -> None:
        """Refuse to run it where something is in its way.

        Raises:
            RunFolderError: `out` holds an earlier repetition under other conditions.
        """
        if self.obstacle is not None:
            raise RunFolderError(f"{self.out}: {self.obstacle}. Give another `out`")


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
        RunFolderError: the folder holds no finished transfer, or what it holds is damaged; or `out` holds a different
            run.
        SettingsError: the folder does not hold what was asked for.
        GainfinderError: models or images are not there any more, or cannot be used.
    """
    first = RunFolder(folder)
    finished(first)
    then = first.read_config()
    check_comparable(first)
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
    now = describe(prepared)
    there = RunFolder(target)
    obstacle = earlier_repetition(there, now)
    done = obstacle is None and there.result.exists()
    settings, environment = changed_since(first, (there.read_config() or now) if done else now)
    return PreparedRepetition(
        prepared=prepared,
        first=folder,
        out=target,
        finished=done,
        obstacle=obstacle,
        settings=settings,
        environment=environment,
        contents=_contents_compared(prepared, then or {}, now),
    )


def _contents_compared(
    prepared: PreparedTransfer, then: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[int, int]]:
    """How many images of each role digests compare by their contents, and how many there are."""
    roles = zip(ROLES, (prepared.train_images, prepared.val_images, prepared.guard_images), strict=True)
    return {
        role: (min(len(images), images.few_content_of) if pixels_comparable(then, now, role) else 0, len(images))
        for role, images in roles
        if images is not None
    }
