"""Recipes: an optimiser and its highest learning rate, and which of them a run may try (`runs/trials.py`)."""

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


def recipes(*, batch_size: int, optimizer: Optimizer | None = None) -> tuple[Recipe, ...]:
    """The recipes to try at a batch size, of all optimisers or of one."""
    return tuple(
        Recipe(optimizer=name, lr=rate_for(name, rate, batch_size=batch_size))
        for name, rates in RATES.items()
        if optimizer in (None, name)
        for rate in rates
    )
