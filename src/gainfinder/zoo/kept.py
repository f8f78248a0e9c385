"""Predictions that a scan keeps: a file a model, named by a digest of what they are of, never made again.

The file is Parquet as `gainfinder predict` writes it: of all classes where the logits of the whole zoo are small enough
to be compared in memory, else of the most probable ones.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from ..data import Samples
from ..errors import DataError, NotFinite
from ..metrics import Answers, PredictedClasses
from ..models import Classifier
from ..predictions import Columns, Predictions, TopPredictions, check_logits, read_columns, write_predictions

TOP_K = 10
"""Classes of each image that are kept where all are too many."""


class Predict(Protocol):
    """Makes a model's predictions for the images, of all classes (None) or so many of the most probable."""

    def __call__(self, *, top_k: int | None) -> Predictions | TopPredictions: ...


class KeptPredictions:
    """A folder of predictions for some images.

    Args:
        folder: made with the first file.
        images: the images, with labels or without.
        whole: whether the logits of all classes are kept, and wanted.
    """

    def __init__(self, folder: Path, images: Samples, *, whole: bool) -> None:
        self.folder = folder
        self.images = images
        self.whole = whole

    def of(self, classifier: Classifier, predict: Predict) -> PredictedClasses:
        """A model's predictions from its file, which is written first where it is not there, or damaged.

        Args:
            classifier: the model.
            predict: makes its predictions for the images.

        Raises:
            RunFolderError: the file cannot be written.
            GainfinderError: whatever `predict` raises.
        """
        path = self._path(classifier)
        found = self._read(path)
        if found is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_predictions(predict(top_k=None if self.whole else TOP_K), path)
            # Read again: of the most probable classes alone, so that a scan that goes on finds the same numbers.
            found = predicted_classes(read_columns(path), keep_logits=self.whole)
        return replace(found, model=classifier.reference)

    def _path(self, classifier: Classifier) -> Path:
        """The file of a model: a digest of weights, structure, preprocessing, classes, images and their labels."""
        text = f"{classifier.fingerprint(precision='no')}/{self.images.fingerprint}"
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.parquet"

    def _read(self, path: Path) -> PredictedClasses | None:
        """The predictions in a file, whole where that is wanted; a damaged one counts as none."""
        if not path.exists():
            return None
        try:
            found = predicted_classes(read_columns(path), keep_logits=self.whole)
        except DataError:
            return None
        return None if self.whole and found.answers.logits_NC is None else found


def predicted_classes(found: Columns, *, keep_logits: bool = True) -> PredictedClasses:
    """What a scan compares of a file of predictions.

    Args:
        found: a file as gainfinder writes it, of all classes or the most probable.
        keep_logits: whether the logits are kept, where the file has those of all classes.

    Raises:
        DataError: the file is not such a file.
    """
    if not isinstance(found.about.get("model"), str):
        raise DataError(f"{found.where}: does not say of which model; expected a file that `gainfinder predict` made")
    target = None if found.target is None else torch.from_numpy(found.target)
    about = found.about
    if found.classes is None and found.kind == "logits":
        whole = Predictions(model=about["model"], ids=found.ids, logits=torch.from_numpy(found.values), target=target)
        _check(found, whole.logits)
        answers = Answers.of(whole, keep_logits=keep_logits)
    else:
        answers = _first(found)
    return PredictedClasses(
        model=about["model"],
        ids=found.ids,
        answers=answers,
        target=target,
        broken=tuple(about.get("broken") or ()),
        noun=found.noun,
    )


def _first(found: Columns) -> Answers:
    """The first class listed, which is the most probable, and its probability."""
    if found.classes is None or found.kind != "log_probs":
        raise DataError(f"{found.where}: expected logits of all classes, or log_probs of the most probable ones")
    first_N = torch.from_numpy(found.values[:, 0])
    _check(found, first_N[:, None])
    return Answers(predicted_N=torch.from_numpy(found.classes[:, 0].astype("int64")), confidence_N=first_N.exp())


def _check(found: Columns, logits_NC: torch.Tensor) -> None:
    """Refuse values that give no probabilities."""
    try:
        check_logits(logits_NC, model=str(found.where), noun=found.noun)
    except NotFinite as error:
        raise DataError(f"{error} Predict again with a sound model") from error
