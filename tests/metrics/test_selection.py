"""Which of several candidates is kept in place of the initial student, on predictions made by hand."""

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch

from gainfinder.metrics.harm import TOO_MANY
from gainfinder.metrics.information import information
from gainfinder.metrics.posterior import betting_evidence, posterior_of, votes, worth
from gainfinder.metrics.selection import (
    ALPHAS,
    FEWER_CLASSES,
    LEVEL,
    MAY_BE_CHANCE,
    NOT_ITS_TURN,
    REFEREE_IN_WRONG_ORDER,
    TO_FEWER,
    TOLL,
    VOTED_DOWN,
    WRONG_ORDER,
    Candidate,
    Judgement,
    Measure,
    certified,
    choose,
    judge,
    level_of,
    movement,
    settled,
    sign_test,
)
from gainfinder.predictions import Predictions
from handmade import drawn, from_logits, mean, naive_class_information, naive_information

WHOLE = Candidate(alpha=1.0)
ADAPTED = Candidate(alpha=0.0, bn_reestimated=True)
SHARES = {0.5: 9, 0.75: 12, 1.0: 0, 0.25: 20}
"""Images gained at points of a line; none is lost."""
TARGET = [0, 1, 2, 0, 1, 2, 0, 1]


def predictions(predicted: Sequence[int], target: Sequence[int] | None = None, *, classes: int = 3) -> Predictions:
    """A model that is sure of these classes."""
    logits = torch.full((len(predicted), classes), -2.0)
    logits[range(len(predicted)), list(predicted)] = 2.0
    return from_logits(logits, target)


def judged(
    share: float,
    sure_gain: float,
    *,
    bn_reestimated: bool = False,
    measure: Measure = "accuracy",
    veto: str | None = None,
) -> Judgement:
    """With a gain whose margin is taken off already: only what is sure may decide."""
    candidate = Candidate(alpha=share, bn_reestimated=bn_reestimated)
    return Judgement(
        candidate=candidate, measure=measure, gain=sure_gain + 9, error=9.0, sure_gain=sure_gain, veto=veto
    )


# Naive loops.


def standard_error(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum((v - mean(values)) ** 2 for v in values) / (len(values) - 1) / len(values))


def classes_of(model: Predictions) -> list[int]:
    return [row.index(max(row)) for row in model.logits.tolist()]  # of equal ones the first


def naive_movement(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> list[float]:
    moves = []
    for i, (old, new) in enumerate(zip(classes_of(before), classes_of(after), strict=True)):
        votes = [classes_of(teacher)[i] for teacher in teachers]
        moves.append((votes.count(new) - votes.count(old)) / len(votes) if votes else 0.0)
    return moves


def change(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [now - then for then, now in zip(before, after, strict=True)]


def errors_below_zero(values: Sequence[float]) -> float:
    return -mean(values) / standard_error(values)


# With labels.


@pytest.mark.parametrize("candidate", [Candidate(alpha=0.5), ADAPTED])
def test_with_labels_the_gain_is_that_of_the_accuracy_and_its_error_is_paired(candidate: Candidate) -> None:
    before = predictions([0, 1, 2, 0, 0, 0, 1, 0], TARGET)  # four right
    found = judge(before, predictions([0, 1, 2, 0, 1, 2, 1, 2], TARGET), [], candidate=candidate)
    differences = [0, 0, 0, 0, 1, 1, 0, 0]  # two gained, none lost
    assert found.candidate == candidate and found.measure == "accuracy"
    assert (found.gained, found.lost, found.p_value, found.veto) == (2, 0, 0.25, MAY_BE_CHANCE)
    assert found.gain == pytest.approx(25.0)
    assert found.error == pytest.approx(100 * standard_error(differences))
    # Were the two taken for independent samples, the error would be another.
    before_right, after_right = [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]
    unpaired = math.hypot(standard_error(before_right), standard_error(after_right))
    assert found.error != pytest.approx(100 * unpaired, rel=0.05)
    assert found.sure_gain == pytest.approx(found.gain - 2 * found.error)


def labelled(gained: int, lost: int, *, same: int = 100, candidate: Candidate, level: float = LEVEL) -> Judgement:
    """The judgement of a candidate that wins and loses so many of the images."""
    target = [1] * (gained + lost + same)
    before = predictions([0] * gained + [1] * (lost + same), target, classes=2)
    after = predictions([1] * gained + [0] * lost + [1] * same, target, classes=2)
    return judge(before, after, [], candidate=candidate, level=level)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (4, 0), (5, 0), (0, 5), (3, 3), (12, 5), (70, 50)])
def test_the_sign_test_is_exact(gained: int, lost: int) -> None:
    total = gained + lost
    expected = sum(math.comb(total, k) for k in range(gained, total + 1)) / 2**total
    assert sign_test(gained, lost) == pytest.approx(expected, rel=1e-11)


def test_the_sign_test_of_many_images() -> None:
    expected = sum(math.comb(2000, k) for k in range(1060, 2001)) / 2**2000
    assert sign_test(1060, 940) == pytest.approx(expected, rel=1e-9)
    assert sign_test(100_000, 0) == 0.0 and sign_test(0, 100_000) == 1.0


@pytest.mark.parametrize("candidate", [Candidate(alpha=0.5), ADAPTED])
@pytest.mark.parametrize(("gained", "lost", "kept"), [(4, 0, False), (5, 0, True), (7, 1, True), (6, 1, False)])
def test_with_labels_a_gain_that_may_be_chance_is_none(
    candidate: Candidate, gained: int, lost: int, kept: bool
) -> None:
    """Four gained and none lost is more than two standard errors, and happens by chance once in sixteen times."""
    found = labelled(gained, lost, candidate=candidate)
    assert found.holds == kept and choose([found]) == (candidate if kept else None)
    assert (found.veto == MAY_BE_CHANCE) != kept
    assert found.sure_gain > 0 or not kept


def test_a_stricter_level_asks_for_more() -> None:
    assert labelled(5, 0, candidate=WHOLE).holds and not labelled(5, 0, candidate=WHOLE, level=0.025).holds


def test_with_labels_a_point_that_fails_ends_the_order() -> None:
    """Half of the way comes first, then three quarters, the whole and a quarter; which is the best is no matter."""
    found = {alpha: labelled(gained, 0, candidate=Candidate(alpha=alpha)) for alpha, gained in SHARES.items()}
    for order in ((0.25, 0.5, 0.75, 1.0), (1.0, 0.75, 0.5, 0.25)):
        judgements = [found[alpha] for alpha in order]
        assert [one.candidate.alpha for one in certified(judgements)] == [0.5, 0.75]
        assert choose(judgements) == Candidate(alpha=0.75)
    failing = labelled(4, 0, candidate=Candidate(alpha=0.5))
    assert choose([found[0.25], failing, found[0.75]]) is None
    # beyond a limit on changed answers there is nothing to test; the student beside the line has a test of its own
    beyond = replace(failing, veto=TOO_MANY)
    assert [one.candidate.alpha for one in certified([beyond, found[0.25], found[0.75]])] == [0.75, 0.25]
    adapted = labelled(30, 0, candidate=ADAPTED)
    assert choose([adapted, failing, found[0.75]]) == ADAPTED


def test_the_trained_student_is_tested_first_at_a_tenth_of_the_error() -> None:
    """After a long run the points on the way may be worse than both ends; it does not need them."""
    between = [labelled(0, 9, candidate=Candidate(alpha=alpha)) for alpha in (0.25, 0.5, 0.75)]
    sure, likely = (labelled(gained, 0, candidate=WHOLE) for gained in (8, 7))
    assert [sure.p_value, likely.p_value] == pytest.approx([2**-8, 2**-7])  # 0.0039 and 0.0078
    assert choose([*between, sure]) == WHOLE and choose([*between, likely]) is None
    assert choose([*between, sure], level=0.025) is None


def test_the_other_points_get_what_the_trained_student_leaves_of_the_error() -> None:
    found = labelled(20, 10, candidate=Candidate(alpha=0.5))
    assert found.p_value is not None and 0.9 * LEVEL < found.p_value < LEVEL and found.holds
    failing, sure = labelled(0, 9, candidate=WHOLE), labelled(8, 0, candidate=WHOLE)
    assert certified([found, failing]) == [] and certified([found, sure]) == [sure, found]
    half, adapted = Candidate(alpha=0.5), labelled(30, 0, candidate=ADAPTED)
    levels = [level_of(one, [found, sure, adapted]) for one in (WHOLE, half, ADAPTED)]
    assert levels == pytest.approx([0.1 * LEVEL, LEVEL, LEVEL]) and level_of(half, [found, failing]) == 0.9 * LEVEL


def at_p(alpha: float, p_value: float) -> Judgement:
    """Without a veto, by a test."""
    return replace(judged(alpha, 1.0), p_value=p_value)


def test_the_error_of_a_test_depends_on_the_trained_student_alone() -> None:
    passing, failing, half = at_p(1.0, 0.004), at_p(1.0, 0.04), at_p(0.5, 0.004)
    assert level_of(WHOLE, [passing, half], level=0.05) == pytest.approx(0.005)
    assert level_of(half.candidate, [passing, half], level=0.05) == pytest.approx(0.05)
    for candidate in (WHOLE, half.candidate):
        assert level_of(candidate, [failing, half], level=0.05) == pytest.approx(0.045)


def test_the_level_that_is_asked_for_is_the_one_that_settles() -> None:
    one = at_p(0.5, 0.03)
    assert [found.veto for found in settled([one], level=0.05)] == [None]
    assert [found.veto for found in settled([one], level=0.02)] == [MAY_BE_CHANCE]
    # At the larger error its turn would have come.
    first, second = at_p(0.5, 0.03), at_p(0.75, 0.001)
    assert [found.veto for found in settled([first, second], level=0.02)] == [MAY_BE_CHANCE, NOT_ITS_TURN]


def test_each_candidate_that_does_not_hold_says_why() -> None:
    """Also one that would hold by itself: its turn did not come, or its share of the error was too small."""
    points = {alpha: labelled(gained, 0, candidate=Candidate(alpha=alpha)) for alpha, gained in SHARES.items()}
    found = {one.candidate.alpha: one.veto for one in settled(list(points.values()))}
    assert found == {0.5: None, 0.75: None, 1.0: MAY_BE_CHANCE, 0.25: NOT_ITS_TURN}
    nearly = labelled(20, 10, candidate=Candidate(alpha=0.5))  # between 0.045 and 0.05
    failing = labelled(0, 9, candidate=WHOLE)
    assert [one.veto for one in settled([nearly, failing])] == [MAY_BE_CHANCE] * 2
    fewer = judged(1.0, 3.0, measure="posterior", veto=FEWER_CLASSES)
    assert [one.veto for one in settled([judged(0.5, 1.0, measure="posterior"), fewer])] == [TO_FEWER, FEWER_CLASSES]


def test_on_the_way_to_fewer_classes_nothing_is_kept() -> None:
    near = judged(0.5, 1.0, measure="posterior")
    assert choose([near, judged(1.0, 3.0, measure="posterior", veto=FEWER_CLASSES)]) is None
    assert choose([near, judged(1.0, 3.0, measure="posterior", veto=MAY_BE_CHANCE)]) == near.candidate
    assert choose([replace(near, veto=FEWER_CLASSES), judged(1.0, 3.0, measure="posterior")]) == WHOLE
    adapted = judged(0.0, 2.0, bn_reestimated=True, measure="information")
    assert choose([adapted, near, judged(1.0, 3.0, measure="posterior", veto=FEWER_CLASSES)]) == ADAPTED


def test_nothing_gained_is_kept_in_at_most_one_run_of_twenty() -> None:
    """Four points of a line, whose answers mostly change together, none of them better: 10,000 times."""
    generator = np.random.Generator(np.random.PCG64(0))
    runs, images, share = 10_000, 500, 0.08
    changes = generator.random((runs, images)) < share
    signs = generator.choice([-1, 0, 1], p=[0.35, 0.3, 0.35], size=(runs, images)) * changes
    reached = generator.random((runs, images))  # the share of the way at which an answer flips
    kept = 0
    for sign, at in zip(signs, reached, strict=True):
        judgements = []
        for alpha in ALPHAS:
            flipped = sign[at <= alpha]
            gained, lost = int((flipped == 1).sum()), int((flipped == -1).sum())
            p_value = sign_test(gained, lost)
            judgements.append(
                Judgement(
                    candidate=Candidate(alpha=alpha), measure="accuracy", gain=float(gained - lost), error=1.0,
                    sure_gain=float(gained - lost), veto=MAY_BE_CHANCE if p_value > LEVEL else None, gained=gained,
                    lost=lost, p_value=p_value,
                )
            )  # fmt: skip
        kept += choose(judgements) is not None
    assert 0.02 < kept / runs < LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / runs)


@pytest.mark.parametrize("candidate", [WHOLE, ADAPTED])
def test_with_labels_only_they_decide(candidate: Candidate) -> None:
    """Neither teachers that know better nor how sure the candidate is."""
    target = [0, 1, 2, 1, 2, 0] * 2
    before, after = predictions([0] * 12, target), predictions(target, target)
    found = judge(before, after, [], candidate=candidate)
    against = [predictions([0] * 12), predictions([0] * 12)]
    assert judge(before, after, against, candidate=candidate) == found
    unsure = replace(after, logits=after.logits / 100)
    assert judge(before, unsure, against, candidate=candidate) == found
    assert found.holds


def test_a_wrong_answer_for_another_wrong_answer_is_no_gain() -> None:
    found = judge(predictions([1, 1, 0], [0, 1, 2]), predictions([2, 1, 1], [0, 1, 2]), [], candidate=WHOLE)
    assert (found.gain, found.error) == (0.0, 0.0)
    assert choose([found]) is None


def test_a_gain_within_its_noise_keeps_the_initial_student() -> None:
    target = [1] * 51 + [0] * 49
    before, flipped = predictions([0] * 100, target, classes=2), predictions([1] * 100, target, classes=2)
    found = judge(before, flipped, [], candidate=WHOLE)
    assert found.gain == pytest.approx(2.0) and found.error > 2.0
    assert choose([found]) is None


# Movement towards the teachers.


@pytest.mark.parametrize("teachers", [0, 1, 2, 3])
def test_movement_is_the_share_of_teachers_won_less_that_lost(teachers: int) -> None:
    before, after, *others = (drawn(seed) for seed in range(teachers + 2))
    moves = movement(before, after, others)
    assert moves.dtype == torch.float64
    assert moves.tolist() == pytest.approx(naive_movement(before, after, others))
    if teachers:
        assert moves.min() < 0 < moves.max()


def test_movement_by_hand() -> None:
    before, after = predictions([0, 0, 0, 0, 0]), predictions([1, 1, 1, 0, 2])
    teachers = [predictions([1, 0, 1, 1, 0]), predictions([1, 0, 0, 1, 1])]
    # both won, both lost, one for another, unchanged, one lost for an answer that nobody gives
    assert movement(before, after, teachers).tolist() == [1.0, -1.0, 0.0, 0.0, -0.5]


def test_movement_takes_the_first_of_equal_classes() -> None:
    tied = from_logits(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))  # the first, the second class
    assert movement(predictions([1, 2]), tied, [predictions([0, 1])]).tolist() == [1.0, 1.0]
    assert movement(predictions([2, 2]), predictions([0, 1]), [tied]).tolist() == [1.0, 1.0]
    assert movement(predictions([2, 2]), predictions([1, 2]), [tied]).tolist() == [0.0, 0.0]


# The posterior of the frozen models.


def without_labels(seed: int, *, know: float, count: int = 3000, classes: int = 5) -> tuple[Predictions, torch.Tensor]:
    """A model and the truth, which it knows more or less of; sure in keeping with it."""
    target = torch.randint(classes, (count,), generator=torch.Generator().manual_seed(7))
    noise = torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    # of scores with noise of variance 1, these are the logits of the right probabilities
    return from_logits(know * (know * torch.nn.functional.one_hot(target, classes) + noise)), target


@pytest.mark.parametrize("teachers", [1, 2])
def test_without_labels_each_changed_answer_has_to_pay_a_toll(teachers: int) -> None:
    before, after, *others = (drawn(seed, count=200) for seed in range(teachers + 2))
    worths = worth(posterior_of(before, others), old=before, new=after).tolist()
    changed = [old != new for old, new in zip(classes_of(before), classes_of(after), strict=True)]
    values = [100 * (value - TOLL * is_new) for value, is_new in zip(worths, changed, strict=True)]
    found = judge(before, after, others, candidate=Candidate(alpha=0.75))
    assert (found.measure, found.candidate.alpha, found.over_adapted) == ("posterior", 0.75, False)
    assert found.gain == pytest.approx(mean(values)) and found.error == pytest.approx(standard_error(values))
    assert found.p_value == 1.0 and found.veto == MAY_BE_CHANCE  # a model drawn anew is no better
    assert found.sure_gain == pytest.approx(found.gain - 1.645 * found.error)


def test_a_student_that_learns_what_the_frozen_models_say_together_is_kept() -> None:
    student, target = without_labels(0, know=2.0)
    teacher, _ = without_labels(1, know=2.0)
    pooled = from_logits(posterior_of(student, [teacher]).log())
    found = judge(student, pooled, [teacher], candidate=WHOLE)
    assert found.holds and choose([found]) == WHOLE
    true = 100 * float((pooled.predicted == target).double().mean() - (student.predicted == target).double().mean())
    assert 5 < found.gain < true  # a product of two that hardly err together is too cautious
    # the other way round it loses as much
    assert judge(pooled, student, [teacher], candidate=WHOLE).p_value == 1.0


def test_a_student_that_imitates_a_weaker_teacher_is_not_kept() -> None:
    """However sure it has become."""
    student, _ = without_labels(0, know=3.0)
    teacher, _ = without_labels(1, know=1.5)
    for candidate in (teacher, from_logits(5 * teacher.logits)):
        assert choose([judge(student, candidate, [teacher], candidate=WHOLE)]) is None
    assert choose([judge(teacher, student, [student], candidate=WHOLE)]) == WHOLE


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_student_that_learns_from_a_teacher_of_another_class_order_is_not_kept(classes: int) -> None:
    """Some of the teacher's classes are permuted; without the check the posterior would be for it, and wrong."""
    student, target = without_labels(0, know=1.0)
    teacher, _ = without_labels(1, know=2.0)
    order = [*range(1, classes), 0, *range(classes, 5)]
    permuted = from_logits(teacher.logits[:, order])
    pooled = from_logits((student.logits + permuted.logits) / 2)
    lost = (pooled.predicted == target).double().mean() < (student.predicted == target).double().mean()
    found = judge(student, pooled, [permuted], candidate=WHOLE)
    assert bool(lost) or classes == 2
    assert found.veto == WRONG_ORDER and choose([found]) is None
    assert judge(student, from_logits((student.logits + teacher.logits) / 2), [teacher], candidate=WHOLE).holds


def test_without_teachers_or_changes_there_is_no_gain() -> None:
    before, after = drawn(0), drawn(50)
    assert judge(before, after, [], candidate=WHOLE).gain < 0
    found = judge(before, before, [after], candidate=WHOLE)
    assert (found.gain, found.error, found.p_value) == (0.0, 0.0, 1.0)
    assert choose([found]) is None


def test_where_adaptation_is_kept_a_point_of_the_line_is_compared_with_it() -> None:
    student, _ = without_labels(0, know=1.0)
    adapted, _ = without_labels(2, know=2.0)
    teacher, _ = without_labels(1, know=2.0)
    pooled = from_logits(adapted.logits + teacher.logits)
    found = judge(student, pooled, [teacher], candidate=WHOLE, adapted=adapted)
    alone = judge(adapted, pooled, [teacher], candidate=WHOLE)
    assert found == replace(alone, over_adapted=True) and found.holds
    assert not judge(student, student, [teacher], candidate=WHOLE, adapted=adapted).holds


@pytest.mark.parametrize(("count", "level"), [(300, LEVEL), (60, LEVEL), (300, 1e-6)])
def test_the_posteriors_test_is_one_sided_and_of_a_normal_distribution(count: int, level: float) -> None:
    old, _ = without_labels(0, know=1.0, count=count)
    teacher, _ = without_labels(1, know=1.2, count=count)
    new = from_logits(old.logits + 0.15 * teacher.logits)
    probs = posterior_of(old, [teacher])
    found = judge(old, new, [teacher], candidate=WHOLE, level=level, posterior_NC=probs)
    changed = [float(one) for one in (new.predicted != old.predicted).double()]
    paid = [100 * gain - 100 * TOLL * one for gain, one in zip(worth(probs, old=old, new=new), changed, strict=True)]
    assert found.gain > 0
    expected = NormalDist().cdf(-mean([float(one) for one in paid]) / standard_error([float(one) for one in paid]))
    assert found.p_value == pytest.approx(expected)
    assert 0.0 < expected < 1.0
    assert found.veto == (MAY_BE_CHANCE if expected > level else None)


def test_a_gain_without_any_noise_is_sure_and_one_of_a_single_image_is_not() -> None:
    old, new = predictions([0] * 40), predictions([1] * 40)
    surely = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    assert judge(old, new, [], candidate=WHOLE, posterior_NC=surely.expand(40, 3)).p_value == 0.0
    alone = judge(predictions([0]), predictions([1]), [], candidate=WHOLE, posterior_NC=surely)
    assert alone.p_value == 1.0


# Referees.


def test_referees_judge_in_place_of_the_posterior() -> None:
    student, _ = without_labels(0, know=1.0)
    better, _ = without_labels(1, know=2.0)
    referee, _ = without_labels(2, know=1.5)
    found = judge(student, better, [], candidate=WHOLE, referees=[referee])
    expected = votes(referee, old=student, new=better)
    assert (found.measure, found.veto) == ("votes", None) and found.holds
    assert found.gain == pytest.approx(100 * float(expected.mean()))
    assert found.p_value == pytest.approx(1 / betting_evidence(expected[expected != 0]))
    worse = judge(better, student, [better], candidate=WHOLE, referees=[referee])
    assert worse.veto == VOTED_DOWN and worse.p_value == 1.0
    adapted = judge(student, better, [], candidate=ADAPTED, referees=[referee])
    assert adapted.measure == "votes" and choose([adapted]) == ADAPTED


def swayed(changed: int, *, towards_new: Sequence[float], level: float = LEVEL) -> tuple[Judgement, torch.Tensor]:
    """Of 400 images some answers change; each referee prefers the new ones by so much in logits, and votes (R, N)."""
    classes = [number % 3 for number in range(400)]
    new_classes = [(one + 1) % 3 if number < changed else one for number, one in enumerate(classes)]
    old, new, referees = predictions(classes), predictions(new_classes), []
    for by in towards_new:
        logits = old.logits.clone()
        logits[range(changed), new_classes[:changed]] = 2.0 + by
        referees.append(from_logits(logits))
    found = judge(old, new, [], candidate=WHOLE, referees=referees, level=level)
    return found, torch.stack([votes(referee, old=old, new=new) for referee in referees])


def test_few_votes_may_be_chance_and_a_stricter_level_asks_for_more() -> None:
    few, votes_RN = swayed(3, towards_new=[2.0])
    assert few.p_value == pytest.approx(min(1.0, 1 / betting_evidence(votes_RN[0, :3])))
    assert few.p_value > LEVEL and few.veto == MAY_BE_CHANCE
    many, votes_RN = swayed(40, towards_new=[2.0])
    assert many.p_value == pytest.approx(1 / betting_evidence(votes_RN[0, :40]))
    assert many.p_value < LEVEL and many.veto is None
    strict, _ = swayed(40, towards_new=[2.0], level=many.p_value / 2)
    assert strict.veto == MAY_BE_CHANCE


def test_a_referee_vetoes_at_the_error_of_the_test() -> None:
    """One of three is against it; the mean is for it."""
    found, votes_RN = swayed(40, towards_new=[4.0, 4.0, -1.0])
    against = betting_evidence(-votes_RN[2, :40])
    assert against > 1 / LEVEL and found.veto == VOTED_DOWN
    assert found.error == pytest.approx(100 * standard_error(votes_RN.mean(dim=0).tolist()))
    assert found.gain == pytest.approx(100 * float(votes_RN.mean()))
    lenient, _ = swayed(40, towards_new=[4.0, 4.0, -1.0], level=1 / (1.5 * against))
    assert lenient.veto != VOTED_DOWN
    strict, _ = swayed(40, towards_new=[4.0, 4.0, -1.0], level=1 / (0.75 * against))
    assert strict.veto == VOTED_DOWN


def test_one_referee_against_it_is_a_veto() -> None:
    """As a relative of the teacher, that errs as it does, and one that errs for reasons of its own."""
    student, _ = without_labels(0, know=1.5)
    teacher, _ = without_labels(1, know=0.5)
    relative = from_logits(10 * teacher.logits)
    other, _ = without_labels(3, know=1.5)
    found = judge(student, teacher, [teacher], candidate=WHOLE, referees=[relative, other])
    assert found.p_value is not None and found.p_value < LEVEL and found.veto == VOTED_DOWN
    assert choose([found]) is None


def test_a_referee_of_another_class_order_is_of_no_use() -> None:
    student, _ = without_labels(0, know=1.0)
    better, _ = without_labels(1, know=2.0)
    referee, _ = without_labels(2, know=1.5)
    permuted = from_logits(referee.logits[:, [1, 0, 2, 3, 4]])
    assert judge(student, better, [], candidate=WHOLE, referees=[permuted]).veto == REFEREE_IN_WRONG_ORDER


# Adaptation without labels.


@pytest.mark.parametrize("gap", [-738.0, -742.0, -744.0, -745.0, -750.0])
def test_a_probability_that_is_almost_too_small_to_hold_tells_nothing(gap: float) -> None:
    """Of float64, whose least positive number is e^-744.4: the mean over a hundred images is then 0."""
    logits = drawn(0, count=100, classes=3).logits
    logits[:, 2] = -2000.0
    logits[0, :2] = 0.0
    without = information(logits)
    logits[0, 2] = gap
    assert information(logits).tolist() == pytest.approx(without.tolist(), abs=1e-12)
    found = judge(from_logits(logits / 2), from_logits(logits), [], candidate=ADAPTED)
    assert all(math.isfinite(value) for value in (found.gain, found.error, found.sure_gain))
    assert found.holds


def spread(margin: float, classes: int = 3, *, count: int = 61) -> Predictions:
    """Each class about as often as any other, by a margin over the rest."""
    return from_logits(margin * torch.eye(classes)[torch.arange(count) % classes])


def test_adaptation_gains_by_information() -> None:
    before, after = drawn(0, classes=5, noise=0.2), drawn(1, classes=5, noise=0.2)
    after = from_logits(2 * after.logits)
    gains = change(naive_information(before.logits), naive_information(after.logits))
    found = judge(before, after, [], candidate=ADAPTED)
    assert (found.candidate, found.measure, found.veto) == (ADAPTED, "information", None)
    assert found.gain == pytest.approx(mean(gains))
    assert found.error == pytest.approx(standard_error(gains))
    assert found.sure_gain == pytest.approx(found.gain - 2 * found.error) and found.sure_gain > 0
    assert choose([found]) == ADAPTED


def test_a_point_of_the_line_gains_nothing_by_information() -> None:
    """Training changes confidences at will."""
    found = judge(spread(1.0), spread(3.0), [spread(3.0)], candidate=WHOLE)
    assert (found.measure, found.gain) == ("posterior", 0.0)
    assert choose([found]) is None


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize(("share", "kept"), [(0.0045, False), (0.0049, False), (0.0051, True), (0.0055, True)])
def test_adaptation_that_gains_less_than_a_two_hundredth_of_all_there_is_is_vetoed(
    classes: int, share: float, kept: bool
) -> None:
    before = spread(1.5, classes)
    least, most = 1.5, 3.0
    for _ in range(40):  # a margin at which so much is gained
        margin = (least + most) / 2
        after = spread(margin, classes)
        gain = mean(change(naive_information(before.logits), naive_information(after.logits)))
        least, most = (margin, most) if gain < share * math.log(classes) else (least, margin)
    found = judge(before, after, [], candidate=ADAPTED)
    assert found.gain == pytest.approx(share * math.log(classes), abs=1e-6)
    assert found.sure_gain > 0
    assert found.holds == kept and found.veto == (None if kept else "the gain is too small to matter")


def test_adaptation_by_which_fewer_classes_are_predicted_is_vetoed() -> None:
    """Though the images are told apart better by what is left."""
    before = from_logits(0.8 * torch.eye(4)[torch.arange(80) % 4])
    after = from_logits(9.0 * torch.eye(4)[torch.arange(80) % 2])
    found = judge(before, after, [], candidate=ADAPTED)
    assert found.sure_gain > 0.3 and found.veto == FEWER_CLASSES
    assert choose([found]) is None


def test_adaptation_by_which_more_classes_are_predicted_is_kept() -> None:
    collapsed = from_logits(4.0 * torch.eye(4)[(torch.arange(80) % 4).clamp_max(1)])
    found = judge(collapsed, spread(4.0, 4, count=80), [spread(2.0, 4, count=80)], candidate=ADAPTED)
    assert found.veto is None and choose([found]) == ADAPTED


def test_adaptation_by_which_the_teachers_agree_less_is_vetoed() -> None:
    """Though it tells all classes apart better."""
    before, teachers = spread(1.0), [spread(4.0), spread(2.0)]
    turned = from_logits(4.0 * torch.eye(3)[(torch.arange(61) + 1) % 3])
    found = judge(before, turned, teachers, candidate=ADAPTED)
    assert found.sure_gain > 0.3 and found.veto == "the teachers agree less"
    assert choose([found]) is None
    assert choose([judge(before, turned, [], candidate=ADAPTED)]) == ADAPTED


@pytest.mark.parametrize("candidate", [ADAPTED, WHOLE])
def test_fewer_classes_must_be_predicted_beyond_noise(candidate: Candidate) -> None:
    """Two standard errors; one class is preferred more and more."""
    before = drawn(0, count=60, noise=0.3)
    below = []
    for preference in range(40):
        logits = 2 * drawn(1, count=60, noise=0.3).logits
        logits[:, 0] += preference / 5
        after = from_logits(logits)
        below.append(errors_below_zero(change(naive_class_information(before), naive_class_information(after))))
        found = judge(before, after, [], candidate=candidate)  # without teachers, nothing else is known
        assert (found.veto == FEWER_CLASSES) == (below[-1] > 2)
    assert any(2 < value < 2.5 for value in below) and any(1.5 < value < 2 for value in below)


def test_a_student_that_imitates_a_teacher_of_few_classes_is_not_kept() -> None:
    """The teacher is sure of itself everywhere and the student was not: movement is for it."""
    truth = [i % 4 for i in range(200)]
    before = predictions(truth, classes=4)
    before.logits[100:] /= 4
    narrow = predictions([c % 2 if i >= 100 else c for i, c in enumerate(truth)], classes=4)
    found = judge(before, narrow, [narrow], candidate=WHOLE)
    assert found.veto == FEWER_CLASSES and choose([found]) is None
    back = judge(narrow, before, [before], candidate=WHOLE)
    assert back.veto != FEWER_CLASSES


def test_teachers_must_agree_less_beyond_noise() -> None:
    """Two standard errors, each agreement counted once; more and more answers are turned against them."""
    before, teacher = drawn(0, count=60, noise=0.3), drawn(1, count=60, noise=0.3)
    below = []
    for turned in range(4, 20):
        after = 2 * before.logits
        after[:turned] = after[:turned].roll(1, dims=1)
        below.append(errors_below_zero(naive_movement(before, from_logits(after), [teacher])))
        found = judge(before, from_logits(after), [teacher], candidate=ADAPTED)
        assert found.veto == ("the teachers agree less" if below[-1] > 2 else None)
    assert any(2 < value < 2.5 for value in below) and any(1.5 < value < 2 for value in below)


def test_adaptation_that_loses_information_is_not_kept() -> None:
    assert choose([judge(spread(3.0), spread(2.0), [], candidate=ADAPTED)]) is None


# The choice.


@pytest.mark.parametrize("target", [[1], None])
@pytest.mark.parametrize("candidate", [WHOLE, ADAPTED])
def test_one_image_proves_nothing(target: list[int] | None, candidate: Candidate) -> None:
    before, after, *teachers = (predictions([c], target, classes=2) for c in (0, 1, 1, 1))
    found = judge(before, after, teachers, candidate=candidate)
    assert found.error == math.inf
    assert not found.holds and choose([found]) is None
    if target is not None:
        assert found.gain == 100.0


def test_no_candidate_or_no_gain_keeps_the_initial_student() -> None:
    assert choose([]) is None
    assert choose([judged(1.0, 0.0), judged(0.5, -1.0), judged(0.0, 0.0, bn_reestimated=True)]) is None
    assert choose([judged(1.0, 1e-9)]) == WHOLE


def test_the_surest_gain_wins_not_the_largest() -> None:
    near = replace(judged(0.25, 1.5), gain=2.0, error=0.5)
    assert choose([near, replace(judged(1.0, 1.0), gain=5.0, error=4.0)]) == near.candidate
    assert choose([near, replace(judged(1.0, 2.0), gain=5.0, error=3.0)]) == WHOLE


@pytest.mark.parametrize("order", [(0.25, 0.5, 1.0), (1.0, 0.5, 0.25), (0.5, 1.0, 0.25)])
def test_ties_go_to_the_shorter_way_in_whatever_order_the_candidates_come(order: tuple[float, ...]) -> None:
    assert choose([judged(share, 1.0) for share in order]) == Candidate(alpha=0.25)
    assert choose([judged(share, 4.0 if share > 0.25 else 1.0) for share in order]) == Candidate(alpha=0.5)
    assert choose([*(judged(share, 1.0) for share in order), judged(0.0, 1.0, bn_reestimated=True)]) == ADAPTED


def test_what_is_vetoed_is_never_kept() -> None:
    vetoed = judged(1.0, 9.0, measure="posterior", veto="for a reason")
    assert choose([vetoed]) is None
    assert choose([vetoed, judged(0.5, 0.1, measure="posterior")]) == Candidate(alpha=0.5)
    assert choose([vetoed, judged(0.25, 0.1, measure="posterior")]) is None  # the order ends before it
    adapted = judged(0.0, 9.0, bn_reestimated=True, measure="information", veto="for a reason")
    assert choose([adapted]) is None and choose([adapted, vetoed]) is None


def test_adaptation_by_information_is_kept_only_where_nothing_else_holds() -> None:
    adapted = judged(0.0, 2.0, bn_reestimated=True, measure="information")  # nats are not percentage points
    for points in (
        [judged(0.5, 0.1, measure="posterior"), judged(1.0, -1.0, measure="posterior")],
        [judged(0.5, 0.1, measure="posterior"), judged(0.25, 5.0, measure="posterior", veto="for a reason")],
    ):
        assert choose([adapted, *points]) == choose([*points, adapted]) == Candidate(alpha=0.5)
        assert choose([adapted, points[1]]) == choose([points[1], adapted]) == ADAPTED


def test_adaptation_by_accuracy_competes_on_equal_terms() -> None:
    adapted = judged(0.0, 1.0, bn_reestimated=True)
    assert choose([adapted, judged(0.5, 0.9), judged(1.0, -1.0)]) == ADAPTED
    assert choose([adapted, judged(0.5, 1.1), judged(1.0, -1.0)]) == Candidate(alpha=0.5)


def test_the_whole_way_and_no_way_outside_the_line_are_tried() -> None:
    assert ALPHAS[-1] == 1.0 and all(0 < share <= 1 for share in ALPHAS)
    assert list(ALPHAS) == sorted(set(ALPHAS))


# Recorded transfers.


def recorded() -> dict[str, list[dict[str, str]]]:
    """Rows of transfers between small CIFAR-10 models (benchmarks/guard), by transfer."""
    found: dict[str, list[dict[str, str]]] = {}
    with (Path(__file__).parents[2] / "benchmarks" / "guard" / "certificates.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = " ".join(row[name] for name in ("student", "teacher", "broken", "method", "lr", "images", "seed"))
            found.setdefault(key, []).append(row)
    return found


def kept_of(rows: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """What `choose` keeps by the recorded measures."""
    by_candidate = {
        Candidate(alpha=0.0, bn_reestimated=True)
        if row["candidate"] == "adapted"
        else Candidate(alpha=float(row["candidate"])): row
        for row in rows
    }
    judgements = [
        Judgement(
            candidate=candidate, measure="information" if candidate.bn_reestimated else "posterior",
            gain=float(row["gain"]), error=float(row["error"]),
            sure_gain=float(row["gain"]) - (2 if candidate.bn_reestimated else 1.645) * float(row["error"]),
            veto=row["veto"] or None, p_value=float(row["p_value"]) if row["p_value"] else None,
        )
        for candidate, row in by_candidate.items()
    ]  # fmt: skip
    kept = choose(judgements)
    return None if kept is None else by_candidate[kept]


def test_on_recorded_transfers_gains_are_kept_and_losses_are_not() -> None:
    """The bars: 60 % of what gains a point or more, 5 % of what gains nothing, and nothing significantly worse."""
    gains, nothing = [], []
    for rows in recorded().values():
        kept, best = kept_of(rows), max(float(row["delta_pp"]) for row in rows)
        if kept is not None:
            assert kept["posterior"] == "1"
            assert float(kept["delta_pp"]) > -1.645 * float(kept["delta_error_pp"])
        if best >= 1 and rows[0]["half"] == "1":  # of the pairs on which nothing was chosen
            gains.append(kept is not None and float(kept["delta_pp"]) > 0)
        if best <= 0:
            nothing.append(kept is not None)
    assert len(gains) >= 10 and mean(list(map(float, gains))) >= 0.6
    assert len(nothing) >= 20 and mean(list(map(float, nothing))) <= 0.05


def test_no_recorded_student_of_a_permuted_teacher_is_kept() -> None:
    permuted = [rows for rows in recorded().values() if rows[0]["broken"].startswith("perm")]
    assert len(permuted) >= 8
    for rows in permuted:
        line = [row for row in rows if row["candidate"] != "adapted"]
        assert all(row["veto"] == WRONG_ORDER for row in line) and kept_of(line) is None
    losses = [min(float(row["delta_pp"]) for row in rows) for rows in permuted]
    assert max(losses) < 0 and sorted(losses)[len(losses) // 2] < -2
