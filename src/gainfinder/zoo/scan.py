"""Run all models of a zoo on the same images, one model at a time, and compare their predictions."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..data import ImageSource, load_images
from ..devices import default_workers, environment, resolve_device
from ..errors import DataError, SettingsError
from ..inference import ImageCount, align_images, align_model, named_after, predict_images
from ..metrics import PredictedClasses, Scan, scan_predictions
from ..models import Classifier, ModelSource, load_copy
from ..results import claim_scan_folder, write_scan

LOGITS_BYTES = 2 * 2**30
"""Logits of all models that take no more than this are kept until the end, for the ensembles of mean probabilities."""
_log = logging.getLogger("gainfinder")


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
    """Measure complementary knowledge between models; each model predicts each image once, one model at a time.

    Where the logits of all models take more than 2 GiB they are not kept: the ensembles of mean probabilities are then
    None, which is logged.

    Modules and classifiers that are passed in stay as they are; models of a name already taken are numbered.

    Args:
        models: two or more references, classifiers or modules.
        data: a data reference, `Images`, or a data set that yields (image, label).
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: number of images in a forward pass.
        workers: number of processes that decode images; by default none on a CPU, else up to 8.
        max_broken: largest share of images that may be undecodable.
        on_model: function of a model's reference and the number of images that returns a callback for images done.
        out: folder for the scan as `scan.json`; one that holds the same scan is written anew. None
            keeps nothing.
        command: the command line that started it, kept with the scan.

    Raises:
        RunFolderError: `out` holds something else, or cannot be written.
        SettingsError: fewer than two models, or a reference given twice.
        DataError: the images carry no labels, or their classes do not fit the models'.
        ModelError: a model's classes cannot be matched to those of the first.
    """
    _check_models(models)
    images = load_images(data)
    if images.labels is None:
        raise DataError(f"{images.reference}: a scan needs labels to tell who is right; these images carry none")
    where = resolve_device(device)
    first = named_after(load_copy(models[0]), images)
    images = align_images(images, first)
    requested = [
        source if isinstance(source, str) else getattr(source, "reference", type(source).__name__) for source in models
    ]
    if out is not None:
        claim_scan_folder(Path(out), models=requested, data=images.reference)
    keep_logits = _logits_fit(models=len(models), images=len(images), classes=first.num_classes)
    predicted: list[PredictedClasses] = []
    for number, source in enumerate(models):
        classifier = first if number == 0 else align_model(load_copy(source), first)
        assert isinstance(classifier, Classifier), "only a table stays a table"
        classifier = replace(classifier, reference=_free_name(classifier.reference, [one.model for one in predicted]))
        found = predict_images(
            classifier,
            images,
            device=where,
            batch_size=batch_size,
            workers=default_workers(where) if workers is None else workers,
            max_broken=max_broken,
            on_images=None if on_model is None else on_model(classifier.reference, len(images)),
        )
        predicted.append(PredictedClasses.of(found, keep_logits=keep_logits))
    scan = scan_predictions(predicted, num_classes=first.num_classes)
    if out is not None:
        about = {
            "data": images.reference,
            "asked": requested,
            "environment": {**environment(where), "command": command},
        }
        write_scan(Path(out), {**scan.to_dict(), **about})
    return scan


def _logits_fit(*, models: int, images: int, classes: int) -> bool:
    size = 4 * models * images * classes
    if size > LOGITS_BYTES:
        _log.warning(
            "the ensembles of mean probabilities are left out: the logits of %d models for %d images take %.1f GiB, "
            "more than the %.1f GiB that are kept; give fewer models or images",
            models,
            images,
            size / 2**30,
            LOGITS_BYTES / 2**30,
        )
    return size <= LOGITS_BYTES


def _check_models(models: Sequence[ModelSource]) -> None:
    if len(models) < 2:
        raise SettingsError(f"a scan compares models: expected two or more, got {len(models)}")
    references = [model for model in models if isinstance(model, str)]
    for reference in references:
        if references.count(reference) > 1:
            raise SettingsError(f"the model {reference!r} is given twice: a scan compares different models")


def _free_name(name: str, taken: Sequence[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free
