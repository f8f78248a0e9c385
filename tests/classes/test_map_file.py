"""Label maps from files."""

import os
from pathlib import Path

import pytest

from gainfinder.classes import read_label_map
from gainfinder.errors import DataError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"tabby": "cat", "1": "cat", "pug": 1}'),
        ("a.csv", "tabby,cat\n1,cat\n\npug,1\n"),
        ("a.csv", '\ufeffTeacher, Student\r\n"tabby",cat\r\n1, cat\r\npug,1'),
        ("a.TSV", "teacher\tstudent\ntabby\tcat\n1\tcat\npug\t1\n"),
    ],
)
def test_files_of_pairs(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_label_map(tmp_path / name) == (("tabby", "cat"), ("1", "cat"), ("pug", "1"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '["a"]', "expected one JSON object"),
        ("a.json", "{'a': 1}", "cannot be read: Expecting property name"),
        ("a.json", '{"a": null}', "'a' maps to neither a class name nor an index"),
        ("a.json", '{"a": true}', "'a' maps to neither"),
        ("a.json", '{"a": {"b": 1}}', "'a' maps to neither"),
        ("a.json", '{"a": ""}', "a class is empty in 'a' → ''; to leave a class of the teacher out, leave its row out"),
        ("a.csv", "a,b\nc,d,e\n", r"line 2 has 3 column\(s\): expected two"),
        ("a.csv", "a;b\n", r"line 1 has 1 column\(s\)"),
        ("a.csv", "a,\n", "a class is empty in 'a' → ''"),
        ("a.csv", 'a,"b\n', "cannot be read: unexpected end of data"),
        ("a.txt", "a,b", r"expected a file that ends in \.json, \.csv or \.tsv"),
    ],
)
def test_files_that_are_no_label_maps(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"^label map '.*{name}'.*{message}") as caught:
        read_label_map(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nosuchuser/map.json", "there is no home folder for '~nosuchuser'"),
        ("x" * 300 + ".json", "cannot be looked up .File name too long"),
        ("a\0.json", "cannot be looked up .*embedded null "),
    ],
)
def test_paths_that_no_file_can_have(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_label_map(Path(name))


def test_a_fifo_and_json_without_end_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="is a FIFO, not a regular file: expected"):
        read_label_map(tmp_path / "pipe.csv")
    for content, message in (('{"a":' * 50_000, "nested too deeply"), ('{"a": ' + "9" * 9000 + "}", "4300 digits")):
        (tmp_path / "map.json").write_text(content)
        with pytest.raises(DataError, match=f"cannot be read: .*{message}"):
            read_label_map(tmp_path / "map.json")
