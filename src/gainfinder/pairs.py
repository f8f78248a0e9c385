"""Complementary knowledge between all models of a zoo, from their predictions alone (PAPER section 2)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from .alignment import align
from .data import ImageSource, load_images
from .devices import default_workers, resolve_device
from .errors import DataError, SettingsError
from .flips import compare
from .models import ModelSource, load_model
from .predictions import Predictions, predict_images


@dataclass(frozen=True, kw_only=True)
class ScannedModel:
    """A model and its accuracy, a share of all samples."""

    model: str
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ScannedPair:
    """An ordered pair of models.

    Attributes:
        student: reference of the model that could learn.
        teacher: reference of the model that could teach.
        delta_acc_pp: accuracy of the teacher minus that of the student, percentage points.
        positive_flips: share of all samples that the teacher has right and the student wrong.
        negative_flips: share of all samples that the teacher has wrong and the student right.
        flip_entropy: of the normalised counts of positive flips by class, nats; None without flips.
    """

    student: str
    teacher: str
    delta_acc_pp: float
    positive_flips: float
    negative_flips: float
    flip_entropy: float | None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Every model's accuracy and every ordered pair's complementary knowledge."""

    models: tuple[ScannedModel, ...]
    pairs: tuple[ScannedPair, ...]
    samples: int
    broken: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The scan as plain values, as `--json` prints it."""
        return {
            "models": [asdict(model) for model in self.models],
            "pairs": [asdict(pair) for pair in self.pairs],
            "samples": self.samples,
            "broken_images": list(self.broken),
        }


def scan(
    models: Sequence[ModelSource],
    data: ImageSource,
    *,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    on_model: Callable[[str, int], Callable[[int], None]] | None = None,
) -> Scan:
    """Measure complementary knowledge between models; each model meets each image once.

    Args:
        models: two or more references, classifiers or modules.
        data: a data reference, `Images`, or a data set that yields (image, label).
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images a forward pass.
        workers: processes that decode images; by default one fewer than the cores, at most 8.
        max_broken: largest share of images that may be undecodable.
        on_model: called with each model's reference and the number of images, returns a callback for images done.

    Raises:
        SettingsError: fewer than two models.
        DataError: the images carry no labels.
        ModelError: the models' class counts differ.
    """
    if len(models) < 2:
        raise SettingsError(f"a scan compares models: expected two or more, got {len(models)}")
    images = load_images(data)
    if images.labels is None:
        raise DataError(f"{images.reference}: a scan needs labels to tell who is right; these images carry none")
    classifiers, images = align([load_model(model) for model in models], images)
    where = resolve_device(device)
    found = []
    for classifier in classifiers:
        found.append(
            predict_images(
                classifier,
                images,
                device=where,
                batch_size=batch_size,
                workers=default_workers(where) if workers is None else workers,
                max_broken=max_broken,
                on_images=None if on_model is None else on_model(classifier.reference, len(images)),
            )
        )
        classifier.module.cpu()  # a zoo need not fit on the device
    return scan_predictions(found)


def scan_predictions(predictions: Sequence[Predictions]) -> Scan:
    """The scan of models whose predictions for the same labelled images are there already."""
    pairs = []
    for student, teacher in permutations(predictions, 2):
        target = student.target
        if target is None or student.ids != teacher.ids:
            raise DataError(f"predictions of {student.model} and {teacher.model}: expected labels and the same images")
        pair = compare(student.predicted, teacher.predicted, target, num_classes=student.logits.shape[1])
        pairs.append(ScannedPair(student=student.model, teacher=teacher.model, **asdict(pair)))
    return Scan(
        models=tuple(ScannedModel(model=one.model, accuracy=one.accuracy) for one in predictions),
        pairs=tuple(pairs),
        samples=len(predictions[0]),
        broken=predictions[0].broken,
    )
