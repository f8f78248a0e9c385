"""A worker: takes cells of a study one after another, and runs them with what it has loaded already."""

import contextlib
import logging
import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import GainfinderError
from ..libraries import first_line
from ..redaction import RedactedFormatter
from ..runs import SharedWork, execute
from ..study import Cell, CellMeasures, Failure, StudyFolder, measure_cell
from .claims import Claims
from .loaded import LoadedSources
from .mirror import copy_to_mirror
from .progress import CellProgress
from .task import WorkerTask

_log = logging.getLogger("gainfinder")
RESULTS = ("config.json", "result.json", "cell.json", "epochs.jsonl", "trials.jsonl", ".lock")
"""What stays of a cell of a study that keeps results alone."""


def work(task: WorkerTask) -> int:
    """Run cells of a study until none is free; returns how many were run or failed.

    Args:
        task: the study's folder and this worker's place among the others.

    Raises:
        RunFolderError: the study's folder cannot be read or written.
    """
    os.chdir(task.directory)
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    folder = StudyFolder(task.folder)
    keep = folder.read().study.keep
    loaded, shared = LoadedSources(), SharedWork()
    done = 0
    for cell in Claims(folder, folder.all_cells(), number=task.number, workers=task.workers):
        with _logged_to(folder.log(cell)):
            run_cell(folder, cell, loaded, shared, worker=task.number)
            if keep == "results" and folder.is_done(cell):
                _keep_results(folder.run_folder(cell).path)
            if task.mirror is not None and folder.is_done(cell):
                copy_to_mirror(folder.run_folder(cell).path, task.mirror)
        done += 1
    return done


def run_cell(folder: StudyFolder, cell: Cell, loaded: LoadedSources, shared: SharedWork, *, worker: int = 0) -> None:
    """Run one cell from its start or last checkpoint; whatever goes wrong is kept as its failure.

    Args:
        folder: the study's folder.
        cell: the cell, which this process has locked.
        loaded: models and images.
        shared: predictions and crops of the cells before.
        worker: number of the worker, for the note of progress.
    """
    run_folder = folder.run_folder(cell)
    try:
        with CellProgress(folder, cell, worker=worker) as progress:
            _log.info("begins: %s", cell.label)
            prepared = loaded.prepare(cell.spec)
            result = execute(prepared, run_folder.path, callback=progress, shared=shared)
            metrics = run_folder.read_result() or result.metrics
            measures = CellMeasures(
                seconds=progress.seconds,
                epochs=len(result.epochs),
                images_seen=len(result.epochs) * len(prepared.train_images),
                trained=progress.trained,
                host=socket.gethostname(),
                finished=time.time(),
                **measure_cell(run_folder, metrics),
            )
        folder.finish(cell, measures.to_dict())
        _log.info("done in %.1f s", measures.seconds)
    except Exception as error:
        own = isinstance(error, GainfinderError)
        trace = "" if own else traceback.format_exc()
        folder.fail(
            cell,
            Failure(
                error=str(error) if own else f"{type(error).__name__}: {first_line(error)}",
                kind=type(error).__name__,
                trace=trace,
                when=time.time(),
                host=socket.gethostname(),
            ),
        )
        _log.error("failed: %s%s", error, f"\n{trace}" if trace else "")
    finally:
        folder.end_progress(cell)


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """What gainfinder notes goes into a file, each line with its time."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(RedactedFormatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagate = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        _log.propagate = propagate
        handler.close()


def _keep_results(folder: Path) -> None:
    """Remove the student, predictions and pictures of a cell that is done."""
    for child in folder.iterdir():
        if child.name in RESULTS:
            continue
        if child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)
