"""Who teaches which image is read as it was written, or not at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gainfinder.results import read_partition, write_partition

IDS = ("a", "b", "c")


def test_it_is_read_as_written_of_the_same_images_alone(tmp_path: Path) -> None:
    path = tmp_path / "partition.parquet"
    assert read_partition(path, IDS, models=3) is None
    write_partition(path, IDS, [0, 2, 1])
    assert read_partition(path, IDS, models=3) == [0, 2, 1]
    assert read_partition(path, IDS, models=2) is None, "there is no model 2"
    assert read_partition(path, ("a", "c", "b"), models=3) is None


@pytest.mark.parametrize("damage", ["cut", "columns", "null"])
def test_what_is_damaged_counts_as_missing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "partition.parquet"
    write_partition(path, IDS, [0, 2, 1])
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "columns":
        pq.write_table(pa.table({"id": list(IDS)}), path)
    else:
        pq.write_table(pa.table([pa.array(IDS), pa.array([0, None, 1], pa.int16())], ["id", "taught_by"]), path)
    assert read_partition(path, IDS, models=3) is None
