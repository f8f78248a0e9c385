"""The control: the same transfer from the student's own copy, which has nothing to give but what the student knows.

Whatever it changes is adaptation: training mode, the images, the views. What the teacher's transfer changes beyond that
came from the teacher. In the result folder: control/, the result folder of that transfer.
"""

from dataclasses import replace

from ..metrics import accuracy_change
from ..predictions import Predictions
from ..results import ControlMetrics, RunFolder
from .context import RunContext
from .prepare import PreparedTransfer
from .result import TransferResult
from .transfer import run_transfer


def control_of(prepared: PreparedTransfer) -> PreparedTransfer:
    """The same transfer from the student itself: same images, views, order and settings, without a guard."""
    requested = prepared.requested.replace(guard=False, control=False, track=())
    return replace(prepared, teachers=(prepared.student,), guard_images=None, guard_held_out=False, requested=requested)


def add_control(run: RunContext, result: TransferResult) -> TransferResult:
    """The result with the control's measures among its own, run here unless they are there.

    Args:
        run: the run of the finished transfer.
        result: the result of that transfer.

    Raises:
        RunFolderError: the folder is damaged.
        GainfinderError: models or images cannot be used.
    """
    metrics = run.folder.read_result()
    assert metrics is not None, "the transfer is finished"
    if metrics.control is None:
        metrics = metrics.model_copy(update={"control": _control(run)})
        if run.prepared.is_main:
            run.folder.write_result(metrics)
            run.callback.result(run.folder.path)
        run.prepared.accelerator.wait_for_everyone()
    return replace(result, metrics=result.metrics.model_copy(update={"control": metrics.control}))


def _control(run: RunContext) -> ControlMetrics:
    run.callback.teacher(1, 1, "the student's own copy, as a control")
    before, after = (Predictions.load(run.folder.predictions / f"{name}.parquet") for name in ("before", "after"))
    run.shared.add(run.prepared.student, run.prepared.val_images, before)
    path = run.folder.path / "control"
    done = run_transfer(control_of(run.prepared), path, callback=run.callback, shared=run.shared).metrics
    found = Predictions.load(RunFolder(path).predictions / "after.parquet")
    beyond = accuracy_change(found, after)
    return ControlMetrics(
        transfer_delta_pp=done.transfer_delta_pp,
        transfer_delta_ci_pp=done.transfer_delta_ci_pp,
        knowledge_gain=done.knowledge_gain,
        knowledge_loss=done.knowledge_loss,
        agreement=done.agreement,
        beyond_pp=beyond.delta_pp,
        beyond_ci_pp=beyond.ci_pp,
    )
