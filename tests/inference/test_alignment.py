"""Models and tables in a student's classes."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gainfinder.classes import read_label_map
from gainfinder.data import Images, load_images
from gainfinder.errors import DataError, ModelError
from gainfinder.inference.alignment import align_model, align_samples, named_after
from gainfinder.models import Classifier, load_model, load_teacher
from gainfinder.models.from_table import PredictionTable

PROBS = torch.tensor([[0.5, 0.125, 0.25, 0.125], [0.25, 0.25, 0.25, 0.25]])


class Fixed(nn.Module):
    """Gives the same logits, whatever the images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_buffer("logits")[: len(x)]


def model(names: list[str] | None, logits: Tensor | None = None) -> Classifier:
    fixed = torch.zeros(2, len(names or "12")) if logits is None else logits
    loaded = load_model(Fixed(fixed), size=4, class_names=names)
    return replace(loaded, reference="small" if logits is None else "big")


def table(path: Path, names: list[str]) -> PredictionTable:
    rows = [",".join([f"image-{i}", *(repr(prob) for prob in row)]) for i, row in enumerate(PROBS.tolist())]
    path.write_text("\n".join([",".join(["id", *(f"prob:{name}" for name in names)]), *rows]))
    found = load_teacher(f"table:{path}")
    assert isinstance(found, PredictionTable)
    return found


def test_missing_and_empty_label_maps(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("{}")
    with pytest.raises(DataError, match=r"map\.jsn' does not exist; near matches: map\.json: expected a \.json"):
        read_label_map(tmp_path / "map.jsn")
    with pytest.raises(DataError, match="is a folder"):
        read_label_map(tmp_path)
    with pytest.raises(DataError, match=r"map\.json: the label map is empty"):
        align_model(model(["a", "b"], PROBS[:, :2].log()), model(["a", "b"]), tmp_path / "map.json")


def test_a_class_twice_in_a_json_file(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"a": "a", "a": "b"}')
    with pytest.raises(DataError, match="the teacher's class 'a' is mapped to 'a' and to 'b'"):
        align_model(model(["a", "b"], PROBS[:, :2].log()), model(["a", "b"]), tmp_path / "map.json")


def test_a_model_and_its_table_answer_alike_through_a_map(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["tabby", "lynx", "pug", "car"]
    (tmp_path / "map.csv").write_text("tabby,cat\nlynx,cat\npug,dog\n")
    student = model(["dog", "cat"])
    teacher = align_model(model(names, PROBS.log()), student, tmp_path / "map.csv")
    assert isinstance(teacher, Classifier)
    assert teacher.class_names == ("dog", "cat") and teacher.num_classes == 2
    logits, kept = teacher.logits_and_kept(torch.zeros(2, 3, 4, 4))
    torch.testing.assert_close(logits.exp(), torch.tensor([[2 / 7, 5 / 7], [1 / 3, 2 / 3]]))
    torch.testing.assert_close(kept, torch.tensor([0.875, 0.75]))
    torch.testing.assert_close(teacher.logits(torch.zeros(2, 3, 4, 4)), logits, rtol=0, atol=0)
    assert "label map" in caplog.text and "1 of the 4 classes of big is left out" in caplog.text
    read = align_model(table(tmp_path / "t.csv", names), student, tmp_path / "map.csv")
    assert isinstance(read, PredictionTable)
    assert read.class_names == ("dog", "cat") and read.num_classes == 2
    found = read.lookup_and_kept(["image-1", "image-0"])
    torch.testing.assert_close(found.logits, logits.flip(0))
    torch.testing.assert_close(found.kept, kept.flip(0))


def test_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    student = model(["c", "a", "new"])
    teacher = align_model(model(["a", "b", "c", "d"], PROBS.log()), student)
    assert isinstance(teacher, Classifier)
    assert "2 classes matched by name; 1 of the 3 classes" in caplog.text
    logits = teacher.logits(torch.zeros(2, 3, 4, 4))
    torch.testing.assert_close(logits.exp(), torch.tensor([[1 / 3, 2 / 3, 1e-12], [1 / 2, 1 / 2, 1e-12]]))
    read = align_model(table(tmp_path / "t.csv", ["a", "b", "c", "d"]), student)
    assert isinstance(read, PredictionTable)
    torch.testing.assert_close(read.lookup(["image-0", "image-1"]), logits)
    with pytest.raises(ModelError, match=r"has 4 classes and the student small has 3 classes: no name is common"):
        align_model(table(tmp_path / "t.csv", ["p", "q", "r", "s"]), student)


def test_a_permutation_changes_no_bit_and_may_follow_another() -> None:
    names = ["a", "b", "c", "d"]
    raw = PROBS.log() * 3
    first = align_model(model(names, raw), model(["d", "c", "b", "a"]))
    assert isinstance(first, Classifier)
    x = torch.zeros(2, 3, 4, 4)
    assert torch.equal(first.logits(x), raw.flip(1))
    again = align_model(first, model(["b", "a", "d", "c"]))
    assert isinstance(again, Classifier)
    assert torch.equal(again.logits(x), raw[:, [1, 0, 3, 2]])
    assert torch.equal(again.logits_and_kept(x).kept, torch.ones(2))
    back = align_model(again, model(names))
    assert isinstance(back, Classifier)
    assert torch.equal(back.logits(x), raw) and back.class_names == tuple(names)
    plain = model(names, raw)
    assert torch.equal(plain.logits_and_kept(x).logits, raw) and plain.logits_and_kept(x).kept.tolist() == [1, 1]


def numbered(path: Path, count: int = 12) -> Path:
    for i in range(count):
        (path / str(i)).mkdir(parents=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(path / str(i) / "1.png")
    return path


def test_classes_matched_by_position_in_a_doubtful_order_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_images(numbered(tmp_path / "photos"))
    nameless = replace(model(None, torch.zeros(2, 12)), reference="net")
    caplog.clear()
    assert align_samples(images, nameless).labels.tolist() == list(range(12))
    assert "net names no classes" in caplog.messages[0]
    assert "add ?classes=0,1,10,11,2,3,4,5,6,7,8,9 to its reference" in caplog.messages[0]
    caplog.clear()
    student = named_after(nameless, images)
    assert "net names no classes" in caplog.messages[0]
    caplog.clear()
    align_samples(images, student)
    assert not caplog.messages
    align_model(replace(nameless, reference="teacher"), student)
    assert "teacher names no classes, so its outputs are taken in the order of net" in caplog.messages[0]
    caplog.clear()
    other = replace(nameless, class_names=tuple(sorted(str(i) for i in range(12))))
    assert align_samples(images, other).labels.tolist()[:3] == [0, 1, 4] and not caplog.messages


def test_other_names_in_a_doubtful_order_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = load_images(numbered(tmp_path / "photos"))
    named = replace(model([f"n{i:02}" for i in range(12)], torch.zeros(2, 12)), reference="net")
    caplog.clear()
    align_samples(images, named)
    assert "have no class name in common" in caplog.messages[0]
    assert "net has other names, so its outputs are taken in the order of" in caplog.messages[0]


def with_numbers(path: Path, labels: Sequence[int], names: dict[str, str] | None = None) -> Images:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    rows = pa.table({"image": [buffer.getvalue()] * len(labels), "label": list(labels)})
    pq.write_table(rows.replace_schema_metadata(names), path)
    return load_images(path)


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        ([0, 1, 2, 3, 4] * 2, 10, "10 classes of net, of which 5 occur (0 to 4); if they number other classes"),
        ([9, 0], 10, "10 classes of net, of which 2 occur (0 to 9); if they number other classes"),
        ([7], 10, "10 classes of net, of which 1 occurs (7); if they number other classes"),
        (
            [1, 2, 3, 4],
            1200,
            "1,200 classes of net, of which 4 occur (1 to 4); none is 0: if they count from 1, subtract",
        ),
        (range(1, 10), 10, "10 classes of net, of which 9 occur (1 to 9); none is 0: if they count from 1, subtract 1"),
        (range(10), 10, None),
        ([1, 0], 2, None),
    ],
)
def test_numbers_of_a_part_of_the_classes_are_told(
    tmp_path: Path, labels: list[int], classes: int, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"n{i}" for i in range(classes)] if classes < 1000 else None
    net = replace(model(names, torch.zeros(2, classes)), reference="net")
    images = with_numbers(tmp_path / "x.parquet", labels)
    caplog.clear()
    found = align_samples(images, net)
    assert found.labels.tolist() == list(labels)
    assert len(caplog.messages) == (told is not None)
    if told is not None:
        assert caplog.messages[0].startswith(
            f"{tmp_path / 'x.parquet'}: its labels are numbers without names and taken"
        )
        assert told in caplog.messages[0]
    caplog.clear()
    align_samples(found, net)
    assert not caplog.messages  # matched already


def test_a_selection_of_all_classes_and_named_ones_are_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = replace(model([f"n{i}" for i in range(10)], torch.zeros(2, 10)), reference="net")
    images = with_numbers(tmp_path / "x.parquet", range(10))
    part = with_numbers(tmp_path / "named.parquet", [0, 1], {"classes": "n3,n4"})
    caplog.clear()
    assert align_samples(images.select([1, 2]), net).labels.tolist() == [1, 2]
    assert align_samples(part, net).labels.tolist() == [3, 4]
    assert align_samples(with_numbers(tmp_path / "few.parquet", [0, 1]).without_labels(), net).labels is None
    assert not caplog.messages


def test_numbers_that_count_from_one_are_refused_with_the_remedy(tmp_path: Path) -> None:
    net = replace(model(None, torch.zeros(2, 10)), reference="net")
    beyond = r"label 10 of sample 'row-0000009' is out of range: net has 10 classes, expected 0 to 9"
    with pytest.raises(DataError, match=rf"{beyond}; no label is 0: if they count from 1, subtract 1 from each$"):
        align_samples(with_numbers(tmp_path / "x.parquet", range(1, 11)), net)
    with pytest.raises(DataError, match=r"label 10 of sample .* expected 0 to 9$"):
        align_samples(with_numbers(tmp_path / "y.parquet", range(11)), net)
