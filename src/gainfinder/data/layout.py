"""Classes from folder names: shared by folders of images and by tar archives. Pure; touches no file.

Order and labels are timm's: natural sort of the lower-cased names (`timm.utils.misc.natural_key`).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..errors import DataError

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing"})
_SHARD_OF_SPLIT = re.compile(r"[-_.]\d+(-of-\d+)?$")

Folder = tuple[str, ...]
"""The folders that lead to an image, without the image's own name."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes found in folder names.

    Attributes:
        names: class names in natural order.
        labels: position in `names`, one an image.
    """

    names: tuple[str, ...]
    labels: list[int]


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sort key: timm's natural key, ties (`A`, `a`) by the text itself.

    Departure from timm: only what the pattern found counts as a number, so that a name such as `m2²` sorts too.

    Example:
        >>> sorted(["n10", "N9", "n9"], key=natural_key)
        ['N9', 'n9', 'n10']
    """
    pieces = re.split(r"(\d+)", text.lower())
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], text


def is_image_name(name: str) -> bool:
    """Whether timm counts a file of this name as an image.

    Example:
        >>> is_image_name("a/b.JPEG"), is_image_name("a/b.txt")
        (True, False)
    """
    return _extension(name) in _image_extensions()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is to be ignored: hidden ones, macOS's `._x` twins and their `__MACOSX` folder.

    Example:
        >>> is_hidden("._cat.jpg"), is_hidden("cat.jpg")
        (True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def printable(name: str) -> str:
    """The name itself, or an escaped form where the file system holds bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return name


def classes_of(folders: Sequence[Folder], *, without_images: Collection[str], where: str) -> Classes | None:
    """Classes from each image's first folder, or None if all images lie flat.

    Args:
        folders: the folders below the root that lead to each image.
        without_images: first-level folders that hold no image.
        where: name of the source that is read, for the message.

    Raises:
        DataError: images beside class folders, a class folder without images, or folders that are splits.
    """
    names = sorted({folder[0] for folder in folders if folder}, key=natural_key)
    if not names:
        return None
    flat = sum(not folder for folder in folders)
    if flat:
        raise DataError(
            f"{where}: {flat} image(s) lie beside {len(names)} class folder(s) with {len(folders) - flat} image(s), so "
            f"it is unclear whether there are classes: expected either images only or class folders only; move one away"
        )
    _refuse_split_folders(names, folders, where)
    if without_images:
        first = min(without_images, key=natural_key)
        raise DataError(
            f"{where}: the class folder {first!r} holds no image (read are {extensions()}); {len(without_images)} such "
            f"folder(s) beside {len(names)} with images; put images there or remove it"
        )
    index = {name: i for i, name in enumerate(names)}
    return Classes(names=tuple(names), labels=[index[folder[0]] for folder in folders])


def refuse_split_files(stems: Iterable[str], *, where: str, instead: str) -> None:
    """Refuse a folder whose archives are different splits of one data set: reading both would mix train and test.

    Raises:
        DataError: the names say that there are several splits.

    Example:
        >>> refuse_split_files(["train-00000-of-00002", "train-00001-of-00002"], where="x", instead="")
    """
    splits = sorted({_SHARD_OF_SPLIT.sub("", stem).lower() for stem in stems})
    if len(splits) > 1 and SPLITS.issuperset(splits):
        raise DataError(f"{where} holds several splits ({', '.join(splits)}), which must not be mixed: {instead}")


def extensions() -> str:
    """The extensions of the files that are read as images, for a message.

    Example:
        >>> extensions()
        '.png, .jpg, .jpeg'
    """
    return ", ".join(_image_extensions())


def describe_others(names: Iterable[str]) -> str:
    """The content of a folder that holds no image, for a message.

    Example:
        >>> describe_others(["a.webp", "b.webp", "c.txt"])
        'it holds 3 other file(s), mostly .webp'
        >>> describe_others([])
        'it holds no file at all'
    """
    found = Counter(_extension(name) or "without extension" for name in names)
    if not found:
        return "it holds no file at all"
    return f"it holds {found.total()} other file(s), mostly {found.most_common(1)[0][0]}"


def _image_extensions() -> tuple[str, ...]:
    """timm's, which its users can extend. Imported late: a spawned worker needs this module, but no timm."""
    from timm.data.readers import img_extensions  # noqa: PLC0415

    return tuple(img_extensions.IMG_EXTENSIONS)


def _extension(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, dot, extension = base.rpartition(".")
    return f".{extension.lower()}" if stem and dot else ""


def _refuse_split_folders(names: Sequence[str], folders: Sequence[Folder], where: str) -> None:
    splits = SPLITS.issuperset(name.lower() for name in names) and all(len(folder) > 1 for folder in folders)
    if splits:
        raise DataError(
            f"{where}: its folders ({', '.join(names)}) are splits that hold class folders, expected class folders; "
            f"give one of them, such as {where}/{names[0]}"
        )
