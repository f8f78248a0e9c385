"""Which student is offered for a few labels to decide on, where the guard keeps none."""

import math
from dataclasses import replace

from gainfinder.metrics import Candidate, Judgement
from gainfinder.metrics.harm import TOO_MANY
from gainfinder.metrics.selection import MAY_BE_CHANCE
from gainfinder.runs.guard import Changed, Guarded


def judged(alpha: float, sure_gain: float, *, veto: str | None = MAY_BE_CHANCE, adapted: bool = False) -> Judgement:
    candidate = Candidate(alpha=alpha, bn_reestimated=adapted)
    return Judgement(
        candidate=candidate, measure="posterior", gain=sure_gain + 1, error=1.0, sure_gain=sure_gain, veto=veto
    )


def guarded(*judgements: Judgement, changed: float = 0.1) -> Guarded:
    changes = tuple(Changed(share=changed) for _ in judgements)
    return Guarded(
        kept=None, judgements=judgements, changed=changes, images=500, labelled=False, held_out=False
    )  # fmt: skip


def test_the_most_promising_point_of_the_line_is_offered() -> None:
    line = (judged(0.25, -0.2), judged(0.5, -0.1), judged(0.75, -0.3), judged(1.0, -4.0))
    found = guarded(judged(0.0, 9.0, adapted=True), *line)
    assert found.offered == Candidate(alpha=0.5) and found.decision().offered_alpha == 0.5
    tied = guarded(judged(0.5, -1.0), judged(1.0, -1.0))
    assert tied.offered == Candidate(alpha=1.0)
    beyond = guarded(judged(0.25, -0.5), judged(0.5, 3.0, veto=TOO_MANY))
    assert beyond.offered == Candidate(alpha=0.25)
    single = guarded(judged(0.5, -math.inf), judged(1.0, -math.inf))
    assert single.offered == Candidate(alpha=1.0)


def test_nothing_is_offered_where_nothing_is_left_to_ask() -> None:
    found = guarded(judged(0.5, -0.1))
    assert found.offered is not None
    assert guarded(judged(0.5, -0.1), changed=0.0).offered is None
    for settled in ({"kept": Candidate(alpha=0.5)}, {"labelled": True}, {"is_step": True}):
        assert replace(found, **settled).offered is None
