"""Typed metrics of a transfer: the format of `result.json` and of the rows of `epochs.jsonl`.

Shares, accuracies and confidences are in [0, 1]; names that end in `_pp` are percentage points; intervals are 95 %, low
and high. Fields that are null without labels say so.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ..metrics import Interval, TransferMeasures

FORMAT_VERSION = 1
"""Format of `result.json` as it is written; `migrations.py` converts older ones. Without a number: format 0."""


class Record(BaseModel):
    """A frozen record that is kept as JSON; numbers are finite, and types are as declared, never converted."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON object: tuples as lists."""
        return self.model_dump(mode="json")


class GuardPoint(Record):
    """What one candidate gained over the initial student on the guard's images.

    Attributes:
        alpha: interpolation coefficient, from the initial (0) to the trained student (1).
        bn_reestimated: whether it is the initial student with batch-norm statistics re-estimated.
        measure: the quantity gained: accuracy, and what it is estimated to be by the frozen models' posterior or by
            referees' votes, in percentage points; information in nats; movement, of earlier versions, in points, too.
        gain: mean over the guard's images; null in some files before format 1.
        error: standard error of the gain; null for a single image.
        sure_gain: the gain less the margin for its noise; null for a single image.
        veto: the reason that contradicts the gain; null where there is none.
        changed: share of the guard images whose predicted class differs from the initial student's; null in files of
            earlier versions.
        most_changed: upper confidence bound of that share on images like these; null without `at_most`.
        gained: guard images that the initial student has wrong and the candidate right; null without labels.
        lost: those the other way round; null without labels.
        p_value: that of the one-sided test that decides: of gained and lost (exact, McNemar), of referees' votes (one
            over the e-value) or of the posterior (normal); null for information, and in files of earlier versions.
        over_adapted: whether the gain is over the student with its statistics re-estimated.
    """

    alpha: float
    bn_reestimated: bool
    measure: Literal["accuracy", "posterior", "votes", "information", "movement"]
    gain: float | None
    error: float | None
    sure_gain: float | None
    veto: str | None
    changed: float | None = None
    most_changed: float | None = None
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None
    over_adapted: bool = False


class GuardDecision(Record):
    """Which student the guard kept, and what it tried.

    Attributes:
        alpha: interpolation coefficient of the student that is kept, from the initial (0) to the trained one (1).
        bn_reestimated: whether the initial student with batch-norm statistics re-estimated is kept.
        points: the judgement of each candidate.
        images: number of guard images.
        labelled: whether their labels were used.
        held_out: whether they were set apart from the transfer images; null in some files before format 1.
        unguarded_delta_pp: transfer delta of the trained student, kept or not, in percentage points; null without
            labels, and in files of soups before format 1.
        unguarded_delta_ci_pp: 95 % interval of `unguarded_delta_pp`; null likewise.
        at_most: largest share of predictions that was allowed to change; null where there was no limit.
        offered_alpha: interpolation coefficient of the student in `candidate/`: the guard, without labels, did not keep
            it, and a few labels may prove it better (`gainfinder ask`); null where there is none.
        level: error of the line of `points`, and of the re-estimated student; null in files of earlier versions.
        certificate: what speaks for the student that is kept, in words; null for the one that was given, and in files
            of earlier versions.
    """

    alpha: float
    bn_reestimated: bool
    points: tuple[GuardPoint, ...]
    images: int
    labelled: bool
    held_out: bool | None
    unguarded_delta_pp: float | None = None
    unguarded_delta_ci_pp: Interval | None = None
    at_most: float | None = None
    offered_alpha: float | None = None
    level: float | None = None
    certificate: str | None = None

    @property
    def kept_initial(self) -> bool:
        """Whether the student that was given is kept as it was."""
        return self.alpha == 0 and not self.bn_reestimated


class ControlMetrics(Record):
    """The same recipe with something else to learn from, such as the student's own copy, and how the transfer compares.

    Attributes:
        transfer_delta_pp: transfer delta of the control, in percentage points; null without labels.
        transfer_delta_ci_pp: 95 % interval of `transfer_delta_pp`; null without labels.
        knowledge_gain: knowledge gain of the control; null without labels.
        knowledge_loss: knowledge loss of the control; null without labels.
        agreement: share of the images whose predicted class the control left unchanged; never null.
        beyond_pp: accuracy of the student that is kept less the control's, in percentage points; null without labels.
        beyond_ci_pp: 95 % interval of `beyond_pp`; null without labels.
    """

    transfer_delta_pp: float | None
    transfer_delta_ci_pp: Interval | None
    knowledge_gain: float | None
    knowledge_loss: float | None
    agreement: float
    beyond_pp: float | None
    beyond_ci_pp: Interval | None


class LabelsControlMetrics(ControlMetrics):
    """The same recipe with the true labels of the transfer images in place of teachers: the student's own ceiling.

    Attributes:
        captured_of_labels: transfer delta of the student that is kept / transfer delta of this control; null without
            labels, and where the control gained nothing.
    """

    captured_of_labels: float | None


class BankUse(Record):
    """How a run used the bank, the cache of frozen models' predictions.

    Attributes:
        folder: path of the bank.
        entries: number of predictions for views read from it, over all frozen models.
        made: how many of these were computed in this run.
        bytes: size of the entries on disk.
        checked: number of views of each model whose predictions were recomputed for a check.
        largest_difference: largest difference in log-probability that the check found; null where nothing was checked.
    """

    folder: str
    entries: int
    made: int
    bytes: int
    checked: int
    largest_difference: float | None


class Trial(Record):
    """A short training by one recipe, of those that the run chose its own from.

    Attributes:
        round: number of the round, from 1.
        optimizer: the recipe's optimiser.
        lr: its learning rate.
        steps: steps of the trial.
        guard_loss: the loss on guard images after it; null where training led nowhere.
    """

    round: int
    optimizer: Literal["adamw", "sgd"]
    lr: float
    steps: int
    guard_loss: float | None = None

    def is_of(self, other: "Trial") -> bool:
        """Whether both try the same, whatever came of it."""
        return self.model_copy(update={"guard_loss": None}) == other.model_copy(update={"guard_loss": None})


class Divergence(Record):
    """Where training left all bounds, which ended it; what `student/` holds is from before.

    Attributes:
        epoch: the epoch in which it began, from 1.
        step: the step of that epoch, from 1; null where it showed only when the student was measured.
        reason: what was seen, in words.
        kept_epoch: number of the last epoch that was finished before, whose student is measured, guarded and kept; 0
            for the student that was given.
        teacher: reference of the teacher whose transfer diverged, in a sequence or soup; null else.
    """

    epoch: int
    step: int | None
    reason: str
    kept_epoch: int
    teacher: str | None = None

    @property
    def text(self) -> str:
        """What was seen, and since when.

        >>> Divergence(epoch=2, step=3, reason="the loss is not finite", kept_epoch=1).text
        'the loss is not finite since step 3 of epoch 2'
        """
        if self.step is None:
            return f"{self.reason} after epoch {self.epoch}"
        return f"{self.reason} since step {self.step} of epoch {self.epoch}"


class StepMetrics(Record):
    """One transfer of a sequence or soup; its own `result.json` holds the rest.

    Attributes:
        teacher: reference of its teacher.
        transfer_delta_pp: transfer delta in percentage points, against the student that this step began with; null
            without labels.
        transfer_delta_ci_pp: 95 % interval of `transfer_delta_pp`; null without labels.
        knowledge_gain: knowledge gain against the same student; null without labels.
        knowledge_loss: likewise.
        accuracy_after: accuracy of the student that is kept; null without labels.
        transfer_rate: share of the positive flips that are right after; null without labels or positive flips.
        teacher_share: share of the training samples that a teacher taught; null where the method has no partition.
        guard: decision of the step's guard; null without one.
    """

    teacher: str
    transfer_delta_pp: float | None = None
    transfer_delta_ci_pp: Interval | None = None
    knowledge_gain: float | None = None
    knowledge_loss: float | None = None
    accuracy_after: float | None = None
    transfer_rate: float | None = None
    teacher_share: float | None = None
    guard: GuardDecision | None = None


class EpochMetrics(Record):
    """A row of `epochs.jsonl`: the student as it trains, before any guard.

    Attributes:
        epoch: number of the epoch, from 1.
        learning_rate: learning rate at the epoch's end; null in some files before format 1.
        train_loss: mean loss over the epoch's training samples; null in some files before format 1.
        teacher_share: share of the training samples that a teacher taught; null where the method has no partition.
        guard_loss: mean loss on the guard images, with schedule `plateau`; null where it cannot be measured.
        accuracy: accuracy on the images measured on; null without labels.
        transfer_delta_pp: transfer delta since before the transfer, in percentage points; null without labels.
        knowledge_gain: knowledge gain since before the transfer; null without labels.
        knowledge_loss: likewise.
        agreement: share of the images whose predicted class is as before the transfer.
        confidence: mean of the largest probability.
        total_delta_pp: in a sequence or soup, transfer delta since its beginning, in percentage points; null
            else, and without labels.
        total_gain: likewise knowledge gain, a share.
        total_loss: likewise knowledge loss, a share.
        step: in a sequence or soup, number of the teacher, from 1; null else.
        teacher: in a sequence or soup, reference of the teacher; null else.
    """

    epoch: int
    learning_rate: float | None = None
    train_loss: float | None = None
    teacher_share: float | None = None
    guard_loss: float | None = None
    accuracy: float | None = None
    transfer_delta_pp: float | None = None
    knowledge_gain: float | None = None
    knowledge_loss: float | None = None
    agreement: float | None = None
    confidence: float | None = None
    total_delta_pp: float | None = None
    total_gain: float | None = None
    total_loss: float | None = None
    step: int | None = None
    teacher: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as a JSON object: keys that not every run has are left out unless they were set."""
        return self.model_dump(mode="json", exclude_unset=True)


class TransferIdentity(Record):
    """What was transferred.

    Attributes:
        format_version: version of the file's format.
        student: reference of the initial student.
        teachers: references of the teachers, as they were given.
        method: name of the transfer method.
        strategy: `sequential` or `soup`; null where one transfer is all.
    """

    format_version: int = FORMAT_VERSION
    student: str
    teachers: tuple[str, ...]
    method: str
    strategy: str | None = None


class Certificate(Record):
    """What a few labels said of the new student; see `metrics/evidence.py`.

    Attributes:
        verdict: `better`, `not better` (worse, or at best as good) or `not yet known`.
        kept: whether the student that it is about is the one in `student/`.
        alpha: interpolation coefficient of the student that it is about.
        bn_reestimated: whether that is the initial student with batch-norm statistics re-estimated.
        answers: number of answers given.
        decided_after: number of answers after which the verdict was known; null where it is not.
        right_new: answers by which the new student is right and the old one wrong.
        right_old: answers by which the old student is right and the new one wrong.
        evidence_better: highest capital from bets against "not better" (an e-process), when the verdict was known, else
            after all answers.
        evidence_not_better: that from bets against "better", likewise.
        delta_pp: estimated change of accuracy on these images, in percentage points.
        delta_ci_pp: 95 % interval of it, valid whenever one stops.
        changed: number of images whose predicted class changed, of which the answers are a random sample.
        images: number of all images.
        level: probability of a false verdict, at most.
        seed: seed of the order in which the images were drawn.
        reference: reference of the images.
    """

    verdict: Literal["better", "not better", "not yet known"]
    kept: bool
    alpha: float
    bn_reestimated: bool
    answers: int
    decided_after: int | None
    right_new: int
    right_old: int
    evidence_better: float
    evidence_not_better: float
    delta_pp: float
    delta_ci_pp: Interval
    changed: int
    images: int
    level: float
    seed: int
    reference: str


class TransferMetrics(TransferMeasures, TransferIdentity):
    """The content of `result.json`; the measures, from `accuracy_before` on, are fields of `TransferMeasures`.

    Attributes:
        teacher_share: share of the training samples that a teacher taught, over all epochs; with soft methods parts of
            samples count; null where the method has no partition.
        temperatures: divisors of the logits of the initial student and of each teacher before their
            confidences are compared; null but for calibrated methods, and of a sequence or soup. Of methods with one
            for each class, the mean over the images compared on.
        unaugmented_teachers: references of prediction tables, whose logits are for images without augmentation.
        broken_images: `where: reason` of each image that was skipped.
        guard: decision of the guard; null without a guard, and for a sequence, whose steps are guarded.
        certificate: what a few labels said; null where none were asked for.
        bank: use of the bank; null without one.
        optimizer: the optimiser; null of a sequence or soup, and in files of before.
        learning_rate: its highest rate; null likewise.
        trials: what that recipe was chosen from; empty where it was given.
        start_reestimated: whether learning began with batch-norm statistics re-estimated.
        diverged: where training left all bounds, which ended it; null where it came to its end.
        control: measures of the control that learned from the student's own copy; null where none was requested.
        control_labels: measures of the control that learned from the true labels; null likewise.
        steps: the transfers of a sequence or soup; empty else.
        resumed_epochs: number of epochs already done when the run began.
        seconds: how long the run worked, from its folder's opening on, by a monotonic clock; that of its steps and
            controls and of processes that were killed included, without what a kill lost and the time until it went on.
            Null where an earlier version made or began it. Both of a two-way transfer in step have the same.
        finished: when it ended, in seconds since 1970; null in files of earlier versions.
        out: the result folder; null where none was kept.
        student_reference: model reference that loads the student; null where its source has no reference.
    """

    teacher_share: float | None = None
    temperatures: tuple[float, ...] | None = None
    unaugmented_teachers: tuple[str, ...] = ()
    broken_images: tuple[str, ...] = ()
    guard: GuardDecision | None = None
    certificate: Certificate | None = None
    bank: BankUse | None = None
    optimizer: Literal["adamw", "sgd"] | None = None
    learning_rate: float | None = None
    trials: tuple[Trial, ...] = ()
    start_reestimated: bool = False
    diverged: Divergence | None = None
    control: ControlMetrics | None = None
    control_labels: LabelsControlMetrics | None = None
    steps: tuple[StepMetrics, ...] = ()
    resumed_epochs: int = 0
    seconds: float | None = None
    finished: float | None = None
    out: str | None = None
    student_reference: str | None = None

    @model_validator(mode="after")
    def _steps_have_a_strategy(self) -> "TransferMetrics":
        if self.steps and self.strategy is None:
            raise ValueError("there are steps, and no strategy")
        return self

    @property
    def kept_by_labels(self) -> bool:
        """Whether a few labels put the student there that the guard had not kept."""
        certificate, guard = self.certificate, self.guard
        kept = certificate is not None and certificate.kept and certificate.verdict == "better"
        return kept and guard is not None and guard.alpha > 0 and guard.certificate is None

    @property
    def labelled(self) -> bool:
        """Whether the images measured on carry labels."""
        return self.accuracy_after is not None
