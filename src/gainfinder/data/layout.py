"""Classes from folder names: shared by folders of images and by tar archives. Pure; touches no file.

Order and labels are timm's: natural sort of the lower-cased names (`timm.utils.misc.natural_key`).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..classes import natural_key
from ..errors import DataError

SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing", "trainval"}
    | {"unlabeled", "unlabelled", "extra", "holdout"}
)
_CONTAINERS = frozenset(
    {"images", "image", "imgs", "img", "pictures", "pics", "photos", "jpegimages", "jpegs", "jpg", "pngs", "png"}
    | {"data", "dataset", "samples", "all", "classes"}
)
"""Names of folders that hold images of all classes, other than splits."""
_LITTER = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information"}
    | {"thumbs.db", "desktop.ini", "__pycache__"}
)
"""What operating systems and network storage leave in folders."""
_PILLOW_DECODES = (
    *(".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jfif", ".jpe", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".avif", ".apng", ".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".tga", ".pcx", ".qoi", ".sgi"),
)
"""Endings of pictures made of pixels, among them all that torchvision's ImageFolder reads."""
MOST_LEVELS = 255
"""Most folders within each other."""
_OTHER_REMEDIES = {
    ".parquet": "give the folder in which they lie",
    ".tar": "give the folder in which they lie",
    ".heic": "convert them to .png or .jpg",
    ".npy": "convert them to .png or .jpg",
    "without extension": "if they are pictures, give their names an ending",
}
_SHOWN_ENDINGS = 4
_TABLES = frozenset(
    {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".mat", ".xlsx", ".txt", ".cls", ".pbtxt", ".yaml", ".yml"}
    | {".pkl", ".npy", ".npz", ".h5", ".arrow"}
)
"""Endings of files that may hold labels: tables, lists of classes, a text an image as WebDataset and YOLO have it."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONE = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters that stand for no byte."""
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


def is_image_name(name: str) -> bool:
    """Whether a file of this name is read as an image: by the endings of timm, and the others that Pillow decodes.

    Example:
        >>> is_image_name("a/b.JPEG"), is_image_name("a/b.webp"), is_image_name("a/b.txt")
        (True, True, False)
    """
    return _extension(name) in _image_extensions()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is to be ignored: hidden ones, macOS's `._x` twins, and what systems leave behind.

    Example:
        >>> is_hidden("._cat.jpg"), is_hidden("@eaDir"), is_hidden("lost+found"), is_hidden("cat.jpg")
        (True, True, True, False)
    """
    return name.startswith(".") or name.lower() in _LITTER


def printable(name: str) -> str:
    r"""The name itself, or an escaped form where it holds bytes that are no UTF-8, or characters that are no text.

    Example:
        >>> printable("cat 1.png"), printable("cat\n\x1b[2J.png")
        ('cat 1.png', 'cat\\n\\x1b[2J.png')
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        name = name.encode(errors="backslashreplace" if _LONE.search(name) else "surrogateescape").decode(
            errors="backslashreplace"
        )
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], name)


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
    if without_images:
        first = min(without_images, key=natural_key)
        raise DataError(
            f"{where}: the class folder {first!r} holds no image (read are {extensions()}); {len(without_images)} such "
            f"folder(s) beside {len(names)} with images; put images there or remove it"
        )
    index = {name: i for i, name in enumerate(names)}
    return Classes(names=tuple(names), labels=[index[folder[0]] for folder in folders])


def note_deeper(folders: Sequence[Folder], *, where: str) -> str | None:
    """A note where folders within several class folders might be the classes: all images lie in them, by other names.

    Example:
        >>> note_deeper([("insects", "ant"), ("insects", "bee"), ("mammals", "cat")], where="pets")
        'pets: its classes are the first level of folders (2: insects, mammals); all images lie in 3 folders within \
them (insects/ant, insects/bee, mammals/cat): if those are the classes, move them up'
        >>> note_deeper([("cat", "images"), ("dog", "images")], where="pets") is None
        True
    """
    first = sorted({folder[0] for folder in folders if folder}, key=natural_key)
    second = sorted({folder[:2] for folder in folders}, key=lambda folder: natural_key("/".join(folder)))
    names = {folder[-1] for folder in second}
    # the same few folders in each class (images; left and right) are parts of it; one class folder is told otherwise
    if len(first) < 2 or any(len(folder) < 2 for folder in second) or len(names) < len(second):
        return None
    return (
        f"{where}: its classes are the first level of folders ({len(first)}: {_few(first)}); all images lie in "
        f"{len(second)} folders within them ({_few(['/'.join(folder) for folder in second])}): if those are the "
        "classes, move them up"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:_SHOWN_ENDINGS])) + (", …" if len(names) > _SHOWN_ENDINGS else "")


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
        >>> extensions()[:40]
        '.png, .jpg, .jpeg, .webp, .bmp, .dib, .t'
    """
    return ", ".join(_image_extensions())


def describe_others(names: Iterable[str]) -> str:
    """The content of a folder that holds no image, for a message.

    Example:
        >>> describe_others(["a.heic", "b.heic", "c.txt"])
        'it holds 3 other file(s), mostly .heic (convert them to .png or .jpg)'
        >>> describe_others([])
        'it holds no file at all'
    """
    found = Counter(_extension(name) or "without extension" for name in names)
    if not found:
        return "it holds no file at all"
    most = found.most_common(1)[0][0]
    remedy = _OTHER_REMEDIES.get(most)
    return f"it holds {found.total()} other file(s), mostly {most}" + (f" ({remedy})" if remedy else "")


def _image_extensions() -> tuple[str, ...]:
    """timm's, which its users can extend, and more. Imported late: a spawned worker needs this module, but no timm."""
    from timm.data.readers import img_extensions  # noqa: PLC0415

    return tuple(dict.fromkeys((*img_extensions.IMG_EXTENSIONS, *_PILLOW_DECODES)))


def _extension(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, dot, extension = base.rpartition(".")
    return f".{extension.lower()}" if stem and dot else ""


def refuse_split_folders(folders: Sequence[Folder], *, where: str, labels: bool, instead: str) -> None:
    """Refuse first-level folders that are the splits of a data set: train and test would be mixed, or become classes.

    Args:
        folders: the folders below the root that lead to each image.
        where: name of the source that is read, for the message.
        labels: whether folders become classes; without, a single split is welcome.
        instead: what to do, for the message, before the name of a split.

    Raises:
        DataError: two or more of the names, or the only one that holds folders while the others do not, are of splits.

    Example:
        >>> refuse_split_folders([("car",), ("train",)], where="vehicles", labels=True, instead="")
    """
    deeper: dict[str, bool] = {}
    for folder in folders:
        if folder:
            deeper[folder[0]] = deeper.get(folder[0], False) or len(folder) > 1
    splits = sorted((name for name in deeper if name.lower() in SPLITS), key=natural_key)
    if not splits:
        return
    others_deeper = any(deeper[name] for name in deeper if name not in splits)
    holds_classes = any(deeper[name] for name in splits)
    several = len(splits) > 1 and (holds_classes or len(splits) == len(deeper))
    if several or (labels and holds_classes and not others_deeper):
        best = next((name for name in splits if deeper[name]), splits[0])
        raise DataError(
            f"{where}: its folders ({', '.join(splits)}) are splits of a data set, expected class folders; "
            f"{instead}{best}"
        )


def note_lone_folder(folders: Sequence[Folder], *, where: str) -> str | None:
    """A note on a class folder that is the only one and hardly a class: by its name, or since folders lie in it.

    Args:
        folders: the folders below the root that lead to each image, at least one for each.
        where: the root.

    Returns:
        None where there are several class folders, or the only one looks like a class.

    Example:
        >>> note_lone_folder([("train",), ("train",)], where="photos")
        "photos: all its images lie in the folder 'train', which is taken for their only class; if it is none, give \
photos/train"
        >>> note_lone_folder([("cat",), ("cat", "old")], where="photos") is None
        True
    """
    lone, *others = {folder[0] for folder in folders}
    inside = {folder[1] for folder in folders if len(folder) > 1}
    if others or (lone.lower() not in SPLITS | _CONTAINERS and len(inside) < 2):
        return None
    name = printable(lone)
    return (
        f"{where}: all its images lie in the folder {name!r}, which is taken for their only class; if it is none, give "
        f"{where}/{name}"
    ) + (f", of which {len(inside)} folders are the classes then" if len(inside) > 1 else "")


def note_passed_over(names: Iterable[str], *, where: str, beside: str) -> str | None:
    """A note on files that lie among images and are not read; None where there are none.

    Args:
        names: names of these files.
        where: name of the source that is read.
        beside: what is read.

    Example:
        >>> note_passed_over(["a.heic", "b.heic"], where="photos", beside="3 images")
        'photos: 2 files beside 3 images are not read (.heic: 2); if they are pictures, convert them to .png or .jpg'
        >>> note_passed_over(["labels.csv"], where="photos", beside="3 images")
        "photos: 1 file beside 3 images is not read ('labels.csv'); if they hold labels: these come from class folders \
or a Parquet column"
    """
    names = list(names)
    if not names:
        return None
    counts = Counter(_extension(name) or "without extension" for name in names).most_common()
    shown = ", ".join(f"{ending}: {count}" for ending, count in counts[:_SHOWN_ENDINGS])
    more = f" and {len(counts) - _SHOWN_ENDINGS} other endings" if len(counts) > _SHOWN_ENDINGS else ""
    if len(names) == 1:
        shown = repr(printable(names[0].rpartition("/")[2]))
    remedy = "if they are pictures, convert them to .png or .jpg"
    if any(_extension(name) in _TABLES for name in names):
        remedy = "if they hold labels: these come from class folders or a Parquet column"
    verb = "is" if len(names) == 1 else "are"
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    return f"{where}: {files} beside {beside} {verb} not read ({shown}{more}); {remedy}"
