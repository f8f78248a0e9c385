"""Texts in words, each of which has a class."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gainfinder.data import load_samples
from gainfinder.data.tagged import MEASURED_WITHIN, TaggedTexts
from gainfinder.errors import BrokenSample, DataError

ROWS: list[dict[str, Any]] = [
    {"tokens": ["Ada", "met", "Kurt", "in", "Bonn"], "ner_tags": ["PER", "O", "PER", "O", "LOC"]},
    {"tokens": ["Yes"], "ner_tags": ["O"]},
    {"tokens": ["to", "Rome"], "ner_tags": ["O", "LOC"]},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loaded(source: Any, *, labels: bool = True) -> TaggedTexts:
    found = load_samples(source, labels=labels)
    assert isinstance(found, TaggedTexts)
    return found


def test_words_and_their_classes(tmp_path: Path) -> None:
    texts = pickle.loads(pickle.dumps(loaded(written(tmp_path / "x.jsonl", ROWS))))
    assert (texts.noun, texts.classified, texts.class_names) == ("text", "word", ("LOC", "O", "PER"))
    assert texts.read(0) == ("Ada", "met", "Kurt", "in", "Bonn")
    assert texts.labels_of(np.array([0, 2])).tolist() == [[2, 1, 2, 1, 0], [1, 0, -1, -1, -1]]
    assert texts.labels.tolist() == [texts.labels_of(np.array([i]))[0, word] for i, word in enumerate(texts.words)]
    again = texts.select([2, 0])
    assert again.words.tolist() == [texts.words[2], texts.words[0]]
    assert again.labels_of(np.array([1])).tolist() == [[2, 1, 2, 1, 0]]


def test_the_word_that_is_measured_goes_by_the_id_alone(tmp_path: Path) -> None:
    rows = [{"tokens": ["word"] * 200, "tags": [1] * 200, "id": f"{i}"} for i in range(400)]
    texts = loaded(written(tmp_path / "x.jsonl", rows))
    other = loaded(written(tmp_path / "y.jsonl", rows[::-1]), labels=False)
    assert texts.words.tolist() == other.words.tolist()[::-1]
    assert set(texts.words.tolist()) == set(range(MEASURED_WITHIN))  # each of them of 400 with near certainty


def test_new_positions_of_classes_reach_every_word(tmp_path: Path) -> None:
    texts = loaded(written(tmp_path / "x.jsonl", ROWS))
    moved = texts.reordered((2, 0, 1), class_names=("O", "PER", "LOC"), num_classes=3)
    assert moved.labels_of(np.array([0, 2])).tolist() == [[1, 0, 1, 0, 2], [0, 2, -1, -1, -1]]
    assert moved.digest() != texts.digest()
    assert texts.without_labels().tags is None and texts.without_labels().words.tolist() == texts.words.tolist()


def test_words_without_a_class(tmp_path: Path) -> None:
    texts = loaded(written(tmp_path / "x.jsonl", [{"tokens": ["a", "b", "c"], "tags": [-100, 2, -100]}]))
    assert texts.words.tolist() == [1] and texts.labels is not None and texts.labels.tolist() == [2]
    assert texts.labels_of(np.array([0])).tolist() == [[-1, 2, -1]]
    assert texts.num_classes == 3


def test_class_names_of_hugging_face(tmp_path: Path) -> None:
    feature = {"names": ["O", "PER"], "_type": "ClassLabel"}
    features = {"ner_tags": {"feature": feature, "_type": "List"}, "tokens": {"feature": {"dtype": "string"}}}
    table = pa.table({"tokens": [["a", "b"]], "ner_tags": [[1, 0]], "pos_tags": [[5, 6]]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "x.parquet")
    assert loaded(tmp_path / "x.parquet").class_names == ("O", "PER")
    assert loaded(f"{tmp_path}/x.parquet?label=pos_tags").num_classes == 7


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"tokens": ["a", "b"], "tags": [1]}], "row 0: 2 words and 1 labels: expected one for each word"),
        ([{"tokens": [], "tags": []}, *[{"tokens": ["a"], "tags": [0]}]], "row 0: the text has no words"),
        ([{"tokens": ["a"], "tags": [-100]}], "no word has a label"),
        ([{"tokens": ["a"], "tags": [-100]}, {"tokens": ["a"], "tags": [1]}], "row 0: none of its first words has a"),
    ],
)
def test_tables_that_cannot_be_used(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_samples(written(tmp_path / "x.jsonl", rows))


def test_a_word_that_is_none(tmp_path: Path) -> None:
    texts = loaded(written(tmp_path / "x.jsonl", [{"tokens": ["a", None]}]))
    with pytest.raises(BrokenSample, match="row 0: a word is no text"):
        texts.read(0)
