"""Progress on stderr: a live bar in a terminal, plain lines elsewhere. Images per second and time left in both."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..run_models import Watcher

PLAIN_INTERVAL_S = 10.0


def make_watcher(*, silent: bool = False) -> "PlainProgress | LiveProgress | SilentProgress":
    """The watcher that suits stderr; a silent one for processes that are not the first of their run."""
    if silent:
        return SilentProgress()
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()


class SilentProgress(Watcher):
    """Shows nothing."""

    def close(self) -> None:
        """Nothing to take down."""


class PlainProgress(Watcher):
    """A line every ten seconds, one for each epoch."""

    def __init__(self) -> None:
        self.rate = _Rate("", 0)
        self.said_s = 0.0

    def stage(self, name: str, images: int) -> None:
        self.rate = _Rate(name, images)
        self.said_s = time.monotonic()

    def advance(self, images: int) -> None:
        self.rate.advance(images)
        if time.monotonic() - self.said_s > PLAIN_INTERVAL_S:
            self.said_s = time.monotonic()
            self.say(f"{self.rate.name}: {self.rate.done:,} of {self.rate.total:,} images, {self.rate.text()}")

    def epoch(self, row: dict[str, Any]) -> None:
        self.say(epoch_line(row))

    def teacher(self, number: int, of: int, reference: str) -> None:
        self.say(f"teacher {number} of {of}: {reference}")

    def resumed(self, epochs: int, steps: int) -> None:
        self.say(f"going on after {epochs} epoch(s)" + (f" and {steps} step(s)" if steps else ""))

    def say(self, line: str) -> None:
        """Print a line to stderr."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Nothing to take down."""


class LiveProgress(Watcher):
    """A bar for the stage at hand."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} images  {task.fields[rate]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.rate = _Rate("", 0)
        self.task: TaskID | None = None
        self.progress.start()

    def stage(self, name: str, images: int) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.rate = _Rate(name, images)
        self.task = self.progress.add_task(name, total=images, rate="")

    def advance(self, images: int) -> None:
        self.rate.advance(images)
        if self.task is not None:
            self.progress.update(self.task, completed=self.rate.done, rate=self.rate.text())

    def epoch(self, row: dict[str, Any]) -> None:
        self.progress.console.print(epoch_line(row), highlight=False)

    def teacher(self, number: int, of: int, reference: str) -> None:
        self.progress.console.print(f"teacher {number} of {of}: {reference}", highlight=False)

    def resumed(self, epochs: int, steps: int) -> None:
        self.progress.console.print(f"going on after {epochs} epoch(s)" + (f" and {steps} step(s)" if steps else ""))

    def close(self) -> None:
        """Take the bar down."""
        self.progress.stop()


class _Rate:
    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.began_s = time.monotonic()

    def advance(self, images: int) -> None:
        self.done = min(self.total, self.done + images)

    def text(self) -> str:
        elapsed_s = max(1e-9, time.monotonic() - self.began_s)
        if self.done == 0:
            return ""
        left_s = (self.total - self.done) * elapsed_s / self.done
        return f"{self.done / elapsed_s:,.0f} images/s, {duration(left_s)} left"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(75), duration(7300)
    ('1:15', '2:01:40')
    """
    whole = round(seconds)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def epoch_line(row: dict[str, Any]) -> str:
    """One line on a finished epoch."""
    parts = [f"epoch {row['epoch']}: loss {row['train_loss']:.4f}"]
    if row["teacher_share"] is not None:
        parts.append(f"{row['teacher_share']:.1%} from the teacher")
    if row["accuracy"] is not None:
        parts.append(f"accuracy {row['accuracy']:.4f} ({row['transfer_delta_pp']:+.2f} pp)")
        parts.append(f"gained {row['knowledge_gain']:.2%}, lost {row['knowledge_loss']:.2%}")
    else:
        parts.append(f"agreement with the initial student {row['agreement']:.4f}, confidence {row['confidence']:.4f}")
    return ", ".join(parts)
