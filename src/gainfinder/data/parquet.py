"""A Parquet file, or a folder of them: column `image`, optionally `label` and `id`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .images import Images, decode
from .labels import encode_labels
from .layout import natural_key, refuse_split_files


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Encoded images in memory, as Arrow columns.

    Attributes:
        files: the Parquet files.
        columns: one column of image bytes a file.
        paths: one column of image paths a file, or None where the file has none.
        starts: int64 (F,), position of each file's first image.
    """

    files: tuple[Path, ...]
    columns: tuple[Any, ...]
    paths: tuple[Any, ...]
    starts: NDArray[np.int64]

    def read(self, index: int) -> Image.Image:
        """Image `index`, fully decoded, RGB."""
        file, row = self._locate(index)
        data = self.columns[file][row].as_py()
        if data is None:
            path = None if self.paths[file] is None else self.paths[file][row].as_py()
            only = f", only the path {path!r}: embed the bytes when writing the file" if path else ""
            raise ValueError(f"the row holds no image bytes{only}")
        return decode(BytesIO(data))

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


def open_parquet(files: Sequence[Path], *, root: Path, reference: str, labels: bool) -> Images:
    """Read Parquet files.

    `image` is binary, or a struct with `bytes` (as Hugging Face writes it). `label` is an integer or a string. Class
    names come from the schema's metadata: `huggingface` (ClassLabel), or `classes` (comma separated). Without `id` the
    ids are row numbers, `row-0000012`, with the file's name before them where there are several files.

    Args:
        files: the files, at least one; all their rows together are one source.
        root: the file or the folder of files, for messages.
        reference: the data reference.
        labels: whether to read the column `label`.

    Raises:
        DataError: no Parquet file, no usable `image`, missing labels or ids, or files that disagree.
    """
    files = sorted(files, key=lambda path: natural_key(path.name))
    instead = f"give one file, such as {files[0]}, or hfds/{root}?split=train for all files of a split"
    refuse_split_files((file.stem for file in files), where=str(root), instead=instead)
    read = [_read(file, labels=labels, prefix=f"{file.stem}/" if len(files) > 1 else "") for file in files]
    found, class_names = _all_labels(read, root)
    lengths = [len(file.images) for file in read]
    return Images.build(
        reference=reference,
        reader=ParquetReader(
            files=tuple(file.path for file in read),
            columns=tuple(file.images for file in read),
            paths=tuple(file.paths for file in read),
            starts=np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        ),
        ids=[name for file in read for name in file.ids],
        labels=found,
        class_names=class_names,
    )


def _read(path: Path, *, labels: bool, prefix: str) -> _File:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_image_column(schema, path)
            wanted = [name for name in ("image", "id", *(("label",) if labels else ())) if name in schema.names]
            table = file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file, or damaged ({str(error).splitlines()[0]})") from error
    images, paths = table.column("image"), None
    if pa.types.is_struct(images.type):
        if images.type.get_field_index("path") >= 0:
            paths = pc.struct_field(images, "path")
        images = pc.struct_field(images, "bytes")
    with_labels = "label" in table.column_names
    return _File(
        path=path,
        images=images,
        paths=paths,
        labels=table.column("label").to_pylist() if with_labels else None,
        ids=_ids(table, path, prefix),
        class_names=_class_names(schema) if with_labels else None,
    )


def _check_image_column(schema: Any, path: Path) -> None:
    if "image" not in schema.names:
        raise DataError(f"{path}: no column `image`, its columns are {', '.join(schema.names) or 'none'}; rename one")
    kind = schema.field("image").type
    if pa.types.is_struct(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        if "bytes" not in fields:
            raise DataError(f"{path}: the struct `image` has no field `bytes`, its fields are {', '.join(fields)}")
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)):
        raise DataError(f"{path}: column `image` is of type {kind}, expected the bytes of image files (binary)")


def _ids(table: Any, path: Path, prefix: str) -> list[str]:
    if "id" not in table.column_names:
        return [f"{prefix}row-{row:07d}" for row in range(table.num_rows)]
    column = table.column("id")
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} of {table.num_rows} ids are missing (null); fill or drop `id`")
    return [str(value) for value in column.to_pylist()]


def _class_names(schema: Any) -> tuple[str, ...] | None:
    metadata = schema.metadata or {}
    if b"huggingface" in metadata:
        label = _dig(metadata[b"huggingface"], "info", "features", "label")
        if isinstance(label, dict) and label.get("names"):  # a list of labels has a list here
            return tuple(label["names"])
    if b"classes" in metadata:
        return tuple(metadata[b"classes"].decode(errors="replace").split(","))
    return None


def _dig(document: bytes, *keys: str) -> Any:
    """A value within a JSON document; None where there is none, or the document is damaged."""
    try:
        value = json.loads(document)
    except ValueError:
        return None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


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
