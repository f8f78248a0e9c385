"""Which columns of a table hold the images, the labels and the names of classes; what is assumed or left is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import DataError
from ..files import parse_json
from ..references import suggest

IMAGE, LABEL, ID = "image", "label", "id"
MASKS = ("mask", "annotation", "segmentation")
"""Names of columns that hold masks where they hold images; `label` does where it is said to."""
_SHOWN_COLUMNS = 5


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that are read.

    Attributes:
        image: name of the column of images.
        label: name of the column of labels; None where none is read.
        mask: name of the column of masks; None where none is read, then there is no label.
        id: whether there is a column of ids.
        class_names: class names that the schema gives for the labels, or None.
        notes: what the user is told, without the name of the source.
    """

    image: str
    label: str | None
    mask: str | None
    id: bool
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """The names of all of them."""
        ids, others = [ID] if self.id else [], [one for one in (self.label, self.mask) if one is not None]
        return list(dict.fromkeys([self.image, *ids, *others]))


def choose_columns(
    schema: Any,
    *,
    where: str,
    labels: bool,
    image: str | None = None,
    label: str | None = None,
    mask: str | None = None,
) -> Columns:
    """Choose the columns of a Parquet file.

    The images are `image`, else the only column of images (by Hugging Face's metadata, else by type). The labels are
    `label`, else the only column of classes by that metadata. Class names come from the schema's metadata:
    `huggingface` (ClassLabel), or `classes` (comma separated). Where neither the user nor a column `label` says what
    the labels are, a second column of images that is called like one of masks holds them.

    Args:
        schema: the file's Arrow schema.
        where: name of the source that is read, for messages.
        labels: whether labels are to be read.
        image: name of the column of images, where the user gives one.
        label: name of the column of labels, where the user gives one.
        mask: name of the column of masks, likewise.

    Raises:
        DataError: a column is there twice, is not there, or holds no images.
    """
    names: Sequence[str] = schema.names
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{where}: the column {twice!r} is there twice; give each a name of its own")
    if mask is not None and label is not None:
        raise DataError(f"{where}: ?mask={mask} and ?label={label} are given: give labels of cells or of whole images")
    features, guessed = _features(schema), mask is None and label is None
    mask = mask_among(schema, image) if guessed else mask
    if mask is not None:
        require_column(mask, names, "mask", where)
    image, image_note = _image_column(schema, features, image, where, mask=mask)
    _check_image_type(schema.field(image).type, image, where)
    if not labels:
        label, label_note, mask = None, None, None
    elif mask is not None:
        _check_image_type(schema.field(mask).type, mask, where, setting="mask")
        label, label_note = None, note_masks(mask, setting="label") if guessed else None
    else:
        label, label_note = _label_column(schema, features, label, image, where)
    of = label if mask is None else mask
    class_names, names_note = (None, None) if of is None else class_names_of(schema, of)
    return Columns(
        image=image,
        label=label,
        mask=mask,
        id=ID in names,
        class_names=class_names,
        notes=tuple(note for note in (image_note, label_note, names_note) if note is not None),
    )


Chosen = tuple[str, str | None]


def mask_among(schema: Any, image: str | None) -> str | None:
    """The column that holds masks by its name, where it holds images, is not the only one that does, and no labels are.

    Args:
        schema: an Arrow schema.
        image: name of the column of images, where the user gives one.
    """
    names: Sequence[str] = schema.names
    pictures = [name for name in names if _holds_images(schema.field(name).type)]
    said = _typed(_features(schema), "Image", names)
    known = [name for name in (*MASKS, LABEL) if name in pictures and name != image]
    fits = [name for name in known if name != LABEL or name in said]
    return fits[0] if fits and len(pictures) > 1 and (LABEL not in names or LABEL in fits) else None


def note_masks(mask: str, *, setting: str) -> str:
    """What the user is told where a column is taken for masks."""
    return f"masks are read from the column {mask!r}; ?{setting}=COLUMN names one of labels of whole images"


def _image_column(
    schema: Any, features: Mapping[str, Any], asked: str | None, where: str, *, mask: str | None
) -> Chosen:
    names: Sequence[str] = schema.names
    if asked is not None:
        require_column(asked, names, "image", where)
        return asked, None
    if IMAGE in names:
        return IMAGE, None
    for found in (_typed(features, "Image", names), [name for name in names if _holds_images(schema.field(name).type)]):
        fits = [name for name in found if name != mask]
        if len(fits) == 1:
            return fits[0], f"images are read from the column {fits[0]!r}, since none is called `image`"
    raise DataError(
        f"{where}: no column `image`, its columns are {listed(names)}; name the one that holds images by ?image=COLUMN"
    )


def _label_column(
    schema: Any, features: Mapping[str, Any], asked: str | None, image: str, where: str
) -> tuple[str | None, str | None]:
    names: Sequence[str] = schema.names
    if asked is not None:
        require_column(asked, names, "label", where)
        return asked, None
    others = [name for name in names if name not in (image, ID) and may_label(schema.field(name).type)]
    return choose_label(names, classes=_typed(features, "ClassLabel", names), others=others, setting="label")


def choose_label(
    names: Sequence[str], *, classes: Sequence[str], others: Sequence[str], setting: str, what: str = "images"
) -> tuple[str | None, str | None]:
    """The column of labels, and a note on what was chosen or left.

    Args:
        names: names of all columns.
        classes: names of those that the metadata say to hold classes.
        others: names of those that could hold classes.
        setting: key in the reference by which a user names one.
        what: what the rows are, for the note.

    Example:
        >>> choose_label(["img", "fine"], classes=["fine"], others=["fine"], setting="label")[0]
        'fine'
    """
    if LABEL in names:
        return LABEL, None
    if len(classes) == 1:
        return classes[0], f"labels are read from the column {classes[0]!r}, the only one of classes"
    left = classes or others
    if not left:
        return None, None
    return None, (
        f"no column `label`, so its {what} are read as unlabelled; not read: {listed(left)}; ?{setting}=COLUMN in its "
        "reference names the one that holds labels"
    )


def require_column(name: str, names: Sequence[str], setting: str, where: str) -> None:
    """Refuse a column that is not there.

    Raises:
        DataError: it is none of the columns.
    """
    if name not in names:
        raise DataError(
            f"{where}: no column {name!r}{suggest(name, names)}; its columns are {listed(names)}; name one by "
            f"?{setting}=COLUMN"
        )


def _check_image_type(kind: Any, name: str, where: str, *, setting: str = "image") -> None:
    if _holds_images(kind):
        return
    if pa.types.is_struct(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        if fields.count("bytes") != 1:
            raise DataError(
                f"{where}: the struct `{name}` has no field `bytes`, its fields are {listed(fields)}; expected the "
                "bytes of image files there, once"
            )
        kind = kind.field("bytes").type
    raise DataError(
        f"{where}: column `{name}` is of type {kind}, expected the bytes of image files (binary); "
        f"{_image_remedy(kind, setting)}"
    )


def _image_remedy(kind: Any, setting: str) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "of pixels make .png files first"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return "of paths read the files and store their bytes, of base64 decode it"
    return f"name another column by ?{setting}=COLUMN"


def _holds_images(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields) if kind.field(i).name == "bytes"]
        return len(fields) == 1 and _is_binary(fields[0].type)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_string(kind: Any) -> bool:
    """Whether a column of this Arrow type holds strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def may_label(kind: Any) -> bool:
    """Whether a column of this Arrow type could hold labels."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = is_string(kind)
    # lists and floats, too: one-hot labels, and the integers of pandas beside missing ones
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(number or text or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _features(schema: Any) -> Mapping[str, Any]:
    """What Hugging Face's metadata says of each column; empty where there is none, or it is damaged."""
    try:
        found: Any = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        return {}
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def classes_among(schema: Any) -> list[str]:
    """The columns that Hugging Face's metadata of a schema say to hold classes."""
    return _typed(_features(schema), "ClassLabel", schema.names)


def holds_no_images(schema: Any) -> bool:
    """Whether no column of a schema could be one of images."""
    names: Sequence[str] = schema.names
    return (
        IMAGE not in names
        and not _typed(_features(schema), "Image", names)
        and not any(_holds_images(schema.field(name).type) for name in names)
    )


def _typed(features: Mapping[str, Any], kind: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if isinstance(features.get(name), dict) and features[name].get("_type") == kind]


def class_names_of(schema: Any, label: str) -> tuple[tuple[str, ...] | None, str | None]:
    """Class names that a schema's metadata give for a column of labels, and a note where they cannot be used."""
    described = _features(schema).get(label)
    while isinstance(described, dict) and isinstance(described.get("feature"), dict):  # of lists, that of their items
        described = described["feature"]
    names = described.get("names") if isinstance(described, dict) else None  # a list of labels is described by a list
    if names:
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names), None
        return None, (
            f"the metadata name the classes of {label!r} by other than a list of texts, so they are read without "
            "names; ?classes= in a model reference names its outputs"
        )
    metadata = schema.metadata or {}
    if b"classes" in metadata:
        return tuple(metadata[b"classes"].decode(errors="replace").split(",")), None
    return None, None


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(names[:_SHOWN_COLUMNS]) + more if names else "none"
