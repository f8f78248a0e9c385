"""Predictions made by hand, and naive loops over them."""

import math
from collections.abc import Sequence

import torch

from gainfinder.predictions import Predictions


def from_logits(logits: torch.Tensor, target: Sequence[int] | None = None) -> Predictions:
    return Predictions(
        model="by hand",
        ids=tuple(str(i) for i in range(len(logits))),
        logits=logits,
        target=None if target is None else torch.tensor(target),
    )


def drawn(seed: int, *, count: int = 40, classes: int = 4, noise: float = 0.7) -> Predictions:
    """One of several models that see the same in the same images, each with noise of its own."""
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, classes, generator=torch.Generator().manual_seed(99))
    return from_logits(3 * (shared + noise * torch.randn(count, classes, generator=draw)))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def softmax(z: Sequence[float], t: float = 1.0) -> list[float]:
    powers = [math.exp((v - max(z)) / t) for v in z]
    return [power / sum(powers) for power in powers]


def probabilities(logits: torch.Tensor) -> tuple[list[list[float]], list[float]]:
    """Of each image, and their mean."""
    rows = [softmax(row) for row in logits.double().tolist()]
    return rows, [mean([row[c] for row in rows]) for c in range(logits.shape[1])]


def naive_information(logits: torch.Tensor) -> list[float]:
    rows, average = probabilities(logits)
    return [math.fsum(p * math.log(p / q) for p, q in zip(row, average, strict=True) if p > 0) for row in rows]


def naive_class_information(model: Predictions) -> list[float]:
    classes = model.predicted.tolist()
    return [-math.log(classes.count(c) / len(classes)) for c in classes]


def entropy(probs: Sequence[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probs if p > 0)
