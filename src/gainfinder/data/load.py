"""Loading: a data reference or a data set object becomes `Images`."""

import os
from typing import Any

from .images import Images
from .opening import open_source
from .reference import parse_data_ref
from .sampling import part

ImageSource = Any
"""A data reference, `Images`, or an object with `__len__` and `__getitem__` that gives images or (image, label)."""


def load_images(source: ImageSource, *, labels: bool = True) -> Images:
    """Images of a source, with stable ids.

    Args:
        source: a reference (a folder, a `.tar`, a `.parquet`, a folder of either, `digits`, `hfds/NAME?split=…`,
            `torch/NAME?split=…&root=…`, each with an optional `#k/n` for one of n parts), `Images`, or any data set
            object with `__len__` and `__getitem__`.
        labels: whether to read or derive labels.

    Raises:
        BadReference: the reference cannot be parsed, or a setting is unknown.
        DataError: the source does not exist or cannot be used.
        MissingExtra: an optional package is missing.

    Example:
        >>> len(load_images("digits")), load_images("digits#1/2", labels=False).labels
        (1797, None)
    """
    if isinstance(source, Images):
        return source if labels else source.without_labels()
    if isinstance(source, str | os.PathLike):
        ref = parse_data_ref(os.fspath(source))
        images = open_source(ref, labels=labels)
        return part(images, *ref.part) if ref.part else images
    from .dataset import images_from_dataset  # noqa: PLC0415

    return images_from_dataset(source, labels=labels)
