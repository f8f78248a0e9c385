"""Any map-style data set object as `Samples`: `Images`, or `Texts` where its items begin with text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .images import Images
from .labels import describe_label, integer_vector
from .samples import Samples
from .texts import is_text_item, texts_of_dataset

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, kw_only=True)
class DatasetReader:
    """Items of a data set object.

    Attributes:
        dataset: a map-style data set; an item is an image, or a tuple that begins with one.
        name: name of the data set in messages.
    """

    dataset: Any
    name: str

    def read(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        item = self.dataset[index]
        return to_pil(item[0] if isinstance(item, tuple | list) else item, where=self.where(index)).convert("RGB")

    def where(self, index: int) -> str:
        """The data set's name and the item's index."""
        return f"{self.name}: item {index}"


def samples_of_dataset(
    dataset: Any, *, name: str | None = None, class_names: Sequence[str] | None = None, labels: bool = True
) -> Samples:
    """Wrap an object with `__len__` and `__getitem__`, such as a torchvision data set or a `Subset` of one.

    Args:
        dataset: a data set whose items are (image, label), or an image alone. An image is a PIL image; uint8 of shape
            (H, W), (H, W, C) or (C, H, W); or floats in [0, 1]. Where a shape fits both orders, tensors are taken for
            (C, H, W) and arrays for (H, W, C). A random transform makes evaluation random: leave it to gainfinder.
            In an image's place an item may have a text, or a tuple of two.
        name: name of the data set; its class's name by default.
        class_names: class names; its `classes` by default, if these are strings.
        labels: whether to read labels.

    Returns:
        Samples with the ids `0000000`, `0000001`, …; labels from its `targets` or `labels` where these are integers of
        the right number, otherwise from one pass over the items.

    Raises:
        DataError: no random access, or labels that are not integers.
    """
    name = name or type(dataset).__name__
    stream = any(base.__name__ == "IterableDataset" for base in type(dataset).__mro__)  # torch's inherits __getitem__
    if stream or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{name}: expected a data set with __len__ and __getitem__, got {type(dataset).__name__}; streams have no "
            "random access, so save the images to a folder, .tar shards or Parquet"
        )
    found = dataset_labels(dataset, name=name) if labels else None
    names = None if found is None else class_names or dataset_class_names(dataset)
    if _begins_with_text(dataset):
        return texts_of_dataset(dataset, name=name, labels=found, class_names=names)
    reader = DatasetReader(dataset=dataset, name=name)
    ids = [f"{i:07d}" for i in range(len(dataset))]
    return Images.build(reference=name, reader=reader, ids=ids, labels=found, class_names=names)


def _begins_with_text(dataset: Any) -> bool:
    try:
        return len(dataset) > 0 and is_text_item(dataset[0])
    except Exception:  # a broken image, whatever the data set raises
        return False


def dataset_labels(dataset: Any, *, name: str) -> list[int] | None:
    """Labels of a data set object, read without decoding images where it lists them; None if its items have none.

    Raises:
        DataError: a label is no integer, or an item that holds it cannot be read.
    """
    known = _listed_labels(dataset)
    return _labels_of_items(dataset, name) if known is None else known


def dataset_class_names(dataset: Any) -> list[str] | None:
    """`dataset.classes`, if these are strings (torchvision's ImageNet has tuples of synonyms, which are joined)."""
    if _is_subset(dataset):
        return dataset_class_names(dataset.dataset)
    classes = getattr(dataset, "classes", None)
    if not isinstance(classes, list | tuple) or not classes:
        return None
    names = [", ".join(name) if isinstance(name, tuple) else name for name in classes]
    return names if all(isinstance(name, str) for name in names) else None


def to_pil(image: Any, *, where: str) -> Image.Image:
    """An image of any of the forms that `samples_of_dataset` takes.

    Raises:
        DataError: another type, shape or range. Not a broken image: all items of the data set will be alike.
    """
    if isinstance(image, Image.Image):
        return image
    is_tensor = hasattr(image, "detach")
    if is_tensor:
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"{where}: expected a PIL image, an array or a tensor, got {type(image).__name__}; items must be images or "
            "(image, label)"
        )
    pixels = _as_bytes(image, where)
    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    if pixels.ndim != 3 or not {pixels.shape[0], pixels.shape[-1]} & set(_CHANNELS):
        raise DataError(f"{where}: shape {image.shape} is no image: expected (H, W), (H, W, C) or (C, H, W)")
    fits_first_choice = pixels.shape[0 if is_tensor else -1] in _CHANNELS
    if fits_first_choice == is_tensor:
        pixels = pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _as_bytes(image: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise DataError(f"{where}: pixels of type {image.dtype}: expected uint8, or floats in [0, 1]")
    if image.size and not (image.min() >= 0 and image.max() <= 1):
        raise DataError(
            f"{where}: pixels from {image.min():.3g} to {image.max():.3g}, expected [0, 1]: it looks normalised; "
            "models normalise for themselves, so drop Normalize from the dataset's transform"
        )
    return np.round(image * 255).astype(np.uint8)


def _is_subset(dataset: Any) -> bool:
    return hasattr(dataset, "dataset") and hasattr(dataset, "indices")


def _listed_labels(dataset: Any) -> list[int] | None:
    if _is_subset(dataset):
        inner = _listed_labels(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    if getattr(dataset, "target_transform", None) is not None:
        return None  # the list holds what the transform has not seen yet
    for attribute in ("targets", "labels"):
        found = integer_vector(getattr(dataset, attribute, None), length=len(dataset))
        if found is not None:
            return found
    for attribute in ("samples", "index"):  # torchvision's DatasetFolder; INaturalist: (category, file name)
        found = _paired_labels(getattr(dataset, attribute, None), len(dataset), position=attribute == "samples")
        if found is not None:
            return found
    return None


def _paired_labels(pairs: Any, length: int, *, position: bool) -> list[int] | None:
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return None
    return integer_vector([pair[int(position)] for pair in pairs], length=length)


def _labels_of_items(dataset: Any, name: str) -> list[int] | None:
    labels: list[int] = []
    for i in range(len(dataset)):
        try:
            item = dataset[i]
        except Exception as error:
            raise DataError(
                f"{name}: item {i} cannot be read ({error}), so its label is unknown; give the data set a "
                "list `targets`"
            ) from error
        if not isinstance(item, tuple | list) or len(item) < 2:
            if labels:
                raise DataError(f"{name}: item {i} has no label although earlier ones have; expected (image, label)")
            return None
        label = integer_vector([_plain(item[1])], length=1)
        if label is None:
            raise DataError(
                f"{name}: the label of item {i} is {describe_label(item[1])}, expected an integer; "
                "pass labels=False to leave labels out"
            )
        labels += label
    return labels


def _plain(label: Any) -> Any:
    """Zero-dimensional tensors and arrays as numbers."""
    return label.item() if getattr(label, "shape", None) == () else label
