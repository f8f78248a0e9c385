"""Progress on stderr: a live view in a terminal, plain lines elsewhere; samples per second and time left in both."""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..predictions import IMAGE
from ..report import duration
from ..runs import Callback

PLAIN_INTERVAL_S = 10.0
RATE_WINDOW_S = 10.0
"""Samples per second are averaged over this many seconds."""
RATE_SAMPLE_S = 0.2
REDRAWN_PER_S = 5.0
WIDEST = 100
"""Columns of the live view, at most."""
LABEL = 9


def make_progress(*, noun: str = IMAGE, silent: bool = False) -> "PlainProgress | LiveProgress | SilentProgress":
    """The callback that suits stderr; a silent one for processes that are not the first of their run.

    Args:
        noun: what a sample is, as far as it is known; the callback's `noun` can be set later.
        silent: whether nothing is shown.
    """
    if silent:
        return SilentProgress(noun)
    console = Console(stderr=True, highlight=False)
    # Rich takes FORCE_COLOR for a terminal, and a file is none.
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return LiveProgress(console, noun=noun)
    return PlainProgress(noun)


class SilentProgress(Callback):
    """Shows nothing.

    Args:
        noun: what a sample is.
    """

    def __init__(self, noun: str = IMAGE) -> None:
        self.noun = noun

    def close(self) -> None:
        """Nothing to close."""


class PlainProgress(Callback):
    """A line every ten seconds, one for each epoch.

    Args:
        noun: what a sample is.
    """

    def __init__(self, noun: str = IMAGE) -> None:
        self.noun = noun
        self.name = ""
        self.rate = Rate(0)
        self.sums: Mapping[str, Any] = {}
        self.printed_s = 0.0

    def stage(self, name: str, images: int) -> None:
        self.name, self.rate, self.sums = name, Rate(images), {}
        self.printed_s = time.monotonic()

    def running(self, row: Mapping[str, Any]) -> None:
        self.sums = row

    def advance(self, images: int) -> None:
        self.rate.advance(images)
        if time.monotonic() - self.printed_s > PLAIN_INTERVAL_S:
            self.printed_s = time.monotonic()
            done = f"{self.rate.done:,} of {self.rate.total:,} {self.noun}s"
            self.print_line(
                f"{self.name}: {', '.join([done, *self.rate.parts(self.noun), *learning_parts(self.sums)])}"
            )

    def epoch(self, row: dict[str, Any]) -> None:
        self.print_line(epoch_line(row))

    def teacher(self, number: int, of: int, reference: str) -> None:
        self.print_line(teacher_line(number, of, reference))

    def resumed(self, epochs: int, steps: int, rows: Sequence[dict[str, Any]]) -> None:
        self.print_line(resumed_line(epochs, steps))

    def print_line(self, line: str) -> None:
        """Print a line to stderr."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Nothing to close."""


class LiveProgress(Callback):
    """A view that is redrawn in place, on terminals of any width; finished epochs leave a line each above it.

    One row each, where there is something to show: the teacher, if there are several; the stage and how far it is; its
    speed and the time left; loss and teacher's share of the epoch so far; the latest and the best epoch measured. These
    rows of a run are no rows of tasks, so of Rich it takes `Live` and the bar, not `rich.progress.Progress`.

    Args:
        console: console of the terminal; `close` restores it.
        now: a clock, in seconds.
        noun: what a sample is.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic, *, noun: str = IMAGE) -> None:
        self.now, self.noun = now, noun
        self.heading, self.name = "", ""
        self.rate = Rate(0, now)
        self.part: tuple[int, int] | None = None
        self.sums: Mapping[str, Any] = {}
        self.latest: Mapping[str, Any] | None = None
        self.best: Mapping[str, Any] | None = None
        self.live = Live(get_renderable=lambda: self, console=console, transient=True, refresh_per_second=REDRAWN_PER_S)
        self.live.start()

    def stage(self, name: str, images: int) -> None:
        self.name, self.rate, self.part = name, Rate(images, self.now), None

    def epoch_begins(self, epoch: int, of: int, images: int, done: int) -> None:
        # The bar is that of the epoch, the time left that of all of them.
        if epoch == 1:
            self._reset()
        self.name, self.part, self.sums = f"epoch {epoch} of {of}", (images, done), {}

    def advance(self, images: int) -> None:
        self.rate.advance(images)

    def running(self, row: Mapping[str, Any]) -> None:
        self.sums = row

    def epoch(self, row: dict[str, Any]) -> None:
        self._measured(row)
        kept = labelled_rows(self.live.console.width)
        whose = [row["student"]] if row.get("student") else []
        kept.add_row(f"epoch {row['epoch']}", ", ".join([*whose, *measure_parts(row), *learning_parts(row)]))
        self.live.console.print(kept)

    def teacher(self, number: int, of: int, reference: str) -> None:
        self.heading = f"{number} of {of}: {reference}"
        self._reset()
        self.live.console.print(Text(teacher_line(number, of, reference)))

    def resumed(self, epochs: int, steps: int, rows: Sequence[dict[str, Any]]) -> None:
        self._reset()
        for row in rows:
            self._measured(row)
        self.live.console.print(Text(resumed_line(epochs, steps)))

    def close(self) -> None:
        """Remove the view and restore the cursor."""
        self.live.stop()

    def _measured(self, row: Mapping[str, Any]) -> None:
        # Of equally good ones the first is the best; without labels none is.
        self.latest = row
        if row["accuracy"] is not None and (self.best is None or row["accuracy"] > self.best["accuracy"]):
            self.best = row

    def _reset(self) -> None:
        """Reset what is shown, for another transfer."""
        self.latest, self.best, self.sums = None, None, {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A table of labels and values, no wider than the terminal."""
        if not self.name:
            return
        width = min(WIDEST, options.max_width)
        table = labelled_rows(width)
        if self.heading:
            table.add_row("teacher", shortened(self.heading, width - LABEL - 1))
        table.add_row("now", shortened(self.name, width - LABEL - 1))
        table.add_row("", self._bar())
        table.add_row("speed", ", ".join(self.rate.parts(self.noun)) or "–")
        if self.sums:
            table.add_row("so far", ", ".join(learning_parts(self.sums)))
        if self.latest is not None:
            best = ", the best so far" if self.latest is self.best else ""
            table.add_row(f"epoch {self.latest['epoch']}", ", ".join(measure_parts(self.latest)) + best)
        if self.best is not None and self.best is not self.latest:
            table.add_row("best", ", ".join([f"epoch {self.best['epoch']}", *measure_parts(self.best)]))
        yield table

    def _bar(self) -> Table:
        total, done = self.rate.total, self.rate.done
        if self.part is not None:
            total, done = self.part[0], min(self.part[0], self.part[1] + done)
        bar = Table.grid(padding=(0, 1), pad_edge=False, expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(ProgressBar(total=max(1, total), completed=done), f"{done / max(1, total):4.0%}")
        return bar


def labelled_rows(width: int) -> Table:
    """An empty table for rows of a label and a text, which is wrapped beside it."""
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    table.width = width
    table.add_column(style="dim", width=LABEL, no_wrap=True)
    table.add_column(ratio=1)
    return table


class Rate:
    """Samples per second over the last seconds, and the time left at that speed.

    Not `rich.progress`: that knows no speed where steps are longer than its window, and a stalled run keeps its speed.

    Args:
        total: samples to do.
        now: a clock, in seconds.
    """

    def __init__(self, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self.now = now
        self.past = deque([(now(), 0)])

    def advance(self, images: int) -> None:
        """So many more are done."""
        self.done = min(self.total, self.done + images)
        now_s = self.now()
        if now_s - self.past[-1][0] >= RATE_SAMPLE_S:
            self.past.append((now_s, self.done))
            while len(self.past) > 2 and now_s - self.past[1][0] >= RATE_WINDOW_S:
                self.past.popleft()

    def per_s(self) -> float:
        """Samples per second; 0 before the first."""
        (then_s, then), (last_s, last) = self.past[0], self.past[-1]
        if len(self.past) == 1:
            return self.done / max(1e-3, self.now() - then_s)
        # Steps may be long: the time since the last counts once it is longer than they mostly are.
        now_s, step_s = self.now(), (last_s - then_s) / (len(self.past) - 1)
        return (last - then) / max(1e-3, (now_s if now_s - last_s > 2 * step_s else last_s) - then_s)

    def parts(self, noun: str = IMAGE) -> list[str]:
        """Speed and time left for people; nothing where nothing is done in the last seconds.

        Args:
            noun: what a sample is.
        """
        rate = self.per_s()
        if rate <= 0:
            return []
        return [f"{rate:,.{0 if rate >= 10 else 1}f} {noun}s/s", f"{duration((self.total - self.done) / rate)} left"]


def shortened(text: str, width: int) -> Text:
    """A text on one line: of a long one the beginning, and twice as much of the end, which tells references apart.

    >>> shortened("measuring local-dir:/home/me/zoo/vit", 24).plain
    'measurin…home/me/zoo/vit'
    """
    if len(text) <= width:
        return Text(text)
    head = width // 3
    return Text(f"{text[:head]}…{text[len(text) - (width - head - 1) :]}")


def learning_parts(row: Mapping[str, Any]) -> list[str]:
    """Loss and share of samples that the teacher taught, of an epoch or of what is done of it."""
    if not row:
        return []
    shares = [] if row["teacher_share"] is None else [f"{row['teacher_share']:.1%} from the teacher"]
    return [f"loss {row['train_loss']:.4f}", *shares]


def measure_parts(row: Mapping[str, Any]) -> list[str]:
    """What was measured after an epoch."""
    if row["accuracy"] is None:
        return [f"agreement with the initial student {row['agreement']:.4f}", f"confidence {row['confidence']:.4f}"]
    return [
        f"accuracy {row['accuracy']:.4f} ({row['transfer_delta_pp']:+.2f} pp)",
        f"gained {row['knowledge_gain']:.2%}",
        f"lost {row['knowledge_loss']:.2%}",
    ]


def epoch_line(row: Mapping[str, Any]) -> str:
    """One line on a finished epoch; of two students in step it names the one."""
    whose = f" of {row['student']}" if row.get("student") else ""
    return f"epoch {row['epoch']}{whose}: {', '.join([*learning_parts(row), *measure_parts(row)])}"


def teacher_line(number: int, of: int, reference: str) -> str:
    """One line on a teacher whose transfer begins."""
    return f"teacher {number} of {of}: {reference}"


def resumed_line(epochs: int, steps: int) -> str:
    """One line on a run that goes on."""
    return f"going on after {epochs} epoch(s)" + (f" and {steps} step(s)" if steps else "")
