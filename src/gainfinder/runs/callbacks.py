"""Who follows a run: progress, reports and whatever else overrides the hooks of a `Callback`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Callback:
    """Whoever wants to follow a run overrides some of these; the library itself prints nothing."""

    def stage(self, name: str, images: int) -> None:
        """A stage begins that will work through so many images."""

    def advance(self, images: int) -> None:
        """So many more images of the stage are done."""

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        """The stage that began trains epoch `epoch` of `of`, in which `done` of the `images` are done."""

    def running(self, row: Mapping[str, Any]) -> None:
        """Every few seconds of training: `train_loss` and `teacher_share` of the epoch so far, as in an epoch's row."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is measured."""

    def resumed(self, epochs: int, steps: int, rows: Sequence[dict[str, Any]]) -> None:
        """The run goes on from a checkpoint after so many epochs, which have these rows, and steps of the next."""

    def teacher(self, number: int, of: int, reference: str) -> None:
        """With several teachers: the transfer from this one begins."""

    def result(self, folder: Path) -> None:
        """A result folder is complete, or its result has changed: of the run itself, a step of it, or its control."""


class CallbackList(Callback):
    """Callbacks as one: each is told everything, in order.

    Args:
        callbacks: to be told.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = tuple(callbacks)

    def stage(self, name: str, images: int) -> None:
        for callback in self.callbacks:
            callback.stage(name, images)

    def advance(self, images: int) -> None:
        for callback in self.callbacks:
            callback.advance(images)

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        for callback in self.callbacks:
            callback.epoch_begins(epoch, of, images, done)

    def running(self, row: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            callback.running(row)

    def epoch(self, row: dict[str, Any]) -> None:
        for callback in self.callbacks:
            callback.epoch(row)

    def resumed(self, epochs: int, steps: int, rows: Sequence[dict[str, Any]]) -> None:
        for callback in self.callbacks:
            callback.resumed(epochs, steps, rows)

    def teacher(self, number: int, of: int, reference: str) -> None:
        for callback in self.callbacks:
            callback.teacher(number, of, reference)

    def result(self, folder: Path) -> None:
        for callback in self.callbacks:
            callback.result(folder)
