"""Thumbnails in a file: images as ever, texts in a column of their own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gainfinder.errors import RunFolderError
from gainfinder.results import Thumbnail, read_thumbnails, write_thumbnails


@pytest.mark.parametrize(
    ("content", "column"), [(b"\x89PNG", "image"), (("a text",), "texts"), (("one", "\u05e9"), "texts")]
)
def test_what_is_written_is_read(tmp_path: Path, content: bytes | tuple[str, ...], column: str) -> None:
    path = tmp_path / "thumbnails.parquet"
    found = [Thumbnail(id="a", kind="gained", content=content), Thumbnail(id="b", kind="lost", content=content)]
    write_thumbnails(path, found)
    assert pq.read_schema(path).names == ["id", "kind", column]
    assert read_thumbnails(path) == found


def test_none_at_all_is_as_before(tmp_path: Path) -> None:
    write_thumbnails(tmp_path / "none.parquet", [])
    assert pq.read_schema(tmp_path / "none.parquet").names == ["id", "kind", "image"]
    assert read_thumbnails(tmp_path / "none.parquet") == read_thumbnails(tmp_path / "missing.parquet") == []


@pytest.mark.parametrize("texts", [[["a", None]], [None], ["a"], [[1]]], ids=["half", "null", "string", "number"])
def test_a_damaged_file_is_told(tmp_path: Path, texts: list[object]) -> None:
    path = tmp_path / "thumbnails.parquet"
    pq.write_table(pa.table({"id": ["a"], "kind": ["gained"], "texts": texts}), path)
    with pytest.raises(RunFolderError, match="not a file of thumbnails"):
        read_thumbnails(path)
