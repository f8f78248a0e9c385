"""Where a student with batch-norm starts: as it was given, or with its statistics re-estimated.

Statistics of other images hold a student back, whatever it learns: re-estimated on the transfer images alone, without
any knowledge of a teacher's, it may be some points better. Learning then begins there, and the frozen copy that retains
what the student knows is that one, too: otherwise the transfer would pull the student back to where it was.
"""

from dataclasses import dataclass, replace

from ..metrics import Candidate, judge
from ..models import Classifier
from .context import RunContext
from .frozen import FrozenPredictions, reestimate_on_views
from .guard import candidate_predictions, error_of, reestimates


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where learning begins.

    Attributes:
        student: the student that learns, and whose frozen copy retains; the given one itself, or with its batch-norm
            statistics re-estimated.
        probes: predictions of the frozen models for the guard images, that student's among them.
        reestimated: whether its statistics are re-estimated.
    """

    student: Classifier
    probes: FrozenPredictions | None
    reestimated: bool


def choose_start(run: RunContext, probes: FrozenPredictions | None) -> Start:
    """The student that the guard's rule prefers, the given one or that with re-estimated statistics.

    Args:
        run: the run.
        probes: predictions of the frozen models for the guard images.
    """
    prepared = run.prepared
    given = Start(student=prepared.student, probes=probes, reestimated=False)
    if not prepared.settings.adapt_start or prepared.guard_images is None or probes is None:
        return given
    if prepared.settings.student_mode != "train" or not reestimates(prepared):
        return given
    candidate = Candidate(alpha=0.0, bn_reestimated=True)
    student = prepared.student.copied()
    reestimate_on_views(prepared, student)
    found = candidate_predictions(run, student, candidate)
    student.offload()
    teachers = [teacher for teacher in probes.teachers if teacher is not None]
    if not judge(probes.before, found, teachers, candidate=candidate, level=error_of(prepared)).holds:
        return given
    return Start(student=student, probes=replace(probes, before=found), reestimated=True)
