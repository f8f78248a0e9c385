"""Controls: the same recipe with something else to learn from, beside the transfer that was asked for.

`copy`: the student's own copy, which has nothing to give but what the student knows. Whatever it changes is adaptation:
training mode, the images, the views. What the teacher's transfer changes beyond that came from the teacher.
`labels`: the true labels of the transfer images, by plain cross-entropy on the same views. What it changes is the
student's own ceiling: what this recipe makes of these images where every target is right.

In the result folder: control/ and control-labels/, the result folders of these transfers.
"""

import time
from dataclasses import replace
from typing import Any

from ..config import Recipe, find_method, with_recipe
from ..metrics import accuracy_change, captured
from ..models import Classifier
from ..predictions import Predictions
from ..results import ControlMetrics, LabelsControlMetrics, RunFolder, TransferMetrics
from .clock import known_sum
from .context import RunContext
from .diverged import refuse_diverged_control
from .prepare import PreparedTransfer
from .result import TransferResult
from .transfer import run_transfer

FIELDS = {"copy": "control", "labels": "control_labels"}
"""Where the metrics of the transfer keep those of each control."""
FOLDERS = {"copy": "control", "labels": "control-labels"}
LEARNS_FROM = {"copy": "the student's own copy, as a control", "labels": "the true labels, as a control"}


def control_of(prepared: PreparedTransfer, name: str, *, epochs: int) -> PreparedTransfer:
    """The same transfer from what a control learns from: same images, views, order and settings, without a guard.

    Args:
        prepared: the transfer.
        name: `copy` or `labels`; for the latter it was prepared with the labels of its images.
        epochs: epochs that the transfer trained.
    """
    requested = prepared.requested.replace(guard=False, control=(), track=())
    # As long as the transfer's own training, whose length the loss on guard images may have chosen.
    own = replace(
        prepared,
        guard_images=None,
        guard_held_out=False,
        labelled_images=None,
        spec=None,
        requested=requested,
        settings=replace(prepared.settings, epochs=epochs),
    )
    if name == "copy":
        return replace(own, teachers=(prepared.student,))
    images = prepared.labelled_images
    assert images is not None, "prepared with the labels of the transfer images"
    method = replace(find_method("xe"), interpolated=prepared.settings.method.interpolated)
    settings = replace(own.settings, method=method, distill_weight=0.0, label_weight=1.0, label_smoothing=0.0)
    views = prepared.views.labelled(images)
    return replace(
        own,
        train_images=images,
        views=views,
        settings=settings,
        requested=requested.replace(labels="use"),
        bank=None,
    )


def add_controls(run: RunContext, result: TransferResult) -> TransferResult:
    """The result with the requested controls' measures among its own, run here unless they are there.

    Args:
        run: the run of the finished transfer.
        result: the result of that transfer.

    Raises:
        RunFolderError: the folder is damaged.
        Diverged: the training of a control diverges; the result is as it was.
        GainfinderError: models or images cannot be used.
    """
    metrics = run.folder.read_result()
    assert metrics is not None, "the transfer is finished"
    for name in run.prepared.requested.controls:
        if getattr(metrics, FIELDS[name]) is not None:
            continue
        control = _run_control(run, result, metrics, name)
        metrics = metrics.model_copy(
            update={FIELDS[name]: _measures(run, metrics, control, name), **_times(metrics, control)}
        )
        if run.prepared.is_main:
            run.folder.write_result(metrics)
            run.callback.result(run.folder.path)
        run.prepared.accelerator.wait_for_everyone()
    known = {field: getattr(metrics, field) for field in (*FIELDS.values(), "seconds", "finished")}
    return replace(result, metrics=result.metrics.model_copy(update=known))


def _run_control(run: RunContext, result: TransferResult, metrics: TransferMetrics, name: str) -> TransferMetrics:
    """The result of a control, which is run unless it is there."""
    controls = run.prepared.requested.controls
    run.callback.teacher(controls.index(name) + 1, len(controls), LEARNS_FROM[name])
    _share_predictions(run)
    path = run.folder.path / FOLDERS[name]
    prepared = run.prepared
    if prepared.settings.recipes and metrics.optimizer is not None and metrics.learning_rate is not None:
        recipe = Recipe(optimizer=metrics.optimizer, lr=metrics.learning_rate)
        prepared = replace(prepared, settings=with_recipe(prepared.settings, recipe))
    asked = control_of(prepared, name, epochs=len(run.folder.read_epochs()))
    control = run_transfer(asked, path, callback=run.callback, shared=run.shared)
    refuse_diverged_control(control, name, beside=result, precision=run.prepared.accelerator.mixed_precision)
    return control.metrics


def _times(metrics: TransferMetrics, control: TransferMetrics) -> dict[str, float | None]:
    """When a result with a control was finished, and how long was worked at both."""
    return {"seconds": known_sum(metrics.seconds, control.seconds), "finished": time.time()}


def _measures(run: RunContext, metrics: TransferMetrics, done: TransferMetrics, name: str) -> ControlMetrics:
    """What the result of the transfer tells of a control's."""
    ends = (RunFolder(run.folder.path / FOLDERS[name]).predictions, run.folder.predictions)
    beyond = accuracy_change(*(Predictions.load(folder / "after.parquet") for folder in ends))
    found: dict[str, Any] = {
        "transfer_delta_pp": done.transfer_delta_pp,
        "transfer_delta_ci_pp": done.transfer_delta_ci_pp,
        "knowledge_gain": done.knowledge_gain,
        "knowledge_loss": done.knowledge_loss,
        "agreement": done.agreement,
        "beyond_pp": beyond.delta_pp,
        "beyond_ci_pp": beyond.ci_pp,
    }
    if name == "copy":
        return ControlMetrics(**found)
    share = captured(metrics.transfer_delta_pp, done.transfer_delta_pp)
    return LabelsControlMetrics(**found, captured_of_labels=share)


def _share_predictions(run: RunContext) -> None:
    """The frozen models' predictions that the transfer left, so that no control makes them again."""
    prepared = run.prepared
    names = ("before", *(f"teacher-{number + 1}" for number in range(len(prepared.teachers))))
    for name, model in zip(names, (prepared.student, *prepared.teachers), strict=True):
        path = run.folder.predictions / f"{name}.parquet"
        if isinstance(model, Classifier) and path.exists():
            run.shared.add(model, prepared.val_images, Predictions.load(path))
