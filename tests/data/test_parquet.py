import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gainfinder.data import load_images
from gainfinder.errors import BrokenImage, DataError

ImageBytes = Callable[[str], bytes]


@pytest.fixture
def write(tmp_path: Path, image_bytes: ImageBytes) -> Callable[..., Path]:
    """Write a file of `count` images, with these further columns and schema metadata."""

    def make(at: str = "x.parquet", count: int = 3, metadata: dict[str, str] | None = None, **columns: Any) -> Path:
        columns.setdefault("image", [image_bytes(f"{i}.png") for i in range(count)])
        path = tmp_path / at
        path.parent.mkdir(exist_ok=True)
        table = pa.table({key: value for key, value in columns.items() if value is not None})
        pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)
        return path

    return make


def test_images_labels_and_ids(write: Callable[..., Path], colour_of: Callable[[str], tuple[int, int, int]]) -> None:
    path = write(label=[1, 0, 1], id=["c", "a", "b"], metadata={"classes": "cat,dog"})
    images = pickle.loads(pickle.dumps(load_images(path)))
    assert images.ids == ("c", "a", "b")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [1, 0, 1]
    assert [images.read(i).getpixel((0, 0)) for i in range(3)] == [colour_of(f"{i}.png") for i in range(3)]


def test_struct_images_and_class_names_of_hugging_face(write: Callable[..., Path], image_bytes: ImageBytes) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    image = [{"bytes": image_bytes("1.png"), "path": "1.png"}, {"bytes": None, "path": "gone.png"}, None]
    path = write(image=image, label=[0, 1, 1], metadata={"huggingface": json.dumps({"info": {"features": features}})})
    images = load_images(path)
    assert images.class_names == ("cat", "dog")
    assert images.ids == ("row-0000000", "row-0000001", "row-0000002")
    assert images.read(0).size == (5, 4)
    with pytest.raises(
        BrokenImage, match=r"x\.parquet: row 1: the row holds no image bytes, only the path 'gone\.png'"
    ):
        images.read(1)
    with pytest.raises(BrokenImage, match=r"row 2: the row holds no image bytes$"):
        images.read(2)


def test_string_labels_sort_naturally(write: Callable[..., Path]) -> None:
    images = load_images(write(label=["n10", "n9", "n10"]))
    assert images.class_names == ("n9", "n10")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0, 1]


def test_integer_labels_without_names(write: Callable[..., Path]) -> None:
    images = load_images(write(label=[0, 4, 1]))
    assert images.class_names is None
    assert images.num_classes == 5


def test_a_folder_of_files_is_one_source(write: Callable[..., Path], image_bytes: ImageBytes) -> None:
    write("many/s-10.parquet", label=[2, 2, 2])
    write("many/s-3.parquet", count=0, image=pa.array([], pa.binary()), label=pa.array([], pa.int64()))
    root = write("many/s-2.parquet", image=[image_bytes("other.png")], label=[0]).parent
    images = load_images(root)
    assert images.ids == ("s-2/row-0000000", *(f"s-10/row-000000{i}" for i in range(3)))
    assert images.labels is not None
    assert images.labels.tolist() == [0, 2, 2, 2]
    assert images.read(1).tobytes() == load_images(write()).read(0).tobytes()


def test_without_labels_the_column_is_not_read(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(label=[None, 0, 0], metadata={"classes": "cat,dog"})
    seen: list[list[str]] = []
    original = pq.ParquetFile.read

    def read(self: Any, columns: list[str]) -> Any:
        seen.append(columns)
        return original(self, columns)

    monkeypatch.setattr(pq.ParquetFile, "read", read)
    images = load_images(path, labels=False)
    assert images.labels is None
    assert images.class_names is None
    assert seen == [["image"]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": None, "img": [b"", b""], "label": [0, 1]}, "no column `image`, its columns are img, label"),
        ({"image": [{"path": "x"}]}, "the struct `image` has no field `bytes`, its fields are path"),
        ({"image": [1, 2]}, "column `image` is of type int64, expected the bytes"),
        ({"label": [0, None, None]}, r"2 of 3 labels are missing \(null\)"),
        ({"label": [0.5, 1.0, 2.0]}, r"labels must be integers or strings, got 0\.5 \(float\)"),
        ({"label": [-1, -1, -1]}, "all labels are negative, so this split hides them"),
        ({"label": [0, -1, 2]}, "label -1 of sample 'row-0000001' is out of range"),
        ({"id": ["a", "b", "a"]}, "the sample id 'a' occurs more than once"),
        ({"id": ["a", None, "b"]}, r"1 of 3 ids are missing"),
        ({"label": [0, 1, 2], "metadata": {"classes": "cat,dog"}}, r"expected labels from 0 to 1 \(2 classes\)"),
        ({"label": ["cat", "dgo", "dog"], "metadata": {"classes": "cat,dog"}}, "label 'dgo' is none .*matches: dog"),
    ],
)
def test_tables_that_cannot_be_used(write: Callable[..., Path], columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_images(write(**columns))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no table at all")
    with pytest.raises(DataError, match=r"x\.parquet: not a Parquet file, or damaged"):
        load_images(tmp_path / "x.parquet")


def test_files_that_disagree(write: Callable[..., Path]) -> None:
    write("a/1.parquet", label=[0, 1, 1], metadata={"classes": "cat,dog"})
    other = write("a/2.parquet", label=[0, 1, 1], metadata={"classes": "dog,cat"})
    with pytest.raises(DataError, match=r"2\.parquet: its class names differ from those of .*1\.parquet"):
        load_images(other.parent)
    other.unlink()
    write("a/3.parquet")
    with pytest.raises(DataError, match=r"3\.parquet: no column `label`, although .*1\.parquet has one"):
        load_images(other.parent)


def test_splits_are_not_mixed(write: Callable[..., Path]) -> None:
    write("a/train-00000-of-00001.parquet")
    root = write("a/test-00000-of-00001.parquet").parent
    with pytest.raises(DataError, match=r"several splits \(test, train\).*or hfds/.*\?split=train"):
        load_images(root)


@pytest.mark.parametrize("metadata", [{"huggingface": "{no json"}, {"huggingface": '["x"]'}, {"huggingface": "3"}])
def test_metadata_that_is_damaged_names_no_classes(write: Callable[..., Path], metadata: dict[str, str]) -> None:
    images = load_images(write(label=[0, 1, 0], metadata=metadata))
    assert images.class_names is None and images.num_classes == 2


def test_a_label_too_large_for_an_integer_is_out_of_range(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=f"label {2**63 + 5} is out of range"):
        load_images(write(label=pa.array([2**63 + 5, 0, 1], pa.uint64())))
