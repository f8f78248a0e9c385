"""The control: the same transfer from the student's own copy, which has nothing to give but what the student knows.

Whatever it changes is adaptation: training mode, the images, the views. What the teacher's transfer changes beyond that
came from the teacher. In the result folder: control/, a folder as of any transfer.
"""

from dataclasses import replace
from typing import Any

from ..files import write_json
from ..metrics import beyond_control
from ..predictions import Predictions
from ..results import RunFolder
from .context import RunContext
from .prepare import PreparedTransfer
from .result import TransferResult
from .transfer import run_transfer

KEPT = ("transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain", "knowledge_loss", "agreement")
"""What the account of a transfer tells of its control; control/result.json tells the rest."""


def control_of(prepared: PreparedTransfer) -> PreparedTransfer:
    """The same transfer from the student itself: same images, views, order and settings, without a guard."""
    requested = prepared.requested.replace(guard=False, control=False, track=())
    return replace(prepared, teachers=(prepared.student,), guard_images=None, guard_held_out=False, requested=requested)


def add_control(run: RunContext, result: TransferResult) -> TransferResult:
    """The result with the control's measures in its account, run here unless they are there.

    Args:
        run: the transfer, which is finished.
        result: its result.

    Raises:
        RunFolderError: the folder is damaged.
        GainfinderError: whatever else goes wrong with models or images.
    """
    account = run.folder.read_result()
    assert account is not None, "the transfer is finished"
    if account.get("control") is None:
        account = {**account, "control": _control(run)}
        if run.prepared.is_main:
            write_json(run.folder.result, account)
            run.callback.result(run.folder.path)
        run.prepared.accelerator.wait_for_everyone()
    return replace(result, account={**result.account, "control": account["control"]})


def _control(run: RunContext) -> dict[str, Any]:
    run.callback.teacher(1, 1, "the student's own copy, as a control")
    before, after = (Predictions.load(run.folder.predictions / f"{name}.parquet") for name in ("before", "after"))
    run.shared.add(run.prepared.student, run.prepared.val_images, before)
    path = run.folder.path / "control"
    done = run_transfer(control_of(run.prepared), path, callback=run.callback, shared=run.shared)
    found = Predictions.load(RunFolder(path).predictions / "after.parquet")
    return {**{key: done.account[key] for key in KEPT}, **beyond_control(found, after)}
