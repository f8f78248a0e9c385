"""Losses on logits (..., C): the leading dimensions are positions (images today), n is their number.

Source: sections 4.1 and 4.2 and appendix B.1 of "Fantastic Gains and Where to Find Them" (arXiv 2310.17653); DIST, DKD
and logit standardisation from their own papers, named at each.
Shapes: N samples, M models, C classes. All take logits, never probabilities: a softmax before the call would be a
second one. Half precision is computed in float32 inside; the result has the dtype of the student's logits.

Any objective can be put under a partition: give it `chosen_logits(target_logits_NMC, choice_N)` for a target.
"""

from .arguments import Reduction
from .decoupled import dkd_loss
from .divergence import kl_divergence, soft_cross_entropy, top_k_kl
from .labels import cross_entropy
from .partitioned import chosen_logits, mixed_kl, partitioned_kl
from .relations import dist_loss
from .standardised import standardised_logits

__all__ = [
    "Reduction",
    "chosen_logits",
    "cross_entropy",
    "dist_loss",
    "dkd_loss",
    "kl_divergence",
    "mixed_kl",
    "partitioned_kl",
    "soft_cross_entropy",
    "standardised_logits",
    "top_k_kl",
]
