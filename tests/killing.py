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
        self.training = name.startswith("training")

    def advance(self, images: int) -> None:
        if self.training:
            self.left -= images
            if self.left <= 0:
                raise Killed


class KillAtStage(Callback):
    """Ends the run when a stage begins."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stage(self, name: str, images: int) -> None:
        if name.startswith(self.name):
            raise Killed
