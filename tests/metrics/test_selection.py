"""Which of several candidates is kept in place of the initial student, on predictions made by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from gainfinder.metrics.harm import TOO_MANY
from gainfinder.metrics.information import information
from gainfinder.metrics.selection import (
    ALPHAS,
    FEWER_CLASSES,
    LEVEL,
    MAY_BE_CHANCE,
    Candidate,
    Judgement,
    Measure,
    certified,
    choose,
    consensus_gain,
    judge,
    movement,
    sign_test,
)
from gainfinder.predictions import Predictions
from handmade import drawn, from_logits, mean, naive_class_information, naive_information, softmax

WHOLE = Candidate(alpha=1.0)
ADAPTED = Candidate(alpha=0.0, bn_reestimated=True)
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


def tempered(rows: Sequence[Sequence[float]], confidence: float) -> list[list[float]]:
    """Probabilities at the temperature, from 0.05 to 20, at which they are so sure on average; by bisection."""
    low, high = 0.05, 20.0
    for _ in range(100):
        middle = (low + high) / 2
        found = mean([max(softmax(row, middle)) for row in rows])
        low, high = (middle, high) if found > confidence else (low, middle)
    return [softmax(row, low) for row in rows]


def naive_movement(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> list[float]:
    moves = []
    for i, (old, new) in enumerate(zip(classes_of(before), classes_of(after), strict=True)):
        votes = [classes_of(teacher)[i] for teacher in teachers]
        moves.append((votes.count(new) - votes.count(old)) / len(votes) if votes else 0.0)
    return moves


def naive_consensus_gain(before: Predictions, after: Predictions, teachers: Sequence[Predictions]) -> list[float]:
    """Each frozen model is as sure, on average, as the others agree with it."""
    models = [before, *teachers]
    classes = [classes_of(model) for model in models]
    probs = []
    for model, own in zip(models, classes, strict=True):
        others = [other for other in classes if other is not own]
        agreement = mean([float(a == b) for other in others for a, b in zip(own, other, strict=True)])
        probs.append(tempered(model.logits.double().tolist(), agreement))
    gains = []
    for i, (old, new) in enumerate(zip(classes[0], classes_of(after), strict=True)):
        gains.append(mean([p[i][new] for p in probs]) - mean([p[i][old] for p in probs]))
    return gains


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
    shares = {0.5: 9, 0.75: 12, 1.0: 0, 0.25: 20}
    found = {alpha: labelled(gained, 0, candidate=Candidate(alpha=alpha)) for alpha, gained in shares.items()}
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


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_without_labels_an_agreement_lost_counts_three_times(teachers: int) -> None:
    before, after, *others = (drawn(seed) for seed in range(teachers + 2))
    weighed = [3 * move if move < 0 else move for move in naive_movement(before, after, others)]
    found = judge(before, after, others, candidate=Candidate(alpha=0.75))
    assert found.measure == "movement" and found.candidate.alpha == 0.75
    assert found.gain == pytest.approx(100 * mean(weighed))
    assert found.error == pytest.approx(100 * standard_error(weighed))
    assert found.sure_gain == pytest.approx(found.gain - found.error)


@pytest.mark.parametrize(("won", "lost", "kept"), [(30, 0, True), (30, 4, True), (30, 10, False), (30, 12, False)])
def test_without_labels_few_agreements_may_be_lost_for_those_won(won: int, lost: int, kept: bool) -> None:
    """Of a hundred answers; those given up for none of the teacher's."""
    truth = [i % 3 for i in range(100)]
    teacher = predictions(truth)
    before = predictions([(c + 1) % 3 if i < won else c for i, c in enumerate(truth)])
    before.logits[:won] /= 2  # it was unsure of these
    after = predictions([(c + 1) % 3 if won <= i < won + lost else c for i, c in enumerate(truth)])
    found = judge(before, after, [teacher], candidate=WHOLE)
    assert found.gain == pytest.approx(won - 3 * lost)
    assert (choose([found]) == WHOLE) == kept


# Consensus.


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_the_frozen_models_together_say_what_a_change_is_worth(teachers: int) -> None:
    before, *others = (drawn(seed) for seed in range(teachers + 1))
    after = drawn(50)
    expected = naive_consensus_gain(before, after, others)
    gains = consensus_gain(before, after, others)
    assert gains.dtype == torch.float64
    assert gains.tolist() == pytest.approx(expected, abs=1e-6)
    assert 0 < sum(gain != 0 for gain in expected) < len(expected)


def test_consensus_does_not_depend_on_labels_or_how_sure_the_candidate_is() -> None:
    before, after, *teachers = (drawn(seed) for seed in range(4))
    expected = consensus_gain(before, after, teachers)
    assert torch.equal(consensus_gain(before, from_logits(after.logits * 7), teachers), expected)
    labelled = [replace(model, target=torch.zeros(40, dtype=torch.int64)) for model in (before, *teachers)]
    assert torch.equal(consensus_gain(labelled[0], after, labelled[1:]), expected)


def test_an_unchanged_answer_is_worth_nothing_nor_is_any_without_teachers() -> None:
    before, after = drawn(0), drawn(50)
    gains = consensus_gain(before, after, [drawn(1)])
    same = before.predicted == after.predicted
    assert same.any() and (gains[same] == 0).all()
    assert consensus_gain(before, after, []).tolist() == [0.0] * len(before)
    found = judge(before, after, [], candidate=WHOLE)
    assert (found.gain, found.error, found.veto) == (0.0, 0.0, None)
    assert choose([found]) is None


def test_models_that_never_agree_are_unsure_of_everything() -> None:
    before, teacher = predictions([0, 1, 2]), predictions([1, 2, 0])
    assert consensus_gain(before, predictions([0, 1, 0]), [teacher]).abs().max() < 1e-6


def test_a_candidate_that_the_frozen_models_hold_to_be_worse_beyond_noise_is_vetoed() -> None:
    """Two standard errors below zero, on many draws on both sides of it."""
    below = []
    for seed in range(60):
        before, after, teacher = (drawn(100 * seed + i, noise=0.5) for i in range(3))
        below.append(errors_below_zero(naive_consensus_gain(before, after, [teacher])))
        found = judge(before, after, [teacher], candidate=WHOLE)
        assert (found.veto is not None) == (below[-1] > 2)
        assert found.veto is None or "the frozen models together" in found.veto
    assert any(2 < value < 2.3 for value in below) and any(1.7 < value < 2 for value in below)
    assert not all(value > 0 for value in below)


def test_a_student_that_imitates_a_weaker_unsure_teacher_is_not_kept() -> None:
    """All of its moves are towards the teacher, and yet it is the worse for it."""
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(5, (400,), generator=draw)
    truth = torch.nn.functional.one_hot(target, 5)
    student = from_logits(4 * truth + 1.2 * torch.randn(400, 5, generator=draw))
    teacher = from_logits(1.0 * truth + torch.randn(400, 5, generator=draw))
    right = [float((model.predicted == target).double().mean()) for model in (student, teacher)]
    assert right[0] > 0.9 and right[1] < 0.6
    for candidate in (teacher, from_logits(5 * teacher.logits)):  # however sure it has become
        found = judge(student, candidate, [teacher], candidate=WHOLE)
        assert found.sure_gain > 0 and found.veto == "the frozen models together hold it to be worse"
        assert choose([found]) is None
    # the other way round there is nothing against it
    assert choose([judge(teacher, student, [student], candidate=WHOLE)]) == WHOLE


def test_without_labels_what_two_teachers_agree_on_is_learned_and_the_contrary_is_not() -> None:
    """They contradict the student on half of the images."""
    target, wrong = [0, 1, 2] * 10, [0, 1, 2] * 5 + [1, 2, 0] * 5
    teachers = [predictions(target), predictions(target)]
    student = predictions(wrong)
    assert choose([judge(student, predictions(target), teachers, candidate=WHOLE)]) == WHOLE
    assert choose([judge(student, predictions([1, 2, 0] * 10), teachers, candidate=WHOLE)]) is None


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
    assert (found.measure, found.gain) == ("movement", 0.0)
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
    """The teacher is sure of itself everywhere and the student was not: consensus and movement are for it."""
    truth = [i % 4 for i in range(200)]
    before = predictions(truth, classes=4)
    before.logits[100:] /= 4
    narrow = predictions([c % 2 if i >= 100 else c for i, c in enumerate(truth)], classes=4)
    found = judge(before, narrow, [narrow], candidate=WHOLE)
    assert found.sure_gain > 0 and float(consensus_gain(before, narrow, [narrow]).mean()) > 0
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
    if target is not None or candidate is WHOLE:
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
    vetoed = judged(1.0, 9.0, measure="movement", veto="for a reason")
    assert choose([vetoed]) is None
    assert choose([vetoed, judged(0.25, 0.1, measure="movement")]) == Candidate(alpha=0.25)
    adapted = judged(0.0, 9.0, bn_reestimated=True, measure="information", veto="for a reason")
    assert choose([adapted]) is None and choose([adapted, vetoed]) is None


def test_adaptation_by_information_is_kept_only_where_nothing_else_holds() -> None:
    adapted = judged(0.0, 2.0, bn_reestimated=True, measure="information")  # nats are not percentage points
    for points in (
        [judged(0.5, 0.1, measure="movement"), judged(1.0, -1.0, measure="movement")],
        [judged(0.5, 0.1, measure="movement"), judged(0.25, 5.0, measure="movement", veto="for a reason")],
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
