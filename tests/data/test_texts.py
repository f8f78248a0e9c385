"""Texts of data set objects and of Hugging Face data sets."""

from pathlib import Path

import pytest

from gainfinder.data import Texts, load_samples
from gainfinder.errors import BrokenSample, DataError


def test_a_list_of_texts_with_labels() -> None:
    texts = load_samples([("good", 1), ("bad", 0)])
    assert isinstance(texts, Texts) and not texts.paired
    assert texts.labels is not None and texts.labels.tolist() == [1, 0]
    assert texts.read(0) == "good" and texts.where(0) == "list: item 0"
    assert load_samples(["good", "bad"]).labels is None


def test_pairs_and_selections() -> None:
    texts = load_samples([(("is it?", "it is"), 1), (("was it?", "no"), 0)])
    assert isinstance(texts, Texts) and texts.paired
    assert texts.select([1]).read(0) == ("was it?", "no")


def test_an_item_of_another_kind_is_broken() -> None:
    texts = load_samples(["good", 3, ""])
    with pytest.raises(BrokenSample, match="item 1: expected text, got int"):
        texts.read(1)
    with pytest.raises(BrokenSample, match="item 2: the text is empty"):
        texts.read(2)


def test_datasets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "other": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    rows = {"sentence": ["a", "b"], "other": ["c", "d"], "label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataError, match="no column `text`, its columns are sentence, other, label"):
        load_samples(f"hfds/{tmp_path}/two?split=train")
    texts = load_samples(f"hfds/{tmp_path}/two?split=train&input_key=sentence,other")
    assert isinstance(texts, Texts) and texts.read(1) == ("b", "d")
    assert texts.class_names == ("no", "yes") and texts.ids == ("train/0000000", "train/0000001")
    datasets.Dataset.from_dict(rows, features=features).remove_columns("other").save_to_disk(str(tmp_path / "one"))
    assert load_samples(f"hfds/{tmp_path}/one?split=train").read(0) == "a"
    assert "texts are read from the column 'sentence'" in caplog.text
