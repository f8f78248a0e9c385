"""Recipes: an optimiser and its highest learning rate, and which rates a run may try (`runs/trials.py`)."""

from dataclasses import dataclass

from .choices import Optimizer

RATE_BATCH = 128
"""Batch size that the rates of `RATES` are for."""
RATES: dict[Optimizer, tuple[float, ...]] = {"adamw": (1e-4, 3e-4, 1e-3, 3e-3), "sgd": (1e-2, 3e-2, 1e-1)}
"""Rates to try, ascending. AdamW's go with the root of the batch size, SGD's in proportion to it."""
WEIGHT_DECAY: dict[Optimizer, float] = {"sgd": 1e-3, "adamw": 0.05}
"""Weight decay where none is given."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is optimised.

    Attributes:
        optimizer: the optimiser.
        lr: its highest learning rate.
    """

    optimizer: Optimizer
    lr: float

    def __str__(self) -> str:
        return f"{self.optimizer} at {self.lr:g}"


def rate_for(optimizer: Optimizer, rate: float, *, batch_size: int) -> float:
    """A rate of `RATES` at another batch size, to three digits.

    >>> rate_for("adamw", 1e-3, batch_size=512), rate_for("sgd", 1e-2, batch_size=512)
    (0.002, 0.04)
    """
    times = batch_size / RATE_BATCH
    return float(f"{rate * (times**0.5 if optimizer == 'adamw' else times):.3g}")


def recipes(optimizer: Optimizer, *, batch_size: int) -> tuple[Recipe, ...]:
    """The recipes of an optimiser to try at a batch size, by ascending rate."""
    rates = RATES[optimizer]
    return tuple(Recipe(optimizer=optimizer, lr=rate_for(optimizer, rate, batch_size=batch_size)) for rate in rates)
