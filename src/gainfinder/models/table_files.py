"""Files of predictions as columns: what stands in them, checked for form; what it means is told in `tables`.

Shapes: N samples, K values of each, which are one a class, or those of the K classes listed for the sample.
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import DataError

Kind = Literal["logits", "probs", "log_probs"]

_KINDS: tuple[Kind, ...] = ("logits", "probs", "log_probs")
_FULL = re.compile(r"(?P<kind>logit|prob):(?P<name>.+)", re.DOTALL)
_RANKED = re.compile(r"(?P<kind>class|prob)_(?P<rank>[1-9]\d*)")
_BLOCK_BYTES = 1 << 25  # a block has to hold a whole line
_FORMS = "logit:NAME or prob:NAME for each class, or class_1,prob_1,class_2,prob_2,…"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a file of predictions holds.

    Attributes:
        where: the file, for messages.
        ids: N sample ids, no two alike.
        kind: what the values are.
        values: float32 (N, K); NaN where a value is missing.
        classes: int (N, K), the class of each value; texts, where the file gives texts; None where K is all classes.
        class_names: in class order, or None where the file names none.
        num_classes: number of classes, or None where the file does not say it.
        names_in_header: whether `class_names` say which column is which.
    """

    where: str
    ids: tuple[str, ...]
    kind: Kind
    values: NDArray[np.float32]
    classes: NDArray[Any] | None = None
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    names_in_header: bool = False

    def row(self, row: int) -> str:
        """A row, for messages."""
        return f"{self.where}: row {row} (id {self.ids[row]!r})"


def read_columns(path: Path) -> Columns:
    """Read a file of predictions: `.csv`, or else Parquet.

    Raises:
        DataError: it is neither, or its columns are not those of predictions.
    """
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)


def _read_parquet(path: Path) -> Columns:
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.names
            kinds = [kind for kind in _KINDS if kind in found]
            if "id" not in found or len(kinds) != 1:
                raise DataError(
                    f"{path}: its columns are {', '.join(found) or 'none'}: expected `id`, one of {', '.join(_KINDS)}, "
                    "and `classes` where only the first classes are listed"
                )
            table = file.read(columns=[name for name in ("id", "classes", kinds[0]) if name in found])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a Parquet file, or damaged ({str(error).splitlines()[0]}); a file of predictions is .parquet "
            "or .csv"
        ) from error
    ids = _ids(table["id"], str(path))
    classes = _matrix(table["classes"], "classes", ids, str(path)) if "classes" in found else None
    values = _matrix(table[kinds[0]], kinds[0], ids, str(path)).astype(np.float32, copy=False)
    if classes is not None and classes.shape != values.shape:
        raise DataError(
            f"{path}: {classes.shape[1]} classes a row, but {values.shape[1]} {kinds[0]}: expected one each"
        )
    if classes is not None and classes.dtype.kind not in "iu":
        raise DataError(f"{path}: column `classes` holds {classes.dtype}: expected class indices, integers from 0")
    names, count = _about(table.schema.metadata)
    if classes is None and names is not None and len(names) != values.shape[1]:
        raise DataError(f"{path}: {values.shape[1]} {kinds[0]} a row, but {len(names)} class names in its metadata")
    return Columns(
        where=str(path), ids=ids, kind=kinds[0], values=values, classes=classes, class_names=names, num_classes=count
    )


def _about(metadata: dict[bytes, bytes] | None) -> tuple[tuple[str, ...] | None, int | None]:
    """Class names and their number, as `gainfinder predict` keeps them; None where another program wrote the file."""
    try:
        about = json.loads((metadata or {}).get(b"gainfinder", b"{}"))
        names = about.get("class_names")
        count = about.get("num_classes")
    except (ValueError, AttributeError):
        return None, None
    return (None if names is None else tuple(map(str, names))), (count if isinstance(count, int) else None)


def _matrix(column: Any, name: str, ids: Sequence[str], where: str) -> NDArray[Any]:
    """A column of lists, all of one length, as (N, K)."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise DataError(f"{where}: column `{name}` is of type {kind}: expected lists of numbers")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    ragged = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
    if len(ragged):
        row = int(ragged[0])
        raise DataError(
            f"{where}: row {row} (id {ids[row]!r}) has {lengths[row]} {name}: expected "
            f"{lengths[0] or 'some'} as in row 0; write as many in each row"
        )
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(parts).reshape(len(lengths), -1)


def _read_csv(path: Path) -> Columns:
    header = _header(path)
    if "id" not in header:
        raise DataError(
            f"{path}: no column `id`, its columns are {_shown(header)}; expected id, then {_FORMS}, separated by commas"
        )
    full = {name: match for name in header if (match := _FULL.fullmatch(name))}
    ranked = {name: match for name in header if (match := _RANKED.fullmatch(name))}
    unknown = [name for name in header if name not in {"id", "label", *full, *ranked}]
    kinds = sorted({match["kind"] for match in full.values()})
    if unknown or bool(full) == bool(ranked) or len(kinds) > 1:
        mixed = "both forms" if full and ranked else " and ".join(kinds) if len(kinds) > 1 else "no predictions"
        got = f"does not know the column {unknown[0]!r}" if unknown else f"has {mixed}"
        raise DataError(f"{path}: a file of predictions {got}: expected id, then {_FORMS}, and nothing else but label")
    if ranked:
        return _ranked_csv(path, header, ranked)
    table = _csv_table(path, header, {name: pa.float32() for name in full})
    names, columns = _header_order({name: match["name"].strip() for name, match in full.items()}, path)
    return Columns(
        where=str(path),
        ids=_ids(table["id"], str(path)),
        kind="logits" if kinds == ["logit"] else "probs",
        values=_stacked(table, columns),
        class_names=names,
        names_in_header=True,
    )


def _ranked_csv(path: Path, header: Sequence[str], ranked: dict[str, re.Match[str]]) -> Columns:
    ranks = range(1, len(ranked) // 2 + 1)
    classes, probs = ([f"{kind}_{rank}" for rank in ranks] for kind in ("class", "prob"))
    if set(ranked) != {*classes, *probs}:
        raise DataError(
            f"{path}: the columns {_shown(list(ranked))} are not whole: expected class_1,prob_1 to class_K,prob_K, "
            "each once"
        )
    table = _csv_table(path, header, {**dict.fromkeys(classes, pa.string()), **dict.fromkeys(probs, pa.float32())})
    texts = [table[name].to_numpy() for name in classes]
    return Columns(
        where=str(path),
        ids=_ids(table["id"], str(path)),
        kind="probs",
        values=_stacked(table, probs),
        classes=np.stack(texts, axis=1),
    )


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    if len(set(header)) < len(header):
        twice = next(name for place, name in enumerate(header) if name in header[:place])
        raise DataError(f"{path}: the column {twice!r} is there twice: expected it once")
    return header


def _csv_table(path: Path, header: Sequence[str], types: dict[str, Any]) -> Any:
    options = {
        "parse_options": pyarrow.csv.ParseOptions(),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={**types, "id": pa.string()}, include_columns=["id", *types], strings_can_be_null=False
        ),
    }

    def read(use_threads: bool) -> Any:
        how = pyarrow.csv.ReadOptions(
            column_names=list(header), skip_rows=1, block_size=_BLOCK_BYTES, use_threads=use_threads
        )
        return pyarrow.csv.read_csv(path, read_options=how, **options)

    try:
        return read(use_threads=True)
    except pa.ArrowException:
        pass
    try:
        return read(use_threads=False)  # only then are rows counted in the message
    except pa.ArrowException as error:
        if "Empty CSV" in str(error):
            raise DataError(f"{path}: it holds no row: expected a row for each image") from error
        raise DataError(f"{path}: cannot be read as CSV: {str(error).splitlines()[0]}") from error


def _header_order(names: dict[str, str], path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Class names in class order, and their columns; numbers that count the classes from 0 are put in that order."""
    if len(set(names.values())) < len(names):
        raise DataError(f"{path}: two columns are of one class: expected one a class")
    columns = list(names)
    if sorted(names.values()) == sorted(map(str, range(len(names)))):
        columns.sort(key=lambda column: int(names[column]))
    return tuple(names[column] for column in columns), columns


def _stacked(table: Any, columns: Sequence[str]) -> NDArray[np.float32]:
    values = np.empty((table.num_rows, len(columns)), dtype=np.float32)
    for place, column in enumerate(columns):
        values[:, place] = table[column].to_numpy()
    return values


def _ids(column: Any, where: str) -> tuple[str, ...]:
    if len(column) == 0:
        raise DataError(f"{where}: it holds no row: expected a row for each image")
    if column.null_count:
        raise DataError(f"{where}: {column.null_count} of {len(column)} ids are missing (null): expected one a row")
    ids = tuple(map(str, column.to_pylist()))
    rows: dict[str, int] = {}
    if len(set(ids)) < len(ids):
        for row, name in enumerate(ids):
            if name in rows:
                raise DataError(f"{where}: the id {name!r} is in row {rows[name]} and in row {row}: expected it once")
            rows[name] = row
    return ids


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
