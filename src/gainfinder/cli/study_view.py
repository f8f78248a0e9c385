"""A study as it runs: a live table in a terminal, plain lines elsewhere."""

import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from ..report import duration
from ..study import CELL_FILE, Cell, CellState, StudyFolder, read_measures
from ..workers import Coordinator
from .progress import LABEL, WIDEST, labelled_rows, shortened

PLAIN_INTERVAL_S = 30.0
LOOK_S = 2.0
"""Folders of cells are looked at as often as this."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study at a moment.

    Attributes:
        done: number of cells that are done.
        running: notes of the workers on the others.
        failed: number of cells that failed.
        missing: number of cells that nobody has begun, or that wait to go on.
        left_s: estimated seconds until all are done; None where no cell is done yet or nobody is at work.
        best: label of the cell with the largest transfer delta; None without labels.
        best_delta_pp: that transfer delta.
    """

    done: int
    running: tuple[dict[str, Any], ...]
    failed: int
    missing: int
    left_s: float | None
    best: str | None
    best_delta_pp: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def counts(self) -> str:
        """How many cells are in which state."""
        return f"{self.done} done, {len(self.running)} running, {self.failed} failed, {self.missing} missing"

    def lines(self) -> list[str]:
        """The moment in some lines."""
        lines = [self.counts()]
        if self.left_s is not None:
            lines[0] += f", about {duration(self.left_s)} left"
        lines += [f"running: {note['label']}, {_stage(note)}" for note in self.running]
        if self.best is not None:
            lines.append(f"best so far: {self.best_delta_pp:+.2f} pp, {self.best}")
        return lines


class Watch:
    """Looks at a study's folder again and again; what is done is read once.

    Args:
        folder: the study's folder.
        cells: its cells, where they are known already.
    """

    def __init__(self, folder: StudyFolder, cells: list[Cell] | None = None) -> None:
        self.folder = folder
        self.cells = folder.all_cells() if cells is None else cells
        self._seconds: dict[str, float] = {}
        self._deltas: dict[str, float | None] = {}

    def snapshot(self) -> Snapshot:
        """The study now."""
        states = self.folder.states(self.cells)
        for cell in self.cells:
            if states[cell.key] == CellState.DONE and cell.key not in self._seconds:
                self._read(cell)
        done = [cell for cell in self.cells if states[cell.key] == CellState.DONE]
        notes = [self.folder.progress(cell) for cell in self.cells if states[cell.key] == CellState.RUNNING]
        running = tuple(note for note in notes if note is not None)
        best = max(
            (cell for cell in done if self._deltas.get(cell.key) is not None),
            key=lambda cell: self._deltas[cell.key] or 0.0,
            default=None,
        )
        failed = sum(state == CellState.FAILED for state in states.values())
        return Snapshot(
            done=len(done),
            running=running,
            failed=failed,
            missing=len(self.cells) - len(done) - failed - len(running),
            left_s=self._left_s(len(self.cells) - len(done) - failed, running),
            best=None if best is None else best.label,
            best_delta_pp=None if best is None else self._deltas[best.key],
        )

    def _read(self, cell: Cell) -> None:
        folder = self.folder.run_folder(cell)
        self._seconds[cell.key] = read_measures(folder.path / CELL_FILE).seconds
        metrics = folder.read_result()
        self._deltas[cell.key] = None if metrics is None else metrics.transfer_delta_pp

    def _left_s(self, left: int, running: tuple[dict[str, Any], ...]) -> float | None:
        if not self._seconds or not running:
            return None
        mean_s = statistics.fmean(self._seconds.values())
        spent_s = sum(min(mean_s, float(note.get("spent_s", 0.0))) for note in running)
        return max(0.0, left * mean_s - spent_s) / len(running)


def snapshot(folder: StudyFolder) -> Snapshot:
    """A study now."""
    return Watch(folder).snapshot()


def failure_lines(out: Path) -> list[str]:
    """A line for each cell that failed."""
    folder = StudyFolder(out)
    found = [(cell, folder.failure(cell)) for cell in folder.all_cells() if folder.has_failed(cell)]
    return [f"failed: {cell.label}: {failure.error}" for cell, failure in found if failure is not None]


class StudyView:
    """Shows a study on stderr while it runs."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self.is_live = sys.stderr.isatty() and not console.is_dumb_terminal
        self.console = console
        self.live: Live | None = None
        self.watched: Watch | None = None
        self.now: Snapshot | None = None
        self._looked_s, self._printed_s = 0.0, 0.0

    def begin(self, coordinator: Coordinator) -> None:
        """Show what a coordinator is about to run."""
        self._show(Watch(coordinator.folder, coordinator.cells))

    def watch(self, folder: StudyFolder) -> None:
        """Show a study that others run."""
        self._show(Watch(folder))

    def refresh(self) -> bool:
        """Look again, if it is time to; whether anybody is at work."""
        assert self.watched is not None, "begun"
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._looked_s = time.monotonic()
            self.now = self.watched.snapshot()
            if not self.is_live and time.monotonic() - self._printed_s >= PLAIN_INTERVAL_S:
                self._print()
        return self.now is None or bool(self.now.running)

    def close(self) -> None:
        """Remove the view."""
        if self.live is not None:
            self.live.stop()

    def _show(self, watched: Watch) -> None:
        self.watched = watched
        self.now = watched.snapshot()
        if self.is_live:
            self.live = Live(get_renderable=lambda: self, console=self.console, transient=True, refresh_per_second=2)
            self.live.start()
        else:
            self._print()

    def _print(self) -> None:
        assert self.now is not None
        self._printed_s = time.monotonic()
        print(self.now.lines()[0], file=sys.stderr, flush=True)  # noqa: T201

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Counts, time left, the best cell, and a row for each worker; no wider than the terminal."""
        if self.now is None:
            return
        width = min(WIDEST, options.max_width)
        table = labelled_rows(width)
        table.add_row("cells", self.now.counts())
        table.add_row("time left", "–" if self.now.left_s is None else duration(self.now.left_s))
        if self.now.best is not None:
            table.add_row("best", shortened(f"{self.now.best_delta_pp:+.2f} pp: {self.now.best}", width - LABEL - 1))
        most = max(1, os.get_terminal_size(2).lines - 6) if sys.stderr.isatty() else 20
        for note in self.now.running[:most]:
            text = f"{_stage(note)}: {note['label']}"
            table.add_row(f"worker {note['worker']}", shortened(text, width - LABEL - 1))
        if len(self.now.running) > most:
            table.add_row("", Text(f"and {len(self.now.running) - most} more"))
        yield table


def _stage(note: dict[str, Any]) -> str:
    """How far a worker is with its cell."""
    delta = "" if note.get("delta_pp") is None else f" ({note['delta_pp']:+.2f} pp)"
    if note.get("epochs"):
        return f"epoch {note['epoch']} of {note['epochs']}, {note['share']:.0%}{delta}"
    return f"{note['stage']}, {note['share']:.0%}"
