"""Texts from tables: what is read, which columns are chosen, and what is refused."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gainfinder.data import Texts, load_images, load_samples
from gainfinder.errors import BadReference, BrokenSample, DataError

ROWS = [
    {"text": 'it said "fine",\nthen left', "label": "pos"},
    {"text": "no — ünloved 🙁", "label": "neg"},
    {"text": "12", "label": "pos"},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table in the form that the path's ending names."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        mark = "\t" if name.endswith(".tsv") else ","
        lines = [mark.join(rows[0])]
        lines += [mark.join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
        content = "\n".join(lines) + "\n"
    elif name.endswith(".json"):
        content = json.dumps(rows)
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


@pytest.mark.parametrize(
    "name", ["x.csv", "x.tsv", "x.jsonl", "x.ndjson", "x.json", "x.parquet", "x.csv.gz", "x.jsonl.gz"]
)
def test_every_form_gives_the_same_texts(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, ROWS)
    texts = pickle.loads(pickle.dumps(load_samples(path)))
    assert isinstance(texts, Texts) and texts.noun == "text"
    assert [texts.read(i) for i in range(3)] == [row["text"] for row in ROWS]
    assert texts.class_names == ("neg", "pos")
    assert texts.labels.tolist() == [1, 0, 1]
    assert texts.ids == ("row-0000000", "row-0000001", "row-0000002")
    assert texts.where(1) == f"{path}: row 1"
    assert load_samples(path, labels=False).labels is None


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    one = load_samples(written(tmp_path / "a.csv", ROWS))
    same = load_samples(written(tmp_path / "b.jsonl", ROWS))
    other = load_samples(written(tmp_path / "c.csv", [*ROWS[:2], {"text": "13", "label": "pos"}]))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.few_digest == same.few_digest != other.few_digest
    assert one.digest() == other.digest()  # of ids and labels alone


def test_columns_are_chosen_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"review": "good", "stars": 4, "id": "a"}, {"review": "bad", "stars": 1, "id": "b"}]
    path = written(tmp_path / "x.csv", rows)
    texts = load_samples(path)
    assert texts.read(1) == "bad" and texts.labels is None and texts.ids == ("a", "b")
    assert "texts are read from the column 'review', since none is called `text`" in caplog.text
    assert "so its texts are read as unlabelled; not read: stars; ?label=COLUMN" in caplog.text
    caplog.clear()
    labelled = load_samples(f"{path}?text=review&label=stars")
    assert labelled.labels is not None and labelled.labels.tolist() == [4, 1]
    assert not caplog.text


def test_pairs(tmp_path: Path) -> None:
    rows = [
        {"premise": "it rains", "hypothesis": "it is wet", "label": 0},
        {"premise": "a", "hypothesis": "b", "label": 2},
    ]
    texts = load_samples(f"{written(tmp_path / 'x.jsonl', rows)}?text=premise,hypothesis")
    assert isinstance(texts, Texts) and texts.paired
    assert texts.read(0) == ("it rains", "it is wet")
    assert texts.labels is not None and texts.labels.tolist() == [0, 2]


def test_a_folder_of_tables_is_one_source(tmp_path: Path) -> None:
    written(tmp_path / "b.jsonl", ROWS[2:])
    written(tmp_path / "a.csv", ROWS[:2])
    texts = load_samples(tmp_path)
    assert texts.ids == ("a/row-0000000", "a/row-0000001", "b/row-0000000")
    assert texts.read(2) == "12" and texts.where(2) == f"{tmp_path}/b.jsonl: row 0"
    assert len(load_samples(f"{tmp_path}#1/2")) + len(load_samples(f"{tmp_path}#2/2")) == 3


def test_class_names_of_hugging_face(tmp_path: Path) -> None:
    features = {"label": {"names": ["world", "sports"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "x.parquet")
    assert load_samples(tmp_path / "x.parquet").class_names == ("world", "sports")


def test_a_parquet_file_of_images_with_captions_stays_one_of_images(tmp_path: Path) -> None:
    table = pa.table({"image": [b"a", b"b"], "text": ["a", "b"]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert load_samples(tmp_path / "x.parquet").noun == "image"
    assert load_samples(f"{tmp_path}/x.parquet?text=text").noun == "text"


def test_rows_without_text_are_broken(tmp_path: Path) -> None:
    texts = load_samples(written(tmp_path / "x.jsonl", [{"text": "a"}, {"text": None}, {"text": " \n"}]))
    with pytest.raises(BrokenSample, match=r"row 1: the row holds no text \(null\)"):
        texts.read(1)
    with pytest.raises(BrokenSample, match="row 2: the text is empty"):
        texts.read(2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "text,label\na,b,c\n", "x.csv: cannot be read as CSV.*got 3.*; mend the file, or leave it out$"),
        ("x.csv", "", "x.csv: cannot be read as CSV"),
        ("x.csv", "text,text\na,b\n", "the column 'text' is there twice"),
        ("x.csv", "text,label\n", "no texts found"),
        (
            "x.csv",
            "one,two\na,b\n",
            r"no column `text`, its columns are one, two; name the one that holds texts by \?text=",
        ),
        ("x.csv", "text,label\na,1\nb,\n", "1 of 2 labels are missing"),
        ("x.jsonl", '{"text": "a"}\n{"text": 1}\n', "cannot be read as JSON lines"),
        ("x.jsonl", '{"text": "a"}\n{"text": ', "cannot be read as JSON lines .*: line 2: "),
        ("x.jsonl", '{"text": "a", "n": 1}\n{"text": "b", "n": "c"}\n', "the values of 'n' are of several kinds"),
        ("x.jsonl", '{"l\xa3": "a"}', "UTF-8 is expected"),
        ("x.jsonl", "\n", "cannot be read as JSON lines"),
        ("x.json", "[1, 2]", "row 0: expected an object, got int"),
        ("x.parquet", "PAR1", "not a Parquet file, or damaged"),
        ("x.csv", "text\n\xff\xfe\n", "UTF-8 is expected"),
    ],
)
def test_files_that_cannot_be_used(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load_samples(tmp_path / name)


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", [{"text": "a", "stars": 1, "label": 0}])
    with pytest.raises(DataError, match=r"no column 'txt' \(did you mean 'text'\?\)|no column 'txt'"):
        load_samples(f"{path}?text=txt")
    with pytest.raises(DataError, match="column 'stars' holds no texts"):
        load_samples(f"{path}?text=stars")
    with pytest.raises(BadReference, match="unknown setting 'image'"):
        load_samples(f"{path}?image=text")
    with pytest.raises(DataError, match="holds texts, expected images"):
        load_images(path)
    written(tmp_path / "y.csv", [{"first": "a", "second": "b"}])
    with pytest.raises(DataError, match="names 3 columns: expected one, or two of a pair"):
        load_samples(f"{tmp_path}/y.csv?text=first,second,first")


def test_an_edit_of_any_text_changes_the_digests(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "a"} for number in range(400)]
    whole = load_samples(written(tmp_path / "x.csv", rows))
    for edited in (7, 399):
        other = load_samples(
            written(tmp_path / "x.csv", [*rows[:edited], {"text": "new", "label": "a"}, *rows[edited + 1 :]])
        )
        assert other.digest() == whole.digest()
        assert other.fingerprint != whole.fingerprint and other.few_digest != whole.few_digest
