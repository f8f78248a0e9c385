"""How well what stands in for labels follows what needs them, over the pairs and models of a labelled scan."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .scanned import ScannedModel, ScannedPair, StudentTracking, Tracking

OF_PAIRS = (
    ("disagreement", "positive_flips"),
    ("surer_disagreement", "positive_flips"),
    ("estimated_positive_flips", "positive_flips"),
    ("estimated_delta_acc_pp", "delta_acc_pp"),
)
"""Stand-in and measure of a pair."""
OF_MODELS = (("agreement", "accuracy"), ("strength", "accuracy"), ("estimated_accuracy", "accuracy"))
"""Stand-in and measure of a model."""
FEWEST = 3
"""Any two points lie on a line."""


def track(models: Sequence[ScannedModel], pairs: Sequence[ScannedPair]) -> tuple[Tracking, ...]:
    """Compare each stand-in with what it stands in for.

    Args:
        models: the models of a scan with labels.
        pairs: all ordered pairs of them, student by student.

    Returns:
        One a stand-in that is known.
    """
    found = []
    for stand_in, measure in OF_PAIRS:
        x_P, y_P = (torch.tensor([getattr(pair, key) for pair in pairs]).double() for key in (stand_in, measure))
        by_student = zip(x_P.view(len(models), -1), y_P.view(len(models), -1), pairs[:: len(models) - 1], strict=True)
        students = tuple(
            StudentTracking(student=pair.student, spearman=rank_correlation(x_T, y_T), slope=slope(x_T, y_T))
            for x_T, y_T, pair in by_student
        )
        found.append(_tracking(stand_in, measure, x_P, y_P, students))
    for stand_in, measure in OF_MODELS:
        if all(getattr(model, stand_in) is not None for model in models):
            x_M, y_M = (torch.tensor([getattr(model, key) for model in models]).double() for key in (stand_in, measure))
            found.append(_tracking(stand_in, measure, x_M, y_M, ()))
    return tuple(found)


def rank_correlation(x_N: Tensor, y_N: Tensor) -> float | None:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Args:
        x_N: numbers (N,).
        y_N: numbers (N,).

    Returns:
        From −1 to 1; None of fewer than three, or where either does not vary.

    Example:
        >>> rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0, 20.0]))
        1.0
    """
    # Not scipy.stats.spearmanr, which the tests compare with: its import takes seconds.
    ranks_x_N, ranks_y_N = _ranks(x_N), _ranks(y_N)
    x_N, y_N = ranks_x_N - ranks_x_N.mean(), ranks_y_N - ranks_y_N.mean()
    lengths = float(x_N.square().sum() * y_N.square().sum()) ** 0.5
    return float(x_N @ y_N) / lengths if len(x_N) >= FEWEST and lengths > 0 else None


def slope(x_N: Tensor, y_N: Tensor) -> float | None:
    """Slope of the least-squares line of y over x.

    Args:
        x_N: numbers (N,).
        y_N: numbers (N,).

    Returns:
        The slope; None of fewer than three, or where either does not vary.

    Example:
        >>> slope(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([5.0, 7.0, 9.0]))
        2.0
    """
    if len(x_N) < FEWEST or bool((x_N == x_N[0]).all()) or bool((y_N == y_N[0]).all()):
        return None
    from_mean_N = x_N.double() - x_N.double().mean()
    return float(from_mean_N @ y_N.double() / from_mean_N.square().sum())


def _ranks(values_N: Tensor) -> Tensor:
    """Ranks from 1, float64."""
    _, place_N, counts_U = values_N.unique(return_inverse=True, return_counts=True)
    ranks_U: Tensor = counts_U.cumsum(0).double() - (counts_U - 1) / 2
    return ranks_U[place_N]


def _tracking(stand_in: str, measure: str, x_N: Tensor, y_N: Tensor, students: tuple[StudentTracking, ...]) -> Tracking:
    return Tracking(
        stand_in=stand_in,
        measure=measure,
        count=len(x_N),
        spearman=rank_correlation(x_N, y_N),
        slope=slope(x_N, y_N),
        students=students,
    )
