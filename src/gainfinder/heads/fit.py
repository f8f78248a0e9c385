"""A model gets a classifier layer for the classes of some images; all else of it stays as it is, bit by bit."""

import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Samples, SampleSource, check_broken, folds
from ..devices import default_workers, environment, resolve_device
from ..errors import SettingsError
from ..inference import ImageFeatures, align_samples, features_of, predict_samples
from ..models import (
    Classifier,
    ModelSource,
    NewHead,
    load_copy,
    load_into,
    load_model,
    load_weights,
    load_written,
    new_head,
)
from ..predictions import Predictions
from ..results import HeadMetrics, RunFolder, TriedHead, read_head, write_head, written_to
from ..runs import Callback, CallbackList, describe_model, describe_samples, save_student
from .features import kept_features
from .images import known_to, labelled_images, names_of_classes
from .softmax import LinearHead, TriedDecay, best_decay, choose_decay, fit_softmax

FOLDS = 5
"""The weight decay is chosen on a fifth of the images, on each fifth in turn where they are few."""
FEW_IMAGES = 10_000
TASK = "fit-head"

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """A model with a new head.

    Attributes:
        metrics: the measures, as in `head.json`.
        out: the folder, or None where none was requested.
        load_student: function that returns the model.
    """

    metrics: HeadMetrics
    out: Path | None
    load_student: Callable[[], Classifier] = field(repr=False)

    @functools.cached_property
    def student(self) -> Classifier:
        """The model with its new head, in evaluation mode."""
        return self.load_student()


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is to be fitted, loaded and checked.

    Attributes:
        given: the model as it was given.
        head: a copy with a blank classifier layer.
        train: images to fit to, with labels in the order of the new classes.
        val: images measured on, likewise.
        val_before: the same, with labels in the order of the given model's classes; None where it does not know them.
        val_held_out: whether they were set apart from the images that were given.
    """

    given: Classifier
    head: NewHead
    train: Samples
    val: Samples
    val_before: Samples | None
    val_held_out: bool
    weight_decay: float | None
    seed: int
    device: torch.device
    batch_size: int
    workers: int
    max_broken: float
    callback: Callback

    def predict(self, model: Classifier, images: Samples, stage: str) -> Predictions:
        """A model's predictions for the images measured on."""
        self.callback.stage(stage, len(images))
        found = predict_samples(
            model,
            images,
            device=self.device,
            batch_size=self.batch_size,
            workers=self.workers,
            max_broken=self.max_broken,
            on_images=self.callback.advance,
        )
        model.offload()
        return found


def fit_head(
    model: ModelSource,
    data: SampleSource,
    *,
    val: SampleSource | None = None,
    weight_decay: float | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_broken: float = 0.01,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    command: str | None = None,
) -> HeadResult:
    """Give a model a classifier layer for the classes of some images; the rest of it stays as it is, bit by bit.

    The layer has the images' classes, in their order and by their names, and is fitted by softmax regression on
    features, which are computed once, without augmentation, in evaluation mode. The loss is convex: there are no rate
    and no number of epochs to choose, and what the layer was before does not matter.

    Nothing passed in is changed: the model is copied.

    Args:
        model: reference, classifier or module.
        data: labelled images to fit to: a reference, `Samples`, or a data set that yields (image, label).
        val: labelled images to measure on, in full; by default a tenth of `data`, the same that a transfer sets apart.
        weight_decay: λ of λ/2 · ‖V‖², V the weights on standardised features, beside the mean loss; above 0. By default
            chosen from 10 to 1e-6 by the loss on fifths of the images that are set apart.
        seed: which images are set apart to choose it.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: images a forward pass.
        workers: processes that decode images; by default none on a CPU, else up to 16.
        max_broken: largest share of images that may be undecodable.
        out: folder for the model and `head.json`. A run killed there goes on when it is called again with the same
            arguments; a finished one returns its result. None: nothing is kept on disk.
        callbacks: notified of progress.
        command: command line that requested it, kept with the result.

    Raises:
        ModelError: the classifier layer cannot be found or replaced.
        DataError: the images carry no labels, are of one class, or too many are broken.
        SettingsError: the weight decay is not above 0, or none can be chosen for classes of one image each.
        RunFolderError: `out` holds something else, is in use, or cannot be written.
    """
    if weight_decay is not None and not 0 < weight_decay < float("inf"):
        raise SettingsError(f"`weight_decay` is {weight_decay:g}: expected a number above 0")
    where = resolve_device(device)
    given = load_copy(model)
    train, val_images = labelled_images(data, val)
    head = new_head(given, names_of_classes(train))
    task = _Task(
        given=given,
        head=head,
        train=align_samples(train, head.classifier),
        val=align_samples(val_images, head.classifier),
        val_before=known_to(given, val_images),
        val_held_out=val is None,
        weight_decay=weight_decay,
        seed=seed,
        device=where,
        batch_size=batch_size,
        workers=default_workers(where) if workers is None else workers,
        max_broken=max_broken,
        callback=CallbackList(callbacks),
    )
    if out is not None:
        return _fit_in(Path(out), task, command=command)
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as scratch:
        result = _fit_in(Path(scratch) / "head", task, command=command)
        student = replace(result.student, reference=f"{result.metrics.student} (new head)")
        kept = result.metrics.model_copy(update={"student_reference": None})
        return replace(result, out=None, metrics=kept, load_student=lambda: student)


def _fit_in(out: Path, task: _Task, *, command: str | None) -> HeadResult:
    """Fit in a folder, or find what was fitted there before."""
    with RunFolder(out) as folder:
        folder.claim(_description(task, command))
        with written_to():
            finished = read_head(out)
        if finished is not None:
            shutil.rmtree(out / "features", ignore_errors=True)  # left where a kill came right after the result
            return HeadResult(metrics=finished, out=out, load_student=lambda: _load_finished(task, finished, folder))
        return _run(task, folder)


def _description(task: _Task, command: str | None) -> dict[str, Any]:
    """What the new head depends on, with digests, and the environment."""
    return {
        "student": describe_model(task.given),
        "data": describe_samples(task.train),
        "val": {**describe_samples(task.val), "held_out": task.val_held_out},
        "settings": {"task": TASK, "weight_decay": task.weight_decay, "seed": task.seed},
        "environment": {
            **environment(task.device),
            "threads": torch.get_num_threads(),
            "workers": task.workers,
            "batch_size": task.batch_size,
            "command": command,
        },
    }


def _run(task: _Task, folder: RunFolder) -> HeadResult:
    path = folder.path
    before = None
    if task.val_before is not None:
        before = task.predict(task.given, task.val_before, "measuring the model as it is")
        before.write(folder.predictions / "before.parquet")
    started_s = time.monotonic()
    features = _features(task, path / "features")
    features_s = time.monotonic() - started_s
    task.callback.stage("fitting the head", 0)
    fitted = _fit(task, features)
    fit_s = time.monotonic() - started_s - features_s
    task.head.fill(fitted.head.weight_CD, fitted.head.bias_C)
    student = task.head.classifier
    reference = save_student(student, folder.student)
    measured = student if reference is None else load_model(reference)  # what a later command gets
    after = task.predict(measured, task.val, "measuring the model with its new head")
    after.write(folder.predictions / "after.parquet")
    assert after.target is not None
    metrics = HeadMetrics(
        student=task.given.reference,
        student_reference=reference,
        digest=student.weights_digest(),
        layer=task.head.layer,
        features=task.head.features,
        classes=student.num_classes,
        data=task.train.reference,
        samples=len(features.positions),
        val=task.val.reference,
        val_samples=len(after),
        val_held_out=task.val_held_out,
        accuracy_before=None if before is None else before.accuracy,
        accuracy_after=after.accuracy,
        log_loss_after=float(nn.functional.cross_entropy(after.logits, after.target)),
        train_accuracy=fitted.train_accuracy,
        weight_decay=fitted.weight_decay,
        tried=tuple(TriedHead(**asdict(one)) for one in fitted.tried),
        folds=fitted.folds,
        iterations=fitted.head.iterations,
        epochs=1,
        seed=task.seed,
        features_s=features_s,
        fit_s=fit_s,
        broken_images=(*features.broken, *after.broken),
        empty_classes=fitted.empty_classes,
    )
    write_head(path, metrics)
    shutil.rmtree(path / "features", ignore_errors=True)
    named = replace(student, reference=reference or f"{task.given.reference} (new head)")
    return HeadResult(metrics=metrics, out=path, load_student=lambda: named)


def _features(task: _Task, folder: Path) -> ImageFeatures:
    """The features of the images to fit to."""
    callback, images = task.callback, task.train
    callback.stage("computing features", len(images))
    found = kept_features(
        images,
        folder,
        compute=lambda part: features_of(
            task.head.classifier,
            part,
            layer=task.head.layer,
            device=task.device,
            batch_size=task.batch_size,
            workers=task.workers,
            on_images=callback.advance,
        ),
        batch_size=task.batch_size,
        on_images=callback.advance,
    )
    check_broken(found.broken, of=images, max_share=task.max_broken)
    task.head.classifier.offload()
    return found


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    head: LinearHead
    weight_decay: float
    tried: tuple[TriedDecay, ...]
    folds: int
    train_accuracy: float
    empty_classes: tuple[str, ...]


def _fit(task: _Task, features: ImageFeatures) -> _Fitted:
    """The head for these features, on the task's device where that has room for them, else on the CPU."""
    try:
        return _fit_on(task.device, task, features)
    except torch.OutOfMemoryError:
        _log.warning("the features do not fit in the device's memory; the head is fitted on the CPU")
        return _fit_on(torch.device("cpu"), task, features)


def _fit_on(device: torch.device, task: _Task, features: ImageFeatures) -> _Fitted:
    images = task.train.select(features.positions.numpy())
    assert images.labels is not None
    target_N = torch.from_numpy(images.labels)
    x_ND, y_N = features.features.to(device), target_N.to(device)
    num_classes, has_bias = task.head.classifier.num_classes, task.head.has_bias
    tried: tuple[TriedDecay, ...] = ()
    held_out: list[Tensor] = []
    decay = task.weight_decay
    if decay is None:
        held_out = [torch.from_numpy(rows).to(device) for rows in _held_out(images, seed=task.seed)]
        tried = choose_decay(x_ND, y_N, held_out, num_classes=num_classes, bias=has_bias)
        decay = best_decay(tried).weight_decay
    head = fit_softmax(x_ND, y_N, num_classes=num_classes, weight_decay=decay, bias=has_bias)
    right = head.logits(x_ND).argmax(dim=1).eq(y_N)
    return _Fitted(
        head=LinearHead(
            weight_CD=head.weight_CD.cpu(),
            bias_C=None if head.bias_C is None else head.bias_C.cpu(),
            iterations=head.iterations,
        ),
        weight_decay=decay,
        tried=tried,
        folds=len(held_out),
        train_accuracy=float(right.float().mean()),
        empty_classes=_empty_classes(images),
    )


def _held_out(images: Samples, *, seed: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Sets of images apart from which heads are fitted to choose the weight decay."""
    found = folds(images, FOLDS, salt=f"head-{seed}")
    if not found:
        raise SettingsError(
            f"{images.reference}: no class has two {images.noun}s, so none can be set apart to choose a weight decay: "
            "give `weight_decay`, such as 1"
        )
    return found if len(images) <= FEW_IMAGES else found[:1]


def _empty_classes(images: Samples) -> tuple[str, ...]:
    """Names of the classes without an image; a warning where there are any."""
    assert images.labels is not None and images.class_names is not None
    present = set(np.unique(images.labels).tolist())
    empty = tuple(name for index, name in enumerate(images.class_names) if index not in present)
    if empty:
        _log.warning(
            "%d of the %d classes have no %s to fit to (%s) and will never be predicted",
            len(empty),
            len(images.class_names),
            images.noun,
            ", ".join(empty[:3]) + (", …" if len(empty) > 3 else ""),
        )
    return empty


def _load_finished(task: _Task, metrics: HeadMetrics, folder: RunFolder) -> Classifier:
    """The model of a folder that was finished before."""
    student, weights = task.head.classifier, folder.student / "model.safetensors"
    if metrics.student_reference is not None:
        return load_written(metrics.student_reference, of=student, weights=weights, where=str(folder.result))
    load_into(student.module, load_weights(weights), reference=str(folder.student))
    return replace(student, reference=f"{task.given.reference} (new head)")
