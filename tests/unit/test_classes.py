"""Matching classes by name and by position, and the messages where neither can be right."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainfinder.classes import ClassMatch, align_teacher, match_classes
from gainfinder.errors import DataError, ModelError

SETTINGS = settings(deadline=None, max_examples=50, derandomize=True)
Names = list[str] | None


def match(data: Names, model: Names, *, data_count: int | None = None, model_count: int | None = None) -> ClassMatch:
    return match_classes(
        data,
        model,
        data="photos/",
        model="resnet18",
        data_count=len(data or ()) if data_count is None else data_count,
        model_count=len(model or ()) if model_count is None else model_count,
    )


def align(student: Names, teacher: Names, student_count: int, teacher_count: int) -> ClassMatch:
    return align_teacher(
        student, teacher, student="small", teacher="big", student_count=student_count, teacher_count=teacher_count
    )


def test_data_may_hold_some_of_a_models_classes_in_any_order() -> None:
    assert match(["cow", "ant"], ["ant", "bee", "cow"]) == ClassMatch(order=(2, 0), note=None)
    assert match(["a"], ["a"]).order == (0,)


@pytest.mark.parametrize("name", ["Great Dane", "great_dane", " GREAT-dane ", "great__dane", "great dane"])
def test_names_match_up_to_case_space_and_separators(name: str) -> None:
    assert match([name, "pug"], ["pug", "great dane"]).order == (1, 0)


def test_unicode_spellings_of_a_name_match() -> None:
    assert match(["cafe\u0301", "tea"], ["tea", "caf\u00e9"]).order == (1, 0)


def test_an_exact_match_comes_first_and_confusable_names_match_exactly_only() -> None:
    assert match(["a b", "a_b"], ["a_b", "a b"]).order == (1, 0)
    assert match(["a_b", "c"], ["c", "A_B", "a_b"]).order == (2, 0)
    with pytest.raises(DataError, match="1 of the 2 classes of photos/ are not among"):
        match(["A-B", "c"], ["c", "A_B", "a_b"])
    with pytest.raises(DataError, match="1 of the 2 classes of photos/ are not among"):
        match(["cat", "Cat"], ["cat", "dog"])


@pytest.mark.parametrize(("data", "model"), [(None, ["a", "b"]), (["a", "b"], None), (None, None)])
def test_a_side_without_names_matches_by_position(data: Names, model: Names) -> None:
    assert match(data, model, data_count=2, model_count=2) == ClassMatch(order=None, note=None)
    model_count = 3 if model is None else 2
    data_count = 2 if model is None else 3
    if data is None or model is None:
        with pytest.raises(DataError, match=r"photos/ has \d classes and resnet18 has \d classes: .* names none"):
            match(data, model, data_count=data_count, model_count=model_count)


def test_no_name_in_common_and_equal_counts_match_by_position_with_a_note() -> None:
    found = match(["n01", "n02", "n03", "n04"], ["tench", "goldfish", "shark", "ray"])
    assert found.order is None
    assert found.note == (
        "photos/ and resnet18 have no class name in common, so their 4 classes are matched by position: "
        "'n01' = 'tench', 'n02' = 'goldfish', 'n03' = 'shark', …; if that is wrong, "
        "?classes= in the model reference sets a model's class names"
    )


def test_no_name_in_common_and_unequal_counts() -> None:
    with pytest.raises(DataError) as caught:
        match(["n01", "n02"], ["tench", "goldfish", "shark", "ray"])
    assert str(caught.value) == (
        "photos/ has 2 classes ('n01', 'n02') and resnet18 has 4 classes ('tench', 'goldfish', 'shark', …), with no "
        "name in common: expected common names, or equal counts to match by position; "
        "?classes= in the model reference sets a model's class names"
    )


def test_some_names_missing() -> None:
    with pytest.raises(DataError) as caught:
        match(["goldfsh", "tench", "zzz"], ["tench", "goldfish", "shark"])
    assert str(caught.value) == (
        "2 of the 3 classes of photos/ are not among the 3 classes of resnet18: "
        "'goldfsh' (near matches: goldfish), 'zzz'; rename them, or "
        "?classes= in the model reference sets a model's class names"
    )
    with pytest.raises(DataError, match=re.escape("'4' and 2 more; rename")):
        match(["x", *"0123456"], ["x", "y"])


def test_nameless_counts_that_differ() -> None:
    with pytest.raises(DataError) as caught:
        match(["a", "b"], None, model_count=10)
    assert str(caught.value) == (
        "photos/ has 2 classes and resnet18 has 10 classes: resnet18 names none, and matching by position needs equal "
        "counts; ?classes= in the model reference sets a model's class names"
    )
    with pytest.raises(DataError, match=r"photos/ names none, .*; expected all 1 class, or names for them"):
        match(None, ["a"], data_count=10)


def test_a_name_that_occurs_twice() -> None:
    """ImageNet has two cranes: the same list matches itself, but no other order can be told."""
    assert match(["crane", "ant", "crane"], ["crane", "ant", "crane"]).order == (0, 1, 2)
    with pytest.raises(DataError, match="'crane' occurs 2 times in resnet18"):
        match(["crane", "ant"], ["crane", "ant", "crane"])
    with pytest.raises(DataError, match="'crane' occurs 2 times in photos/"):
        match(["crane", "crane", "ant"], ["crane", "ant", "bee"])
    assert match(["ant"], ["crane", "ant", "crane"]).order == (1,)


def test_a_teachers_outputs_are_put_in_the_students_order() -> None:
    assert align(["a", "b", "c"], ["c", "a", "b"], 3, 3).order == (1, 2, 0)
    assert align(None, ["a", "b"], 2, 2).order is None
    assert align(["a", "b"], ["x", "y"], 2, 2).note is not None


def test_teachers_of_other_classes_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        align(["a", "b"], ["a", "b", "c"], 2, 3)
    assert str(caught.value) == (
        "big has 3 classes and the student small has 2 classes: teacher and student need the same classes; "
        "choose a teacher with 2"
    )
    with pytest.raises(ModelError, match="1 of the 2 classes of small are not among the 2 classes of big: 'b'"):
        align(["a", "b"], ["a", "q"], 2, 2)


def test_a_count_that_is_not_the_number_of_names_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="resnet18: expected 3 class names, got 2"):
        match(["a"], ["a", "b"], model_count=3)


@SETTINGS
@given(names=st.lists(st.text(alphabet="abAB _-", min_size=1, max_size=4), min_size=1, unique=True), data=st.data())
def test_a_shuffled_list_is_found_again(names: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(names))
    order = align(names, shuffled, len(names), len(names)).order
    assert order is not None
    assert [shuffled[index] for index in order] == names
