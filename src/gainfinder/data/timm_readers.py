"""Data sets that timm names: `hfds/NAME` (Hugging Face, with random access) and `torch/NAME` (torchvision).

Names and splits mean what they mean to `timm.data.create_dataset`, which opens them; departures, where timm would read
another split in silence, are errors.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset

from ..errors import BadReference, DataError, MissingExtra
from ..files import user_path
from ..libraries import first_line, hub_or_cache, hub_reason, quiet
from ..references import check_keys, suggest
from .columns import ID, IMAGE, LABEL, MASKS, choose_label, note_masks
from .dataset import DatasetReader, dataset_class_names, dataset_labels
from .decoding import Source, decode
from .images import Images
from .labels import encode_labels
from .masked import masked_images
from .reference import DataRef, first_class, wants_upright
from .samples import Samples
from .text_tables import choose_texts
from .texts import Text, Texts

_OF_SAVE_TO_DISK = ("state.json", "dataset_dict.json")
"""Files of which one is in a folder that `save_to_disk` of datasets wrote."""
_log = logging.getLogger("gainfinder")
_HFDS_KEYS = ("split", "root", "input_key", "target_key", "orient", "mask", "count_from")
_TRAIN = ("train", "training")
_EVAL = ("val", "valid", "validation", "eval", "evaluation")
_DIGITS = ("mnist", "kmnist", "qmnist")
_TRAIN_OR_TEST = ("cifar10", "cifar100", "fashion_mnist", *_DIGITS)
_FOLDER = ("image_folder", "folder")
_TORCH = (*_TRAIN_OR_TEST, *_FOLDER, "imagenet", "inaturalist", "inat", "places365")


@dataclass(frozen=True, kw_only=True)
class HfdsReader:
    """Images of a Hugging Face data set.

    Attributes:
        dataset: a `datasets.Dataset` whose image column is not decoded.
        image_key: name of that column.
        name: name of the data set in messages.
        upright: whether images are turned as their EXIF orientation says.
    """

    dataset: Any
    image_key: str
    name: str
    upright: bool = False

    def read(self, index: int) -> Image.Image:
        """Image `index`, fully decoded, RGB."""
        return decode(self.source(index), upright=self.upright)

    def source(self, index: int) -> Source:
        """The file of image `index`, or its bytes."""
        value = self.dataset[index][self.image_key]
        if value is None or not (value["bytes"] or value["path"]):
            raise ValueError("the row holds no image")
        return BytesIO(value["bytes"]) if value["bytes"] else Path(value["path"])

    def where(self, index: int) -> str:
        """The data set's name and the row."""
        return f"{self.name}: row {index}"


@dataclass(frozen=True, kw_only=True)
class HfdsTextReader:
    """Texts of a Hugging Face data set.

    Attributes:
        dataset: a `datasets.Dataset`.
        keys: name of the column of texts, or of two whose rows belong together.
        name: name of the data set in messages.
    """

    dataset: Any
    keys: tuple[str, ...]
    name: str

    def read(self, index: int) -> Text:
        """The text of row `index`, or its two."""
        row = self.dataset[index]
        found = tuple(row[key] for key in self.keys)
        return found[0] if len(found) == 1 else (found[0], found[1])

    def where(self, index: int) -> str:
        """The data set's name and the row."""
        return f"{self.name}: row {index}"


def open_hfds(ref: DataRef, *, labels: bool) -> Samples:
    """`hfds/NAME?split=…[&root=…][&input_key=…][&target_key=…][&orient=exif]`; NAME is a name on the hub or a folder.

    Without keys the columns are `image` and `label`, else the only one of images and the only one of classes, which is
    told. `mask` names a column of masks instead, whose first class is `count_from`; one that is called so is found.
    Where no column is of images, or `input_key` names one of strings, or two separated by a comma, the samples
    are texts.

    Raises:
        BadReference: no split, or an unknown setting.
        DataError: the data set cannot be loaded, or has no such column.
        MissingExtra: the package datasets is not installed.
    """
    reference = str(ref)
    check_keys(ref.query, _HFDS_KEYS, reference=reference)
    split, upright = _split(ref), wants_upright(ref)
    dataset = _load_hfds(ref.base.partition("/")[2], split=split, root=ref.get("root"), reference=reference)
    if _has_texts(dataset, ref):
        return _texts(dataset, ref, split=split, labels=labels)
    mask_key = _mask_key(dataset, ref)
    image_key = _image_key(dataset, ref, mask_key)
    in_masks = labels and mask_key is not None
    found, names = (None, None)
    if labels and not in_masks:
        found, names = _labels(dataset, ref, (image_key,), what="images")
    images = Images.build(
        reference=reference,
        reader=_reader(dataset, image_key, reference, upright=upright),
        ids=_ids(split, len(dataset)),
        labels=found,
        class_names=names,
    )
    if not in_masks:
        return images
    assert mask_key is not None
    if ref.get("mask") is None:
        _log.warning("%s: %s", ref, note_masks(mask_key, setting="target_key"))
    return masked_images(images, _reader(dataset, mask_key, reference), count_from=first_class(ref))


def _reader(dataset: Any, key: str, name: str, *, upright: bool = False) -> HfdsReader:
    own = _undecoded(dataset, key, name).select_columns([key])
    return HfdsReader(dataset=own, image_key=key, name=name, upright=upright)


def _mask_key(dataset: Any, ref: DataRef) -> str | None:
    """The column of masks: what the user names, or, where nothing says what the labels are, one that is called so."""
    asked, found = ref.get("mask"), _typed(dataset, "Image")
    if asked is not None:
        _check_column(asked, dataset.column_names, "mask", str(ref))
        return asked
    labelled = ref.get("target_key") is not None or (LABEL in dataset.column_names and LABEL not in found)
    if labelled or len(found) < 2:
        return None
    return next((name for name in (*MASKS, LABEL) if name in found and name != ref.get("input_key")), None)


def _image_key(dataset: Any, ref: DataRef, mask: str | None) -> str:
    columns: Sequence[str] = dataset.column_names
    asked, found = ref.get("input_key"), [name for name in _typed(dataset, "Image") if name != mask]
    if asked is None and IMAGE not in columns and len(found) == 1:
        _log.warning("%s: images are read from the column %r, since none is called `image`", ref, found[0])
        return found[0]
    _check_column(asked or IMAGE, columns, "input_key", str(ref))
    return asked or IMAGE


def _has_texts(dataset: Any, ref: DataRef) -> bool:
    asked, strings = ref.get("input_key"), _strings(dataset)
    if asked is not None:
        return all(name in strings for name in ([asked] if asked in dataset.column_names else asked.split(",")))
    return bool(strings) and IMAGE not in dataset.column_names and not _typed(dataset, "Image")


def _texts(dataset: Any, ref: DataRef, *, split: str, labels: bool) -> Texts:
    strings = [name for name in _strings(dataset) if name != ref.get("target_key")]
    names = dataset.column_names
    keys, note = choose_texts(names, strings, asked=ref.get("input_key"), where=str(ref), setting="input_key")
    if note is not None:
        _log.warning("%s: %s", ref, note)
    found, class_names = _labels(dataset, ref, keys, what="texts") if labels else (None, None)
    return Texts.build(
        reference=str(ref),
        reader=HfdsTextReader(dataset=dataset.select_columns(list(keys)), keys=keys, name=str(ref)),
        ids=_ids(split, len(dataset)),
        labels=found,
        class_names=class_names,
        paired=len(keys) == 2,
    )


def _strings(dataset: Any) -> list[str]:
    return [
        name
        for name, kind in dataset.features.items()
        if type(kind).__name__ == "Value" and kind.dtype in ("string", "large_string")
    ]


def _labels(
    dataset: Any, ref: DataRef, keys: Sequence[str], *, what: str
) -> tuple[list[int] | None, tuple[str, ...] | None]:
    """Labels and class names of a data set whose samples are in these columns."""
    key = _label_key(dataset, ref, keys, what=what)
    if key is None:
        return None, None
    return encode_labels(list(dataset[key]), getattr(dataset.features[key], "names", None), where=str(ref))


def _label_key(dataset: Any, ref: DataRef, keys: Sequence[str], *, what: str) -> str | None:
    columns: Sequence[str] = dataset.column_names
    asked = ref.get("target_key")
    if asked is not None:
        _check_column(asked, columns, "target_key", str(ref))
        return asked
    others = [name for name, kind in dataset.features.items() if name not in (*keys, ID) and _is_label(kind)]
    classes = _typed(dataset, "ClassLabel")
    chosen, note = choose_label(columns, classes=classes, others=others, setting="target_key", what=what)
    if note is not None:
        _log.warning("%s: %s", ref, note)
    return chosen


def _typed(dataset: Any, kind: str) -> list[str]:
    return [name for name, feature in dataset.features.items() if type(feature).__name__ == kind]


def _is_label(kind: Any) -> bool:
    """Whether a column may hold labels, lists of them (one-hot, several) among them."""
    if type(kind).__name__ in {"List", "LargeList", "Sequence"}:
        return True
    return type(kind).__name__ == "Value" and kind.dtype.startswith(
        ("int", "uint", "float", "bool", "string", "large_string")
    )


def open_torch(ref: DataRef, *, labels: bool) -> Images:
    """`torch/NAME?split=…&root=…[&download=1]`, with the names of `timm.data.create_dataset`.

    Raises:
        BadReference: an unknown name or setting, no split or root, or a split that the data set does not have.
        DataError: the data set is not there or damaged.
    """
    reference = str(ref)
    check_keys(ref.query, ("split", "root", "download"), reference=reference)
    split = _split(ref)
    name, root, download = _torch_settings(ref, split)
    try:
        dataset = create_dataset(f"torch/{name}", root=root, split=split, download=download)
    except Exception as error:  # torchvision and the assertions of timm raise many kinds
        hint = "" if download else "; check root, or add download=1 to fetch it where torchvision can"
        raise DataError(f"{reference}: torchvision cannot open it: {first_line(error)}{hint}") from error
    found = dataset_labels(dataset, name=reference) if labels else None
    return Images.build(
        reference=reference,
        reader=DatasetReader(dataset=dataset, name=reference),
        ids=_ids(split, len(dataset)),
        labels=found,
        class_names=None if found is None else dataset_class_names(dataset),
        mirrorable=name not in _DIGITS,
    )


def _split(ref: DataRef) -> str:
    split = ref.get("split")
    if split is None:
        raise BadReference(f"{str(ref)!r} names no split: write {ref.base}?split=train or {ref.base}?split=validation")
    return split


def _ids(split: str, count: int) -> list[str]:
    return [f"{split}/{i:07d}" for i in range(count)]


def _load_hfds(name: str, *, split: str, root: str | None, reference: str) -> Any:
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("datasets", "hfds", reference) from error
    folder = user_path(name, what="data set")
    if any((folder / file).is_file() for file in _OF_SAVE_TO_DISK):
        return _load_saved(folder, split=split, reference=reference)
    with (
        quiet("datasets", "huggingface_hub", "httpx"),
        hub_or_cache(needed=not folder.exists()) as reachable,
    ):
        try:
            return datasets.load_dataset(name, split=split, cache_dir=root)
        except Exception as error:  # the package raises many kinds, for a wrong name or split and without network
            reason = hub_reason(error, reachable=reachable)
            raise DataError(f"{reference}: datasets cannot load it: {reason}; check name and split") from error


def _load_saved(folder: Path, *, split: str, reference: str) -> Any:
    """A folder that `save_to_disk` wrote: one data set, which may know its split, or one a split."""
    import datasets  # noqa: PLC0415

    with quiet("datasets"):
        try:
            found: Any = datasets.load_from_disk(str(folder))
        except Exception as error:
            raise DataError(
                f"{reference}: datasets cannot load what save_to_disk wrote: {first_line(error)}; save it again"
            ) from error
    if isinstance(found, datasets.Dataset):
        found = {str(found.split or split): found}
    if split not in found:
        raise DataError(f"{reference}: it has no split {split!r}{suggest(split, found)}; there are: {', '.join(found)}")
    return found[split]


def _undecoded(dataset: Any, image_key: str, reference: str) -> Any:
    import datasets  # noqa: PLC0415

    try:
        return dataset.cast_column(image_key, datasets.Image(decode=False))
    except Exception as error:
        kind = dataset.features[image_key]
        raise DataError(
            f"{reference}: column {image_key!r} holds no images but {kind}; choose another input_key"
        ) from error


def _check_column(key: str, columns: Sequence[str], setting: str, reference: str) -> None:
    if key not in columns:
        raise DataError(
            f"{reference}: no column {key!r}{suggest(key, columns)}; its columns are {', '.join(columns)}; name one "
            f"with {setting}=COLUMN"
        )


def _torch_settings(ref: DataRef, split: str) -> tuple[str, str, bool]:
    """Name, root and whether to download."""
    reference = str(ref)
    root, download = ref.get("root"), ref.get("download") or "0"
    name = ref.base.partition("/")[2].lower()
    if name not in _TORCH:
        raise BadReference(
            f"{reference!r}: unknown data set {name!r}{suggest(name, _TORCH)}; known: {', '.join(_TORCH)}"
        )
    if root is None:
        raise BadReference(f"{reference!r} needs the data set's folder: write {ref.base}?split={split}&root=FOLDER")
    if download not in ("0", "1"):
        raise BadReference(f"{reference!r}: download={download} is unknown: expected 0 or 1")
    _check_torch_split(name, split, root, reference)
    return name, root, download == "1"


def _check_torch_split(name: str, split: str, root: str, reference: str) -> None:
    """timm takes an unknown split for the test split, and the root itself where a split's folder is missing."""
    if name in _TRAIN_OR_TEST and split not in (known := (*_TRAIN, *_EVAL, "test")):
        raise BadReference(f"{reference!r}: unknown split {split!r}{suggest(split, known)}; expected train or test")
    if name in _FOLDER:
        folder_of_splits = user_path(root, what="root")
        group = next((group for group in (_TRAIN, _EVAL) if split in group), ())
        if not any(user_path(folder_of_splits / folder, what="split").is_dir() for folder in (split, *group)):
            raise DataError(
                f"{reference}: {root} has no folder {split!r}; for a folder without splits give {root} itself"
            )
