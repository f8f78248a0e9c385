"""The guard at work: points between the initial and the transferred student are made, asked and one of them kept."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .guard import SHARES, GuardPoint, choose, judge
from .models.classifier import Classifier
from .normalisation import has_batch_norm
from .planning import Plan
from .predictions import Predictions
from .run_models import Watcher, reestimate_on_views, shared_predictions
from .weight_space import between


@dataclass(frozen=True, kw_only=True)
class Line:
    """The straight line in weight space from the initial to the transferred student.

    Attributes:
        initial: state dict of the initial student.
        transferred: state dict of the transferred one.
    """

    initial: Mapping[str, Any]
    transferred: Mapping[str, Any]

    def load(self, share: float, model: Classifier, plan: Plan) -> None:
        """Make `model` the student at a share of the way.

        Batch-norm statistics in between are re-estimated, unless the student learned with its statistics frozen, so
        that both ends have the same.
        """
        model.module.load_state_dict(between(self.initial, self.transferred, share))
        if 0 < share < 1 and plan.settings.student_mode != "frozen" and has_batch_norm(model.module):
            reestimate_on_views(plan, model)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What the guard decided.

    Attributes:
        share: of the way from the initial (0) to the transferred student (1) that is kept.
        points: what was tried.
        images: how many images judged.
        labelled: whether by labels.
        held_out: whether the images were set apart from the data.
    """

    share: float
    points: tuple[GuardPoint, ...]
    images: int
    labelled: bool
    held_out: bool

    def to_dict(self) -> dict[str, Any]:
        """As `result.json` holds it."""
        return {**asdict(self), "points": [asdict(point) for point in self.points]}


def guard(
    plan: Plan,
    line: Line,
    model: Classifier,
    *,
    folder: Path,
    before: Predictions,
    teachers: Sequence[Predictions],
    watcher: Watcher,
) -> Guarded:
    """Try the points of the line on the guard images and decide; `model` is left at the last point tried.

    Args:
        plan: of the run, with guard images.
        line: its ends.
        model: a copy of the student, overwritten.
        folder: where the predictions of the points are kept.
        before: the initial student's predictions for the guard images.
        teachers: the teachers'.
        watcher: is told of progress.
    """
    points = []
    for share in SHARES:
        found = _ask(plan, line, model, share, path=folder / f"guard-{share:g}.parquet", watcher=watcher)
        points.append(judge(before, found, teachers, share=share))
    return Guarded(
        share=choose(points),
        points=tuple(points),
        images=len(before),
        labelled=before.target is not None,
        held_out=plan.guard_held_out,
    )


def _ask(plan: Plan, line: Line, model: Classifier, share: float, *, path: Path, watcher: Watcher) -> Predictions:
    """Predictions at a point for the guard images; a resumed run reads what was written before."""
    assert plan.guard_images is not None
    if path.exists():
        with contextlib.suppress(DataError):  # damaged from outside; they can be made again
            return Predictions.load(path)
    line.load(share, model, plan)
    stage = f"guard: {share:.0%} of the way"
    found = shared_predictions(plan, model, plan.guard_images, stage, watcher=watcher)
    if plan.is_main:
        found.write(path)
    plan.accelerator.wait_for_everyone()
    return found
