"""Which model teaches each transfer image, where that is decided once: a file that a resumed run reads again."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import write_atomically

_SCHEMA = pa.schema([("id", pa.string()), ("taught_by", pa.int16())])


def write_partition(path: Path, ids: Sequence[str], taught_by: Sequence[int]) -> None:
    """Write a partition as Parquet: `id`, and `taught_by`, 0 for the initial student and k for the k-th teacher."""
    table = pa.table([pa.array(ids, pa.string()), pa.array(taught_by, pa.int16())], schema=_SCHEMA)
    write_atomically(path, lambda partial: pq.write_table(table, partial))


def read_partition(path: Path, ids: Sequence[str], *, models: int) -> list[int] | None:
    """Read what `write_partition` wrote of these images, in their order.

    Args:
        path: the file.
        ids: ids of the images.
        models: number of models that may teach.

    Returns:
        The number of a model for each image; None where there is no such file, or it is damaged.
    """
    try:
        table = pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException):
        return None
    if table.schema != _SCHEMA or table.column("id").to_pylist() != list(ids):
        return None
    taught_by: list[int] = table.column("taught_by").to_pylist()
    return taught_by if all(one is not None and 0 <= one < models for one in taught_by) else None
