"""Complementary knowledge between all models of a zoo, from their predictions alone (PAPER section 2)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data import ImageSource, load_images
from ..devices import default_workers, environment, resolve_device
from ..errors import DataError, SettingsError
from ..inference import ImageCount, align_images, align_model, named_after, predict_images
from ..metrics import accuracy, compare
from ..models import Classifier, ModelSource, load_own
from ..predictions import Predictions
from ..results import claim_scan_folder, write_scan


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


def scan_models(
    models: Sequence[ModelSource],
    data: ImageSource,
    *,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    on_model: Callable[[str, int], ImageCount] | None = None,
    out: str | Path | None = None,
    command: str | None = None,
) -> Scan:
    """Measure complementary knowledge between models; each model meets each image once, one model at a time.

    Modules and classifiers that are passed in stay as they are; of several of one name, the later are numbered.

    Args:
        models: two or more references, classifiers or modules.
        data: a data reference, `Images`, or a data set that yields (image, label).
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images a forward pass.
        workers: processes that decode images; by default none on a CPU, else up to 8.
        max_broken: largest share of images that may be undecodable.
        on_model: called with each model's reference and the number of images, returns a callback for images done.
        out: folder for the scan as `scan.json`; one that holds the same scan is written anew. None
            keeps nothing.
        command: that asked for it, kept with the scan.

    Raises:
        RunFolderError: `out` holds something else, or cannot be written.
        SettingsError: fewer than two models, or a reference given twice.
        DataError: the images carry no labels, or their classes do not fit the models'.
        ModelError: a model's classes are others than the first's, and in another number.
    """
    _check_models(models)
    images = load_images(data)
    if images.labels is None:
        raise DataError(f"{images.reference}: a scan needs labels to tell who is right; these images carry none")
    where = resolve_device(device)
    first = named_after(load_own(models[0]), images)
    images = align_images(images, first)
    asked = [
        source if isinstance(source, str) else getattr(source, "reference", type(source).__name__) for source in models
    ]
    if out is not None:
        claim_scan_folder(Path(out), models=asked, data=images.reference)
    answers: list[Answers] = []
    for number, source in enumerate(models):
        classifier = first if number == 0 else align_model(load_own(source), first)
        assert isinstance(classifier, Classifier), "only a table stays a table"
        classifier = replace(classifier, reference=_free_name(classifier.reference, answers))
        found = predict_images(
            classifier,
            images,
            device=where,
            batch_size=batch_size,
            workers=default_workers(where) if workers is None else workers,
            max_broken=max_broken,
            on_images=None if on_model is None else on_model(classifier.reference, len(images)),
        )
        answers.append(Answers.of(found))
    whole = scan_answers(answers, num_classes=first.num_classes)
    if out is not None:
        about = {"data": images.reference, "asked": asked, "environment": {**environment(where), "command": command}}
        write_scan(Path(out), {**whole.to_dict(), **about})
    return whole


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a scan keeps of a model's predictions: a zoo's logits would not fit into memory.

    Attributes:
        model: its reference.
        ids: sample ids.
        predicted: int64 (N,).
        target: int64 (N,).
        broken: images without a row.
    """

    model: str
    ids: tuple[str, ...]
    predicted: Tensor
    target: Tensor
    broken: tuple[str, ...] = ()

    @classmethod
    def of(cls, predictions: Predictions) -> "Answers":
        """The answers in predictions for labelled images."""
        if predictions.target is None:
            raise DataError(f"predictions of {predictions.model} carry no labels")
        return cls(
            model=predictions.model,
            ids=predictions.ids,
            predicted=predictions.predicted,
            target=predictions.target,
            broken=predictions.broken,
        )


def scan_answers(answers: Sequence[Answers], *, num_classes: int) -> Scan:
    """The scan of models that have answered for the same labelled images.

    Raises:
        DataError: the images differ.
    """
    pairs = []
    for student, teacher in permutations(answers, 2):
        if student.ids != teacher.ids:
            raise DataError(f"predictions of {student.model} and {teacher.model} are not for the same images")
        pair = compare(student.predicted, teacher.predicted, student.target, num_classes=num_classes)
        pairs.append(ScannedPair(student=student.model, teacher=teacher.model, **asdict(pair)))
    return Scan(
        models=tuple(ScannedModel(model=one.model, accuracy=accuracy(one.predicted, one.target)) for one in answers),
        pairs=tuple(pairs),
        samples=len(answers[0].ids),
        broken=answers[0].broken,
    )


def _check_models(models: Sequence[ModelSource]) -> None:
    if len(models) < 2:
        raise SettingsError(f"a scan compares models: expected two or more, got {len(models)}")
    references = [model for model in models if isinstance(model, str)]
    for reference in references:
        if references.count(reference) > 1:
            raise SettingsError(f"the model {reference!r} is given twice: a scan compares different models")


def _free_name(name: str, answers: Sequence[Answers]) -> str:
    taken = {one.model for one in answers}
    number = 2
    free = name
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free
