"""Loading: a data reference or a data set object becomes `Samples`: images or texts."""

import os
from typing import Any

from ..errors import DataError
from .images import Images
from .opening import open_source
from .reference import parse_data_ref
from .samples import Samples
from .sampling import part

SampleSource = Any
"""A data reference, `Samples`, or an object with `__len__` and `__getitem__` that gives images or texts, or a tuple of
one and its label."""


def load_samples(source: SampleSource, *, labels: bool = True) -> Samples:
    """Images or texts of a source, with stable ids.

    Args:
        source: a reference (of images a folder, a `.tar`, a `.parquet`, a folder of either, `digits`,
            `torch/NAME?split=…&root=…`; of texts a `.csv`, `.tsv`, `.jsonl` or `.parquet`; of both `hfds/NAME?split=…`;
            each with an optional `#k/n` for one of n parts), `Samples`, or any data set object with `__len__` and
            `__getitem__`.
        labels: whether to read or derive labels.

    Raises:
        BadReference: the reference cannot be parsed, or a setting is unknown.
        DataError: the source does not exist or cannot be used.
        MissingExtra: an optional package is missing.

    Example:
        >>> len(load_samples("digits")), load_samples("digits#1/2", labels=False).labels
        (1797, None)
    """
    if isinstance(source, Samples):
        return source if labels else source.without_labels()
    if isinstance(source, str | os.PathLike):
        ref = parse_data_ref(os.fspath(source))
        images = open_source(ref, labels=labels)
        return part(images, *ref.part) if ref.part else images
    from .dataset import samples_of_dataset  # noqa: PLC0415

    return samples_of_dataset(source, labels=labels)


def load_images(source: SampleSource, *, labels: bool = True) -> Images:
    """As `load_samples`, of images alone.

    Raises:
        DataError: the source holds texts, or cannot be used.

    Example:
        >>> load_images("digits").class_names[:3]
        ('0', '1', '2')
    """
    found = load_samples(source, labels=labels)
    if not isinstance(found, Images):
        raise DataError(f"{found.reference}: holds {found.noun}s, expected images; `load_samples` reads both")
    return found
