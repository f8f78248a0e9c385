"""Images with masks, whose cells have a class each: what a model of segmentation is for.

A grid lies over the whole image, of as many cells a side as a model says (`MaskedImages.on_grid`); a cell has the class
of the mask's pixel at its centre. Training learns from every cell. Measured is one cell of each image, drawn by its id:
cells of one image are not independent of each other, and every interval and test takes its samples to be.

Shapes: N images, G cells a side, P = G · G cells, row by row.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .decoding import Source, decode_mask, size_of
from .images import Images
from .samples import drawn_place
from .survey import EncodedReader
from .tagged import UNTAGGED

NO_CLASS = 255
"""The value of a mask's pixel that has no class."""
FIRST_GRID = 32
"""Cells a side until a model says how many: those that a model has where nobody gives another number."""


class MaskReader(Protocol):
    """Random access to the masks of a source, in the order of its images."""

    def source(self, index: int) -> Source:
        """The file of mask `index`, or its bytes."""
        ...

    def where(self, index: int) -> str:
        """The location of mask `index`, for a message."""
        ...


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Masks of images.

    Attributes:
        reader: gives the masks.
        images: the reader of the images, each as large as its mask.
        count_from: number of the first class: 0, or 1 where 0 means that a pixel has no class.
    """

    reader: MaskReader
    images: EncodedReader
    count_from: int = 0

    def read(self, index: int) -> NDArray[np.int16]:
        """The classes of a mask's pixels, int16 (H, W), `UNTAGGED` for none.

        Raises:
            DataError: it cannot be decoded, is no mask, or has another size than its image.
        """
        where = self.reader.where(index)
        try:
            pixels = decode_mask(self.reader.source(index))
        except Exception as error:  # whatever Pillow raises
            raise DataError(f"{where}: the mask cannot be read: {str(error) or type(error).__name__}") from error
        try:
            size = size_of(self.images.source(index))
        except Exception:  # a broken image is counted as such where it is read
            size = pixels.shape[::-1]
        if size != pixels.shape[::-1]:
            raise DataError(
                f"{where}: the mask has {pixels.shape[1]}×{pixels.shape[0]} pixels and its image {size[0]}×{size[1]}: "
                "expected a class for each pixel of the image"
            )
        classes = pixels.astype(np.int16) - self.count_from
        classes[pixels == NO_CLASS] = UNTAGGED
        return classes


@dataclass(frozen=True, kw_only=True)
class MaskedImages(Images):
    """Images whose cells have classes, where they are labelled.

    Attributes:
        grid: cells a side, G.
        cells: int64 (N,), the number of the cell that each image is measured on.
        classes: int16 (N, P), the class of each cell, `UNTAGGED` for none; None for unlabelled images.
        highest: int64 (N,), the highest class of all pixels of each mask, in the order of the source's classes.
        order: the new position of each of the source's classes, where they are in another order.
        masks: the masks; None for unlabelled images.
    """

    classified: ClassVar[str] = "cell"

    grid: int
    cells: NDArray[np.int64] = field(repr=False)
    classes: NDArray[np.int16] | None = field(default=None, repr=False)
    highest: NDArray[np.int64] | None = field(default=None, repr=False)
    order: tuple[int, ...] | None = field(default=None, repr=False)
    masks: Masks | None = field(default=None, repr=False)

    @property
    def measured_places(self) -> NDArray[np.int64]:
        """The number of the cell that each image is measured on, int64 (N,)."""
        return self.cells

    @property
    def most_places(self) -> int:
        """Cells of an image."""
        return self.grid**2

    @property
    def highest_labels(self) -> NDArray[np.int64]:
        """The highest class of each mask, int64 (N,)."""
        assert self.highest is not None
        return self.highest

    def labels_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of all cells of some images, int64 (n, P), `UNTAGGED` where there is none."""
        assert self.classes is not None
        return self.classes[indices].astype(np.int64)

    def on_grid(self, grid: int) -> Self:
        """The same images on a grid of so many cells a side; their masks are read again.

        Raises:
            DataError: a mask cannot be used, or none of an image's cells has a class.
        """
        if grid == self.grid:
            return self
        if self.masks is None:
            return replace(self, grid=grid, cells=_any_cells(self.ids, grid))
        classes, _ = _read_masks(self.masks, self.positions, grid)
        cells = _labelled_cells(classes, self.ids, self.positions, self.masks)
        classes = _reordered(classes, self.order)
        labels = classes[np.arange(len(self)), cells].astype(np.int64)
        return replace(self, grid=grid, classes=classes, cells=cells, labels=labels)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The images at these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            super().select(chosen),
            cells=self.cells[chosen],
            classes=None if self.classes is None else self.classes[chosen],
            highest=None if self.highest is None else self.highest[chosen],
        )

    def without_labels(self) -> Self:
        """The same images, their classes dropped; they are measured on the same cells."""
        return replace(super().without_labels(), classes=None, highest=None, order=None, masks=None)

    def reordered(
        self, order: tuple[int, ...] | None, *, class_names: tuple[str, ...] | None, num_classes: int
    ) -> Self:
        """The same images under other positions of their classes."""
        found = super().reordered(order, class_names=class_names, num_classes=num_classes)
        if order is None or self.classes is None:
            return found
        combined = order if self.order is None else tuple(order[position] for position in self.order)
        return replace(found, classes=_reordered(self.classes, order), order=combined)

    def digest(self) -> str:
        """Hex digest of ids and classes of all cells, in their order (not of the images)."""
        digest = hashlib.blake2b(super().digest().encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.cells, dtype="<i8").tobytes() + f"/{self.grid}/".encode())
        if self.classes is not None:
            digest.update(np.ascontiguousarray(self.classes, dtype="<i2").tobytes())
        return digest.hexdigest()


def masked_images(
    images: Images, masks: MaskReader, *, class_names: Sequence[str] | None = None, count_from: int = 0
) -> MaskedImages:
    """Images of a source with their masks, each of which is read once.

    Args:
        images: all images of the source, without labels.
        masks: gives a mask for each.
        class_names: names of the classes, where the source gives them.
        count_from: number of the first class, 0 or 1 (see `Masks`).

    Raises:
        DataError: a mask cannot be used, has a class without a name, or none of its cells has a class.
    """
    assert isinstance(images.reader, EncodedReader), "images that are encoded"
    if images.reader.upright:
        raise DataError(f"{images.reference}: orient=exif turns images and not their masks: leave it out")
    known = Masks(reader=masks, images=images.reader, count_from=count_from)
    classes, values = _read_masks(known, images.positions, FIRST_GRID)
    cells = _labelled_cells(classes, images.ids, images.positions, known)
    highest = np.array([max(own, default=0) for own in values], dtype=np.int64)
    names = None if class_names is None else tuple(class_names)
    if names is not None and len(wrong := np.flatnonzero(highest >= len(names))):
        first = int(wrong[0])
        raise DataError(
            f"{masks.where(first)}: the mask has the class {int(highest[first]) + count_from}, and the source names "
            f"{len(names)}: expected {count_from} to {len(names) - 1 + count_from}, or {NO_CLASS} for none"
        )
    found = MaskedImages.build(
        reference=images.reference,
        reader=images.reader,
        ids=images.ids,
        labels=classes[np.arange(len(images)), cells].tolist(),
        class_names=names,
        highest=int(highest.max()),
        mirrorable=images.mirrorable,
        grid=FIRST_GRID,
        cells=cells,
        classes=classes,
        masks=known,
    )
    numbers = None if names is not None else tuple(sorted(set().union(*values)))
    return replace(found, highest=highest, numbers=numbers)


def in_cells(images: Images, grid: int) -> MaskedImages:
    """Images without labels as images whose cells a model of this grid gives classes.

    Args:
        images: the images, without labels.
        grid: cells a side.
    """
    assert images.labels is None, "without labels"
    own = {one.name: getattr(images, one.name) for one in fields(Images)}
    return MaskedImages(**own, grid=grid, cells=_any_cells(images.ids, grid))


def centres(length: int, grid: int) -> NDArray[np.int64]:
    """The pixels at the centres of cells along an edge, int64 (G,); of two at one the second.

    Args:
        length: pixels of the edge.
        grid: G, cells along it.

    Example:
        >>> centres(6, 3).tolist(), centres(2, 4).tolist()
        ([1, 3, 5], [0, 0, 1, 1])
    """
    return ((2 * np.arange(grid) + 1) * length // (2 * grid)).astype(np.int64)


def _read_masks(
    masks: Masks, positions: NDArray[np.int64], grid: int
) -> tuple[NDArray[np.int16], list[frozenset[int]]]:
    """The class of each cell, (N, P), and of each mask all classes that it has."""

    classes, values = np.empty((len(positions), grid**2), dtype=np.int16), []
    for own, position in zip(classes, positions.tolist(), strict=True):
        pixels = masks.read(position)
        height, width = pixels.shape
        own[:] = pixels[np.ix_(centres(height, grid), centres(width, grid))].reshape(-1)
        values.append(frozenset(np.flatnonzero(np.bincount(pixels.reshape(-1) - UNTAGGED)[1:]).tolist()))
    return classes, values


def _labelled_cells(
    classes: NDArray[np.int16], ids: Sequence[str], positions: NDArray[np.int64], masks: Masks
) -> NDArray[np.int64]:
    """The cell that each image is measured on: one of those that have a class, by its id."""
    cells = []
    for own, name, position in zip(classes, ids, positions.tolist(), strict=True):
        known = np.flatnonzero(own != UNTAGGED)
        if not len(known):
            none = f"{NO_CLASS}" if masks.count_from == 0 else f"0 or {NO_CLASS}"
            raise DataError(
                f"{masks.reader.where(position)}: the mask gives none of its cells a class (all are {none}): drop it "
                "and its image"
            )
        cells.append(int(known[drawn_place(name, len(known))]))
    return np.array(cells, dtype=np.int64)


def _any_cells(ids: Sequence[str], grid: int) -> NDArray[np.int64]:
    return np.array([drawn_place(name, grid**2) for name in ids], dtype=np.int64)


def _reordered(classes: NDArray[np.int16], order: tuple[int, ...] | None) -> NDArray[np.int16]:
    if order is None:
        return classes
    known = np.array([*order, UNTAGGED], dtype=np.int16)  # the last is what -1 finds
    return known[classes]
