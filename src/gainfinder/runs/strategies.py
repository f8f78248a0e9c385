"""One teacher or several: the strategies by which several teachers teach (section 4.3).

Each strategy is made of transfers in folders of their own, so that a killed sequence goes on in the middle. In the
result folder, besides what `run_folder.py` lists: steps/1, steps/2 …, a folder for each teacher's transfer.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from ..metrics import estimated_strengths, measure_transfer
from ..models import Classifier
from ..predictions import Predictions
from ..results import BankUse, RunFolder, StepMetrics, TransferMetrics
from ..training import average, copied
from .bank import require_room
from .callbacks import Callback
from .control import check_control, with_control
from .frozen import reestimate_on_views, shared_predictions
from .guard import Guarded, Line
from .planning import Plan
from .result import TransferResult, conclude, finished
from .transfer import (
    NOTHING_KNOWN,
    Answers,
    ask_frozen,
    forked_generators,
    held,
    keep_best,
    run_transfer,
    tracked,
)


def carry_out(plan: Plan, out: Path, *, callback: Callback) -> TransferResult:
    """Carry a plan out in its folder, by its strategy; from the start or from where it was left.

    Args:
        plan: what to do.
        out: result folder.
        callback: is told of progress, and of each result folder that is complete.

    Raises:
        RunFolderError: the folder holds something else, is in use or is damaged.
        GainfinderError: whatever else goes wrong with models or images.
    """
    folder = RunFolder(out)
    if not folder.result.exists():
        require_room(plan)  # before the folder is claimed: what is refused leaves none
    check_control(plan)
    if len(plan.teachers) == 1 or plan.asked.strategy == "parallel":
        done = run_transfer(plan, out, callback=callback)
        return with_control(plan, out, done, callback=callback) if plan.asked.control else done
    steps = plan.settings.epochs * len(plan.teachers)
    with held(folder, plan), tracked(plan, folder, name=out.name) as trackers:
        metrics = folder.read_result()
        result = None if metrics is None else finished(plan, folder, metrics, callback=callback)
        if result is None:
            result = _Strategy(plan, folder, callback).carry_out()
        trackers.metrics(result.metrics, epochs=steps)
        return result


class _Strategy:
    """Several transfers that make one: what they share."""

    def __init__(self, plan: Plan, folder: RunFolder, callback: Callback) -> None:
        self.plan = plan
        self.folder = folder
        self.callback = callback
        self.answers = ask_frozen(plan, folder, plan.val_images, "", known=NOTHING_KNOWN, callback=callback)
        self.results: list[TransferResult] = []

    @functools.cached_property
    def probes(self) -> Answers:
        """What the frozen models say of the images they are compared on; asked only where something depends on it."""
        images = self.plan.probe_images
        return ask_frozen(self.plan, self.folder, images, "probe-", known=NOTHING_KNOWN, callback=self.callback)

    def carry_out(self) -> TransferResult:
        if self.plan.asked.strategy == "soup":
            student, after, guarded = self._soup()
        else:
            student, after, guarded = self._sequence()
        rows = [
            {"step": step, "teacher": result.metrics.teachers[0], **row.to_dict()}
            for step, result in enumerate(self.results, start=1)
            for row in result.epochs
        ]
        ends = (self.answers.before, after)
        return conclude(
            self.plan, self.folder, student, self._metrics(after, guarded), ends=ends, rows=rows, callback=self.callback
        )

    def _sequence(self) -> tuple[Classifier, Predictions, None]:
        """One teacher after another; each result is the next one's student and frozen initial student."""
        student, before = self.plan.student, self.answers.before
        for number in self._order():
            result = self._step(number, student, before)
            name = f"{self.plan.student.reference} after {len(self.results)} teacher(s)"
            student = replace(self.plan.student, reference=name, module=result.student.module)
            before = self._after(result)
        return student, before, None

    def _soup(self) -> tuple[Classifier, Predictions, Guarded | None]:
        """A transfer from each teacher; the mean of the resulting weights, guarded once more."""
        plan = self.plan
        results = [self._step(number, plan.student, self.answers.before) for number in range(len(plan.teachers))]
        student = replace(plan.student, module=results[0].student.module)
        with forked_generators(plan):
            student.module.load_state_dict(average([result.student.module.state_dict() for result in results]))
            if plan.settings.student_mode != "frozen":
                reestimate_on_views(plan, student)
            after = shared_predictions(plan, student, plan.val_images, "measuring the soup", callback=self.callback)
            if plan.guard_images is None:
                return student, after, None
            state = copied(student.withdraw().state_dict())
            line = Line(initial=plan.student.module.state_dict(), transferred=state)
            ends = (self.answers.before, after)
            kept, guarded = keep_best(
                plan, line, student, self.folder, probes=self.probes, ends=ends, callback=self.callback
            )
            return student, kept, guarded

    def _step(self, number: int, student: Classifier, before: Predictions) -> TransferResult:
        """The transfer from one teacher, in its own folder."""
        teacher = self.plan.teachers[number]
        self.callback.teacher(len(self.results) + 1, len(self.plan.teachers), teacher.reference)
        known = {"before": before, "teacher-1": self.answers.teachers[number]}
        if self.plan.needs_probes:
            known["probe-teacher-1"] = self.probes.teachers[number]
            known["probe-before"] = self.probes.before if student is self.plan.student else None
        result = run_transfer(
            replace(
                self.plan,
                student=student,
                teachers=(teacher,),
                student_is_given=student is self.plan.student,
            ),
            self.folder.path / "steps" / str(len(self.results) + 1),
            callback=self.callback,
            known={name: found for name, found in known.items() if found is not None},
            origin=self.answers.before,
            name=f"{self.folder.path.name}-step-{len(self.results) + 1}",
        )
        self.results.append(result)
        return result

    def _order(self) -> list[int]:
        """The teachers in the order asked for; equal ones as they were given."""
        order, numbers = self.plan.asked.order, list(range(len(self.plan.teachers)))
        if order == "given":
            return numbers
        asked = [found for found in self.probes.teachers if found is not None]
        if len(asked) < len(numbers):
            raise DataError(
                f"teachers cannot be ordered: a table lacks images of {self.plan.probe_images.reference}; predict "
                "these, too, or give --order given"
            )
        strengths = estimated_strengths([self.probes.before, *asked])[1:]
        return sorted(numbers, key=strengths.__getitem__, reverse=order == "descending")

    def _after(self, result: TransferResult) -> Predictions:
        assert result.out is not None
        return Predictions.load(RunFolder(result.out).predictions / "after.parquet")

    def _metrics(self, after: Predictions, guarded: Guarded | None) -> TransferMetrics:
        found = [result.metrics for result in self.results]
        shares = [one.teacher_share for one in found if one.teacher_share is not None]
        return TransferMetrics(
            student=self.plan.student.reference,
            teachers=tuple(teacher.reference for teacher in self.plan.teachers),
            method=self.plan.settings.method.name,
            strategy=self.plan.asked.strategy,
            **measure_transfer(self.answers.before, after, self.answers.teachers).model_dump(),
            teacher_share=sum(shares) / len(shares) if len(shares) == len(found) else None,
            unaugmented_teachers=tuple(dict.fromkeys(name for one in found for name in one.unaugmented_teachers)),
            broken_images=tuple(sorted({reason for one in found for reason in one.broken_images})),
            guard=None if guarded is None else guarded.decision(),
            bank=_together([one.bank for one in found if one.bank is not None]),
            steps=tuple(_step_metrics(one) for one in found),
            resumed_epochs=sum(one.resumed_epochs for one in found),
        )


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


def _together(uses: Sequence[BankUse]) -> BankUse | None:
    """What the bank did in all steps; the initial student's entries count in each step that reads them."""
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
