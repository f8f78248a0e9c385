"""Watchers that end a run, as a kill would."""

from gainfinder.runs.callbacks import Callback


class Killed(BaseException):
    """Stands for a process that ends at once: nothing catches it."""


class KillAfter(Callback):
    """Ends the run after so many training images."""

    def __init__(self, images: int) -> None:
        self.left = images
        self.training = False

    def stage(self, name: str, images: int) -> None:
        self.training = False

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        self.training = True

    def advance(self, images: int) -> None:
        if self.training:
            self.left -= images
            if self.left <= 0:
                raise Killed


class KillAtEpoch(Callback):
    """Ends the run when an epoch, counted from 1, begins."""

    def __init__(self, epoch: int) -> None:
        self.epoch_number = epoch

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        if epoch == self.epoch_number:
            raise Killed


class KillAtStage(Callback):
    """Ends the run when a stage begins whose text, as the progress shows it, begins so."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stage(self, name: str, images: int) -> None:
        if name.startswith(self.name):
            raise Killed
