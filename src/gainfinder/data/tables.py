"""What tables of images and of texts have in common: files that open or are refused, ids, labels, room in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..files import file_problem
from ..libraries import first_line
from .columns import ID
from .labels import encode_labels

_BYTES_A_ROW = 150
"""What Python keeps of a row beside its content: an id and a label."""


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """The labels of a file's rows.

    Attributes:
        path: the file.
        labels: a label each, as the file has it; None where none are read.
        class_names: class names that the file gives, or None.
    """

    path: Path
    labels: list[Any] | None
    class_names: tuple[str, ...] | None


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """An opened Parquet file; whatever pyarrow raises of damaged ones becomes one line.

    Raises:
        DataError: it cannot be opened or read.
    """
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


def check_memory(metadata: Any, columns: Sequence[str], path: Path) -> None:
    """Refuse a Parquet file whose columns do not fit into the memory that is free: they are held there.

    Args:
        metadata: the file's.
        columns: names of the columns that are read.
        path: the file.

    Raises:
        DataError: they do not fit.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    parts = [group.column(i) for group in groups for i in range(group.num_columns)]
    needed = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
    needed += metadata.num_rows * _BYTES_A_ROW
    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{path}: {metadata.num_rows:,} rows take {needed / 1e9:,.1f} GB in memory, {free / 1e9:,.1f} GB are free; "
            "split it into files and give one, or give the images as a .tar or a folder, which are not held in memory"
        )


def row_ids(table: Any, path: Path, *, prefix: str) -> list[str]:
    """Ids of a table's rows: its column `id`, or else row numbers with a prefix before them.

    Raises:
        DataError: an id is missing.
    """
    if ID not in table.column_names:
        return [f"{prefix}row-{row:07d}" for row in range(table.num_rows)]
    column = table.column(ID)
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} of {table.num_rows} ids are missing (null); fill or drop `id`")
    return [str(value) for value in column.to_pylist()]


def labels_of_all(read: Sequence[LabelledRows], root: Path) -> tuple[list[int] | None, tuple[str, ...] | None]:
    """Labels of the rows of all files as class positions, and the classes' names; None where no file has any.

    Raises:
        DataError: files disagree, or labels cannot be used.
    """
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
