"""Embeddings of class names in files of several kinds: by class name, or in class order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from ..errors import DataError
from ..files import file_problem, user_path

KINDS = (".npy", ".npz", ".safetensors", ".parquet", ".csv")
NAME_COLUMNS = ("class", "name", "class_name", "label")
"""Column that holds the class's name."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class EmbeddingTable:
    """Embeddings as a file has them.

    Attributes:
        where: the file.
        values: the embeddings (K, D).
        names: the K classes they are of; None where they come in class order.
    """

    where: str
    values: NDArray[np.float64]
    names: tuple[str, ...] | None

    def in_class_order(self, keys: Sequence[str], names: Sequence[str]) -> Tensor:
        """The embeddings of the classes, float64 (C, D).

        Args:
            keys: what data or models call the C classes.
            names: the classes' names. Either is looked up, the name first.

        Raises:
            DataError: they are not of these classes.
        """
        if self.names is None:
            if len(self.values) != len(keys):
                raise DataError(
                    f"{self.where}: {len(self.values)} embeddings without class names for {len(keys)} classes; "
                    "expected one each, in class order"
                )
            return torch.from_numpy(self.values)
        row_of = {name: row for row, name in enumerate(self.names)}
        if len(row_of) < len(self.names):
            twice = next(name for row, name in enumerate(self.names) if row_of[name] != row)
            raise DataError(f"{self.where}: the class {twice!r} is there twice: expected it once")
        rows = [row_of.get(name, row_of.get(key)) for key, name in zip(keys, names, strict=True)]
        if missing := [name for name, row in zip(names, rows, strict=True) if row is None]:
            raise DataError(
                f"{self.where}: no embedding of {len(missing)} of {len(names)} classes, such as {missing[0]!r}; "
                f"it has {', '.join(map(repr, self.names[:3]))}, …"
            )
        return torch.from_numpy(self.values[[row for row in rows if row is not None]])


def read_embeddings(path: Path) -> EmbeddingTable:
    """Read embeddings of classes.

    Args:
        path: `.npy`, a matrix with a row a class, in class order; `.npz` or `.safetensors`, such a matrix alone, or a
            vector for each class by its name; `.npz` also `names` beside a matrix `embeddings`; `.parquet`, a column of
            lists, in class order or beside a column `class` (or `name`); `.csv`, the same with a column a number.

    Raises:
        DataError: it is missing, in another form, or holds no numbers, or a vector of zeros.
    """
    file = user_path(path, what="embeddings", error=DataError)
    if (problem := file_problem(file)) is not None:
        raise DataError(f"embeddings {str(path)!r} {problem}: expected a file that ends in {', '.join(KINDS)}")
    kind = file.suffix.lower()
    if kind not in KINDS:
        raise DataError(f"embeddings {str(path)!r}: expected a file that ends in {', '.join(KINDS)}")
    try:
        if kind in {".npy", ".npz"}:
            names, values = _of_numpy(np.load(file, allow_pickle=False))
        elif kind == ".safetensors":
            names, values = _of_arrays(load_file(file))
        else:
            names, values = _of_columns(pq.read_table(file)) if kind == ".parquet" else _of_csv(file)
    except (OSError, ValueError, EOFError, pa.ArrowException, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"embeddings {str(path)!r} cannot be read: {reason}") from error
    if values.ndim != 2 or not values.size:
        raise DataError(f"embeddings {str(path)!r}: expected a row of numbers a class, got {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1) | ~values.any(axis=1))
    if len(bad):
        which = int(bad[0]) if names is None else repr(names[int(bad[0])])
        raise DataError(f"embeddings {str(path)!r}: that of class {which} has no direction (zeros, NaN or infinity)")
    return EmbeddingTable(where=str(path), values=values, names=names)


_Found = tuple[tuple[str, ...] | None, NDArray[np.float64]]


def _of_numpy(found: Any) -> _Found:
    if isinstance(found, np.ndarray):
        return None, found.astype(np.float64)
    with found:
        return _of_arrays({name: found[name] for name in found.files})


def _of_arrays(arrays: dict[str, Any]) -> _Found:
    """A matrix alone, `names` beside `embeddings`, or a vector for each class."""
    if set(arrays) == {"names", "embeddings"}:
        return tuple(map(str, arrays["names"].tolist())), arrays["embeddings"].astype(np.float64)
    if len(arrays) == 1 and (alone := next(iter(arrays.values()))).ndim == 2:
        return None, alone.astype(np.float64)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"expected one matrix, or a vector for each class, all of one length; got {sorted(shapes)}")
    return tuple(arrays), np.stack([array.astype(np.float64) for array in arrays.values()])


def _of_columns(table: Any) -> _Found:
    """A column of lists, and the column of names beside it where there is one."""
    lists = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    texts = [field.name for field in table.schema if field.name.lower() in NAME_COLUMNS and field.name not in lists]
    if len(lists) != 1:
        raise ValueError(f"expected one column of lists of numbers, got {len(lists)} among {table.column_names}")
    values = np.array(table[lists[0]].to_pylist(), dtype=np.float64)
    return tuple(map(str, table[texts[0]].to_pylist())) if texts else None, values


def _of_csv(file: Path) -> _Found:
    """Numbers, with a column of names (the first, or one called so) or in class order; with a header or without."""
    with file.open(encoding="utf-8-sig") as lines:
        first = next(lines, "").strip()
    cells = [cell.strip().strip('"') for cell in first.split(",")]
    has_header = cells[0].lower() in NAME_COLUMNS or not any(_NUMBER.fullmatch(cell) for cell in cells)
    options = pyarrow.csv.ReadOptions(autogenerate_column_names=not has_header)
    table = pyarrow.csv.read_csv(file, read_options=options)
    named = [name for name in table.column_names if name.lower() in NAME_COLUMNS]
    texts = named or [name for name in table.column_names if pa.types.is_string(table[name].type)]
    numbers = [name for name in table.column_names if name not in texts[:1]]
    values = np.stack([np.asarray(table[name].to_numpy(), dtype=np.float64) for name in numbers], axis=1)
    return tuple(map(str, table[texts[0]].to_pylist())) if texts else None, values
