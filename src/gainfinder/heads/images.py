"""Images that a head is fitted to and measured on, and the names of their classes."""

import numpy as np

from ..classes import match_classes
from ..data import Samples, SampleSource, load_samples
from ..errors import DataError
from ..inference import align_samples
from ..models import Classifier
from ..runs import hold_out_to_measure, note_overlap


def labelled_images(data: SampleSource, val: SampleSource | None) -> tuple[Samples, Samples]:
    """Images to fit to and to measure on, both labelled.

    Args:
        data: images to fit to.
        val: images to measure on; None for a tenth of the others, which is then not fitted to.

    Raises:
        DataError: images carry no labels, or are of one class.
    """
    train = load_samples(data)
    if train.labels is None:
        raise DataError(
            f"{train.reference}: the {train.noun}s carry no labels, and a classifier layer is fitted to labels"
        )
    if len(np.unique(train.labels)) < 2:
        raise DataError(f"{train.reference}: all {train.noun}s are of one class; expected two classes or more")
    if val is None:
        return hold_out_to_measure(train)
    val_images = load_samples(val)
    if val_images.labels is None:
        raise DataError(f"{val_images.reference}: the {val_images.noun}s carry no labels: give labelled ones as `val`")
    note_overlap(train, val_images, "measured on", "fitted to")
    return train, val_images


def names_of_classes(images: Samples) -> tuple[str, ...]:
    """The names of the new classes: the images', or their numbers where these name none.

    A model without names would get ImageNet's from some sources if it had 1000 classes.

    Raises:
        DataError: two classes have one name, or one has none.
    """
    if images.class_names is None:
        return tuple(map(str, range(images.num_classes or 0)))
    names = tuple(" ".join(name.splitlines()).strip() for name in images.class_names)  # a line each in a file
    twice = next((name for place, name in enumerate(names) if not name or name in names[:place]), None)
    if twice is not None:
        raise DataError(
            f"{images.reference}: two classes are named {twice!r}, or one has no name: models and {images.noun}s match "
            "by name, so give each class its own"
        )
    return names


def known_to(model: Classifier, images: Samples) -> Samples | None:
    """Images with labels in a model's class order; None where it does not know all of their classes by name."""
    if images.class_names is None or model.class_names is None:
        return None
    assert images.num_classes is not None
    try:
        match = match_classes(
            images.class_names,
            model.class_names,
            data=images.reference,
            model=model.reference,
            data_count=images.num_classes,
            model_count=model.num_classes,
        )
    except DataError:
        return None
    return None if match.order is None else align_samples(images, model)
