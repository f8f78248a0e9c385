"""Without labels: what models that are frozen hold a changed answer to be worth.

Two sources, of which neither is the candidate itself, whose confidence training changes at will:

- The student's teachers and the student as it was, pooled (`posterior_of`): the probability that they give the new
  answer less that of the old one (`posterior_gain`). What they get wrong together it cannot see.
- Referees, models that did not teach: their probabilities likewise (`votes`). They err for reasons of their own.

Shapes: N samples, M models, C classes, V votes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..partition import cooled_by_class, pooled_log_probs
from ..predictions import Predictions
from .calibration import class_temperatures
from .evidence import FRACTIONS, HIGHEST
from .harm import binomial_at_most

CROSSED_LEVEL = 0.05
"""Probability that models which take no class for another are held to, at most."""


def posterior_of(before: Predictions, teachers: Sequence[Predictions]) -> Tensor:
    """The class probabilities that the frozen models give together: what `kl-prod-cal-u` learns from.

    The geometric mean of their probabilities (`partition.pooled_log_probs`), each teacher cooled in the classes in
    which the others contradict it (`class_temperatures`).

    Args:
        before: predictions of the student before it learned.
        teachers: predictions of the teachers for the same images; without any, the student's alone.

    Returns:
        float64 (N, C); rows add up to 1.
    """
    logits = [one.logits.double() for one in (before, *teachers)]
    logits_NMC = torch.stack(logits, dim=1)
    if teachers:
        logits_NMC = cooled_by_class(logits_NMC, class_temperatures(logits))
    return pooled_log_probs(logits_NMC, "product").exp()


def worth(probs_NC: Tensor, *, old: Predictions, new: Predictions) -> Tensor:
    """How much likelier the new answer is than the old one, by some probabilities.

    Args:
        probs_NC: class probabilities (N, C).
        old: predictions of the old student.
        new: predictions of the new student for the same images.

    Returns:
        float64 (N,), from −1 to 1; 0 where the class is unchanged.
    """
    new_N, old_N = (probs_NC.double().gather(1, one.predicted[:, None]).squeeze(1) for one in (new, old))
    return new_N - old_N


def votes(referee: Predictions, *, old: Predictions, new: Predictions) -> Tensor:
    """How a referee votes on each image: `worth` by its own probabilities, float64 (N,).

    Of a referee that is independent of both students, votes are not expected to be above 0 where the new student is
    no better. They are not hard (one class each), for then a referee that is unsure adds noise.
    """
    return worth(referee.logits.double().softmax(dim=1), old=old, new=new)


def betting_evidence(votes_V: Tensor) -> float:
    """An e-value against "votes are 0 or less on average": bets on them, with the fractions of `evidence`.

        mean over λ of ∏_i (1 + λ v_i)

    If votes are independent from image to image and not expected to be above 0, it is not expected to be above 1, so by
    Markov's inequality it reaches 1 / level with a probability of `level` at most, for any number of images.

    Args:
        votes_V: from −1 to 1, (V,); may be empty.

    Returns:
        0 or more, at most `evidence.HIGHEST`.

    Example:
        >>> round(betting_evidence(torch.full((10,), 1.0)), 1), betting_evidence(torch.zeros(10))
        (26.5, 1.0)
    """
    fractions_K = torch.tensor(FRACTIONS, dtype=torch.float64)
    logs_K = torch.log1p(fractions_K[:, None] * votes_V.double()[None]).sum(dim=1)
    return min(HIGHEST, float(logs_K.clamp_max(math.log(HIGHEST)).exp().mean()))


def crossed_classes(before: Predictions, other: Predictions) -> tuple[int, int] | None:
    """A pair of classes that one model takes for another: a sign of a wrong class order, which nothing else gives away.

    Class a of the student's and b of the other's, a ≠ b, fit each other best: of the images that the student calls a,
    most are b to the other, and of those that are b to it, most are a to the student; surely more than are called a,
    or b, by both. And the student's b and the other's a fit other classes best, too, as in any permutation. Models of
    51 % and better never did so. A model that knows some classes only does not: what it calls b is b to the student as
    well; nor one that has collapsed to a class.

    Args:
        before: predictions of the student.
        other: predictions of a teacher or referee for the same images.

    Returns:
        (a, b) of the first such pair, or None.
    """
    classes = before.logits.shape[1]
    found, counts = torch.unique(before.predicted * classes + other.predicted, return_counts=True)
    count_of = {divmod(pair, classes): count for pair, count in zip(found.tolist(), counts.tolist(), strict=True)}
    best_of_row: dict[int, int] = {}
    best_of_column: dict[int, int] = {}
    for (a, b), _ in sorted(count_of.items(), key=lambda one: one[1]):  # the last is the largest
        best_of_row[a], best_of_column[b] = b, a
    for a, b in best_of_row.items():
        mutual = a != b and best_of_column[b] == a
        displaced = best_of_row.get(b, b) != b and best_of_column.get(a, a) != a
        straight = max(count_of.get((a, a), 0), count_of.get((b, b), 0))
        crossed = count_of[a, b]
        if mutual and displaced and binomial_at_most(straight, crossed + straight, 0.5) <= CROSSED_LEVEL / classes:
            return a, b
    return None
