"""Workers that are lost are replaced; a cell that takes one after the other with it has failed."""

import socket
from collections.abc import Callable

import psutil
import pytest

from gainfinder.errors import RunFolderError
from gainfinder.study import Cell, StudyFolder
from gainfinder.workers import Coordinator, WorkerTask, run_study
from gainfinder.workers.claims import Claims
from studies import finish_cell


class MadeHandle:
    """A worker that has ended by the time it is looked at."""

    def __init__(self, ended: str) -> None:
        self.ended = ended

    def poll(self) -> str | None:
        return self.ended

    def stop(self) -> None:
        pass


class MadeBackend:
    """Runs a function in place of a worker."""

    name = "made"
    outlives = False
    devices = 1

    def __init__(self, act: Callable[[WorkerTask], str]) -> None:
        self.act = act
        self.started = 0

    def start(self, task: WorkerTask) -> MadeHandle:
        self.started += 1
        return MadeHandle(self.act(task))

    def close(self) -> None:
        pass


def die_at(folder: StudyFolder, cell: Cell, task: WorkerTask, trained: int, *, kept: bool = False) -> str:
    """What a worker that is killed leaves: a note, and where it kept something for the next one, how long it worked."""
    if kept:
        run = folder.run_folder(cell)
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_worked(float(trained))
    gone = next(pid for pid in range(99999, 1, -1) if not psutil.pid_exists(pid))
    note = {"worker": task.number, "host": socket.gethostname(), "pid": gone, "trained": trained}
    folder.note_progress(cell, note)
    return "killed by signal 9"


def test_a_lost_worker_is_replaced_until_all_is_done(folder: StudyFolder) -> None:
    trained = iter(range(0, 1000, 10))

    def act(task: WorkerTask) -> str:
        cell = next(iter(Claims(folder, folder.all_cells(), number=0, workers=1)))
        if (done := next(trained)) % 30:  # two of three die, each after some progress
            return die_at(folder, cell, task, done, kept=True)
        finish_cell(folder, cell)
        return ""

    summary = Coordinator(folder, MadeBackend(act), workers=1).run(poll_s=0)
    assert (summary.done, summary.failed, summary.missing) == (6, 0, 0) and summary.lost > 6


@pytest.mark.parametrize("more", [0, 10])
def test_a_cell_on_which_three_are_lost_without_progress_has_failed(folder: StudyFolder, more: int) -> None:
    """Also where each learned from some views before it was lost at the same place."""
    poison = folder.all_cells()[1]
    trained = iter(range(50, 1000, more)) if more else iter([50] * 100)

    def act(task: WorkerTask) -> str:
        cell = next(iter(Claims(folder, folder.all_cells(), number=0, workers=1)))
        if cell == poison:
            return die_at(folder, cell, task, next(trained))
        finish_cell(folder, cell)
        return ""

    summary = Coordinator(folder, MadeBackend(act), workers=1).run(poll_s=0)
    assert (summary.done, summary.failed, summary.lost) == (5, 1, 3)
    failure = folder.failure(poison)
    assert failure is not None and "3 workers were lost on it without getting farther (killed by" in failure.error


def test_workers_that_take_no_cell_end_the_run(folder: StudyFolder) -> None:
    backend = MadeBackend(lambda task: "ended with code 1")
    with pytest.raises(RunFolderError, match="workers end before they take a cell: ended with code 1"):
        Coordinator(folder, backend, workers=1).run(poll_s=0)
    assert backend.started == 3


def test_no_more_workers_than_cells(folder: StudyFolder) -> None:
    for cell in folder.all_cells()[1:]:
        finish_cell(folder, cell)

    def act(task: WorkerTask) -> str:
        finish_cell(folder, folder.all_cells()[0])
        return ""

    backend = MadeBackend(act)
    Coordinator(folder, backend, workers=4).run(poll_s=0)
    assert backend.started == 1


def test_the_cells_of_a_study_are_made_once(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    study, cells = folder.read(), folder.all_cells()

    def act(task: WorkerTask) -> str:
        for cell in cells:
            finish_cell(folder, cell)
        return ""

    monkeypatch.setattr(StudyFolder, "all_cells", None)  # not again, from what was written
    assert run_study(study, folder.path, backend=MadeBackend(act)).done == len(cells)
