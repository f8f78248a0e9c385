"""A greedy choice of teachers, against trying every one by `ceilings_of`."""

import pytest
import torch

from gainfinder.metrics.ceilings import Answers, ceilings_of
from gainfinder.metrics.ensembles import choose_teachers
from gainfinder.metrics.flips import accuracy

N, C = 200, 4
TARGET = torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(0))


def answers(seed: int, *, skill: float, keep_logits: bool = True) -> Answers:
    """A model that is right more often the larger its skill, in images of its own."""
    draw = torch.Generator().manual_seed(seed)
    logits_NC = torch.randn(N, C, generator=draw)
    logits_NC[torch.arange(N), TARGET] += skill * (torch.rand(N, generator=draw) < 0.5)
    probs_NC = logits_NC.softmax(dim=1)
    return Answers(
        predicted_N=logits_NC.argmax(dim=1),
        confidence_N=probs_NC.amax(dim=1),
        logits_NC=logits_NC if keep_logits else None,
        temperature_N=torch.full((N,), 0.8) if keep_logits else None,
    )


@pytest.mark.parametrize("keep_logits", [True, False])
@pytest.mark.parametrize("most", [1, 3, 9])
def test_each_choice_is_the_best_of_those_left(keep_logits: bool, most: int) -> None:
    student = answers(1, skill=1.0, keep_logits=keep_logits)
    teachers = [answers(seed, skill=2.5, keep_logits=keep_logits) for seed in range(2, 8)]
    found = choose_teachers(student, teachers, TARGET, most=most)
    assert 1 <= len(found) <= min(most, len(teachers)) and len({one.teacher for one in found}) == len(found)
    taken: list[int] = []
    before = 0.0
    for one in found:
        tried = {
            number: ceilings_of(student, [*(teachers[at] for at in taken), teachers[number]], TARGET)
            for number in range(len(teachers))
            if number not in taken
        }
        best = max(tried, key=lambda number: (tried[number].headroom_pp, -number))
        assert one.teacher == best
        above = tried[best]
        assert (one.routed_accuracy, one.mean_accuracy) == (above.routed_accuracy, above.mean_accuracy)
        assert one.headroom_pp == pytest.approx(above.headroom_pp)
        assert one.added_pp == pytest.approx(above.headroom_pp - before) and one.added_pp > 0
        before = above.headroom_pp
        taken.append(best)
    if len(found) < min(most, len(teachers)):  # it ended because nothing would add to it
        rest = [number for number in range(len(teachers)) if number not in taken]
        chosen = [teachers[at] for at in taken]
        assert all(ceilings_of(student, [*chosen, teachers[n]], TARGET).headroom_pp <= before for n in rest)


def test_teachers_that_add_nothing_are_not_chosen() -> None:
    student = answers(1, skill=9.0)
    assert accuracy(student.predicted_N, TARGET) < 1
    assert choose_teachers(student, [student, student], TARGET, most=2) == ()
    assert choose_teachers(student, [], TARGET, most=2) == ()
    better = answers(2, skill=9.0)
    found = choose_teachers(student, [student, better, better], TARGET, most=3)
    assert found[0].teacher == 1, "of equal ones the first"
