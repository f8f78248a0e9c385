"""The folder of a classifier layer that was fitted to other classes, and the format of its `head.json`.

config.json          model, images and settings, with digests; and the environment
features/            the features of the images to fit to, in parts; removed when the head is there
predictions/         after.parquet, for the images measured on, and before.parquet where the model knew their classes
student/             the model with its new head, in the form of its source
head.json            what was fitted and measured; present when it is finished
"""

from pathlib import Path

from ..files import write_json
from .documents import read_json, validated
from .metrics import Record

HEAD_FILE = "head.json"
HEAD_FORMAT = 1


class TriedHead(Record):
    """A weight decay that was tried.

    Attributes:
        weight_decay: λ, on standardised features.
        log_loss: mean over the images that were set apart, in nats.
    """

    weight_decay: float
    log_loss: float


class HeadMetrics(Record):
    """The content of `head.json`. Shares and accuracies are in [0, 1].

    Attributes:
        format_version: 1.
        student: reference of the model that was given.
        student_reference: reference of the model with its new head; null where no reference can load it.
        digest: hex digest of its weights.
        layer: name of the classifier layer.
        features: number of features that enter it.
        classes: number of its classes.
        data: reference of the images that it was fitted to.
        samples: number of these.
        val: reference of the images measured on.
        val_samples: number of these.
        val_held_out: whether they were set apart from `data`.
        accuracy_before: the given model's accuracy on them; null where it does not know their classes.
        accuracy_after: that of the model with its new head.
        log_loss_after: its log-loss there, in nats.
        train_accuracy: the new head's accuracy on the images that it was fitted to.
        weight_decay: the weight decay that was given or chosen.
        tried: the decays that were tried; none where one was given.
        folds: sets of images apart from which heads were fitted to choose it; 0 where it was given.
        iterations: iterations of L-BFGS in the last fit.
        epochs: passes over the images; 1, for features are computed once.
        seed: seed of what is set apart to choose the decay.
        features_s: seconds for the features; only those since the last start.
        fit_s: seconds to choose the decay and to fit.
        broken_images: images that could not be decoded, each with its reason.
        empty_classes: names of the classes without an image to fit to, which are never predicted.
    """

    format_version: int = HEAD_FORMAT
    student: str
    student_reference: str | None
    digest: str
    layer: str
    features: int
    classes: int
    data: str
    samples: int
    val: str
    val_samples: int
    val_held_out: bool
    accuracy_before: float | None
    accuracy_after: float
    log_loss_after: float
    train_accuracy: float
    weight_decay: float
    tried: tuple[TriedHead, ...]
    folds: int
    iterations: int
    epochs: int
    seed: int
    features_s: float
    fit_s: float
    broken_images: tuple[str, ...]
    empty_classes: tuple[str, ...]


def read_head(folder: Path) -> HeadMetrics | None:
    """What was fitted in a folder, or None where it is not finished.

    Raises:
        RunFolderError: the file is damaged.
    """
    document = read_json(folder / HEAD_FILE)
    return None if document is None else validated(HeadMetrics, document, folder / HEAD_FILE)


def write_head(folder: Path, metrics: HeadMetrics) -> None:
    """Write `head.json` atomically.

    Raises:
        RunFolderError: it cannot be written.
    """
    write_json(folder / HEAD_FILE, metrics.to_dict())
