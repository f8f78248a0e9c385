"""All rows of a study as Parquet or CSV: a row a cell, done or not, and a row an epoch of a sequence."""

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ...files import spreadsheet_text, write_atomically
from ...results import Record
from ...study import EpochRow, StudyRow

RowsFormat = Literal["parquet", "csv"]
AXIS = "axis_"
"""What the columns of further axes begin with."""
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def write_rows(
    folder: Path, rows: Sequence[StudyRow], epochs: Sequence[EpochRow], *, rows_format: RowsFormat
) -> tuple[Path, Path]:
    """Write `rows` and `epochs` into a folder, in place of those in another form.

    Args:
        folder: the folder.
        rows: all cells of a study.
        epochs: all epochs of its sequences.
        rows_format: `parquet` or `csv`.

    Returns:
        Both paths.
    """
    paths = folder / f"rows.{rows_format}", folder / f"epochs.{rows_format}"
    for path, table in zip(paths, (rows_table(rows), _table(EpochRow, epochs)), strict=True):
        write = pq.write_table if rows_format == "parquet" else _write_csv
        for other in typing.get_args(RowsFormat):  # of an earlier report: not of these rows
            if other != rows_format:
                path.with_suffix(f".{other}").unlink(missing_ok=True)
        write_atomically(path, lambda partial, write=write, table=table: write(table, partial))  # type: ignore[misc]
    return paths


def rows_table(rows: Sequence[StudyRow]) -> pa.Table:
    """The rows with a column for each field, typed also where all are null, and a text column for each axis."""
    table = _table(StudyRow, rows)
    for name in dict.fromkeys(name for row in rows for name in row.axes):
        table = table.append_column(f"{AXIS}{name}", pa.array([row.axes.get(name) for row in rows], pa.string()))
    return table


def _write_csv(table: pa.Table, path: Path) -> None:
    """Rows for spreadsheets, which take a text that begins with = for a formula."""
    for place, field in enumerate(table.schema):
        if field.type == pa.string():
            safe = [None if one is None else spreadsheet_text(one) for one in table.column(place).to_pylist()]
            table = table.set_column(place, spreadsheet_text(field.name), pa.array(safe, pa.string()))
    pa_csv.write_csv(table, path)


def _table(kind: type[Record], rows: Sequence[Record]) -> pa.Table:
    columns = {}
    for name, field in kind.model_fields.items():
        arrow = _arrow(field.annotation)
        if arrow is not None:
            columns[name] = pa.array([getattr(row, name) for row in rows], arrow)
    return pa.table(columns)


def _arrow(annotation: Any) -> pa.DataType | None:
    """The column type of a field; None for what is no single value."""
    if isinstance(annotation, types.UnionType):
        annotation = next(one for one in typing.get_args(annotation) if one is not type(None))
    return _TYPES.get(annotation)
