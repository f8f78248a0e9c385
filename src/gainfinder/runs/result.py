"""The result of a transfer: the student and its metrics, written into the folder and read from it."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..files import write_atomically, write_json_lines
from ..models import Classifier, load_into, load_weights, load_written
from ..predictions import Predictions
from ..results import EpochMetrics, TransferMetrics, write_thumbnails
from .clock import Ended
from .context import RunContext
from .thumbnails import make_thumbnails

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """The result of a transfer.

    Attributes:
        metrics: the measures and their context, as in `result.json`.
        epochs: measures after each epoch, a row each.
        out: the result folder, or None where none was requested.
        load_student: function that returns the transferred student.
        partner: with `both`, the result of the teacher, which learned as well; None else.
    """

    metrics: TransferMetrics
    epochs: tuple[EpochMetrics, ...]
    out: Path | None
    load_student: Callable[[], Classifier] = field(repr=False)
    partner: "TransferResult | None" = field(default=None, repr=False)

    @functools.cached_property
    def student(self) -> Classifier:
        """The transferred student, in evaluation mode; of a run that was finished before, read from its folder."""
        return self.load_student()

    @property
    def account(self) -> dict[str, Any]:
        """The metrics as a dictionary, as `result.json` holds them: the old spelling of `metrics.to_dict()`."""
        return self.metrics.to_dict()


def finalize(
    run: RunContext,
    student: Classifier,
    metrics: TransferMetrics,
    *,
    ends: tuple[Predictions, Predictions],
    rows: Sequence[dict[str, Any]],
    ended: Ended | None = None,
) -> TransferResult:
    """Write the outputs of a run, the metrics last, and return them.

    Args:
        run: the run to finish.
        student: the student that is kept.
        metrics: the content of `result.json`, to which times, folder and reference are added.
        ends: predictions of the initial student and of the one that is kept, for the images measured on.
        rows: measures after each epoch.
        ended: the end of the run; None for now.
    """
    folder, prepared = run.folder, run.prepared
    reference: str | None = None
    student.offload().eval()
    if prepared.is_main:
        folder.check_in_place()
        ends[1].write(folder.predictions / "after.parquet")
        _keep_thumbnails(run, ends, folder.thumbnails)
        write_json_lines(folder.epochs, rows, within=folder.path)
        reference = save_student(student, folder.student)
    about = {"out": str(folder.path), "student_reference": reference, **asdict(ended or run.clock.ended())}
    metrics = metrics.model_copy(update=about)
    if prepared.is_main:
        folder.write_result(metrics)
        folder.remove_state()
        run.callback.result(folder.path)
    prepared.accelerator.wait_for_everyone()
    prepared.accelerator.free_memory()  # drops the module and optimiser prepared for this run
    named = replace(student, reference=reference or f"{prepared.student.reference} (transferred)")
    return TransferResult(
        metrics=metrics,
        epochs=tuple(EpochMetrics(**row) for row in rows),
        out=folder.path,
        load_student=lambda: named,
    )


def load_finished(run: RunContext, metrics: TransferMetrics) -> TransferResult:
    """The result of a run that was finished before."""
    folder, prepared = run.folder, run.prepared
    weights = folder.student / "model.safetensors"

    def load_student() -> Classifier:
        if metrics.student_reference is not None:
            loaded = load_written(
                metrics.student_reference, of=prepared.student, weights=weights, where=str(folder.result)
            )
            return replace(prepared.student, reference=loaded.reference, module=loaded.module)
        module = prepared.student.copied().module
        load_into(module, load_weights(weights), reference=str(folder.student))
        return replace(prepared.student, reference=f"{prepared.student.reference} (transferred)", module=module)

    if prepared.is_main:
        folder.remove_state()  # left where a kill came right after the result
        run.callback.result(folder.path)
    rows = folder.read_epochs()
    return TransferResult(
        metrics=metrics.model_copy(update={"resumed_epochs": len(rows), "out": str(folder.path)}),
        epochs=tuple(rows),
        out=folder.path,
        load_student=load_student,
    )


def save_candidate(run: RunContext, student: Classifier, ends: tuple[Predictions, Predictions]) -> None:
    """Keep a student that the guard did not, beside the one that it did: a few labels may prove it better.

    Args:
        run: the run.
        student: the candidate.
        ends: predictions of the initial student and of the candidate for the images measured on.
    """
    student.offload().eval()
    if not run.prepared.is_main:
        return

    def write(partial: Path) -> None:
        (partial / "student").mkdir(parents=True)
        student.save(student, partial / "student")
        ends[1].write(partial / "after.parquet")
        _keep_thumbnails(run, ends, partial / "thumbnails.parquet")

    run.folder.check_in_place()
    write_atomically(run.folder.candidate, write, within=run.folder.path)


def _keep_thumbnails(run: RunContext, ends: tuple[Predictions, Predictions], path: Path) -> None:
    """Thumbnails for the report; a result does without them rather than be lost."""
    try:
        found = make_thumbnails(run.prepared.val_images, *ends)
    except Exception as error:  # of the images' source, which may have gone by now
        _log.warning("no thumbnails for the report (%s: %s)", type(error).__name__, error)
        found = []
    write_thumbnails(path, found)


def save_student(student: Classifier, folder: Path) -> str | None:
    """Write a model's folder atomically; the reference that loads it, where its source has one."""
    found: list[str | None] = []

    def write(partial: Path) -> None:
        partial.mkdir()
        reference = student.save(student, partial)
        # The folder gets its own name only once it is complete.
        found.append(None if reference is None else reference.replace(str(partial), str(folder)))

    write_atomically(folder, write, within=folder.parent)
    return found[0]
