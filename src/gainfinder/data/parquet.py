"""A Parquet file, or a folder of them: column `image`, optionally `label` and `id`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ..classes import natural_key
from ..errors import DataError
from .columns import Columns, choose_columns, holds_no_images, is_string
from .decoding import decode
from .images import Images
from .layout import refuse_split_files
from .masked import masked_images
from .rows import RowsReader
from .tables import LabelledRows, check_memory, labels_of_all, parquet_file, row_ids

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class ParquetReader(RowsReader):
    """Encoded images in memory, as Arrow columns.

    Attributes:
        columns: one column of image bytes a file.
        paths: one column of image paths a file, or None where the file has none.
        upright: whether images are turned as their EXIF orientation says.
    """

    columns: tuple[Any, ...]
    paths: tuple[Any, ...]
    upright: bool = False

    def read(self, index: int) -> Image.Image:
        """Image `index`, fully decoded, RGB."""
        return decode(self.source(index), upright=self.upright)

    def source(self, index: int) -> BytesIO:
        """The bytes of image `index`."""
        file, row = self._locate(index)
        data = self.columns[file][row].as_py()
        if data is None:
            path = None if self.paths[file] is None else self.paths[file][row].as_py()
            only = f", only the path {path!r}: embed the bytes when writing the file" if path else ""
            raise ValueError(f"the row holds no image bytes{only}")
        return BytesIO(data)


@dataclass(frozen=True, kw_only=True)
class _File(LabelledRows):
    images: Any
    paths: Any
    masks: Any
    ids: list[str]


def open_parquet(
    files: Sequence[Path],
    *,
    root: Path,
    reference: str,
    labels: bool,
    image: str | None = None,
    label: str | None = None,
    mask: str | None = None,
    count_from: int = 0,
    upright: bool = False,
) -> Images:
    """Read Parquet files.

    `image` is binary, or a struct with `bytes` (as Hugging Face writes it). `label` is an integer or a string. Without
    `id` the ids are row numbers, `row-0000012`, with the file's name before them where there are several files. Where a
    column is not called so, `choose_columns` chooses, and the user is told.

    Args:
        files: the files, at least one; all their rows together are one source.
        root: the file or the folder of files, for messages.
        reference: the data reference.
        labels: whether to read labels.
        image: name of the column of images, where the user gives one.
        label: name of the column of labels, where the user gives one.
        mask: name of the column of masks, where the user gives one.
        count_from: number of the first class of masks, 0 or 1.
        upright: whether to turn images as their EXIF orientation says.

    Raises:
        DataError: no Parquet file, no usable images, missing labels or ids, files that disagree, or too much for the
            memory.
    """
    files = sorted(files, key=lambda path: natural_key(path.name))
    instead = f"give one file, such as {files[0]}, or hfds/{root}?split=train for all files of a split"
    refuse_split_files((file.stem for file in files), where=str(root), instead=instead)
    chosen = [_choose(file, labels=labels, image=image, label=label, mask=mask) for file in files]
    for note in dict.fromkeys(note for one in chosen for note in one.notes):
        _log.warning("%s: %s", root, note)
    read = [
        _read(file, columns, prefix=f"{file.stem}/" if len(files) > 1 else "")
        for file, columns in zip(files, chosen, strict=True)
    ]
    in_masks = _in_masks(chosen, root)
    found, class_names = (None, None) if in_masks else labels_of_all(read, root)
    lengths = [len(file.images) for file in read]
    reader = ParquetReader(
        files=tuple(file.path for file in read),
        columns=tuple(file.images for file in read),
        paths=tuple(file.paths for file in read),
        starts=np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        upright=upright,
    )
    images = Images.build(
        reference=reference,
        reader=reader,
        ids=[name for file in read for name in file.ids],
        labels=found,
        class_names=class_names,
    )
    if not in_masks:
        return images
    columns = tuple(file.masks for file in read)
    masks = replace(reader, columns=columns, paths=(None,) * len(read), upright=False)
    return masked_images(images, masks, class_names=chosen[0].class_names, count_from=count_from)


def holds_texts(path: Path) -> bool:
    """Whether a Parquet file holds texts: strings or lists of them, and no column that could be one of images.

    Raises:
        DataError: it cannot be opened.
    """
    with parquet_file(path) as file:
        schema = file.schema_arrow
        return holds_no_images(schema) and any(is_string(getattr(kind, "value_type", kind)) for kind in schema.types)


def _in_masks(chosen: Sequence[Columns], root: Path) -> bool:
    """Whether all files have masks, of the same classes; refused where some do."""
    in_masks = [one.mask is not None for one in chosen]
    if any(in_masks) and not all(in_masks):
        raise DataError(f"{root}: some of its files have masks and others none: give one kind, or read without labels")
    if any(in_masks) and len({one.class_names for one in chosen}) > 1:
        raise DataError(f"{root}: its files name other classes; write them alike")
    return any(in_masks)


def _choose(path: Path, *, labels: bool, image: str | None, label: str | None, mask: str | None) -> Columns:
    with parquet_file(path) as file:
        return choose_columns(file.schema_arrow, where=str(path), labels=labels, image=image, label=label, mask=mask)


def _read(path: Path, columns: Columns, *, prefix: str) -> _File:
    with parquet_file(path) as file:
        check_memory(file.metadata, columns.all, path)
        table = file.read(columns=columns.all)
        images, paths = _bytes_and_paths(table.column(columns.image))
        masks = None if columns.mask is None else _bytes_and_paths(table.column(columns.mask))[0]
        return _File(
            path=path,
            images=images,
            paths=paths,
            masks=masks,
            labels=None if columns.label is None else table.column(columns.label).to_pylist(),
            ids=row_ids(table, path, prefix=prefix),
            class_names=columns.class_names,
        )


def _bytes_and_paths(column: Any) -> tuple[Any, Any]:
    """A column's bytes of image files, and their paths, or None where it has none."""
    if not pa.types.is_struct(column.type):
        return column, None
    paths = pc.struct_field(column, "path") if column.type.get_field_index("path") >= 0 else None
    return pc.struct_field(column, "bytes"), paths
