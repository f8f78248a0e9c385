"""Keeps workers at a study until nothing is left to do; replaces those that are lost."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunFolderError
from ..study import Cell, CellState, Failure, StudyDocument, StudyFolder, study_cells
from .backends import Backend, Handle
from .task import WorkerTask

POLL_S = 0.5
MOST_LOSSES = 3
"""A cell that so many workers were lost on, one after the other and none leaving more to the next, has failed."""
MOST_IDLE_LOSSES = 3
"""Workers that may be lost one after the other without any of them having taken a cell."""


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """What a run of a study came to.

    Attributes:
        done: number of cells that are done.
        failed: number of cells that failed.
        missing: number of cells that are neither.
        lost: number of workers that were lost and replaced.
    """

    done: int
    failed: int
    missing: int
    lost: int


class Coordinator:
    """Starts workers, watches them and starts others in place of those that are lost.

    Args:
        folder: the study's folder.
        backend: the engine.
        workers: number of workers at once.
        threads: torch's threads of each; None leaves it to torch.
        mirror: URL that finished cells are copied to, too.
        cells: the study's cells; None reads them from its folder.
    """

    def __init__(
        self,
        folder: StudyFolder,
        backend: Backend,
        *,
        workers: int,
        threads: int | None = None,
        mirror: str | None = None,
        cells: list[Cell] | None = None,
    ) -> None:
        self.folder = folder
        self.backend = backend
        self.workers = workers
        self.threads = threads
        self.mirror = mirror
        self.cells = folder.all_cells() if cells is None else cells
        self.handles: dict[int, Handle] = {}
        self.lost: list[str] = []
        self._losses: dict[str, tuple[int, set[tuple[str, int]]]] = {}
        self._idle_losses = 0

    def open_cells(self) -> list[Cell]:
        """The cells that are neither done nor failed."""
        return [cell for cell in self.cells if self.folder.is_open(cell)]

    def run(self, on_poll: Callable[[], object] | None = None, *, poll_s: float = POLL_S) -> StudySummary:
        """Run the study to its end.

        Args:
            on_poll: called between looks at the workers.
            poll_s: seconds between them.

        Raises:
            RunFolderError: workers are lost before they take any cell.
        """
        try:
            while self._look_after():
                if on_poll is not None:
                    on_poll()
                time.sleep(poll_s)
        except BaseException:
            if not self.backend.outlives:
                self.stop()
            raise
        finally:
            self.backend.close()
        return self.summary()

    def stop(self) -> None:
        """End all workers."""
        for handle in self.handles.values():
            handle.stop()
        self.handles.clear()

    def summary(self) -> StudySummary:
        """What has become of the cells."""
        states = list(self.folder.states(self.cells).values())
        return StudySummary(
            done=states.count(CellState.DONE),
            failed=states.count(CellState.FAILED),
            missing=len(states) - states.count(CellState.DONE) - states.count(CellState.FAILED),
            lost=len(self.lost),
        )

    def _look_after(self) -> bool:
        """Note who has ended, and start who is needed; whether anybody is at work."""
        for number, handle in list(self.handles.items()):
            ended = handle.poll()
            if ended is not None:
                del self.handles[number]
                if ended:
                    self._note_loss(number, ended)
        left = self.open_cells()
        for number in range(min(self.workers, len(left))):
            if number not in self.handles:
                self.handles[number] = self.backend.start(self._task(number))
        return bool(self.handles)

    def _task(self, number: int) -> WorkerTask:
        return WorkerTask(
            out=str(self.folder.path.absolute()),
            directory=os.getcwd(),  # noqa: PTH109 - references are relative to it
            number=number,
            workers=self.workers,
            threads=self.threads,
            mirror=self.mirror,
        )

    def _note_loss(self, number: int, reason: str) -> None:
        """A cell on which workers are lost again and again without getting farther has failed."""
        self.lost.append(reason)
        cell = self._last_cell(number)
        if cell is None:
            self._idle_losses += 1
            if self._idle_losses >= MOST_IDLE_LOSSES:
                raise RunFolderError(f"{self.folder.path}: workers end before they take a cell: {reason}")
            return
        self._idle_losses = 0
        # Not the views learned from: whoever is lost in the same step again and again has learned from some each time.
        kept = self.folder.kept(cell)
        count, before = self._losses.get(cell.key, (0, kept))
        count = count + 1 if kept == before else 1
        self._losses[cell.key] = (count, kept)
        if count >= MOST_LOSSES:
            self._give_up(cell, f"{count} workers were lost on it without getting farther ({reason})")

    def _give_up(self, cell: Cell, why: str) -> None:
        remedy = "does its memory suffice? With `checkpoint_every` less of an epoch is lost"
        host = str(self.folder.last_note(cell).get("host", ""))
        failure = Failure(error=f"{why}; {remedy}", kind="LostWorker", trace="", when=time.time(), host=host)
        self.folder.fail(cell, failure)
        self.folder.end_progress(cell)

    def _last_cell(self, number: int) -> Cell | None:
        """The cell that a worker which is lost was at."""
        for cell in self.open_cells():
            note = self.folder.last_note(cell)
            if note and note.get("worker") == number and self.folder.progress(cell) is None:
                return cell
        return None


def run_study(
    study: StudyDocument,
    out: str | Path,
    *,
    backend: Backend,
    workers: int = 1,
    threads: int | None = None,
    retry: bool = False,
    mirror: str | None = None,
    on_start: Callable[[Coordinator], None] | None = None,
    on_poll: Callable[[], object] | None = None,
) -> StudySummary:
    """Run the cells of a study that are not done.

    Args:
        study: the study.
        out: its folder; one of the same study goes on, or grows by the cells that are new.
        backend: the engine.
        workers: number of workers at once.
        threads: torch's threads of each worker; None leaves it to torch.
        retry: whether cells that failed are tried again.
        mirror: URL of a folder that finished cells are copied to, too.
        on_start: called with the coordinator before any worker starts.
        on_poll: called between looks at the workers.

    Raises:
        SettingsError: the study has no cell, or settings of one do not go together.
        RunFolderError: the folder holds something else, or workers cannot run.
    """
    folder = StudyFolder(out)
    cells = study_cells(study, folder.path)  # refused before anything is written
    folder.claim(study)
    coordinator = Coordinator(folder, backend, workers=workers, threads=threads, mirror=mirror, cells=cells)
    if retry:
        for cell in coordinator.cells:
            folder.forgive(cell)
    if on_start is not None:
        on_start(coordinator)
    return coordinator.run(on_poll)
