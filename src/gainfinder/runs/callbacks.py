"""Hooks of a run, for progress, reports and the like: subclasses of `Callback` override them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Callback:
    """Hooks that a run calls; override those you need. The library itself prints nothing."""

    def stage(self, name: str, images: int) -> None:
        """A stage begins.

        Args:
            name: the stage, for people.
            images: number of images that it processes.
        """

    def advance(self, images: int) -> None:
        """That many more images of the stage are done."""

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        """The stage that began trains epoch `epoch` of `of`, in which `done` of the `images` are done."""

    def running(self, row: Mapping[str, Any]) -> None:
        """Every few seconds of training: `train_loss` and `teacher_share` of the epoch so far, as in an epoch's row."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch ended and was measured; `row` is its line of `epochs.jsonl`."""

    def resumed(self, epochs: int, steps: int, rows: Sequence[dict[str, Any]]) -> None:
        """The run resumes from a checkpoint.

        Args:
            epochs: number of finished epochs.
            steps: number of finished steps of the next epoch.
            rows: measures of the finished epochs.
        """

    def teacher(self, number: int, of: int, reference: str) -> None:
        """With several teachers: the transfer from this one begins."""

    def result(self, folder: Path) -> None:
        """A result folder is complete, or its result has changed: of the run itself, a step of it, or its control."""


class CallbackList(Callback):
    """Several callbacks as one: each is called, in order.

    Args:
        callbacks: the callbacks to call.
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
