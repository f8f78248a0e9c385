"""What a transfer gives back: the student, its account and a report, written into the folder and read from it again."""

import copy
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..files import write_atomically, write_json, write_json_lines
from ..models import Classifier, load_into, load_model, load_weights
from ..predictions import Predictions
from ..results import RunFolder, make_thumbnails, write_thumbnails
from .context import RunContext

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What a transfer gives back.

    Attributes:
        account: the measures and their context, as `result.json` holds them and `--json` prints them; see
            `evaluation.measure_transfer` for definitions and units.
        epochs: measures after each epoch, a row each.
        out: the result folder, or None where none was asked for.
        load_student: gives the transferred student.
    """

    account: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    out: Path | None
    load_student: Callable[[], Classifier] = field(repr=False)

    @functools.cached_property
    def student(self) -> Classifier:
        """The transferred student, in evaluation mode; of a run that was finished before, read from its folder."""
        return self.load_student()


def finalize(
    run: RunContext,
    student: Classifier,
    account: dict[str, Any],
    *,
    ends: tuple[Predictions, Predictions],
    rows: Sequence[dict[str, Any]],
) -> TransferResult:
    """Write what a run leaves, the account last, and return it.

    Args:
        run: the run that ends.
        student: the student that is kept.
        account: what `result.json` is to hold.
        ends: predictions of the initial student and of the one that is kept, for the images measured on.
        rows: measures after each epoch.
    """
    folder, prepared = run.folder, run.prepared
    account = {**account, "out": str(folder.path), "student_reference": None}
    student.withdraw().eval()
    if prepared.is_main:
        ends[1].write(folder.predictions / "after.parquet")
        _keep_thumbnails(run, ends)
        write_json_lines(folder.epochs, rows)
        account["student_reference"] = _save_student(student, folder)
        write_json(folder.result, account)
        folder.checkpoint.unlink(missing_ok=True)
        run.callback.result(folder.path)
    prepared.accelerator.wait_for_everyone()
    prepared.accelerator.free_memory()  # of what it prepared for this run
    reference = account["student_reference"] or f"{prepared.student.reference} (transferred)"
    named = replace(student, reference=reference)
    return TransferResult(account=account, epochs=tuple(rows), out=folder.path, load_student=lambda: named)


def load_finished(run: RunContext, account: dict[str, Any]) -> TransferResult:
    """The result of a run that was finished before."""
    folder, prepared = run.folder, run.prepared

    def load_student() -> Classifier:
        if account["student_reference"] is not None:
            loaded = load_model(account["student_reference"])
            return replace(prepared.student, reference=loaded.reference, module=loaded.module)
        module = copy.deepcopy(prepared.student.module)
        load_into(module, load_weights(folder.student / "model.safetensors"), reference=str(folder.student))
        return replace(prepared.student, reference=f"{prepared.student.reference} (transferred)", module=module)

    if prepared.is_main:
        folder.checkpoint.unlink(missing_ok=True)  # left where a kill came right after the result
        run.callback.result(folder.path)
    return TransferResult(
        account={**account, "resumed_epochs": prepared.settings.epochs, "out": str(folder.path)},
        epochs=tuple(folder.read_epochs()),
        out=folder.path,
        load_student=load_student,
    )


def _keep_thumbnails(run: RunContext, ends: tuple[Predictions, Predictions]) -> None:
    """Thumbnails for the report; a result does without them rather than be lost."""
    try:
        found = make_thumbnails(run.prepared.val_images, *ends)
    except Exception as error:  # of the images' source, which may have gone by now
        _log.warning("no thumbnails for the report (%s: %s)", type(error).__name__, error)
        found = []
    write_thumbnails(run.folder.thumbnails, found)


def _save_student(student: Classifier, folder: RunFolder) -> str | None:
    """Write the student's folder atomically; the reference that loads it, where its source has one."""
    found: list[str | None] = []

    def write(partial: Path) -> None:
        partial.mkdir()
        reference = student.save(student, partial)
        # The folder gets its own name only once it is complete.
        found.append(None if reference is None else reference.replace(str(partial), str(folder.student)))

    write_atomically(folder.student, write)
    return found[0]
