"""Two-way transfer: both models learn, each from the other, in result folders of their own; and what runs any transfer.

After the bidirectional transfer of Jain, Karthik and Gandhi, "Simplifying Knowledge Transfer in Pretrained Models"
(Bi-KD), TMLR 2025, arXiv 2510.22208, where a partition of the data makes of each model now a student, now a teacher; by
the paper's abstract alone, and without its code. Ours is the one-way transfer of this package twice: each student keeps
a frozen initial copy of its own, so that a sample goes to the partner only where that is surer.

frozen: each learns from the other as it was given: two transfers one way, one after the other.
live: both train in step, and each learns from the other as it is by then (`live.py`).
"""

from dataclasses import replace
from pathlib import Path

from ..errors import Diverged
from ..results import TwoWay, TwoWayFolder
from .callbacks import Callback
from .context import SharedWork
from .diverged import refuse_diverged
from .live import BothResults, Ways, run_live
from .prepare import PreparedTransfer
from .result import TransferResult
from .strategies import execute_one_way


def execute(
    prepared: PreparedTransfer, out: Path, *, callback: Callback, shared: SharedWork | None = None
) -> TransferResult:
    """Run a transfer in its folder, one way or both; from the start or from its last checkpoint.

    Args:
        prepared: the transfer to run.
        out: the result folder; of both ways, the folder of the two.
        callback: notified of progress and of each complete result folder.
        shared: work that it shares with other transfers of this process; None for this one alone.

    Returns:
        The result of the student that was given; with `both`, that of the teacher is its `partner`.

    Raises:
        RunFolderError: the folder belongs to another run, is in use or is damaged.
        Diverged: training leaves all bounds, as `execute_one_way`; of both ways both folders are complete then.
        GainfinderError: models or images cannot be used.
    """
    if prepared.partner is None:
        return execute_one_way(prepared, out, callback=callback, shared=shared)
    folder = TwoWayFolder(out)
    if prepared.is_main:
        folder.check()
    ways = (replace(prepared, partner=None), prepared.partner)
    shared = shared or SharedWork()
    live = prepared.requested.both == "live"
    run = run_live if live else _run_frozen
    found = run(ways, folder, callback=callback, shared=shared)
    if prepared.is_main:
        student, teacher = (way.student.reference for way in ways)
        folder.write(TwoWay(both="live" if live else "frozen", student=student, teacher=teacher))
        callback.result(out)
    whole = replace(found.results[0], partner=found.results[1])
    refuse_diverged(whole, precision=prepared.accelerator.mixed_precision)
    if found.error is not None:  # of a control
        found.error.result = whole
        raise found.error
    return whole


def _run_frozen(ways: Ways, folder: TwoWayFolder, *, callback: Callback, shared: SharedWork) -> BothResults:
    """One way after the other; where training diverges one way, the other is run, too."""
    results: list[TransferResult] = []
    raised: list[Diverged] = []
    for number, (way, own) in enumerate(zip(ways, folder.results, strict=True), start=1):
        callback.teacher(number, len(ways), way.teachers[0].reference)
        try:
            results.append(execute_one_way(way, own.path, callback=callback, shared=shared))
        except Diverged as error:
            results.append(error.result)
            raised.append(error)
    return BothResults(results=(results[0], results[1]), error=next(iter(raised), None))
