"""What a run would cost, and its bottleneck: a few steps timed, nothing written.

In: a prepared. Out: times, memory and disk.
"""

from .doctor import diagnose
from .estimate import estimate

__all__ = [
    "diagnose",
    "estimate",
]
