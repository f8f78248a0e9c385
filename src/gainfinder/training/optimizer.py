"""The student's optimiser, made by timm's factory, and the learning rate at each point of a run."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from ..config import ResolvedConfig


def make_optimizer(
    module: nn.Module, settings: ResolvedConfig, *, others: Iterable[nn.Parameter] = (), device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of a run.

    AdamW decays no weight of one dimension (biases, scales of normalisation) and none that the model excepts, as is the
    custom with it; SGD decays all, as the published code does. With `layer_decay` both except them, and the rate of
    each block is that share of the next one's (BEiT, Bao et al. 2022, as in timm); the classifier layer's is the
    highest.

    Args:
        module: the student; its parameters that require a gradient are trained.
        settings: the run's resolved settings.
        others: parameters that train beside the student's, such as projections of features, at the highest rate.
        device: device of the parameters.
    """
    adam = settings.optimizer == "adamw"
    grouped = adam or settings.layer_decay < 1
    arguments: dict[str, Any] = {} if adam else {"momentum": settings.momentum}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        module if grouped else [p for p in module.parameters() if p.requires_grad],
        opt="adamw" if adam else "momentum",  # timm's "sgd" is Nesterov's
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay if settings.layer_decay < 1 else None,
        fused=device.type in ("cpu", "cuda"),
        **arguments,
    )
    if others := list(others):
        optimizer.add_param_group({"params": others})
    if not adam and settings.momentum:
        # The fused step wants it for all weights or for none, and warm-up gives some of them no gradient at first.
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in trained})
    return optimizer


def rate_at(settings: ResolvedConfig, done: float, *, cooled: float = 0.0) -> float:
    """The learning rate for the next step.

        lr · r(done) · f,  f = 1, 1 − done or (1 + cos(π · done)) / 2, by the schedule;  1 − cooled for `plateau`

    r rises from 0.01 to 1 over the share `lr_warmup` of the steps.

    Args:
        settings: the run's resolved settings.
        done: share of all steps of the run that are done, from 0 to below 1.
        cooled: share of the cool-down that is done, from 0 to below 1; see `cool_down`.

    >>> from types import SimpleNamespace
    >>> run = SimpleNamespace(lr=0.1, schedule="cosine", lr_warmup=0.1)
    >>> [round(rate_at(run, done), 4) for done in (0, 0.05, 0.1, 0.5)]
    [0.001, 0.0502, 0.0976, 0.05]
    """
    falling = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "plateau": 1 - cooled,
    }[settings.schedule]
    rising = 1.0
    if done < settings.lr_warmup:
        # From a hundredth, not from 0: a first step at rate 0 would be lost.
        rising = 0.01 + 0.99 * done / settings.lr_warmup
    return settings.lr * rising * falling


@dataclass(frozen=True, kw_only=True)
class CoolDown:
    """The end of a run of schedule `plateau`, in which the rate falls to 0.

    Attributes:
        start: epochs before it.
        epochs: epochs that it takes.
    """

    start: int
    epochs: int

    @property
    def end(self) -> int:
        """All epochs of the run."""
        return self.start + self.epochs


def cool_down(losses: Sequence[float | None], *, epochs: int, patience: int) -> CoolDown | None:
    """When the rate begins to fall: a function of what the finished epochs left, so that a resumed run finds the same.

    It begins after the first epoch before which `patience` epochs have brought no lower loss, or when it must for the
    run to end within `epochs`. It takes a quarter of the epochs so far, rounded up (Hägele et al., "Scaling laws and
    compute-optimal training beyond fixed training durations", 2024: a fall over a fifth of the steps does what a cosine
    over all of them does, and the length need not be known before).

    Args:
        losses: the loss on the guard images after each finished epoch; None where there is none, which never stops.
        epochs: the most epochs of the run, 1 or more.
        patience: epochs, 1 or more.

    Returns:
        None while the rate is not to fall yet.

    >>> cool_down([0.9, 0.8, 0.7], epochs=20, patience=2) is None
    True
    >>> cool_down([0.9, 0.8, 0.85, 0.81], epochs=20, patience=2)
    CoolDown(start=4, epochs=1)
    >>> cool_down([0.9] + [0.8 - i / 100 for i in range(15)], epochs=20, patience=2)
    CoolDown(start=16, epochs=4)
    """
    for start in range(len(losses) + 1):
        seen = [loss for loss in losses[:start] if loss is not None]
        tired = len(seen) > patience and min(seen[-patience:]) >= min(seen[:-patience])
        if tired or start + 1 + _falling(start + 1) > epochs:
            return CoolDown(start=start, epochs=min(_falling(start), max(1, epochs - start)))
    return None


def _falling(start: int) -> int:
    return max(1, -(-start // 4))
