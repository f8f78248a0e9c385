"""Logits freed of their shift and scale, to be given to an objective in place of the logits themselves.

Source: Sun et al., "Logit Standardization in Knowledge Distillation" (CVPR 2024, arXiv 2403.01427).
"""

import torch
from torch import Tensor

from .arguments import check_logits, wide


def standardised_logits(logits: Tensor) -> Tensor:
    """Logits with mean 0 and standard deviation 1 over the classes of each position.

        (z_j − z̄) / s,  z̄ = 1/C · Σ_j z_j,  s = √(1/C · Σ_j (z_j − z̄)²)

    s is that of the population, as in the paper (Eq. 10, algorithm 1); the authors' code and the paper's Figure 2 take
    the sample's, with C − 1, and the code adds 1e-7 to it. The difference is a temperature √(C/(C − 1)) times as high.

    The paper's loss is `T²/n · Σ KL` of both sides' standardised logits at its base temperature, which is
    `kl_divergence(standardised_logits(student_logits), standardised_logits(target_logits), temperature)`.

    Args:
        logits: floating point (..., C), C ≥ 1. A logit of −inf masks its class: it stays −inf, and the mean and the
            deviation are those of the finite logits.

    Returns:
        The same shape and dtype, between −√(C − 1) and √(C − 1). Where all finite logits are equal, as with C = 1,
        there is no deviation to divide by: they become 0, with a gradient of 0.

    Raises:
        ValueError: a wrong shape or dtype.

    The first has mean 5 and deviation √((9 + 1 + 1 + 9)/4) = √5, which gives ±3/√5 and ±1/√5:

    >>> [round(value, 4) for value in standardised_logits(torch.tensor([2.0, 4.0, 6.0, 8.0])).tolist()]
    [-1.3416, -0.4472, 0.4472, 1.3416]
    >>> standardised_logits(torch.tensor([[1.0, -torch.inf, 5.0], [7.0, 7.0, 7.0]])).tolist()
    [[-1.0, -inf, 1.0], [0.0, 0.0, 0.0]]
    """
    check_logits("logits", logits)
    z = logits.to(wide(logits))
    masked = z == -torch.inf
    highest = z.detach().amax(dim=-1, keepdim=True)
    lowest = z.detach().masked_fill(masked, torch.inf).amin(dim=-1, keepdim=True)
    constant = highest <= lowest
    # Shift and scale change nothing in the result: with them equal logits are exactly 0, and no square underflows.
    spread = (highest - lowest).masked_fill(constant, 1.0)
    unit = ((z - highest) / spread).masked_fill(masked | constant, 0.0)
    count = (~masked).sum(dim=-1, keepdim=True).clamp(min=1)
    centred = (unit - unit.sum(dim=-1, keepdim=True) / count).masked_fill(masked, 0.0)
    variance = centred.square().sum(dim=-1, keepdim=True) / count
    standard = centred / variance.masked_fill(constant, 1.0).sqrt()
    return standard.masked_fill(masked, -torch.inf).to(logits.dtype)
