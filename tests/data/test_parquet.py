import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gainfinder.data import load_images
from gainfinder.errors import BadReference, BrokenSample, DataError

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
        BrokenSample, match=r"x\.parquet: row 1: the row holds no image bytes, only the path 'gone\.png'"
    ):
        images.read(1)
    with pytest.raises(BrokenSample, match=r"row 2: the row holds no image bytes$"):
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
        ({"image": None, "a": [b""], "b": [b""]}, r"no column `image`, its columns are a, b; .* by \?image=COLUMN"),
        ({"image": None, "a": [0], "label": [1]}, "no column `image`, its columns are a, label"),
        ({"image": [{"path": "x"}]}, "the struct `image` has no field `bytes`, its fields are path"),
        ({"image": [1, 2]}, "column `image` is of type int64, expected the bytes"),
        ({"label": [0, None, None]}, r"2 of 3 labels are missing \(null\)"),
        ({"label": [0.5, 1.0, 2.0]}, r"labels must be integers or strings, .* got 0\.5 \(float\)"),
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


def described(**types: Any) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": types}})}


CLASSES = {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}


@pytest.mark.parametrize("name", ["labels", "fine_label"])
def test_the_only_column_of_classes_is_read_and_told(
    write: Callable[..., Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_images(write(**{name: [0, 1, 2], "metadata": described(**{name: CLASSES})}))
    assert images.labels is not None and images.labels.tolist() == [0, 1, 2]
    assert images.class_names == ("ant", "bee", "cat")
    assert len(caplog.messages) == 1 and f"labels are read from the column '{name}'" in caplog.messages[0]


def test_columns_that_could_be_labels_are_told(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    path = write(fine=[0, 1, 2], coarse=[0, 0, 1], metadata=described(fine=CLASSES, coarse=CLASSES))
    assert load_images(path).labels is None
    assert "no column `label`, so its images are read as unlabelled; not read: fine, coarse" in caplog.messages[0]
    caplog.clear()
    images = load_images(f"{path}?label=coarse")
    assert images.labels is not None and images.labels.tolist() == [0, 0, 1] and not caplog.messages
    assert load_images(path, labels=False).labels is None and not caplog.messages
    with pytest.raises(DataError, match=r"no column 'corse'; near matches: coarse; .* name one by \?label=COLUMN"):
        load_images(f"{path}?label=corse")


def test_the_only_column_of_images_is_read_and_told(
    write: Callable[..., Path], image_bytes: ImageBytes, caplog: pytest.LogCaptureFixture
) -> None:
    picture = image_bytes("1.png")
    images = load_images(write(image=None, img=[picture], label=[0]))
    assert images.read(0).size == (5, 4)
    assert "images are read from the column 'img', since none is called `image`" in caplog.messages[0]
    two = write("two.parquet", image=None, left=[picture], right=[b"broken"], label=[0])
    assert load_images(f"{two}?image=left").read(0).size == (5, 4)


def test_settings_of_tables_are_unknown_elsewhere(write: Callable[..., Path]) -> None:
    with pytest.raises(BadReference, match=r"unknown setting 'labl'.*near matches: label"):
        load_images(f"{write()}?labl=x")
    with pytest.raises(BadReference, match="unknown setting 'label' in 'digits"):
        load_images("digits?label=x")
    with pytest.raises(BadReference, match=r"orient=up in .* is unknown: expected exif"):
        load_images(f"{write()}?orient=up")


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([b"a"]), pa.array([b"b"])], names=["image", "image"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="the column 'image' is there twice; give each a name of its own"):
        load_images(tmp_path / "x.parquet")


@pytest.mark.parametrize("names", [[1, 2], [None, "b"], {"0": "cat", "1": "dog"}, [["a"], ["b"]], "ab"])
def test_names_of_classes_that_are_no_texts(
    write: Callable[..., Path], names: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_images(write(label=[0, 1, 0], metadata=described(label={"names": names, "_type": "ClassLabel"})))
    assert images.class_names is None and images.num_classes == 2
    assert "name the classes of 'label' by other than a list of texts" in caplog.messages[0]


def test_metadata_nested_a_hundred_thousand_deep(write: Callable[..., Path]) -> None:
    assert load_images(write(label=[0, 1, 0], metadata={"huggingface": "[" * 100_000})).class_names is None


def test_labels_with_thousands_of_digits_sort(write: Callable[..., Path]) -> None:
    long, longer = "9" * 5000, "1" + "0" * 5000
    assert load_images(write(label=[longer, long, "7"])).class_names == ("7", long, longer)


def test_texts_that_are_no_utf_8(tmp_path: Path, image_bytes: ImageBytes) -> None:
    broken = pa.array([b"\xff\xfe"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"image": [image_bytes("1.png")], "label": broken}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: not a Parquet file, or damaged \(UnicodeDecodeError"):
        load_images(tmp_path / "x.parquet")


def test_more_than_the_memory_holds_is_refused(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(DataError, match=r"3 rows take 0\.0 GB in memory, 0\.0 GB are free; split it into files"):
        load_images(path)
