"""Tables of predictions: what they mean, that they give back what was predicted, and the messages for mistakes."""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gainfinder.errors import BadReference, DataError, RunFolderError
from gainfinder.models import Classifier, load_model, load_teacher
from gainfinder.models.from_table import LOWEST_LOG_PROB, PredictionTable
from gainfinder.predictions import Predictions

SETTINGS = settings(deadline=None, max_examples=40, derandomize=True)
NAMES = ("cat", "dog", "cow, brown", "pig")


def load(path: Path, query: str = "") -> PredictionTable:
    found = load_teacher(f"table:{path}{query}")
    assert isinstance(found, PredictionTable)
    return found


def csv(folder: Path, *lines: str) -> Path:
    (folder / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "t.csv"


def parquet(folder: Path, **columns: Any) -> Path:
    columns.setdefault("id", ["a", "b"])
    pq.write_table(pa.table({key: value for key, value in columns.items() if value is not None}), folder / "t.parquet")
    return folder / "t.parquet"


def predictions(names: tuple[str, ...] | None = NAMES, count: int = 5, classes: int = 4) -> Predictions:
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0)) * 3
    ids = tuple(f"{i:03}" for i in range(count))  # ids stay texts
    return Predictions(
        model="m", ids=ids, logits=logits, target=torch.zeros(count, dtype=torch.int64), class_names=names
    )


def probs_of(table: PredictionTable, *ids: str) -> list[list[float]]:
    return [[round(p, 4) for p in row] for row in table.lookup(ids or table.ids).double().exp().tolist()]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
@pytest.mark.parametrize("names", [NAMES, None, ("3", "1", "0", "2"), ("cat", "cat", "dog", "cow")])
def test_what_was_predicted_is_read_again(tmp_path: Path, name: str, names: tuple[str, ...] | None) -> None:
    made = predictions(names)
    made.write(tmp_path / name)
    table = load(tmp_path / name)
    assert table.ids == made.ids and len(table) == 5 and not table.is_top_k and table.num_classes == 4
    if name.endswith(".csv") and (names is None or "0" in names):
        # numbers that count the classes stand in their order, whatever the order of the columns
        assert table.class_names == ("0", "1", "2", "3")
        order = [0, 1, 2, 3] if names is None else [names.index(digit) for digit in "0123"]
        assert torch.equal(table.lookup(made.ids), made.logits[:, order])
    else:
        expected = ("0", "1", "2", "3") if name.endswith(".csv") and len(set(names or ())) < 4 else names
        assert table.class_names == expected
        assert torch.equal(table.lookup(made.ids), made.logits)
    assert torch.equal(table.lookup(["003", "001", "003"])[1], table.lookup(["001"])[0])
    assert pickle.loads(pickle.dumps(table)).missing(["003", "x"]) == ("x",)


@pytest.mark.parametrize("query", ["", "?num_classes=4"])
@pytest.mark.parametrize("names", [NAMES, None])
@pytest.mark.parametrize("top_k", [1, 3, 4, 9])
def test_the_first_classes_are_read_again(
    tmp_path: Path, names: tuple[str, ...] | None, top_k: int, query: str
) -> None:
    made = predictions(names)
    made.write(tmp_path / "t.parquet", top_k=top_k)
    stored = pq.read_table(tmp_path / "t.parquet")
    assert stored.column_names == ["id", "classes", "log_probs", "label"]
    assert stored["classes"][0].as_py()[0] == int(made.predicted[0])
    table = load(tmp_path / "t.parquet", query)
    assert table.is_top_k and table.class_names == names and table.num_classes == 4
    probs, expected = table.lookup(made.ids).exp(), made.logits.softmax(dim=1)
    kept = expected.topk(min(top_k, 4), dim=1).indices
    torch.testing.assert_close(probs.gather(1, kept), expected.gather(1, kept))
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(5))
    with pytest.raises(DataError, match="lists the first classes of each image only, expected the logits of all"):
        Predictions.load(tmp_path / "t.parquet")
    made.write(tmp_path / "t.csv", top_k=top_k)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    asked = "?num_classes=4" if names is None else f"?classes=@{tmp_path / 'names.txt'}"
    again = load(tmp_path / "t.csv", asked)
    assert again.class_names == names
    # what is left of 1 is known to float32's precision
    torch.testing.assert_close(again.lookup(made.ids).exp(), table.lookup(made.ids).exp(), rtol=1e-4, atol=1e-6)


def test_a_full_table_of_probabilities(tmp_path: Path) -> None:
    expected = [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]
    table = load(parquet(tmp_path, probs=expected))
    assert probs_of(table) == expected and table.class_names is None
    assert table.lookup(["b"])[0].tolist() == pytest.approx([0, LOWEST_LOG_PROB, LOWEST_LOG_PROB])
    path = csv(tmp_path, "label,id,prob:cat,prob:dog,prob:cow", "x,a,0.5,0.25,0.25", "y,b,1,0,0")
    assert probs_of(load(path)) == expected and load(path).class_names == ("cat", "dog", "cow")
    assert load(path, "?classes=x,y,z").class_names == ("x", "y", "z")
    assert load(parquet(tmp_path, log_probs=np.log(expected[:1] * 2).tolist())).lookup(["a"]).exp().sum() == 1


def test_what_the_listed_probabilities_leave_is_spread_evenly(tmp_path: Path) -> None:
    expected = [[0.1, 0.6, 0.1, 0.2], [1.0, 0.0, 0.0, 0.0]]
    table = load(parquet(tmp_path, classes=[[1, 3], [0, 2]], probs=[[0.6, 0.2], [1.0, 0.0]]), "?num_classes=4")
    assert probs_of(table) == expected
    assert table.lookup(["b"]).min() == pytest.approx(LOWEST_LOG_PROB)
    logs = np.log(np.array([[0.6, 0.2], [1.0, 1e-30]])).tolist()
    assert probs_of(load(parquet(tmp_path, classes=[[1, 3], [0, 2]], log_probs=logs), "?num_classes=4")) == expected
    lines = ("id,class_1,prob_1,class_2,prob_2", "a,dog,0.6,3,0.2", "b,cat,1,cow,0")
    assert probs_of(load(csv(tmp_path, *lines), "?classes=cat,dog,cow,pig")) == expected


def test_listed_logits_are_taken_as_all_there_is(tmp_path: Path) -> None:
    path = parquet(tmp_path, classes=[[1, 2], [0, 1]], logits=[[math.log(3) + 7, 7.0], [-1000.0, 1000.0]])
    table = load(path, "?num_classes=3")
    assert probs_of(table) == [[0, 0.75, 0.25], [0, 1, 0]]
    assert table.lookup(["a"])[0, 0] == pytest.approx(LOWEST_LOG_PROB)
    assert table.lookup(["b"])[0].tolist() == pytest.approx([LOWEST_LOG_PROB, 0, LOWEST_LOG_PROB])


@SETTINGS
@given(data=st.data())
def test_rows_sum_to_one_whatever_is_listed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, 6))
    listed = data.draw(st.integers(1, classes))
    order = data.draw(st.permutations(range(classes)))[:listed]
    weights = np.array(data.draw(st.lists(st.floats(0, 1), min_size=classes, max_size=classes))) + 1e-3
    probs = (weights / weights.sum())[:listed]
    folder = tmp_path_factory.mktemp("t")
    table = load(parquet(folder, id=["a"], classes=[order], probs=[probs.tolist()]), f"?num_classes={classes}")
    logits = table.lookup(["a"])
    assert logits.isfinite().all()
    assert logits.exp().sum().item() == pytest.approx(1 if listed < classes else probs.sum(), abs=1e-4)
    assert logits[0, order].exp().tolist() == pytest.approx(probs.tolist(), abs=1e-5)


def test_missing_ids_are_named(tmp_path: Path) -> None:
    table = load(parquet(tmp_path, logits=[[1.0], [2.0]]))
    assert table.missing(["a", "x", "b", "y"]) == ("x", "y")
    assert table.missing(["a", "b"]) == ()
    assert table.lookup([]).shape == (0, 1)
    with pytest.raises(DataError) as caught:
        table.lookup(["v", "a", "w", "x", "y"])
    assert str(caught.value) == (
        f"table:{tmp_path}/t.parquet has no predictions for 4 of 5 images: 'v', 'w', 'x', …; its own ids are like 'a': "
        "predict the very images that are learned from and measured on"
    )


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    one = load(csv(tmp_path, "id,logit:a", "x,1"))
    same = load(csv(tmp_path, "id,logit:a", "x,1"))
    other = load(csv(tmp_path, "id,logit:a", "x,2"))
    assert one.digest == same.digest != other.digest


def test_what_a_table_can_be_used_for(tmp_path: Path, zoo: dict[str, str]) -> None:
    path = csv(tmp_path, "id,logit:a", "x,1")
    with pytest.raises(BadReference) as caught:
        load_model(f"table:{path}")
    assert str(caught.value) == f"'table:{path}' is a table of predictions, no model: it can only be a teacher"
    with pytest.raises(BadReference, match=r"is a file: give it as table:.*t\.csv"):
        load_model(str(path))
    table = load(path)
    assert load_teacher(table) is table
    assert isinstance(load_teacher(zoo["vit"]), Classifier)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "folder.csv"])
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "folder.csv").mkdir()
    problem = "is a folder" if name == "folder.csv" else "does not exist"
    with pytest.raises(DataError, match=rf"^table:.*: the file '.*{name}' {problem}.*expected a \.parquet or"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("lines", "query", "message"),
    [
        (["id,logit:a"], "", "t.csv: it holds no row: expected a row for each image"),
        ([""], "", "t.csv: no column `id`, its columns are none; expected id, then logit:NAME"),
        (["name,logit:a", "x,1"], "", "no column `id`, its columns are name, logit:a; expected id, then"),
        (["id;logit:a", "x;1"], "", "no column `id`, its columns are id;logit:a; .*separated by commas"),
        (["id,logits:a", "x,1"], "", "does not know the column 'logits:a': expected id, then logit:NAME"),
        (["id,label", "x,1"], "", "has no predictions: expected id"),
        (["id,logit:a,prob:b", "x,1,1"], "", "has logit and prob: expected"),
        (["id,logit:a,class_1,prob_1", "x,1,1,1"], "", "has both forms"),
        (["id,class_1,prob_2", "x,1,1"], "", "the columns class_1, prob_2 are not whole: expected class_1,prob_1"),
        (["id,logit:a,logit:a", "x,1,1"], "", "the column 'logit:a' is there twice"),
        (["id,logit:a,logit: a", "x,1,1"], "", "two columns are of one class"),
        (["id,logit:a,logit:b", "x,1,2", "y,1"], "", "cannot be read as CSV: .*Expected 3 columns, got 2: y,1"),
        (["id,logit:a", "x,1", "y,much"], "", "cannot be read as CSV: .*invalid value 'much'"),
        (["id,logit:a", "x,1", "y,2", "x,3"], "", "the id 'x' is in row 0 and in row 2: expected it once"),
        (["id,logit:a", "x,1", "y,"], "", r"row 1 \(id 'y'\): a value is nan or missing: expected finite logits"),
        (["id,logit:a", "x,inf", "y,nan"], "", r"row 0 \(id 'x'\): a value is inf .* \(and 1 more rows\)"),
        (["id,prob:a,prob:b", "x,1.5,-0.5"], "", "a probability is -0.5: expected 0 to 1; are these logits"),
        (["id,prob:a,prob:b", "x,0.5,0.502"], "", r"row 0 \(id 'x'\): its probabilities sum to 1.002: expected 1$"),
        (["id,prob:a,prob:b", "x,0.5,0.1"], "", "sum to 0.6: expected 1; list classes and probabilities where some"),
        (["id,prob:a,prob:b", "x,1,0"], "?classes=a,b,c", "number of classes is 2 by the file, 3 by the class names"),
        (["id,prob:a,prob:b", "x,1,0"], "?classes=b,a", "has another order than the file, .*: leave it out"),
        (["id,prob:a,prob:b", "x,1,0"], "?num_classes=3", "is 2 by the file, 2 by the class names, 3 by num_classes=:"),
        (["id,prob:a,prob:b", "x,1,0"], "?num_classes=two", "num_classes.*two.*: expected a (whole )?number"),
        (["id,class_1,prob_1", "x,a,1"], "", r"does not say how many there are: add \?classes= or \?num_classes="),
        (
            ["id,class_1,prob_1", "x,a,1"],
            "?num_classes=3",
            "class 'a' is none of the 3 classes; expected an index from",
        ),
        (["id,class_1,prob_1", "x,dgo,1"], "?classes=cat,dog", "'dgo' is none of the 2 classes; near matches: dog"),
        (["id,class_1,prob_1", "x,,1"], "?classes=cat,dog", "a class is empty; expected one of the class names"),
        (["id,class_1,prob_1", "x,2,1"], "?num_classes=2", "class 2 is out of range: expected 0 to 1"),
        (["id,class_1,prob_1,class_2,prob_2", "x,1,1,1,0"], "?num_classes=2", "class 1 is listed twice"),
        (["id,class_1,prob_1,class_2,prob_2", "x,1,1,0,0"], "?num_classes=1", "2 classes a row: expected at most 1"),
        (["id,class_1,prob_1,class_2,prob_2", "x,1,.9,0,.2"], "?num_classes=9", "sum to 1.1: expected at most 1"),
    ],
)
def test_mistakes_in_csv_files_are_told(tmp_path: Path, lines: list[str], query: str, message: str) -> None:
    path = csv(tmp_path, *lines)
    with pytest.raises((DataError, BadReference), match=message) as caught:
        load(path, query)
    assert "\n" not in str(caught.value) and "t.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"logit": [[1.0], [2.0]]}, "its columns are logit, id: expected `id`, one of logits, probs, log_probs"),
        ({"id": None, "logits": [[1.0], [2.0]]}, "its columns are logits: expected `id`"),
        ({"logits": [[1.0], [2.0]], "probs": [[1.0], [1.0]]}, "its columns are .*: expected `id`, one of"),
        ({"id": [], "logits": pa.array([], pa.list_(pa.float32()))}, "it holds no row"),
        ({"id": ["a", None], "logits": [[1.0], [2.0]]}, r"1 of 2 ids are missing \(null\)"),
        ({"logits": [1.0, 2.0]}, "column `logits` is of type double: expected lists of numbers"),
        ({"logits": [["a"], ["b"]]}, r"column `logits` is of type list<.*: expected lists of numbers"),
        ({"logits": [[1.0, 2.0], [1.0]]}, r"row 1 \(id 'b'\) has 1 logits: expected 2 as in row 0"),
        ({"logits": [[1.0, 2.0], None]}, r"row 1 \(id 'b'\) has 0 logits"),
        ({"logits": pa.array([[], []], pa.list_(pa.float32()))}, r"row 0 \(id 'a'\) has 0 logits: expected some"),
        ({"logits": [[1.0, 2.0], [1.0, None]]}, r"row 1 \(id 'b'\): a value is nan or missing"),
        ({"probs": [[1.0], [1.0]], "classes": [[0, 1], [0, 1]]}, "2 classes a row, but 1 probs: expected one each"),
        (
            {"probs": [[1.0], [1.0]], "classes": [[0.0], [1.0]]},
            "column `classes` holds float64: expected class indices",
        ),
        ({"probs": [[1.0], [1.0]], "classes": [[0], [-1]]}, r"row 1 \(id 'b'\): class -1 is out of range"),
        ({"log_probs": [[0.0], [0.1]], "classes": [[0], [1]]}, r"row 1 \(id 'b'\): its probabilities sum to 1.105"),
        (
            {"log_probs": [[0.0], [math.nan]], "classes": [[0], [1]]},
            "a value is nan or missing: expected finite log_pro",
        ),
    ],
)
def test_mistakes_in_parquet_files_are_told(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(parquet(tmp_path, **columns), "?num_classes=2" if "classes" in columns else "")
    assert "\n" not in str(caught.value) and "t.parquet" in str(caught.value)


def test_other_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("text")
    with pytest.raises(DataError, match=r"t\.txt: not a Parquet file, or damaged .*; a file of predictions is"):
        load(tmp_path / "t.txt")
    (tmp_path / "t.csv").write_bytes(b"id,logit:\xff\n")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as CSV"):
        load(tmp_path / "t.csv")
    with pytest.raises(RunFolderError, match=re.escape(f"{tmp_path}/t.csv/x.csv: cannot be written")):
        predictions().write(tmp_path / "t.csv" / "x.csv")


def test_numbers_of_classes_that_disagree(tmp_path: Path) -> None:
    predictions().write(tmp_path / "t.parquet", top_k=2)
    with pytest.raises(BadReference, match="the number of classes is 4 by the file, 4 by the class names, 5 by"):
        load(tmp_path / "t.parquet", "?num_classes=5")
