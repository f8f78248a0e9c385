"""The control: the same transfer from the student's own copy, which has nothing to give but what the student knows.

Whatever it changes is adaptation: training mode, the images, the views. What the teacher's transfer changes beyond that
came from the teacher. In the result folder: control/, a folder as of any transfer.
"""

from dataclasses import replace
from pathlib import Path

from ..errors import SettingsError
from ..metrics import accuracy_change
from ..predictions import Predictions
from ..results import ControlMetrics, RunFolder
from .callbacks import Callback
from .planning import Plan
from .result import TransferResult
from .transfer import held, run_transfer


def check_control(plan: Plan) -> None:
    """Refuse a control for several transfers in one.

    Raises:
        SettingsError: the plan has several teachers that do not teach side by side.
    """
    if plan.asked.control and len(plan.teachers) > 1 and plan.asked.strategy != "parallel":
        raise SettingsError(
            f"control is asked for, with {len(plan.teachers)} teachers and strategy {plan.asked.strategy}: it controls "
            "a single transfer; give one teacher, or strategy parallel"
        )


def control_plan(plan: Plan) -> Plan:
    """The same transfer from the student itself: same images, views, order and settings, without a guard."""
    asked = replace(plan.asked, guard=False, control=False, track=())
    return replace(plan, teachers=(plan.student,), guard_images=None, guard_held_out=False, asked=asked)


def with_control(plan: Plan, out: Path, result: TransferResult, *, callback: Callback) -> TransferResult:
    """The result with the control's measures among its own, run here unless they are there.

    Args:
        plan: of the transfer, which is finished.
        out: its folder.
        result: of it.
        callback: is told of progress.

    Raises:
        RunFolderError: the folder is in use or damaged.
        GainfinderError: whatever else goes wrong with models or images.
    """
    folder = RunFolder(out)
    with held(folder, plan):
        metrics = folder.read_result()
        assert metrics is not None, "the transfer is finished"
        if metrics.control is None:
            metrics = metrics.model_copy(update={"control": _control(plan, folder, callback)})
            if plan.is_main:
                folder.write_result(metrics)
                callback.result(folder.path)
            plan.accelerator.wait_for_everyone()
    return replace(result, metrics=result.metrics.model_copy(update={"control": metrics.control}))


def _control(plan: Plan, folder: RunFolder, callback: Callback) -> ControlMetrics:
    callback.teacher(1, 1, "the student's own copy, as a control")
    before, after = (Predictions.load(folder.predictions / f"{name}.parquet") for name in ("before", "after"))
    known = {"before": before, "teacher-1": before}
    done = run_transfer(control_plan(plan), folder.path / "control", callback=callback, known=known)
    assert done.out is not None
    found = Predictions.load(RunFolder(done.out).predictions / "after.parquet")
    beyond = accuracy_change(found, after)
    return ControlMetrics(
        transfer_delta_pp=done.metrics.transfer_delta_pp,
        transfer_delta_ci_pp=done.metrics.transfer_delta_ci_pp,
        knowledge_gain=done.metrics.knowledge_gain,
        knowledge_loss=done.metrics.knowledge_loss,
        agreement=done.metrics.agreement,
        beyond_pp=beyond.delta_pp,
        beyond_ci_pp=beyond.ci_pp,
    )
