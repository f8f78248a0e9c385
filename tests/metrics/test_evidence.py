"""The test on a few labels: false certificates with optional stopping, its interval, and a naive loop of its bets."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from gainfinder.metrics.evidence import (
    FRACTIONS,
    HIGHEST,
    Evidence,
    assess,
    change_interval,
    drawing_order,
    highest_capital,
)

RUNS = 10_000
MONTE_CARLO = 3 * (0.05 * 0.95 / RUNS) ** 0.5
Outcomes = NDArray[np.int64]


def of(right_new: int, right_old: int, neither: int) -> Outcomes:
    """Outcomes in the order of a file: all gains first, all losses last."""
    return np.repeat([1, 0, -1], [right_new, neither, right_old])


def drawn(population: Outcomes, *, most: int = 200, runs: int = RUNS) -> Outcomes:
    """Outcomes as they are asked for, a run a row: each in the order of a seed of its own."""
    ids = [f"{i:05d}" for i in range(len(population))]
    return np.stack([population[drawing_order(ids, seed=seed)[:most]] for seed in range(runs)])


def certified(outcomes_RT: Outcomes, *, changed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Runs that were ever called better, and not better: the first that is known stands."""
    better_RT, not_better_RT = highest_capital(outcomes_RT, changed=changed)
    never = better_RT.shape[1]
    first, other = (np.where((e >= 20).any(1), (e >= 20).argmax(1), never) for e in (better_RT, not_better_RT))
    return first < other, other < first


@pytest.mark.parametrize(
    ("right_new", "right_old", "neither"),
    [(10, 10, 0), (5, 5, 10), (8, 12, 0), (50, 50, 0), (2, 2, 96), (40, 45, 15), (500, 500, 0), (150, 150, 700)],
)  # fmt: skip
def test_false_certificates_of_a_student_that_is_not_better_however_one_stops(
    right_new: int, right_old: int, neither: int
) -> None:
    """M = 20, 100, 1000: whoever looks after each answer, and stops when it suits, is told "better" 5 times in 100."""
    population = of(right_new, right_old, neither)
    better_R, _ = certified(drawn(population), changed=len(population))
    assert better_R.mean() <= 0.05 + MONTE_CARLO


@pytest.mark.parametrize(("right_new", "right_old", "neither"), [(11, 10, 0), (51, 50, 9), (501, 500, 0), (45, 40, 15)])
def test_false_certificates_of_a_student_that_is_better(right_new: int, right_old: int, neither: int) -> None:
    population = of(right_new, right_old, neither)
    _, not_better_R = certified(drawn(population), changed=len(population))
    assert not_better_R.mean() <= 0.05 + MONTE_CARLO


@pytest.mark.parametrize("changed", [20, 100, 1000])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_false_certificates_about_images_like_these(changed: int, share: float) -> None:
    """The changed images are a sample, too: of a population without gain, where these by chance may have one."""
    draw = np.random.default_rng(changed)
    outcomes_RT = draw.choice([-1, 0, 1], p=[share, 1 - 2 * share, share], size=(RUNS, min(changed, 200)))
    assert certified(outcomes_RT, changed=changed)[0].mean() <= 0.05 + MONTE_CARLO


def test_it_is_known_in_time() -> None:
    """2 pp of 5,000 images of which a twentieth changed; half as many answers where each tells."""
    better_R, _ = certified(drawn(of(138, 38, 74), most=100, runs=500), changed=250)
    assert better_R.mean() > 0.95
    worse_R = certified(drawn(of(38, 138, 74), most=100, runs=500), changed=250)[1]
    assert worse_R.mean() > 0.95


def naive(outcomes: list[int], *, total: int, changed: int) -> list[float]:
    """The highest mean capital after each answer, in whole steps: against a total, and against a mean of 0."""
    here, there, found, most = [1.0] * 20, [1.0] * 20, [], [1.0, 1.0]
    for t, x in enumerate(outcomes):
        mean = (total - sum(outcomes[:t])) / (changed - t)
        for k, fraction in enumerate(FRACTIONS):
            here[k] *= 1 + fraction * (x - mean) / (1 + mean)
            there[k] *= 1 + fraction * x
        most = [max(most[0], sum(here) / 20), max(most[1], sum(there) / 20)]
        found.append(min(most))
    return found


def test_equals_a_naive_loop() -> None:
    outcomes = [1, 1, 0, -1, 1, 1, 0, 1, -1, 1]
    better, not_better = highest_capital(np.array([outcomes]), changed=40)
    assert better[0] == pytest.approx(naive(outcomes, total=0, changed=40), rel=1e-12)
    assert not_better[0] == pytest.approx(naive([-x for x in outcomes], total=-1, changed=40), rel=1e-12)


def test_what_counting_refutes_is_known_of_these_images_alone() -> None:
    """All answers are there: the change is a point, and yet 11 to 9 says nothing of other images."""
    found = assess(np.array([1, -1] * 9 + [1, 1]), changed=20, images=1000)
    assert found.verdict == "not yet known" and found.delta_ci_pp == (0.2, 0.2) == (found.delta_pp, found.delta_pp)
    assert np.isfinite(found.better) and found.better < 20


def test_the_first_verdict_stands() -> None:
    outcomes = np.array([1] * 11 + [-1] * 30)
    found = assess(outcomes, changed=500, images=5000)
    short = assess(outcomes[:10], changed=500, images=5000)
    assert found.verdict == short.verdict == "better" and found.decided_after == short.decided_after == 10
    assert found.better == short.better >= 20 and (found.right_new, found.right_old, found.answers) == (11, 30, 41)
    mirrored = assess(-outcomes, changed=500, images=5000)
    assert mirrored.verdict == "not better" and mirrored.decided_after == 10
    strict = assess(outcomes[:10], changed=500, images=5000, level=0.01)
    assert strict.verdict == "not yet known" and strict.decided_after is None


def test_no_answer_says_nothing() -> None:
    none = assess(np.array([], dtype=np.int64), changed=30, images=100)
    assert none == Evidence(
        verdict="not yet known", answers=0, decided_after=None, right_new=0, right_old=0, better=1.0, not_better=1.0,
        delta_pp=None, delta_ci_pp=(-30.0, 30.0),
    )  # fmt: skip


@pytest.mark.parametrize(("right_new", "right_old", "neither"), [(12, 8, 10), (60, 20, 40)])
def test_the_interval_holds_the_truth_at_all_times(right_new: int, right_old: int, neither: int) -> None:
    population = of(right_new, right_old, neither)
    truth, missed = float(population.sum()), 0
    for outcomes in drawn(population, most=60, runs=300):
        low, high = change_interval(outcomes, changed=len(population), images=100)
        missed += not low <= truth <= high
    assert missed / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_the_interval_narrows_to_a_point() -> None:
    outcomes = np.array([1, 0, 1, -1, 1, 1, 0, 1] * 5)
    found = [change_interval(outcomes[:t], changed=40, images=400) for t in range(41)]
    assert found[0] == (-10.0, 10.0) and found[-1] == (5.0, 5.0)
    assert all(one[0] <= next_[0] and next_[1] <= one[1] for one, next_ in itertools.pairwise(found))


def test_capital_stays_a_number() -> None:
    better, not_better = highest_capital(np.ones((1, 3000), dtype=np.int64), changed=3000)
    assert HIGHEST / 2 < better.max() <= HIGHEST and (not_better == 1.0).all()


def test_the_order_is_the_seeds_and_knows_nothing_of_the_file() -> None:
    ids = [f"image-{i}" for i in range(50)]
    order = drawing_order(ids, seed=3)
    assert sorted(order.tolist()) == list(range(50)) and order.tolist() != list(range(50))
    turned = drawing_order(ids[::-1], seed=3)
    assert [ids[i] for i in order] == [ids[::-1][i] for i in turned]
    assert drawing_order(ids, seed=4).tolist() != order.tolist()


def test_mistakes() -> None:
    for wrong, message in (
        (np.array([1, 0]), "expected"),
        (np.array([[2]]), "expected"),
        (np.ones((1, 5), dtype=int), "at most"),
    ):
        with pytest.raises(ValueError, match=message):
            highest_capital(wrong, changed=4)
    for level, images in ((0.0, 10), (1.0, 10), (0.05, 3)):
        with pytest.raises(ValueError, match="level"):
            assess(np.array([1]), changed=4, images=images, level=level)


def test_the_level_that_is_asked_for_decides_and_widens_the_interval() -> None:
    outcomes = np.ones(6, dtype=int)
    strict, lenient = (assess(outcomes, changed=50, images=50, level=level) for level in (0.01, 0.3))
    assert (strict.verdict, lenient.verdict) == ("not yet known", "better")
    assert strict.delta_ci_pp == change_interval(outcomes, changed=50, images=50, level=0.01)
    assert lenient.delta_ci_pp == change_interval(outcomes, changed=50, images=50, level=0.3)
    assert strict.delta_ci_pp[0] < lenient.delta_ci_pp[0]


def test_evidence_is_that_of_all_answers_where_nothing_is_known_yet() -> None:
    found = assess(np.array([1, 1, 1]), changed=50, images=50)
    assert found.decided_after is None
    assert found.better == float(highest_capital(np.ones((1, 3), dtype=int), changed=50)[0][0, -1])
    assert found.better > float(highest_capital(np.ones((1, 3), dtype=int), changed=50)[0][0, -2])


def test_a_single_image_can_be_asked_about() -> None:
    assert assess(np.array([1]), changed=1, images=1).right_new == 1
