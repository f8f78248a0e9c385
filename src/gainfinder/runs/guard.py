"""The guard at work: candidates on the way to the transferred student are made, asked and one of them kept."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..metrics import SHARES, Candidate, Judgement, choose, judge
from ..models import Classifier, has_batch_norm
from ..predictions import Predictions
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
        share = 0.0 if candidate is None else candidate.share
        model.module.load_state_dict(between(self.initial, self.transferred, share))
        if candidate is not None and (candidate.adapted or 0 < share < 1) and adapts(plan):
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

    def to_dict(self) -> dict[str, Any]:
        """As `result.json` holds it; null for the error of a single image, which is not finite and so not JSON."""
        return {
            "share": 0.0 if self.kept is None else self.kept.share,
            "adapted": self.kept is not None and self.kept.adapted,
            "points": [
                {
                    "share": one.candidate.share, "adapted": one.candidate.adapted, "measure": one.measure,
                    "gain": one.gain, "error": _finite(one.error), "sure_gain": _finite(one.sure_gain),
                    "veto": one.veto,
                }
                for one in self.judgements
            ],
            "images": self.images,
            "labelled": self.labelled,
            "held_out": self.held_out,
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def adapts(plan: Plan) -> bool:
    """Whether the student has batch-norm statistics that may follow the images."""
    return plan.settings.student_mode != "frozen" and has_batch_norm(plan.student.module)


def candidates(plan: Plan) -> tuple[Candidate, ...]:
    """What the guard tries besides the initial student."""
    adapted = (Candidate(share=0.0, adapted=True),) if adapts(plan) else ()
    return (*adapted, *(Candidate(share=share) for share in SHARES))


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
    stage = "guard: statistics re-estimated" if candidate.adapted else f"guard: {candidate.share:.0%} of the way"
    found = shared_predictions(plan, model, plan.guard_images, stage, callback=callback)
    if plan.is_main:
        found.write(path)
    plan.accelerator.wait_for_everyone()
    return found
