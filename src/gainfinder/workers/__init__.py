"""Workers: processes, here or on a cluster, that run the cells of a study until none is left.

In: a study's folder. Out: its cells, run. Workers agree by files alone: whoever takes a cell locks it, what is missing
is what is left to do, and a worker that is lost leaves its cell, at its last checkpoint, to the next.
Imports: startup, redaction, errors, libraries, config, data, models, study, runs, profiling.
"""

from .backends import Backend, LocalBackend, make_backend
from .coordinator import Coordinator, StudySummary, run_study
from .plan import StudyPlan, plan_study
from .task import WorkerTask
from .worker import work

__all__ = [
    "Backend",
    "Coordinator",
    "LocalBackend",
    "StudyPlan",
    "StudySummary",
    "WorkerTask",
    "make_backend",
    "plan_study",
    "run_study",
    "work",
]
