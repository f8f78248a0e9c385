"""Better or not, from a few labels where they count: an anytime-valid test on images whose predicted class changed.

Two students, an old and a new one, predict N images; on M of them the predicted class differs, and only these can tell
the two apart. They are drawn in a uniformly random order without replacement, and somebody names the class of each:

    x = +1 the new student is right, −1 the old one, 0 neither;    Δ accuracy on the N images = (Σ over all M of x) / N

Two hypotheses are tested after each answer, of which exactly one is true: "not better" (the mean of x is 0 or less) and
"better" (it is above 0). Each is bet against (`highest_capital`): the capital begins at 1, cannot become negative, and
is not expected to grow while the hypothesis is true (an e-process), so by Ville's inequality it ever reaches 1 / level
with a probability of at most `level`, whenever one looks or stops. A false certificate, in either direction, has that
probability in all.

Both bets are made in two games, and both have to be won, so that a certificate holds in both senses:

- On these N images: drawing without replacement, the mean of what is left moves with each answer, and the bet with it.
- On images like these: with the N images a sample of a population, the answers are a sample, too. Where M is small,
  "better on these" is soon known and says little of others.

Sources: Ville (1939); I. Waudby-Smith and A. Ramdas, Confidence sequences for sampling without replacement (NeurIPS
2020), and Estimating means of bounded random variables by betting (JRSS B, 2024), for the bets and the interval;
V. Vovk and R. Wang, E-values: calibration, combination and applications (Annals of Statistics, 2021), for the mixture.

Shapes: R runs, T answers, K bets, S totals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Probability of a false certificate, at most."""
FRACTIONS = tuple(round(0.6 * (k + 0.5) / 20, 3) for k in range(20))
"""Fractions of the largest possible bet that are made side by side; the capital is their mean. Bets from 0 to 1 would
need a tenth more answers where x is 0.2 on average, and 7 instead of 10 where it is always 1."""

HIGHEST = 1e300
"""Capital counts up to this much, so that it stays a number."""

Verdict = Literal["better", "not better", "not yet known"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the answers say.

    Attributes:
        verdict: `better`, `not better` (worse, or at best as good) or `not yet known`.
        answers: number of answers given.
        decided_after: number of answers after which the verdict was known; None where it is not.
        right_new: answers by which the new student is right and the old one wrong.
        right_old: answers by which the old student is right and the new one wrong.
        better: highest capital so far from bets against "not better", when the verdict was known, else after all
            answers: an e-process at its maximum, so that 1 / better is an anytime-valid p-value.
        not_better: that from bets against "better", likewise.
        delta_pp: estimated change of accuracy on all images, in percentage points; None without an answer.
        delta_ci_pp: confidence interval of the change of accuracy on these N images, in percentage points, at
            1 − level, valid whenever one stops.
    """

    verdict: Verdict
    answers: int
    decided_after: int | None
    right_new: int
    right_old: int
    better: float
    not_better: float
    delta_pp: float | None
    delta_ci_pp: tuple[float, float]


def drawing_order(ids: Sequence[str], *, seed: int) -> NDArray[np.int64]:
    """Positions of images in the order in which they are drawn: uniformly random, without replacement.

    Args:
        ids: sample ids, unique; in whatever order, the images are drawn in the same one.
        seed: seed of NumPy's PCG64.

    Returns:
        int64 (M,), a permutation.
    """
    by_name = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    return by_name[np.random.Generator(np.random.PCG64(seed)).permutation(len(ids))]


def highest_capital(outcomes_RT: NDArray[np.integer], *, changed: int) -> tuple[Floats, Floats]:
    """The highest capital so far from bets against "not better" and against "better", after each answer.

    In the game without replacement, under a total Σx of at most s, the next x is expected to be at most
    m = (s − Σ seen) / left, and the capital is multiplied by 1 + c (x − m) / (1 + m), with s = 0 against "not better".
    Against "better" the signs of x are reversed and s = −1, for totals are whole. In the other game m = 0. Each is
    averaged over the fractions c; of the highest so far in each game the smaller is returned.

    Args:
        outcomes_RT: −1, 0 or 1 in the order drawn, (R, T), T ≤ M.
        changed: M, number of images whose predicted class changed.

    Returns:
        float64 (R, T) each, from 1 to `HIGHEST`, never falling.

    Raises:
        ValueError: another shape or value, or more answers than images.
    """
    if outcomes_RT.ndim != 2 or not np.isin(outcomes_RT, (-1, 0, 1)).all():
        raise ValueError(f"outcomes_RT: expected (R, T) of -1, 0 and 1, got {outcomes_RT.shape}")
    if outcomes_RT.shape[1] > changed:
        raise ValueError(f"expected at most {changed} answers, one for each image, got {outcomes_RT.shape[1]}")
    x_RT = outcomes_RT.astype(np.float64)
    return _smaller(x_RT, total=0, changed=changed), _smaller(-x_RT, total=-1, changed=changed)


def assess(outcomes_T: NDArray[np.integer], *, changed: int, images: int, level: float = LEVEL) -> Evidence:
    """What a sequence of answers says; the verdict is that of the first answer after which it was known.

    Args:
        outcomes_T: −1, 0 or 1 in the order drawn, (T,); may be empty.
        changed: M, number of images whose predicted class changed.
        images: N, number of all images, at least M.
        level: probability of a false certificate, between 0 and 1, both excluded.

    Raises:
        ValueError: a shape, value or number out of range.

    Example:
        >>> found = assess(np.ones(12, dtype=int), changed=50, images=1000)
        >>> found.verdict, found.decided_after, round(found.better, 1)
        ('better', 10, 26.5)
    """
    if not 0 < level < 1 or images < max(1, changed):
        raise ValueError(f"expected a level between 0 and 1 and at least {changed} images, got {level} and {images}")
    better_T, not_better_T = (one[0] for one in highest_capital(outcomes_T[None], changed=changed))
    known = np.flatnonzero(np.maximum(better_T, not_better_T) >= 1 / level)
    at = int(known[0]) if len(known) else len(outcomes_T) - 1
    better, not_better = (float(one[at]) if len(one) else 1.0 for one in (better_T, not_better_T))
    verdict: Verdict = "not yet known"
    if len(known):
        verdict = "better" if better >= not_better else "not better"
    return Evidence(
        verdict=verdict,
        answers=len(outcomes_T),
        decided_after=at + 1 if len(known) else None,
        right_new=int((outcomes_T == 1).sum()),
        right_old=int((outcomes_T == -1).sum()),
        better=better,
        not_better=not_better,
        delta_pp=100 * float(outcomes_T.mean()) * changed / images if len(outcomes_T) else None,
        delta_ci_pp=change_interval(outcomes_T, changed=changed, images=images, level=level),
    )


def change_interval(
    outcomes_T: NDArray[np.integer], *, changed: int, images: int, level: float = LEVEL
) -> tuple[float, float]:
    """Confidence interval of the change of accuracy on the N images, valid whenever one stops.

    It holds every total that neither counting nor the mean of two bets without replacement, one against more and one
    against less, has ruled out so far. Once all M answers are given it is a point.

    Args:
        outcomes_T: −1, 0 or 1 in the order drawn, (T,); may be empty.
        changed: M, number of images whose predicted class changed.
        images: N, number of all images.
        level: probability that the interval ever misses, at most.

    Returns:
        (low, high) in percentage points.

    Example:
        >>> change_interval(np.array([1, 1, 0, -1]), changed=4, images=100)
        (1.0, 1.0)
    """
    totals_S = np.arange(-changed, changed + 1, dtype=np.float64)
    less, more = (_Capital(len(totals_S), total=sign * totals_S, left=changed) for sign in (1, -1))
    left = changed - len(outcomes_T)
    inside_S = np.abs(totals_S - outcomes_T.sum()) <= left
    for x in outcomes_T.tolist():
        found_S = (less.bet(np.full(len(totals_S), float(x))) + more.bet(np.full(len(totals_S), -float(x)))) / 2
        if not (inside_S & (found_S < 1 / level)).any():
            break  # happens with a probability of at most `level`: what was left last is told
        inside_S &= found_S < 1 / level
    kept = totals_S[inside_S]
    return 100 * float(kept[0]) / images, 100 * float(kept[-1]) / images


def _smaller(x_RT: Floats, *, total: int, changed: int) -> Floats:
    """The smaller of the highest capitals so far in both games, (R, T)."""
    runs = len(x_RT)
    games = (_Capital(runs, total=np.full(runs, float(total)), left=changed), _Capital(runs))
    found_2RT = np.ones((2, *x_RT.shape))
    for t, x_R in enumerate(x_RT.T):
        for game, found_RT in zip(games, found_2RT, strict=True):
            found_RT[:, t] = np.maximum(game.bet(x_R), found_RT[:, t - 1] if t else 1.0)
    smaller: Floats = found_2RT.min(axis=0)
    return smaller


class _Capital:
    """The capital of R runs in one game, bet against a mean.

    Args:
        runs: R.
        total: largest total under the hypothesis, (R,), with `left` images to draw from without replacement; None in
            the game on images like these, where each x is expected to be at most 0.
        left: number of images to draw from.
    """

    def __init__(self, runs: int, *, total: Floats | None = None, left: int = 0) -> None:
        self.fractions_K = np.array(FRACTIONS)
        self.capital_RK = np.ones((runs, len(FRACTIONS)))
        self.refuted_R = np.zeros(runs, dtype=bool)
        self.total_R, self.left = total, left

    def bet(self, x_R: Floats) -> Floats:
        """Bet on the next answers, (R,); returns the mean capital after them."""
        mean_R = np.zeros(len(x_R)) if self.total_R is None else self.total_R / self.left
        # What is left would have to be below −1 on average, or is all −1 and this answer is not: refuted by counting.
        self.refuted_R |= (mean_R < -1) | ((mean_R == -1) & (x_R > -1))
        won_R = (x_R - mean_R) / np.where(mean_R > -1, 1 + mean_R, np.inf)
        self.capital_RK *= 1 + won_R[:, None] * self.fractions_K
        np.minimum(self.capital_RK, HIGHEST, out=self.capital_RK)
        if self.total_R is not None:
            self.total_R, self.left = self.total_R - x_R, self.left - 1
        found: Floats = np.where(self.refuted_R, HIGHEST, self.capital_RK.mean(axis=1))
        return found
