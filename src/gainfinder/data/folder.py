"""A folder of class folders (labelled), or a flat folder of images (unlabelled)."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..classes import natural_key
from ..errors import DataError
from ..references import shown
from .decoding import decode
from .images import Images
from .layout import (
    MOST_LEVELS,
    classes_of,
    describe_others,
    extensions,
    is_hidden,
    is_image_name,
    note_deeper,
    note_lone_folder,
    note_passed_over,
    printable,
    refuse_split_folders,
)

_log = logging.getLogger("gainfinder")
_MOST_VISITS = 100
"""Most ways by which links may lead to one folder: a few links, each to the next, can make millions."""


@dataclass(frozen=True, kw_only=True)
class FolderReader:
    """Images that are files below one folder.

    Attributes:
        root: the folder.
        names: path of each image relative to the folder, with `/`.
        upright: whether images are turned as their EXIF orientation says.
    """

    root: Path
    names: tuple[str, ...]
    upright: bool = False

    def read(self, index: int) -> Image.Image:
        """Image `index`, fully decoded, RGB."""
        return decode(self.source(index), upright=self.upright)

    def source(self, index: int) -> Path:
        """The file of image `index`."""
        return self.root / self.names[index]

    def where(self, index: int) -> str:
        """The image's path."""
        return printable(str(self.root / self.names[index]))


def open_folder(root: Path, *, reference: str, labels: bool, upright: bool = False) -> Images:
    """Find the images of a folder. The class is the first folder level, images are found recursively below it.

    Departure from timm, which takes the last level (`a/left`, `b/left` would become one class). On plain class
    folders classes, labels and order are the same. Symbolic links are followed, hidden files and what systems leave
    behind are ignored, and other files that are not read are told.

    Args:
        root: an existing folder.
        reference: the data reference.
        labels: whether to derive labels from folder names.
        upright: whether to turn images as their EXIF orientation says.

    Raises:
        DataError: no images, images beside class folders, a class folder without images, folders that are splits, that
            lie too deep or that cannot be read.
    """
    files = list(_files(root))
    names = sorted((name for name in files if is_image_name(name)), key=natural_key)
    if not names:
        raise DataError(
            f"{root}: no images found (read are {extensions()}): {describe_others(files)}; "
            "give a folder of class folders or of images"
        )
    paths = [tuple(name.split("/")[:-1]) for name in names]
    refuse_split_folders(paths, where=str(root), labels=labels, instead=f"give one of them, such as {root}/")
    classes = None
    if labels:
        folders = {entry.name for entry in root.iterdir() if not is_hidden(entry.name) and entry.is_dir()}
        classes = classes_of(paths, without_images=folders - {path[0] for path in paths if path}, where=str(root))
    others = note_passed_over(
        (name for name in files if not is_image_name(name)), where=str(root), beside=f"{len(names)} image(s)"
    )
    lone = None if classes is None else note_lone_folder(paths, where=str(root))
    deeper = None if classes is None else note_deeper(paths, where=str(root))
    for note in (others, lone, deeper):
        if note is not None:
            _log.warning(note)
    return Images.build(
        reference=reference,
        reader=FolderReader(root=root, names=tuple(names), upright=upright),
        ids=[printable(name) for name in names],
        labels=None if classes is None else classes.labels,
        class_names=None if classes is None else classes.names,
    )


def holds_images(root: Path) -> bool:
    """Whether an image lies anywhere below a folder; stops at the first.

    Raises:
        DataError: a folder without access.
    """
    return any(is_image_name(name) for name in _files(root))


def _files(root: Path) -> Iterator[str]:
    """Files below a folder, relative to it."""
    return _below(root, "", frozenset({os.path.realpath(root)}), Counter())


def _below(folder: Path | str, prefix: str, above: frozenset[str], visits: Counter[str]) -> Iterator[str]:
    """`above` are the real folders on the way, against circular links; `visits` count how often each was come to."""
    if len(above) > MOST_LEVELS:
        raise DataError(
            f"{shown(str(folder))}: lies more than {MOST_LEVELS} folders deep; give one of the folders above it"
        )
    try:
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.path, entry.is_dir()) for entry in found if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{shown(str(folder))}: the folder cannot be read ({error.strerror})") from error
    for name, path, is_folder in entries:
        if not is_folder:
            yield prefix + name
        elif (real := os.path.realpath(path)) not in above:
            visits[real] += 1
            if visits[real] > _MOST_VISITS:
                raise DataError(
                    f"{shown(real)}: links lead to it on more than {_MOST_VISITS} ways; give it without them"
                )
            yield from _below(path, f"{prefix}{name}/", above | {real}, visits)
