"""What a run would cost, and its bottleneck: a few steps timed, nothing written.

In: a prepared transfer. Out: times, memory and disk.
Imports: errors, predictions, models, views, inference, training, runs.
"""

from .doctor import diagnose
from .estimate import Estimate, estimate

__all__ = [
    "Estimate",
    "diagnose",
    "estimate",
]
