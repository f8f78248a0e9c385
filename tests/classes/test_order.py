"""Doubts about the order of classes."""

import pytest

from gainfinder.classes import natural_key, order_doubt

NATURAL = [str(i) for i in range(12)]


def test_natural_names_that_others_sort_as_text() -> None:
    note = order_doubt(NATURAL, named="photos", nameless="net")
    assert note is not None
    assert "in the order of photos: …, 1, 2, 3, … (natural, as timm sorts)" in note
    assert "as text, which is how torchvision, Keras and datasets sort, it is …, 1, 10, 11, …" in note
    assert "add ?classes=0,1,10,11,2,3,4,5,6,7,8,9 to its reference" in note


def test_names_sorted_as_text_that_timm_sorts_naturally() -> None:
    note = order_doubt(["B", "a"], named="photos", nameless="net")
    assert note is not None and "?classes=a,B" in note and "naturally, which is how timm sorts, it is a, B" in note


@pytest.mark.parametrize("names", [["a", "b"], ["10", "9", "1"], [], ["0", "1", "2"]])
def test_no_doubt(names: list[str]) -> None:
    assert order_doubt(names, named="photos", nameless="net") is None


def test_many_names_go_into_a_file() -> None:
    note = order_doubt([str(i) for i in range(1000)], named="photos", nameless="net")
    assert note is not None and "?classes=@FILE, with a name a line in that order," in note and len(note) < 500


def test_numbers_of_any_length_sort() -> None:
    assert sorted(["1" + "0" * 9000, "9" * 9000, "2"], key=natural_key) == ["2", "9" * 9000, "1" + "0" * 9000]
