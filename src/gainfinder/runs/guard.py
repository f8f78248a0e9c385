"""The guard: evaluates candidates between the initial and the transferred student on guard images, and keeps one."""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..errors import DataError
from ..metrics import (
    ALPHAS,
    AccuracyChange,
    Candidate,
    Judgement,
    choose,
    crossed_classes,
    harm,
    judge,
    posterior_of,
    selection,
)
from ..models import Classifier, has_batch_norm
from ..predictions import IMAGE, Predictions
from ..results import GuardDecision, GuardPoint
from ..training import between
from .context import RunContext
from .frozen import FrozenPredictions, predict_referees, reestimate_on_views
from .guard_words import certificate_text
from .prepare import PreparedTransfer
from .result import save_candidate

_log = logging.getLogger("gainfinder")


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
        changed: bound and share of each candidate's predictions that differ from the initial student's.
        images: number of guard images.
        labelled: whether the candidates were judged by labels.
        held_out: whether the guard images were held out from the transfer images.
        noun: what a sample is: `image` or `text`.
        level: error of each test.
        at_most: largest share of predictions that may change; None without a limit.
        is_step: whether it is a step of a sequence or soup, which goes on with what is kept.
    """

    kept: Candidate | None
    judgements: tuple[Judgement, ...]
    changed: tuple["Changed", ...]
    images: int
    labelled: bool
    held_out: bool
    noun: str = IMAGE
    level: float = selection.LEVEL
    at_most: float | None = None
    is_step: bool = False

    @property
    def offered(self) -> Candidate | None:
        """The candidate that a few labels may still prove better, where none is kept.

        Of the points of the line that are allowed, the one of the largest sure gain, ties going to the furthest: it
        needs the fewest labels (benchmarks/guard/README.md). Whatever else speaks against it, the labels decide.
        """
        if self.kept is not None or self.labelled or self.is_step:
            return None
        allowed = [
            judgement
            for judgement, changed in zip(self.judgements, self.changed, strict=True)
            if changed.share > 0 and judgement.veto != harm.TOO_MANY and not judgement.candidate.bn_reestimated
        ]
        best = max(allowed, key=lambda one: (one.sure_gain, one.candidate.alpha), default=None)
        return None if best is None else best.candidate

    def decision(self, unguarded: AccuracyChange | None = None) -> GuardDecision:
        """The decision as `result.json` stores it; the error of a single image, which is not finite, becomes null.

        Args:
            unguarded: accuracy change of the trained student, kept or not; None where it was not measured.
        """
        change = unguarded or AccuracyChange()
        return GuardDecision(
            alpha=0.0 if self.kept is None else self.kept.alpha,
            bn_reestimated=self.kept is not None and self.kept.bn_reestimated,
            points=tuple(_point(*one) for one in zip(self.judgements, self.changed, strict=True)),
            images=self.images,
            labelled=self.labelled,
            held_out=self.held_out,
            unguarded_delta_pp=change.delta_pp,
            unguarded_delta_ci_pp=change.ci_pp,
            at_most=self.at_most,
            offered_alpha=None if self.offered is None else self.offered.alpha,
            level=self.level,
            certificate=self.certificate,
        )

    @property
    def certificate(self) -> str | None:
        """What speaks for the student that is kept, in words; None for the initial student."""
        found = next((one for one in self.judgements if one.candidate == self.kept), None)
        if found is None:
            return None
        level = selection.level_of(found.candidate, self.judgements, level=self.level)
        return certificate_text(found, images=self.images, level=level, noun=self.noun)


@dataclass(frozen=True, kw_only=True)
class Changed:
    """How many of a candidate's predictions differ from the initial student's.

    Attributes:
        share: share of the guard images.
        most: upper confidence bound of that share on images like these; None where there is no limit.
    """

    share: float
    most: float | None = None


def _point(judgement: Judgement, changed: Changed) -> GuardPoint:
    return GuardPoint(
        alpha=judgement.candidate.alpha,
        bn_reestimated=judgement.candidate.bn_reestimated,
        measure=judgement.measure,
        gain=judgement.gain,
        error=_finite(judgement.error),
        sure_gain=_finite(judgement.sure_gain),
        veto=judgement.veto,
        changed=changed.share,
        most_changed=changed.most,
        gained=judgement.gained,
        lost=judgement.lost,
        p_value=judgement.p_value,
        over_adapted=judgement.over_adapted,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def reestimates(prepared: PreparedTransfer) -> bool:
    """Whether the student has batch-norm statistics that training may change."""
    return prepared.settings.student_mode != "frozen" and has_batch_norm(prepared.student.module)


def candidates(prepared: PreparedTransfer) -> tuple[Candidate, ...]:
    """The candidates that the guard evaluates besides the initial student."""
    reestimated = (Candidate(alpha=0.0, bn_reestimated=True),) if reestimates(prepared) else ()
    finer = () if prepared.requested.at_most is None else harm.FINER_ALPHAS
    return (*reestimated, *(Candidate(alpha=alpha) for alpha in (*finer, *ALPHAS)))


def error_of(prepared: PreparedTransfer) -> float:
    """The error of each test, so that all tests of a run together have that of `LEVEL`.

    The line is one test, since its points share one error (`selection.certified`); a student with its statistics
    re-estimated is another where labels or referees judge it, too, and none where information does, which has no part
    in this error; and each step of a sequence tests anew. A sequence's last student is better than the one given if
    each step's is better than the step's before.
    """
    assert prepared.guard_images is not None
    by_information = prepared.guard_images.labels is None and not prepared.referees
    apart = reestimates(prepared) and not by_information
    return selection.LEVEL / ((2 if apart else 1) * prepared.guard_decisions)


def guard(run: RunContext, weight_path: WeightPath, model: Classifier, probes: FrozenPredictions) -> Guarded:
    """Evaluate the candidates on the guard images and decide; `model` keeps the weights of the last one.

    Args:
        run: the run, with guard images.
        weight_path: the straight line from the initial to the transferred student.
        model: a copy of the student, overwritten.
        probes: predictions of the frozen models for the guard images.
    """
    panel = _Panel(run, probes)
    limit = _Limit(run.prepared)
    judgements, changes = [], []
    for candidate in candidates(run.prepared):
        if limit.passed(candidate):
            continue
        load = functools.partial(weight_path.load, candidate, model, run.prepared)
        after = candidate_predictions(run, model, candidate, load=load)
        changes.append(limit.changed(probes.before, after))
        judgements.append(limit.checked(panel.judge(after, candidate), changes[-1]))
        panel.note(judgements[-1], after)
    return Guarded(
        kept=choose(judgements, level=panel.level),
        judgements=tuple(selection.settled(judgements, level=panel.level)),
        changed=tuple(changes),
        level=panel.level,
        at_most=limit.share,
        is_step=run.origin is not None,
        images=len(probes.before),
        noun=probes.before.noun,
        labelled=probes.before.target is not None,
        held_out=run.prepared.guard_held_out,
    )


class _Panel:
    """Who judges the candidates: labels, referees, or the frozen models' posterior, worked out once."""

    def __init__(self, run: RunContext, probes: FrozenPredictions) -> None:
        self.before = probes.before
        self.teachers = [teacher for teacher in probes.teachers if teacher is not None]
        assert run.prepared.guard_images is not None
        self.referees = predict_referees(run, run.prepared.guard_images, probes.before)
        if self.before.target is None:
            _note_wrong_orders(self.before, [*self.teachers, *self.referees])
        self.level = error_of(run.prepared)
        self.adapted: Predictions | None = None
        self._posterior_NC: Tensor | None = None

    def judge(self, after: Predictions, candidate: Candidate) -> Judgement:
        by_posterior = self.before.target is None and not self.referees and not candidate.bn_reestimated
        if by_posterior and self._posterior_NC is None:
            self._posterior_NC = posterior_of(self.adapted or self.before, self.teachers)
        return judge(
            self.before,
            after,
            self.teachers,
            candidate=candidate,
            level=self.level,
            referees=self.referees,
            adapted=self.adapted,
            posterior_NC=self._posterior_NC,
        )

    def note(self, judgement: Judgement, after: Predictions) -> None:
        """Compare what follows with the re-estimated student, if that is kept; it comes first."""
        if judgement.measure == "information" and judgement.holds:
            self.adapted = after


def _note_wrong_orders(before: Predictions, others: Sequence[Predictions]) -> None:
    """Say which models take one class for another, as in a wrong class order."""
    names = before.class_names or tuple(map(str, range(before.logits.shape[1])))
    for other in others:
        if (pair := crossed_classes(before, other)) is not None:
            _log.warning(
                "%s mostly calls %r what the student calls %r, and other classes are crossed, too: is its class order "
                "right? If not, give a label map",
                other.model,
                names[pair[1]],
                names[pair[0]],
            )


class _Limit:
    """How far the line is walked: no further than `at_most` of the predictions surely change at most.

    The points of the line are tried in order, the nearest first, and the first that is beyond the limit ends it; the
    re-estimated student is apart from them.
    """

    def __init__(self, prepared: PreparedTransfer) -> None:
        at_most = prepared.requested.at_most
        self.share = None if at_most is None else float(at_most)
        self._ended = False

    def passed(self, candidate: Candidate) -> bool:
        """Whether a candidate lies behind one that is beyond the limit."""
        return self._ended and not candidate.bn_reestimated

    def changed(self, before: Predictions, after: Predictions) -> Changed:
        """How many of a candidate's predictions differ, with a bound where there is a limit."""
        count = harm.count_changed(before, after)
        most = None if self.share is None else harm.most_changed(count, len(before))
        return Changed(share=count / len(before), most=most)

    def checked(self, judgement: Judgement, changed: Changed) -> Judgement:
        """The judgement, with a veto where the candidate is beyond the limit."""
        if self.share is None or changed.most is None or changed.most <= self.share:
            return judgement
        self._ended = self._ended or not judgement.candidate.bn_reestimated
        return replace(judgement, veto=harm.TOO_MANY)


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
    if found.offered is not None:
        weight_path.load(found.offered, model, run.prepared)
        offered = ends[1] if found.offered.alpha == 1 else _measured(run, model, "measuring the student on offer")
        save_candidate(run, model, (ends[0], offered))
    weight_path.load(found.kept, model, run.prepared)
    if found.kept is None:
        return ends[0], found
    if found.kept.alpha == 1:
        return ends[1], found
    return _measured(run, model, "measuring the student that is kept"), found


def _measured(run: RunContext, model: Classifier, stage: str) -> Predictions:
    return run.predict(model, run.prepared.val_images, stage)


def candidate_predictions(
    run: RunContext, model: Classifier, candidate: Candidate, *, load: Callable[[], None] | None = None
) -> Predictions:
    """A candidate's predictions for the guard images; a resumed run reads what was written before.

    Args:
        run: the run, with guard images.
        model: the model that predicts.
        candidate: the candidate.
        load: puts the candidate's weights into `model`; None where they are there. Not called where nothing is
            predicted.
    """
    assert run.prepared.guard_images is not None
    name = f"guard-{candidate.name}"
    file = run.folder.predictions / f"{name}.parquet"
    if file.exists():
        with contextlib.suppress(DataError):  # damaged from outside; they can be made again
            return Predictions.load(file)
    if load is not None:
        load()
    stage = (
        "guard: statistics re-estimated"
        if candidate.bn_reestimated
        else f"guard: interpolation α = {candidate.alpha:g}"
    )
    # Re-estimated statistics are those of any teacher's transfer of this student; points on a line are of this one.
    found = run.shared.find(model, run.prepared.guard_images) if candidate.bn_reestimated else None
    if found is None:
        found = run.predict(model, run.prepared.guard_images, stage)
        if candidate.bn_reestimated:
            run.shared.add(model, run.prepared.guard_images, found)
    run.keep_predictions(found, name)
    return found
