"""A folder with `images/` and `masks/`: images with a mask each, of the same name up to its ending."""

from pathlib import Path, PurePosixPath

from ..errors import DataError
from .folder import FolderReader, open_folder
from .images import Images
from .layout import is_hidden
from .masked import masked_images

IMAGES, MASKS = "images", "masks"


def holds_masks(root: Path) -> bool:
    """Whether a folder holds the folders `images` and `masks`, and no others."""
    return {entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name)} == {IMAGES, MASKS}


def open_masked_folder(root: Path, *, reference: str, labels: bool, count_from: int = 0) -> Images:
    """Find images and their masks: `images/a/b.jpg` has the mask `masks/a/b.png`. Masks without an image are left.

    Args:
        root: a folder that `holds_masks`.
        reference: the data reference.
        labels: whether to read the masks; without, the images alone are read.
        count_from: number of the first class of masks, 0 or 1.

    Raises:
        DataError: there are no images, one has no mask or two, or a mask cannot be used.
    """
    images = open_folder(root / IMAGES, reference=reference, labels=False)
    if not labels:
        return images
    assert isinstance(images.reader, FolderReader)
    found = open_folder(root / MASKS, reference=reference, labels=False).reader
    assert isinstance(found, FolderReader)
    masks: dict[str, list[str]] = {}
    for name in found.names:
        masks.setdefault(_stem(name), []).append(name)
    own = [masks.get(_stem(name), []) for name in images.reader.names]
    for index, fitting in enumerate(own):
        if not fitting:
            raise DataError(
                f"{images.where(index)}: there is no mask for it, expected {MASKS}/{_stem(images.reader.names[index])}"
                f".png ({sum(not one for one in own)} of {len(own)} images lack one): add them, or read without labels"
            )
        if len(fitting) > 1:
            raise DataError(f"{images.where(index)}: there are several masks for it ({', '.join(fitting)}): keep one")
    reader = FolderReader(root=root / MASKS, names=tuple(fitting[0] for fitting in own))
    return masked_images(images, reader, count_from=count_from)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
