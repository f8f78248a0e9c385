"""Transfers from one teacher or several, by strategy (section 4.3).

Each strategy consists of transfers in folders of their own, so that a killed sequence resumes in the middle. In the
result folder, besides what `results/folder.py` lists: steps/1, steps/2 …, a folder for each teacher's transfer.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from ..metrics import accuracy_change, estimated_strengths, measure_transfer
from ..models import Classifier
from ..predictions import Predictions
from ..results import BankUse, Divergence, GuardDecision, RunFolder, StepMetrics, TransferMetrics
from ..training import average, copied
from .bank import require_room
from .callbacks import Callback
from .context import RunContext, SharedWork, forked_generators, open_run
from .control import add_controls
from .diverged import refuse_diverged
from .frozen import FrozenPredictions, predict_frozen, reestimate_on_views
from .guard import WeightPath, keep_best
from .prepare import PreparedTransfer
from .result import TransferResult, finalize, load_finished
from .transfer import run_transfer, transfer_in


def execute_one_way(
    prepared: PreparedTransfer, out: Path, *, callback: Callback, shared: SharedWork | None = None
) -> TransferResult:
    """Run a transfer one way in its folder, by its strategy; from the start or from its last checkpoint.

    Args:
        prepared: the transfer to run.
        out: the result folder.
        callback: notified of progress and of each complete result folder.
        shared: work that it shares with other transfers of this process; None for this one alone.

    Raises:
        RunFolderError: the folder belongs to another run, is in use or is damaged.
        Diverged: training leaves all bounds. The folder is complete then, with the student as it was before; of a
            sequence the teachers that follow do not teach, and a soup is of the students of those before.
        GainfinderError: models or images cannot be used.
    """
    if not RunFolder(out).result.exists():
        require_room(prepared)  # before the folder is claimed: a refused run leaves none
    shared = shared or SharedWork()
    prepared = with_known_images(prepared, shared)
    with open_run(prepared, out, callback=callback, shared=shared) as run:
        done = _one_by_one(run) if prepared.one_by_one else transfer_in(run)
        refuse_diverged(done, precision=prepared.accelerator.mixed_precision)
        return add_controls(run, done) if prepared.requested.controls and not prepared.one_by_one else done


def with_known_images(prepared: PreparedTransfer, shared: SharedWork) -> PreparedTransfer:
    """The transfer with images that are digested and cropped already, if earlier transfers had the same."""
    prepared.views.cache = shared.view_crops
    guard_images = prepared.guard_images
    return replace(
        prepared,
        train_images=shared.known(prepared.train_images),
        val_images=shared.known(prepared.val_images),
        guard_images=None if guard_images is None else shared.known(guard_images),
    )


def _one_by_one(run: RunContext) -> TransferResult:
    metrics = run.folder.read_result()
    result = _Strategy(run).execute() if metrics is None else load_finished(run, metrics)
    run.tracking.metrics(result.metrics, epochs=len(result.epochs))
    return result


class _Strategy:
    """Several transfers that make one."""

    def __init__(self, run: RunContext) -> None:
        self.run = run
        self.prepared = run.prepared
        self.frozen = predict_frozen(run, run.prepared.val_images)
        self.results: list[TransferResult] = []

    @functools.cached_property
    def probes(self) -> FrozenPredictions:
        """Predictions of the frozen models for the images they are compared on; computed only where they are needed."""
        return predict_frozen(self.run, self.run.probe_images, prefix="probe-")

    def execute(self) -> TransferResult:
        if self.prepared.requested.strategy == "soup":
            student, after, guarded = self._soup()
        else:
            student, after, guarded = self._sequence()
        rows = [
            {"step": step, "teacher": result.metrics.teachers[0], **row.to_dict()}
            for step, result in enumerate(self.results, start=1)
            for row in result.epochs
        ]
        ends = (self.frozen.before, after)
        return finalize(self.run, student, self._metrics(after, guarded), ends=ends, rows=rows)

    def _sequence(self) -> tuple[Classifier, Predictions, None]:
        """One teacher after another; each result is the next one's student and frozen initial student."""
        student, before = self.prepared.student, self.frozen.before
        for number in self._order():
            result = self._step(number, student)
            name = f"{self.prepared.student.reference} after {len(self.results)} teacher(s)"
            student = replace(self.prepared.student, reference=name, module=result.student.module)
            before = self._after(result)
            self.run.shared.add(student, self.prepared.val_images, before)
            if result.metrics.diverged is not None:
                break
        return student, before, None

    def _soup(self) -> tuple[Classifier, Predictions, GuardDecision | None]:
        """A transfer from each teacher; the mean of the resulting weights, guarded once more."""
        prepared = self.prepared
        results: list[TransferResult] = []
        for number in range(len(prepared.teachers)):
            results.append(self._step(number, prepared.student))
            if results[-1].metrics.diverged is not None:
                break
        if len(results) > 1 and results[-1].metrics.diverged is not None:
            results.pop()
        student = replace(prepared.student, module=results[0].student.module)
        with forked_generators(prepared):
            student.module.load_state_dict(average([result.student.module.state_dict() for result in results]))
            if prepared.settings.student_mode != "frozen":
                reestimate_on_views(prepared, student)
            after = self.run.predict(student, prepared.val_images, "measuring the soup")
            if prepared.guard_images is None:
                return student, after, None
            state = copied(student.offload().state_dict())
            weight_path = WeightPath(initial=prepared.student.module.state_dict(), transferred=state)
            ends = (self.frozen.before, after)
            kept, guarded = keep_best(self.run, weight_path, student, probes=self.probes, ends=ends)
            return student, kept, guarded.decision(accuracy_change(self.frozen.before, after))

    def _step(self, number: int, student: Classifier) -> TransferResult:
        """The transfer from one teacher, in its own folder."""
        teacher, at = self.prepared.teachers[number], len(self.results) + 1
        self.run.callback.teacher(at, len(self.prepared.teachers), teacher.reference)
        if self.prepared.needs_probes:
            _ = self.probes  # made here once, not in the first step's folder alone
        given = student is self.prepared.student
        with self.run.clock.paused():
            result = run_transfer(
                replace(self.prepared, student=student, teachers=(teacher,), student_is_given=given, spec=None),
                self.run.folder.path / "steps" / str(at),
                callback=self.run.callback,
                shared=self.run.shared,
                origin=self.frozen.before,
                name=f"{self.run.folder.path.name}-step-{at}",
            )
        self.run.clock.add(result.metrics.seconds)
        self.results.append(result)
        return result

    def _order(self) -> list[int]:
        """The teachers in the requested order; equally strong ones as given."""
        order, numbers = self.prepared.requested.order, list(range(len(self.prepared.teachers)))
        if order == "given":
            return numbers
        known = [found for found in self.probes.teachers if found is not None]
        if len(known) < len(numbers):
            probes = self.run.probe_images
            raise DataError(
                f"teachers cannot be ordered: a table lacks {probes.noun}s of {probes.reference}; predict "
                "these, too, or give `order='given'`"
            )
        strengths = estimated_strengths([self.probes.before, *known])[1:]
        return sorted(numbers, key=strengths.__getitem__, reverse=order == "descending")

    def _after(self, result: TransferResult) -> Predictions:
        assert result.out is not None
        return Predictions.load(RunFolder(result.out).predictions / "after.parquet")

    def _metrics(self, after: Predictions, guarded: GuardDecision | None) -> TransferMetrics:
        found = [result.metrics for result in self.results]
        shares = [one.teacher_share for one in found if one.teacher_share is not None]
        return TransferMetrics(
            student=self.prepared.student.reference,
            teachers=tuple(teacher.reference for teacher in self.prepared.teachers),
            method=self.prepared.settings.method.name,
            strategy=self.prepared.requested.strategy,
            **measure_transfer(self.frozen.before, after, self.frozen.teachers).model_dump(),
            teacher_share=sum(shares) / len(shares) if len(shares) == len(found) else None,
            unaugmented_teachers=tuple(dict.fromkeys(name for one in found for name in one.unaugmented_teachers)),
            broken_images=tuple(sorted({reason for one in found for reason in one.broken_images})),
            guard=guarded,
            bank=_total_bank_use([one.bank for one in found if one.bank is not None]),
            diverged=_divergence(found),
            steps=tuple(_step_metrics(one) for one in found),
            resumed_epochs=sum(one.resumed_epochs for one in found),
        )


def _divergence(found: Sequence[TransferMetrics]) -> Divergence | None:
    """That of the last step, which ended the rest."""
    last = found[-1]
    return None if last.diverged is None else last.diverged.model_copy(update={"teacher": last.teachers[0]})


def _step_metrics(metrics: TransferMetrics) -> StepMetrics:
    return StepMetrics(
        teacher=metrics.teachers[0],
        transfer_delta_pp=metrics.transfer_delta_pp,
        transfer_delta_ci_pp=metrics.transfer_delta_ci_pp,
        knowledge_gain=metrics.knowledge_gain,
        knowledge_loss=metrics.knowledge_loss,
        accuracy_after=metrics.accuracy_after,
        transfer_rate=metrics.transfer_rate,
        teacher_share=metrics.teacher_share,
        guard=metrics.guard,
    )


def _total_bank_use(uses: Sequence[BankUse]) -> BankUse | None:
    """Entries of the bank used in all steps; the initial student's entries count in each step that reads them."""
    if not uses:
        return None
    differences = [use.largest_difference for use in uses if use.largest_difference is not None]
    return BankUse(
        folder=uses[0].folder,
        entries=sum(use.entries for use in uses),
        made=sum(use.made for use in uses),
        bytes=sum(use.bytes for use in uses),
        checked=uses[0].checked,
        largest_difference=max(differences, default=None),
    )
