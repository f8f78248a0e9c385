"""The exact state of a run between two steps, written so that a killed process never leaves half of one.

Checkpoints are written at three kinds of moments, identified by the progress: within an epoch (0 < step < steps of an
epoch), after its last step but before it is measured (step = steps: a resumed run finds no batch left and measures),
and after it is measured (step 0 of the next epoch, its row among the rows). Of several processes the first writes, and
all read: they need one file system.

Those at an epoch's end are written as often as their writing takes a small part of the time (`CheckpointPace`): with
optimiser and average a checkpoint is six times as large as the student, and an epoch of few images is learned faster on
a GPU than two of them are written.
"""

import errno
import math
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import RunFolderError
from ..files import write_atomically

FORMAT = 2
SHARE = 0.05
"""Share of the time that writing checkpoints may take."""
QUICK_S = 0.25
"""What is written faster is written whenever there is something to write."""
T = TypeVar("T")


@dataclass(kw_only=True)
class Progress:
    """How far a run has come; the state that its result depends on besides weights and optimiser.

    Attributes:
        epoch: the epoch in progress, from 0; equal to the number of epochs when all are done.
        step: steps done in that epoch.
        loss_sum: sum of the losses of its samples so far.
        seen: samples trained on in the finished epochs.
        taught: number of these that the partition gave to a teacher; fractional where all models teach a sample.
        epoch_seen: samples trained on in the epoch in progress.
        epoch_taught: number of these that the partition gave to a teacher.
        rows: measures of the finished epochs.
        broken: images that could not be decoded, `where: reason`, sorted.
        first_loss: mean loss of the first batch of the run, which tells whether the loss has grown; None before it.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    taught: float = 0.0
    epoch_seen: int = 0
    epoch_taught: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    first_loss: float | None = None


class CheckpointPace:
    """When a checkpoint is due, so that writing them takes at most a twentieth of the time.

    Args:
        always: whether one is due whenever there is one to write, however long that takes.
        clock: tells seconds.

    Example:
        >>> pace = CheckpointPace()
        >>> if pace.due(ended=False):
        ...     with pace.writing():
        ...         _ = "written"
    """

    def __init__(self, *, always: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._always = always
        self._clock = clock
        self._took_s = 0.0
        self._ended_s = -math.inf

    def due(self, *, ended: bool) -> bool:
        """Whether to write one now; at the end of training it is."""
        if self._always or ended or self._took_s <= QUICK_S:
            return True
        return self._clock() - self._ended_s >= (1 / SHARE - 1) * self._took_s

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One is written in this block."""
        began_s = self._clock()
        yield
        self._ended_s = self._clock()
        self._took_s = self._ended_s - began_s


def save_checkpoint(path: Path, *, progress: Progress, trainer: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path` in one step; `trainer` is what `StudentTrainer.state` gives."""
    _save(path, _document(progress, trainer))


def save_checkpoints(path: Path, states: Sequence[tuple[Progress, Mapping[str, Any]]]) -> None:
    """Replace the checkpoint of several students at `path` in one step, each as `save_checkpoint` takes it."""
    _save(path, {"format": FORMAT, "students": [_document(progress, trainer) for progress, trainer in states]})


def load_checkpoint(path: Path) -> tuple[Progress, dict[str, Any]] | None:
    """The progress and the trainer's state saved at `path`; None where there is no file.

    Raises:
        RunFolderError: the file is damaged or of another format. It is never used in part, and never replaced by a
            silent start from the beginning.
    """
    return _load(path, _student)


def load_checkpoints(path: Path) -> list[tuple[Progress, dict[str, Any]]] | None:
    """Those of several students, as `save_checkpoints` wrote them; raises as `load_checkpoint`."""
    return _load(path, lambda state: [_student(one) for one in state["students"]])


def _document(progress: Progress, trainer: Mapping[str, Any]) -> dict[str, Any]:
    # "learner" is the trainer's name in files of this format.
    return {"format": FORMAT, "progress": vars(progress), "learner": dict(trainer)}


def _student(state: Mapping[str, Any]) -> tuple[Progress, dict[str, Any]]:
    return Progress(**state["progress"]), state["learner"]


def _save(path: Path, state: Mapping[str, Any]) -> None:
    write_atomically(path, lambda partial: torch.save(state, partial), within=path.parent)


def _load(path: Path, read: Callable[[Mapping[str, Any]], T]) -> T | None:
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise _OtherFormat(f"its format is {state['format']}, expected {FORMAT}")
        return read(state)
    except Exception as error:
        raise RunFolderError(
            f"{path}: this checkpoint cannot be read ({_reason(path, error)}); remove it to train from the start, "
            "or choose another `out`"
        ) from error


class _OtherFormat(Exception):
    """A checkpoint is of another version."""


def _reason(path: Path, error: Exception) -> str:
    """Why a checkpoint cannot be read; what PyTorch says of a damaged file is for its own developers."""
    # a place before the beginning of a file that is too short is an invalid argument of the system's
    if isinstance(error, OSError) and error.strerror is not None and error.errno != errno.EINVAL:
        return error.strerror
    if isinstance(error, _OtherFormat):
        return str(error)
    return "its content is damaged" if zipfile.is_zipfile(path) else "it is cut short, or no checkpoint at all"
