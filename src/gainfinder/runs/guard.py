"""The guard at work: candidates on the way to the transferred student are made, asked and one of them kept."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..metrics import ALPHAS, AccuracyChange, Candidate, Judgement, choose, judge
from ..models import Classifier, has_batch_norm
from ..predictions import Predictions
from ..results import GuardDecision, GuardPoint
from ..training import between
from .callbacks import Callback
from .frozen import reestimate_on_views, shared_predictions
from .planning import Plan


@dataclass(frozen=True, kw_only=True)
class Line:
    """The straight line in weight space from the initial to the transferred student.

    Attributes:
        initial: state dict of the initial student.
        transferred: state dict of the transferred one.
    """

    initial: Mapping[str, Any]
    transferred: Mapping[str, Any]

    def load(self, candidate: Candidate | None, model: Classifier, plan: Plan) -> None:
        """Make `model` a candidate, or, for None, the initial student.

        Batch-norm statistics in between are re-estimated, unless the student learned with its statistics frozen, so
        that both ends have the same.
        """
        alpha = 0.0 if candidate is None else candidate.alpha
        model.module.load_state_dict(between(self.initial, self.transferred, alpha))
        if candidate is not None and (candidate.bn_reestimated or 0 < alpha < 1) and adapts(plan):
            reestimate_on_views(plan, model)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What the guard decided.

    Attributes:
        kept: the candidate, or None for the initial student.
        judgements: of all candidates.
        images: how many images judged.
        labelled: whether by labels.
        held_out: whether the images were set apart from the data.
    """

    kept: Candidate | None
    judgements: tuple[Judgement, ...]
    images: int
    labelled: bool
    held_out: bool

    def decision(self, unguarded: AccuracyChange | None = None) -> GuardDecision:
        """As results hold it; null for the error of a single image, which is not finite and so not JSON.

        Args:
            unguarded: how much better than the initial student the trained one is, kept or not; None where that is not
                measured.
        """
        change = unguarded or AccuracyChange()
        return GuardDecision(
            alpha=0.0 if self.kept is None else self.kept.alpha,
            bn_reestimated=self.kept is not None and self.kept.bn_reestimated,
            points=tuple(_point(one) for one in self.judgements),
            images=self.images,
            labelled=self.labelled,
            held_out=self.held_out,
            unguarded_delta_pp=change.delta_pp,
            unguarded_delta_ci_pp=change.ci_pp,
        )


def _point(judgement: Judgement) -> GuardPoint:
    return GuardPoint(
        alpha=judgement.candidate.alpha,
        bn_reestimated=judgement.candidate.bn_reestimated,
        measure=judgement.measure,
        gain=judgement.gain,
        error=_finite(judgement.error),
        sure_gain=_finite(judgement.sure_gain),
        veto=judgement.veto,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def adapts(plan: Plan) -> bool:
    """Whether the student has batch-norm statistics that may follow the images."""
    return plan.settings.student_mode != "frozen" and has_batch_norm(plan.student.module)


def candidates(plan: Plan) -> tuple[Candidate, ...]:
    """What the guard tries besides the initial student."""
    adapted = (Candidate(alpha=0.0, bn_reestimated=True),) if adapts(plan) else ()
    return (*adapted, *(Candidate(alpha=alpha) for alpha in ALPHAS))


def guard(
    plan: Plan,
    line: Line,
    model: Classifier,
    *,
    folder: Path,
    before: Predictions,
    teachers: Sequence[Predictions],
    callback: Callback,
) -> Guarded:
    """Try the candidates on the guard images and decide; `model` is left at the last one tried.

    Args:
        plan: of the run, with guard images.
        line: its ends.
        model: a copy of the student, overwritten.
        folder: where the predictions of the candidates are kept.
        before: the initial student's predictions for the guard images.
        teachers: the teachers'.
        callback: is told of progress.
    """
    judgements = []
    for candidate in candidates(plan):
        path = folder / f"guard-{candidate.name}.parquet"
        found = _ask(plan, line, model, candidate, path=path, callback=callback)
        judgements.append(judge(before, found, teachers, candidate=candidate))
    return Guarded(
        kept=choose(judgements),
        judgements=tuple(judgements),
        images=len(before),
        labelled=before.target is not None,
        held_out=plan.guard_held_out,
    )


def _ask(
    plan: Plan, line: Line, model: Classifier, candidate: Candidate, *, path: Path, callback: Callback
) -> Predictions:
    """A candidate's predictions for the guard images; a resumed run reads what was written before."""
    assert plan.guard_images is not None
    if path.exists():
        with contextlib.suppress(DataError):  # damaged from outside; they can be made again
            return Predictions.load(path)
    line.load(candidate, model, plan)
    stage = "guard: statistics re-estimated" if candidate.bn_reestimated else f"guard: {candidate.alpha:.0%} of the way"
    found = shared_predictions(plan, model, plan.guard_images, stage, callback=callback)
    if plan.is_main:
        found.write(path)
    plan.accelerator.wait_for_everyone()
    return found
