"""A Parquet file, or a folder of them: column `image`, optionally `label` and `id`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ..classes import natural_key
from ..errors import DataError
from ..files import file_problem
from ..libraries import first_line
from .columns import ID, Columns, choose_columns
from .decoding import decode
from .images import Images
from .labels import encode_labels
from .layout import refuse_split_files

_log = logging.getLogger("gainfinder")
_BYTES_A_ROW = 150
"""What Python keeps of a row beside its image: an id and a label."""


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Encoded images in memory, as Arrow columns.

    Attributes:
        files: the Parquet files.
        columns: one column of image bytes a file.
        paths: one column of image paths a file, or None where the file has none.
        starts: int64 (F,), position of each file's first image.
        upright: whether images are turned as their EXIF orientation says.
    """

    files: tuple[Path, ...]
    columns: tuple[Any, ...]
    paths: tuple[Any, ...]
    starts: NDArray[np.int64]
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

    def where(self, index: int) -> str:
        """The file and the row."""
        file, row = self._locate(index)
        return f"{self.files[file]}: row {row}"

    def _locate(self, index: int) -> tuple[int, int]:
        # Of several files that start at the same position all but the last are empty.
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return file, index - int(self.starts[file])


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    images: Any
    paths: Any
    labels: list[Any] | None
    ids: list[str]
    class_names: tuple[str, ...] | None


def open_parquet(
    files: Sequence[Path],
    *,
    root: Path,
    reference: str,
    labels: bool,
    image: str | None = None,
    label: str | None = None,
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
        upright: whether to turn images as their EXIF orientation says.

    Raises:
        DataError: no Parquet file, no usable images, missing labels or ids, files that disagree, or too much for the
            memory.
    """
    files = sorted(files, key=lambda path: natural_key(path.name))
    instead = f"give one file, such as {files[0]}, or hfds/{root}?split=train for all files of a split"
    refuse_split_files((file.stem for file in files), where=str(root), instead=instead)
    chosen = [_choose(file, labels=labels, image=image, label=label) for file in files]
    for note in dict.fromkeys(note for one in chosen for note in one.notes):
        _log.warning("%s: %s", root, note)
    read = [
        _read(file, columns, prefix=f"{file.stem}/" if len(files) > 1 else "")
        for file, columns in zip(files, chosen, strict=True)
    ]
    found, class_names = _all_labels(read, root)
    lengths = [len(file.images) for file in read]
    return Images.build(
        reference=reference,
        reader=ParquetReader(
            files=tuple(file.path for file in read),
            columns=tuple(file.images for file in read),
            paths=tuple(file.paths for file in read),
            starts=np.cumsum([0, *lengths[:-1]], dtype=np.int64),
            upright=upright,
        ),
        ids=[name for file in read for name in file.ids],
        labels=found,
        class_names=class_names,
    )


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """An opened file; whatever pyarrow raises of damaged ones becomes one line."""
    if (problem := file_problem(path)) is not None:
        raise DataError(f"{path} {problem}; expected a Parquet file")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except DataError:
        raise
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file, or damaged ({str(error).splitlines()[0]})") from error
    except Exception as error:  # many kinds, UnicodeDecodeError and MemoryError among them
        raise DataError(f"{path}: not a Parquet file, or damaged ({first_line(error)})") from error


def _choose(path: Path, *, labels: bool, image: str | None, label: str | None) -> Columns:
    with _reading(path) as file:
        return choose_columns(file.schema_arrow, where=str(path), labels=labels, image=image, label=label)


def _read(path: Path, columns: Columns, *, prefix: str) -> _File:
    with _reading(path) as file:
        _check_memory(file.metadata, columns, path)
        table = file.read(columns=columns.all)
        images, paths = table.column(columns.image), None
        if pa.types.is_struct(images.type):
            if images.type.get_field_index("path") >= 0:
                paths = pc.struct_field(images, "path")
            images = pc.struct_field(images, "bytes")
        return _File(
            path=path,
            images=images,
            paths=paths,
            labels=None if columns.label is None else table.column(columns.label).to_pylist(),
            ids=_ids(table, path, prefix),
            class_names=columns.class_names,
        )


def _check_memory(metadata: Any, columns: Columns, path: Path) -> None:
    """Refuse a file whose columns do not fit into the memory that is free: they are held there."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    parts = [group.column(i) for group in groups for i in range(group.num_columns)]
    needed = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns.all)
    needed += metadata.num_rows * _BYTES_A_ROW
    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{path}: {metadata.num_rows:,} rows take {needed / 1e9:,.1f} GB in memory, {free / 1e9:,.1f} GB are free; "
            "split it into files and give one, or give the images as a .tar or a folder, which are not held in memory"
        )


def _ids(table: Any, path: Path, prefix: str) -> list[str]:
    if ID not in table.column_names:
        return [f"{prefix}row-{row:07d}" for row in range(table.num_rows)]
    column = table.column(ID)
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} of {table.num_rows} ids are missing (null); fill or drop `id`")
    return [str(value) for value in column.to_pylist()]


def _all_labels(read: Sequence[_File], root: Path) -> tuple[list[int] | None, tuple[str, ...] | None]:
    labelled = [file for file in read if file.labels is not None]
    if not labelled:
        return None, None
    if len(labelled) < len(read):
        other = next(file for file in read if file.labels is None)
        raise DataError(f"{other.path}: no column `label`, although {labelled[0].path} has one; read without labels")
    for file in read[1:]:
        if file.class_names != read[0].class_names:
            raise DataError(f"{file.path}: its class names differ from those of {read[0].path}; write them alike")
    values = [value for file in read for value in file.labels or ()]
    return encode_labels(values, read[0].class_names, where=str(root))
