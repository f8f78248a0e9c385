"""Training loops that the studies share, on views held in memory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.lab.images import crop_flips
from benchmarks.lab.zoo import Model
from gainfinder.models import has_batch_norm, reestimate

RARE = 0.04
"""Share of the images of rare classes that a specialist sees."""
BATCH = 128


def distil(
    model: Model,
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    batches: Sequence[Sequence[Tensor]],
    *,
    falling: bool,
    train_mode: bool = True,
) -> None:
    """Minimise KL(target ‖ model).

    Args:
        model: that learns, in place.
        optimizer: of its parameters.
        views: of each epoch, uint8 (N, 3, 32, 32).
        targets: log-probabilities for each epoch's views, (N, C).
        batches: positions in each epoch's views, a step each.
        falling: whether the rate falls to 0.
        train_mode: whether batch-norm normalises by the batch.
    """
    lr, steps, step = optimizer.param_groups[0]["lr"], sum(map(len, batches)), 0
    model.train(train_mode)
    for epoch_views, epoch_targets, epoch_batches in zip(views, targets, batches, strict=True):
        for batch in epoch_batches:
            if falling:
                optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            target = epoch_targets[batch]
            log_q = model(model.prepare(epoch_views[batch])).log_softmax(1)
            loss = (target.exp() * (target - log_q)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1


def fit(
    model: Model,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    epochs: int,
    generator: torch.Generator,
) -> None:
    """Train on labelled images at a falling rate; the model stays in training mode."""
    model.train()
    lr, steps, step = optimizer.param_groups[0]["lr"], epochs * (len(x) // BATCH), 0
    for _ in range(epochs):
        views = crop_flips(x, generator)
        for batch in torch.randperm(len(x), generator=generator)[: len(x) // BATCH * BATCH].split(BATCH):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            value = loss(model(model.prepare(views[batch])), y[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            step += 1


def skewed(y: Tensor, *, rare: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions of so many images, of which few are of the rare classes."""
    order = torch.randperm(len(y), generator=generator)
    kept = ~rare[order] | (torch.rand(len(y), generator=generator) < RARE)
    return order[kept][:count]


def adapt(model: Model, views: Tensor) -> None:
    """Re-estimate batch-norm statistics on views, in place; without batch-norm, nothing happens."""
    if has_batch_norm(model):
        reestimate(model, map(model.prepare, views.split(125)), model)
