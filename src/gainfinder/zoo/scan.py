"""Run all models of a zoo on the same images, one model at a time, and compare their predictions."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data import Samples, SampleSource, load_samples
from ..devices import default_workers, environment, resolve_device
from ..errors import BadReference, DataError, ModelError, SettingsError
from ..inference import (
    ImageCount,
    align_model,
    align_samples,
    named_after,
    numbering_doubts,
    predict_samples,
    predict_top_samples,
)
from ..metrics import CHOOSE, ClassTexts, PredictedClasses, Scan, ScanFailure, scan_predictions
from ..models import Classifier, ModelSource, parse_model_ref
from ..predictions import Columns, Predictions, TopPredictions, read_columns
from ..references import suggest
from ..results import SCAN_PREDICTIONS, claim_scan_folder, write_scan
from .class_texts import TextRequest
from .kept import KeptPredictions, predicted_classes
from .sources import load_ahead

LOGITS_BYTES = 2 * 2**30
"""Logits of all models that take no more than this are kept until the end, for the ensembles of mean probabilities."""
OnModel = Callable[[str, int], ImageCount]
"""From a model's reference and the number of images to a callback for images done."""
_log = logging.getLogger("gainfinder")


def scan_models(
    models: Sequence[ModelSource],
    data: SampleSource,
    *,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    student: str | None = None,
    choose: int = CHOOSE,
    class_names: str | Path | None = None,
    class_embeddings: str | Path | None = None,
    embed: str | None = None,
    on_model: OnModel | None = None,
    out: str | Path | None = None,
    command: str | None = None,
) -> Scan:
    """Measure complementary knowledge between models; each model predicts each image once, one model at a time.

    The next model is loaded while one runs. One that cannot be loaded or run, or whose classes do not fit, is left out
    and reported with its reason. With a folder the predictions of each model are kept, and never made again: a scan
    that was stopped goes on where it was, and one of more models makes those of the new ones.

    Where the logits of all models take more than 2 GiB they are not kept: the ensembles of mean probabilities are then
    None, which is logged.

    Modules and classifiers that are passed in stay as they are; models of a name already taken are numbered.

    Args:
        models: two or more references, classifiers or modules.
        data: a data reference, `Samples`, or a data set that yields images or (image, label).
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: number of images in a forward pass.
        workers: number of processes that decode images; by default none on a CPU, else up to 16.
        max_broken: largest share of images that may be undecodable.
        student: reference of the model that teachers are chosen for, one of `models`; None for none.
        choose: number of teachers at most.
        class_names: file of class names; None for those that data and models have.
        class_embeddings: file of embeddings of the classes, for areas of expertise.
        embed: text model that embeds the classes' names, in its place.
        on_model: called before a model runs.
        out: folder for the scan as `scan.json` and `pairs.parquet`, and the predictions; one that holds a
            scan of these models, or some of them, on the same data is written anew. None keeps nothing.
        command: the command line that started it, kept with the scan.

    Raises:
        RunFolderError: `out` holds something else, or cannot be written.
        SettingsError: fewer than two models, a reference given twice, a student that is none of them, or names or
            embeddings of classes for images without labels.
        BadReference: a reference cannot be parsed.
        MissingExtra: the text model's package is not installed.
        DataError: the images' classes do not fit the first model's; or names or embeddings do not fit the classes.
        ModelError: fewer than two models could be run, or the text model could not.
    """
    _check_models(models, student=student)
    images = load_samples(data)
    request = TextRequest.of(
        class_names=class_names, class_embeddings=class_embeddings, embed=embed, labelled=images.labels is not None
    )
    where = resolve_device(device)
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_scan_folder(folder, models=[name_of(source) for source in models], data=images.reference)
    work = Scanning(
        images=images,
        count=len(models),
        device=where,
        batch_size=batch_size,
        workers=default_workers(where) if workers is None else workers,
        max_broken=max_broken,
        on_model=on_model,
        request=request,
        folder=None if folder is None else folder / SCAN_PREDICTIONS,
    )
    for source, loaded in load_ahead(models):
        if isinstance(loaded, Classifier):
            work.add(loaded, name=name_of(source))
            work.find_texts()
        else:
            work.fail(name_of(source), loaded)
    scan = work.scan(student=student, choose=choose)
    if folder is not None:
        about = {
            "data": images.reference,
            "asked": [name_of(source) for source in models],
            "environment": {**environment(where), "command": command},
        }
        write_scan(folder, {**scan.to_dict(), **about})
    return scan


def scan_folder_of_predictions(
    folder: str | Path,
    *,
    device: str = "auto",
    student: str | None = None,
    choose: int = CHOOSE,
    class_names: str | Path | None = None,
    class_embeddings: str | Path | None = None,
    embed: str | None = None,
) -> Scan:
    """Measure complementary knowledge between models from their predictions alone, without models or images.

    Args:
        folder: a folder of Parquet files as `gainfinder predict` writes them, or a scan leaves them in `predictions/`:
            each of the same images and classes, in any order of the images; with labels, or all without.
        device: where a text model runs.
        student: the model, as its file names it, that teachers are chosen for; None for none.
        choose: number of teachers at most.
        class_names: as in `scan_models`, and the following.
        class_embeddings: file of embeddings of the classes.
        embed: text model that embeds the classes' names.

    Raises:
        SettingsError: the student is none of the models, or names or embeddings are given without labels.
        BadReference: the text model's reference cannot be parsed.
        MissingExtra: its package is not installed.
        ModelError: it cannot be loaded.
        DataError: there are fewer than two files, or they are not of the same images, labels and classes; or names or
            embeddings do not fit these.
    """
    found, names = read_folder(Path(folder))
    target_N = found[0].target
    request = TextRequest.of(
        class_names=class_names, class_embeddings=class_embeddings, embed=embed, labelled=target_N is not None
    )
    texts = None
    if target_N is not None:
        texts = request.texts(names, _present(target_N, len(names)), device=resolve_device(device))
    return scan_predictions(found, num_classes=len(names), texts=texts, student=student, choose=choose)


def read_folder(folder: Path) -> tuple[list[PredictedClasses], tuple[str, ...]]:
    """The predictions in a folder, in the order of the first file's images, and the names of the classes.

    Args:
        folder: as `scan_folder_of_predictions` takes it.

    Raises:
        DataError: there are fewer than two files, or they are not of the same images, labels and classes.
    """
    paths = sorted(folder.glob("*.parquet"))
    if len(paths) < 2:
        raise DataError(
            f"{folder}: {len(paths)} files of predictions (*.parquet); expected two or more, as `gainfinder predict` "
            "writes them"
        )
    found: list[PredictedClasses] = []
    names: tuple[str, ...] = ()
    keep_logits = True
    for path in paths:
        columns = read_columns(path)
        own = _classes(columns)
        if not found:
            names, keep_logits = (
                own,
                _logits_fit(models=len(paths), images=len(columns.ids), classes=len(own), noun=columns.noun),
            )
        elif own != names:
            raise DataError(f"{path}: has other classes than {paths[0]}, or another order of them")
        one = predicted_classes(columns, keep_logits=keep_logits)
        if found:
            one = _in_order(one, found[0], path, paths[0])
        found.append(replace(one, model=_free_name(one.model, [other.model for other in found])))
    return found, names


@dataclass(kw_only=True)
class Scanning:
    """The models of a zoo, run one after another on the same images; see `scan_models` for the settings."""

    images: Samples
    count: int
    device: torch.device
    batch_size: int
    workers: int
    max_broken: float
    on_model: OnModel | None
    folder: Path | None
    request: TextRequest | None = None
    first: Classifier | None = None
    as_given: Samples | None = None
    kept: KeptPredictions | None = None
    keep_logits: bool = True
    texts: ClassTexts | None = None
    predicted: list[PredictedClasses] = field(default_factory=list)
    failed: list[ScanFailure] = field(default_factory=list)

    def add(self, loaded: Classifier, *, name: str) -> None:
        """Predict with a model, or find that it was done before."""
        try:
            classifier = self._aligned(loaded)
            classifier = replace(
                classifier, reference=_free_name(classifier.reference, [one.model for one in self.predicted])
            )
            if self.kept is None:
                self.predicted.append(PredictedClasses.of(self._predict(classifier), keep_logits=self.keep_logits))
            else:
                self.predicted.append(self.kept.of(classifier, partial(self._predict_to_keep, classifier)))
        except (ModelError, SettingsError) as error:  # it does not fit, fails or needs too much memory
            self.fail(name, error)

    def find_texts(self) -> None:
        """What the classes are called, as soon as they are known: what does not fit ends the scan when it begins."""
        if self.request is None or self.images.labels is None:
            return
        if self.texts is None and self.first is not None:
            self.texts = self.request.texts(
                self.first.class_names,
                _present(torch.from_numpy(self.images.labels), self.first.num_classes),
                device=self.device,
            )

    def fail(self, name: str, error: Exception) -> None:
        """Leave a model out."""
        _log.warning("left out: %s", error if str(error).startswith(name) else f"{name}: {error}")
        self.failed.append(ScanFailure(model=name, reason=str(error)))

    def scan(self, *, student: str | None, choose: int) -> Scan:
        """The comparison of all that ran."""
        if len(self.predicted) < 2 or self.first is None:
            reasons = "; ".join(one.reason for one in self.failed)
            raise ModelError(
                f"a scan compares models, and {len(self.predicted)} of {self.count} could be run: {reasons}"
            )
        found = scan_predictions(
            self.predicted,
            num_classes=self.first.num_classes,
            texts=self.texts,
            student=student,
            choose=choose,
        )
        return replace(found, failed=tuple(self.failed))

    def _aligned(self, loaded: Classifier) -> Classifier:
        """In the class order of the first model, which is also that of the images' labels then."""
        if self.first is not None:
            self._note_numbering(loaded)
            found = align_model(loaded, self.first)
            assert isinstance(found, Classifier), "only a table stays a table"
            return found
        first = named_after(loaded, self.images)
        self.as_given = self.images
        self.images = align_samples(self.images, first)
        self.first = first
        self.keep_logits = _logits_fit(
            models=self.count, images=len(self.images), classes=first.num_classes, noun=self.images.noun
        )
        if self.folder is not None:
            self.kept = KeptPredictions(self.folder, self.images, whole=self.keep_logits)
        return first

    def _note_numbering(self, loaded: Classifier) -> None:
        """Tell, once, where the images' labels would be others by a model's own order of classes."""
        if self.as_given is None or self.first is None:
            return
        if (doubt := numbering_doubts([self.as_given], self.first, [loaded])) is not None:
            _log.warning(doubt)
            self.as_given = None

    def _predict(self, classifier: Classifier) -> Predictions:
        return predict_samples(classifier, self.images, **self._how(classifier))

    def _predict_to_keep(self, classifier: Classifier, *, top_k: int | None) -> Predictions | TopPredictions:
        if top_k is None:
            return self._predict(classifier)
        return predict_top_samples(classifier, self.images, top_k=top_k, **self._how(classifier))

    def _how(self, classifier: Classifier) -> dict[str, Any]:
        return {
            "device": self.device,
            "batch_size": self.batch_size,
            "workers": self.workers,
            "max_broken": self.max_broken,
            "on_images": None if self.on_model is None else self.on_model(classifier.reference, len(self.images)),
        }


def _classes(found: Columns) -> tuple[str, ...]:
    """The names of a file's classes, or their numbers."""
    if found.num_classes is None:
        raise DataError(
            f"{found.where}: does not say how many classes there are; expected a file of gainfinder predict"
        )
    return found.class_names or tuple(map(str, range(found.num_classes)))


def _in_order(found: PredictedClasses, first: PredictedClasses, path: Path, first_path: Path) -> PredictedClasses:
    """Predictions in the order of the first file's images."""
    row_of = {sample_id: row for row, sample_id in enumerate(found.ids)}
    if row_of.keys() != set(first.ids):
        missing = next(iter(row_of.keys() ^ set(first.ids)))
        raise DataError(f"{path} and {first_path} are not of the same {first.noun}s: only one of them has {missing!r}")
    rows = torch.tensor([row_of[sample_id] for sample_id in first.ids])
    if (found.target is None) != (first.target is None):
        without, other = (path, first_path) if found.target is None else (first_path, path)
        raise DataError(f"{without} has no labels, and {other} has; expected both alike")
    target_N = None if found.target is None else found.target[rows]
    if target_N is not None and first.target is not None and not torch.equal(target_N, first.target):
        raise DataError(f"{path} and {first_path} have other labels for the same {first.noun}s")
    return replace(found, ids=first.ids, answers=found.answers.of_rows(rows), target=target_N)


def _present(target_N: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Which classes have images, bool (C,)."""
    return torch.bincount(target_N, minlength=num_classes) > 0


def name_of(source: ModelSource) -> str:
    """What a model is called before it is loaded."""
    return source if isinstance(source, str) else str(getattr(source, "reference", type(source).__name__))


def _logits_fit(*, models: int, images: int, classes: int, noun: str) -> bool:
    size = 4 * models * images * classes
    if size > LOGITS_BYTES:
        _log.warning(
            "the ensembles of mean probabilities are left out: the logits of %d models for %d %ss take %.1f GiB, "
            "more than the %.1f GiB that are kept; give fewer of either",
            models,
            images,
            noun,
            size / 2**30,
            LOGITS_BYTES / 2**30,
        )
    return size <= LOGITS_BYTES


def _check_models(models: Sequence[ModelSource], *, student: str | None) -> None:
    if len(models) < 2:
        raise SettingsError(f"a scan compares models: expected two or more, got {len(models)}")
    check_references(models)
    names = [name_of(source) for source in models]
    if student is not None and student not in names:
        raise SettingsError(
            f"student is {student!r}, which is none of the {len(models)} models given{suggest(student, names)}"
        )


def check_references(models: Sequence[ModelSource]) -> None:
    """Find out before any model runs whether each is given once, and is a model.

    Raises:
        SettingsError: a reference is given twice.
        BadReference: one cannot be parsed, or names a table of predictions.
    """
    references = [model for model in models if isinstance(model, str)]
    seen: set[str] = set()
    for reference in references:
        if reference in seen:
            raise SettingsError(f"the model {reference!r} is given twice: different models are compared")
        seen.add(reference)
        if parse_model_ref(reference).source == "table":  # found before any model runs
            raise BadReference(
                f"{reference!r} is a table of predictions, no model: these are compared in a folder of their own"
            )


def _free_name(name: str, taken: Sequence[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free
