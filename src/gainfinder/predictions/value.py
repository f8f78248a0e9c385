"""A model's predictions for some samples: logits, confidence, accuracy; a value, with no model or file behind it.

Complementary knowledge, who teaches what and what was learned are functions of these alone.

Shapes: N samples, C classes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


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
    """

    model: str
    ids: tuple[str, ...]
    logits: Tensor
    target: Tensor | None
    class_names: tuple[str, ...] | None = None
    broken: tuple[str, ...] = ()
    dropped_mass: float = 0.0

    def __len__(self) -> int:
        return len(self.ids)

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
        if self.target is None:
            raise DataError(f"accuracy of {self.model}: the images carry no labels")
        if not len(self):
            raise DataError(f"accuracy of {self.model}: there is no image")
        return int((self.predicted == self.target).sum()) / len(self)

    def write(self, path: "Path", *, top_k: int | None = None) -> None:
        """Write the predictions to a file; see `files.write_predictions`."""
        from .files import write_predictions  # noqa: PLC0415 (the value itself needs no file)

        write_predictions(self, path, top_k=top_k)

    @classmethod
    def load(cls, path: "Path") -> "Predictions":
        """Read what `write` wrote; see `files.read_predictions`."""
        from .files import read_predictions  # noqa: PLC0415

        return read_predictions(path)
