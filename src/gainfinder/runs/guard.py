"""The guard: evaluates candidates between the initial and the transferred student on guard images, and keeps one."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..metrics import ALPHAS, AccuracyChange, Candidate, Judgement, choose, judge
from ..models import Classifier, has_batch_norm
from ..predictions import Predictions
from ..results import GuardDecision, GuardPoint
from ..training import between
from .context import RunContext
from .frozen import FrozenPredictions, reestimate_on_views
from .prepare import PreparedTransfer


@dataclass(frozen=True, kw_only=True)
class WeightPath:
    """The straight line in weight space from the initial to the transferred student.

    Attributes:
        initial: state dict of the initial student.
        transferred: state dict of the transferred one.
    """

    initial: Mapping[str, Any]
    transferred: Mapping[str, Any]

    def load(self, candidate: Candidate | None, model: Classifier, prepared: PreparedTransfer) -> None:
        """Load a candidate's weights into `model`, or, for None, those of the initial student.

        Batch-norm statistics in between are re-estimated, unless the student learned with its statistics frozen, so
        that both ends have the same.
        """
        alpha = 0.0 if candidate is None else candidate.alpha
        model.module.load_state_dict(between(self.initial, self.transferred, alpha))
        if candidate is not None and (candidate.bn_reestimated or 0 < alpha < 1) and reestimates(prepared):
            reestimate_on_views(prepared, model)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """The guard's decision.

    Attributes:
        kept: the candidate that is kept, or None for the initial student.
        judgements: estimated gain of each candidate.
        images: number of guard images.
        labelled: whether the candidates were judged by labels.
        held_out: whether the guard images were held out from the transfer images.
    """

    kept: Candidate | None
    judgements: tuple[Judgement, ...]
    images: int
    labelled: bool
    held_out: bool

    def decision(self, unguarded: AccuracyChange | None = None) -> GuardDecision:
        """The decision as `result.json` stores it; the error of a single image, which is not finite, becomes null.

        Args:
            unguarded: accuracy change of the trained student, kept or not; None where it was not measured.
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


def reestimates(prepared: PreparedTransfer) -> bool:
    """Whether the student has batch-norm statistics that training may change."""
    return prepared.settings.student_mode != "frozen" and has_batch_norm(prepared.student.module)


def candidates(prepared: PreparedTransfer) -> tuple[Candidate, ...]:
    """The candidates that the guard evaluates besides the initial student."""
    reestimated = (Candidate(alpha=0.0, bn_reestimated=True),) if reestimates(prepared) else ()
    return (*reestimated, *(Candidate(alpha=alpha) for alpha in ALPHAS))


def guard(run: RunContext, weight_path: WeightPath, model: Classifier, probes: FrozenPredictions) -> Guarded:
    """Evaluate the candidates on the guard images and decide; `model` keeps the weights of the last one.

    Args:
        run: the run, with guard images.
        weight_path: the straight line from the initial to the transferred student.
        model: a copy of the student, overwritten.
        probes: predictions of the frozen models for the guard images.
    """
    teachers = [teacher for teacher in probes.teachers if teacher is not None]
    judgements = [
        judge(probes.before, _predict(run, weight_path, model, candidate), teachers, candidate=candidate)
        for candidate in candidates(run.prepared)
    ]
    return Guarded(
        kept=choose(judgements),
        judgements=tuple(judgements),
        images=len(probes.before),
        labelled=probes.before.target is not None,
        held_out=run.prepared.guard_held_out,
    )


def keep_best(
    run: RunContext,
    weight_path: WeightPath,
    model: Classifier,
    *,
    probes: FrozenPredictions,
    ends: tuple[Predictions, Predictions],
) -> tuple[Predictions, Guarded]:
    """Guard the student; `model` ends with the weights that are kept.

    Args:
        run: the run, with guard images.
        weight_path: the straight line from the initial to the transferred student.
        model: a copy of the student.
        probes: predictions of the frozen models for the guard images.
        ends: predictions of the initial and of the transferred student for the images measured on.

    Returns:
        The kept student's predictions for the images measured on, and the guard's decision.
    """
    found = guard(run, weight_path, model, probes)
    weight_path.load(found.kept, model, run.prepared)
    if found.kept is None:
        return ends[0], found
    if found.kept.alpha == 1:
        return ends[1], found
    return run.predict(model, run.prepared.val_images, "measuring the student that is kept"), found


def _predict(run: RunContext, weight_path: WeightPath, model: Classifier, candidate: Candidate) -> Predictions:
    """A candidate's predictions for the guard images; a resumed run reads what was written before."""
    assert run.prepared.guard_images is not None
    name = f"guard-{candidate.name}"
    file = run.folder.predictions / f"{name}.parquet"
    if file.exists():
        with contextlib.suppress(DataError):  # damaged from outside; they can be made again
            return Predictions.load(file)
    weight_path.load(candidate, model, run.prepared)
    stage = (
        "guard: statistics re-estimated"
        if candidate.bn_reestimated
        else f"guard: interpolation α = {candidate.alpha:g}"
    )
    found = run.predict(model, run.prepared.guard_images, stage)
    run.keep_predictions(found, name)
    return found
