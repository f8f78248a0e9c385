"""A model's predictions for some samples: logits, confidence, accuracy; a value, with no model or file behind it.

Complementary knowledge, who teaches what and what was learned are functions of these alone.

Shapes: N samples, C classes, K the most probable of them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "image"
"""What a sample is where nothing says otherwise; files say it of other kinds alone."""
NOUNS = (IMAGE, "text")
"""What a sample can be; the plural ends in s."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A model's logits for some images.

    Attributes:
        model: the model's reference.
        ids: N sample ids.
        logits: float32 (N, C).
        target: labels, int64 (N,), or None where the images carry none.
        class_names: names of the C classes, or None.
        broken: `where: reason` of each image that could not be decoded; these have no row.
        dropped_mass: mean share of probability that the model spends on classes outside these; 0 without a label map.
        noun: what a sample is: `image` or `text`.
    """

    model: str
    ids: tuple[str, ...]
    logits: Tensor
    target: Tensor | None
    class_names: tuple[str, ...] | None = None
    broken: tuple[str, ...] = ()
    dropped_mass: float = 0.0
    noun: str = IMAGE

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return self.logits.shape[1]

    @property
    def predicted(self) -> Tensor:
        """Predicted class, int64 (N,); on ties the lowest class index."""
        return self.logits.argmax(dim=1)

    @property
    def confidence(self) -> Tensor:
        """Largest softmax probability, float32 (N,)."""
        return self.logits.softmax(dim=1).amax(dim=1)

    @property
    def accuracy(self) -> float:
        """Share of samples predicted right.

        Raises:
            DataError: the images carry no labels, or there is none.
        """
        return _accuracy(self.predicted, self.target, model=self.model, noun=self.noun)

    def top(self, top_k: int) -> "TopPredictions":
        """The most probable classes alone, so many of each image, or all if there are fewer."""
        log_probs_NK, classes_NK = most_probable(self.logits, top_k)
        return TopPredictions(
            model=self.model,
            ids=self.ids,
            classes=classes_NK,
            log_probs=log_probs_NK,
            predicted=self.predicted,
            num_classes=self.num_classes,
            target=self.target,
            class_names=self.class_names,
            broken=self.broken,
            dropped_mass=self.dropped_mass,
            noun=self.noun,
        )

    def write(self, path: "Path", *, top_k: int | None = None) -> None:
        """Write the predictions to a file, of all classes or the most probable; see `files.write_predictions`."""
        from .files import write_predictions  # noqa: PLC0415 (the value itself needs no file)

        write_predictions(self if top_k is None else self.top(top_k), path)

    @classmethod
    def load(cls, path: "Path") -> "Predictions":
        """Read what `write` wrote; see `files.read_predictions`."""
        from .files import read_predictions  # noqa: PLC0415

        return read_predictions(path)


@dataclass(frozen=True, kw_only=True)
class TopPredictions:
    """A model's most probable classes for some images, where the logits of all take too much memory.

    Attributes:
        model: the model's reference.
        ids: N sample ids.
        classes: int64 (N, K), the most probable first; ties in no particular order.
        log_probs: float32 (N, K), their logarithmic probabilities by the softmax over all classes.
        predicted: predicted class, int64 (N,); on ties the lowest class index.
        num_classes: number of all classes, C.
        target: labels, int64 (N,), or None where the images carry none.
        class_names: names of all classes, or None.
        broken: `where: reason` of each image that could not be decoded; these have no row.
        dropped_mass: mean share of probability that the model spends on classes outside these; 0 without a label map.
        noun: what a sample is: `image` or `text`.
    """

    model: str
    ids: tuple[str, ...]
    classes: Tensor
    log_probs: Tensor
    predicted: Tensor
    num_classes: int
    target: Tensor | None
    class_names: tuple[str, ...] | None = None
    broken: tuple[str, ...] = ()
    dropped_mass: float = 0.0
    noun: str = IMAGE

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def accuracy(self) -> float:
        """Share of samples predicted right.

        Raises:
            DataError: the images carry no labels, or there is none.
        """
        return _accuracy(self.predicted, self.target, model=self.model, noun=self.noun)


def most_probable(logits_NC: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The most probable classes of each sample, of so many rows at a time that it takes little memory.

    Args:
        logits_NC: floating point (N, C).
        top_k: number of classes; all if there are fewer.

    Returns:
        Log-probabilities by the softmax over all classes, and classes, int64: both (N, K), the most probable first;
        ties in no particular order.

    >>> log_probs_NK, classes_NK = most_probable(torch.tensor([[0.0, 2.0, 1.0]]), 2)
    >>> classes_NK.tolist(), [round(value, 4) for value in log_probs_NK[0].tolist()]
    ([[1, 2]], [-0.4076, -1.4076])
    """
    count = min(top_k, logits_NC.shape[1])
    found = [part.log_softmax(dim=1).topk(count, dim=1) for part in logits_NC.split(_ROWS_AT_ONCE)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _accuracy(predicted_N: Tensor, target_N: Tensor | None, *, model: str, noun: str) -> float:
    if target_N is None:
        raise DataError(f"accuracy of {model}: the {noun}s carry no labels")
    if not len(predicted_N):
        raise DataError(f"accuracy of {model}: there is no {noun}")
    return int((predicted_N == target_N).sum()) / len(predicted_N)
