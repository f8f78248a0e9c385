"""Uncertainty of shares, and of a change of accuracy measured on the same samples before and after.

The paper gives no intervals; these are ours: Efron's percentile bootstrap over samples, and Wilson's interval. They say
how far the evaluation samples could have decided the result, nothing about seeds or training data.
"""

import math
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor


def paired_bootstrap_ci(
    before_correct_N: Tensor,
    after_correct_N: Tensor,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the change of accuracy, in percentage points, by a paired bootstrap.

        quantiles (1 − level)/2 and (1 + level)/2 of  100/n · Σ_{i in resample} (after_i − before_i)

    A difference is −1, 0 or 1, so n of n samples drawn with replacement are a multinomial draw of the three counts:
    that is what is drawn, with the same distribution as resampling indices and without N × resamples memory.

    Args:
        before_correct_N: bool (N,), N ≥ 1, whether each sample was right before.
        after_correct_N: bool (N,), the same samples in the same order, after.
        level: confidence level, between 0 and 1, both excluded.
        resamples: number of bootstrap resamples, 1 or more.
        seed: seed of NumPy's PCG64; the interval is a function of the arguments (and of NumPy's stream) alone.

    Returns:
        (low, high) in percentage points, quantiles interpolated linearly; (0.0, 0.0) where no sample changed, since
        resampling cannot show what was never seen.

    Raises:
        ValueError: a wrong shape or dtype, no samples, or `level` or `resamples` out of range.

    Example:
        Every sample was wrong and is right, so every resample gains 100 points:

        >>> paired_bootstrap_ci(torch.tensor([False, False]), torch.tensor([True, True]))
        (100.0, 100.0)
    """
    for name, correct_N in (("before_correct_N", before_correct_N), ("after_correct_N", after_correct_N)):
        if correct_N.ndim != 1 or correct_N.dtype != torch.bool:
            raise ValueError(f"{name}: expected torch.bool (N,), got {correct_N.dtype} {tuple(correct_N.shape)}")
    n = len(before_correct_N)
    if n == 0 or len(after_correct_N) != n:
        raise ValueError(
            f"expected the same samples before and after, at least one, got {n} and {len(after_correct_N)}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, both excluded, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples: expected 1 or more, got {resamples}")
    gained = int((after_correct_N & ~before_correct_N).sum())
    lost = int((before_correct_N & ~after_correct_N).sum())
    generator = np.random.Generator(np.random.PCG64(seed))
    # The last share is the one that NumPy derives as the remainder; unchanged samples can stand the rounding.
    drawn = generator.multinomial(n, [gained / n, lost / n, (n - gained - lost) / n], size=resamples)
    change_pp = 100 * (drawn[:, 0] - drawn[:, 1]) / n
    low, high = np.quantile(change_pp, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(count: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share, for knowledge gain and loss.

        (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n),  p = count / n

    Source: E. B. Wilson (1927). Unlike the normal approximation it stays in [0, 1] and is no point at a count of 0.

    Args:
        count: samples that count, from 0 to `total`.
        total: n, 1 or more.
        level: confidence level, between 0 and 1, both excluded.

    Returns:
        (low, high), shares.

    Raises:
        ValueError: a count or level out of range, or no samples.

    Example:
        >>> low, high = wilson_interval(0, 100)
        >>> low, round(high, 4)
        (0.0, 0.037)
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"expected 0 to all of at least one sample, got {count} of {total}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, both excluded, got {level}")
    # Not scipy.stats.binomtest, which the tests compare with: its import takes seconds, its last digits are others.
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = count / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Rounding may leave the ends a hair outside at counts of none and of all.
    low = 0.0 if count == 0 else (centre - spread) / scale
    high = 1.0 if count == total else (centre + spread) / scale
    return low, high
