"""Both models of a two-way transfer learn in step, each from the other as it is by then.

Before a step of both, each takes a copy of the other's weights, and then both make their step. So neither sees the
other's step of the same number, and it does not matter which of them comes first. The copy is of the weights that are
measured and kept, their moving average where there is one; it is a module of its own, in evaluation mode, so that
being asked leaves a student's training mode, batch-norm statistics and random draws as they are.

What else depends on the other goes by its initial copy, as in a transfer one way: trials, temperatures, the loss on
guard images, measures, the guard. So does the frozen copy that retains: it is the student's own. A student that comes
to its end first teaches on with its last weights. Where training of one diverges both end: what the other has learned
since its last finished epoch is from that one.

A checkpoint holds the state of both, taken between steps.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..errors import Diverged, NotFinite
from ..models import Classifier
from ..results import TransferMetrics, TwoWayFolder
from ..training import CheckpointPace, Progress, load_checkpoints, save_checkpoints
from .bank import TargetModels
from .callbacks import Callback
from .clock import Ended
from .context import RunContext, SharedWork, forked_generators, open_run
from .learning import Learned, Learning, Training, prepare_learning
from .prepare import PreparedTransfer
from .result import TransferResult, load_finished
from .strategies import with_known_images
from .transfer import judge

Ways: TypeAlias = tuple[PreparedTransfer, PreparedTransfer]
"""Both ways of a two-way transfer: the student learns from the teacher, the teacher from the student."""


@dataclass(frozen=True, kw_only=True)
class BothResults:
    """What both ways led to.

    Attributes:
        results: the student's result and the teacher's.
        error: what the first raised whose training, or that of its control, diverged; None where none raised.
    """

    results: tuple[TransferResult, TransferResult]
    error: Diverged | None = None


def run_live(ways: Ways, folder: TwoWayFolder, *, callback: Callback, shared: SharedWork) -> BothResults:
    """Both ways in step, from the start or from the last checkpoint.

    Args:
        ways: both transfers.
        folder: the folder of both.
        callback: notified of progress and of each complete result folder.
        shared: work that they share.

    Raises:
        RunFolderError: a folder belongs to another run, is in use or is damaged.
        GainfinderError: models or images cannot be used.
    """
    with ExitStack() as stack:
        runs = [
            stack.enter_context(open_run(with_known_images(way, shared), own.path, callback=callback, shared=shared))
            for way, own in zip(ways, folder.results, strict=True)
        ]
        done = [run.folder.read_result() for run in runs]
        writes: list[Callable[..., TransferResult]] = []
        if None in done:
            stack.enter_context(forked_generators(ways[0]))
            writes = [judge(one) for one in _learn_in_step([prepare_learning(run) for run in runs], folder)]
        ended = _ended(runs, done)
        results = [
            writes[at](ended=ended) if metrics is None else load_finished(runs[at], metrics)
            for at, metrics in enumerate(done)
        ]
    return BothResults(results=(results[0], results[1]))


def _ended(runs: Sequence[RunContext], done: Sequence[TransferMetrics | None]) -> Ended:
    """The end of both, who worked together: now, or where a kill left the result of one, when that was written."""
    for one in done:
        if one is not None and one.finished is not None:
            return Ended(seconds=one.seconds, finished=one.finished)
    return runs[0].clock.ended()


def _learn_in_step(learnings: list[Learning], folder: TwoWayFolder) -> list[Learned]:
    """Train both from the last checkpoint to their ends, or until training of one diverges."""
    saved = load_checkpoints(folder.checkpoint)
    students = [_Student(learning, saved=None if saved is None else saved[at]) for at, learning in enumerate(learnings)]
    pair = _Pair(students[0], students[1], folder)
    try:
        pair.run()
    except _Left as left:
        return [pair.given_up(one, left) for one in students]
    return [one.training.ended() for one in students]


class _Left(Exception):
    """One student's training has left all bounds."""

    def __init__(self, student: "_Student", error: Diverged) -> None:
        super().__init__(str(error))
        self.student, self.error = student, error


class _Student:
    """A student that learns from a copy of its partner, which is renewed between steps."""

    def __init__(self, learning: Learning, *, saved: tuple[Progress, dict[str, Any]] | None) -> None:
        prepared = learning.learner.prepared
        (given,) = prepared.teachers
        assert isinstance(given, Classifier), "`check_both` refuses tables"
        self.partner = given.copied()
        given.offload()  # it was measured, and is not asked for views
        own = replace(prepared, teachers=(self.partner,))
        targets = TargetModels(own, learning.run.callback, choice_n=learning.targets.choice_n, changing=[self.partner])
        learner = replace(learning.learner, prepared=own)
        self.name = learning.run.prepared.student.reference
        self.training = Training(
            replace(learning, learner=learner, targets=targets),
            saved=saved,
            notify_epoch=lambda row: learning.run.callback.epoch({**row, "student": self.name}),
        )
        self.loop = self.training.loop

    def meet(self, other: "_Student") -> None:
        """Take a copy of the other as it is now."""
        self.partner.module.load_state_dict(other.training.trainer.weights())


class _Pair:
    """Two students that learn in step."""

    def __init__(self, one: _Student, other: _Student, folder: TwoWayFolder) -> None:
        self.students, self.folder = (one, other), folder
        prepared = one.training.context.prepared
        self.every, self.is_main = prepared.requested.checkpoint_every, prepared.is_main
        self._pace = CheckpointPace(always=self.every is not None)

    def run(self) -> None:
        """Train both to their ends.

        Raises:
            _Left: training of one diverges. Nothing was saved since.
        """
        one, other = self.students
        for student in self.students:
            student.training.shown = student is one
            student.training.get_ready()
        while alive := [student for student in self.students if not student.loop.ended]:
            alive[0].training.shown = True
            if waiting := [student for student in alive if not student.loop.steps_left]:
                self._finish_epoch(waiting)
                continue
            one.meet(other)
            other.meet(one)
            for student in alive:
                self._guarded(student, student.loop.step)
            done = alive[0].training.progress.step
            if self.every and done % self.every == 0 and all(student.loop.steps_left for student in alive):
                self._save()

    def given_up(self, student: _Student, left: _Left) -> Learned:
        """What a student has come to where training of one of them has left all bounds."""
        error, reason = left.error, left.error.reason
        if student is not left.student:
            if student.loop.ended:
                return student.training.ended()
            reason = f"{left.student.name}, which it learned from, has diverged ({reason})"
        return student.training.given_up(error.epoch, error.step, reason)

    def _finish_epoch(self, waiting: list[_Student]) -> None:
        self._save()  # measuring may take long: killed there, the epoch is not trained again
        found: list[_Left] = []
        for student in waiting:
            try:
                self._guarded(student, student.loop.finish_epoch)
            except _Left as left:  # the other has finished its epoch, whichever comes first
                found.append(left)
        if found:
            raise found[0]
        self._save()
        for student in waiting:
            student.training.notify()

    def _save(self) -> None:
        """Save both as they are between two steps."""
        for student in self.students:
            self._guarded(student, student.loop.write_progress)
        states = [(student.training.progress, student.training.state()) for student in self.students]
        for student in self.students:
            student.training.context.folder.check_in_place()
        if self._pace.due(ended=all(student.loop.ended for student in self.students)):
            with self._pace.writing():
                save_checkpoints(self.folder.checkpoint, states)
            for student in self.students:
                student.training.context.note_worked()
        for student in self.students:
            student.training.saved()

    def _guarded(self, student: _Student, act: Callable[[], None]) -> None:
        """Do something of a student's training that finds out whether it has left all bounds."""
        try:
            act()
        except (Diverged, NotFinite) as error:
            # Where one diverges the other learns from what is no knowledge, and may be the first to be found out.
            raise self._first_to_leave() or (_Left(student, error) if isinstance(error, Diverged) else error) from error

    def _first_to_leave(self) -> _Left | None:
        """Whose loss or weights left all bounds first in this epoch; of both at once the first."""
        found = []
        for student in self.students:
            try:
                student.loop.check_bounds()
            except Diverged as error:
                found.append(_Left(student, error))
        return min(found, key=lambda left: left.error.step or 0, default=None)
