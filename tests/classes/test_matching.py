"""Matching classes by name and by position, and the messages where neither can be right."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainfinder.classes.label_map import LabelMap
from gainfinder.classes.matching import ClassMatch, TeacherMatch, align_teacher, map_teacher, match_classes
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


def align(student: Names, teacher: Names, student_count: int, teacher_count: int) -> TeacherMatch:
    return align_teacher(
        student, teacher, student="small", teacher="big", student_count=student_count, teacher_count=teacher_count
    )


def order_of(match: TeacherMatch) -> tuple[int, ...] | None:
    return None if match.label_map is None else match.label_map.order


def mapped(*pairs: tuple[str, str], student: Names = None, teacher: Names = None) -> TeacherMatch:
    """By a label map, of a student with 3 classes and a teacher with 4."""
    return map_teacher(
        pairs, student, teacher, student="small", teacher="big", student_count=3, teacher_count=4, where="map.json"
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
    assert order_of(align(["a", "b", "c"], ["c", "a", "b"], 3, 3)) == (1, 2, 0)
    assert order_of(align(["a", "b"], ["a", "b"], 2, 2)) == (0, 1)
    assert align(["a", "b", "c"], ["c", "a", "b"], 3, 3).note is None
    assert align(None, ["a", "b"], 2, 2) == TeacherMatch(label_map=None)
    by_position = align(["a", "b"], ["x", "y"], 2, 2)
    assert by_position.label_map is None and "matched by position: 'a' = 'x', 'b' = 'y'" in str(by_position.note)


def test_a_teacher_may_have_more_classes_or_lack_some() -> None:
    more = align(["cat", "dog"], ["Dog", "cow", "cat", "pig"], 2, 4)
    assert more.label_map == LabelMap(targets=(1, None, 0, None), num_classes=2)
    assert more.note == (
        "2 classes matched by name; 2 of the 4 classes of big are left out, their probability dropped: 'cow', 'pig'"
    )
    fewer = align(["cat", "dog", "cow"], ["dog", "cat"], 3, 2)
    assert fewer.label_map == LabelMap(targets=(1, 0), num_classes=3)
    assert fewer.note == (
        "2 classes matched by name; 1 of the 3 classes of the student small has no counterpart in big and no "
        "probability from it: 'cow'"
    )
    other = align(["goldfsh", "cat"], ["goldfish", "cat"], 2, 2)
    assert other.label_map == LabelMap(targets=(None, 1), num_classes=2)
    assert other.note == (
        "1 class matched by name; 1 of the 2 classes of the student small has no counterpart in big and no probability "
        "from it: 'goldfsh' (near matches: goldfish); 1 of the 2 classes of big is left out, their probability "
        "dropped: 'goldfish'"
    )
    assert "'c0', 'c1', 'c2' and 7 more" in str(align(["a"], ["a", *(f"c{i}" for i in range(10))], 1, 11).note)


def test_teachers_that_no_name_helps_with_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        align(["a", "b"], ["x", "y", "z"], 2, 3)
    assert str(caught.value) == (
        "big has 3 classes and the student small has 2 classes: no name is common ('x', 'y', 'z' and 'a', 'b'); "
        "`label_map=FILE` says which of the teacher's classes is which of the student's"
    )
    with pytest.raises(ModelError) as caught:
        align(["a", "b"], None, 2, 3)
    assert str(caught.value) == (
        "big has 3 classes and the student small has 2 classes: big names none, so they cannot be matched by name; "
        "?classes= in the model reference sets a model's class names, and `label_map=FILE` says which of the teacher's "
        "classes is which of the student's"
    )
    for student, teacher in ((["a", "a", "b"], ["a", "c"]), (["a", "b"], ["a", "a", "c"])):
        with pytest.raises(ModelError, match="the class name 'a' occurs 2 times in"):
            align(student, teacher, len(student), len(teacher))


def test_a_label_map_takes_names_and_indices() -> None:
    names = ["cat", "dog", "2"]
    found = mapped(("tabby", "Cat"), ("1", "cat"), ("3", "2"), student=names, teacher=["tabby", "lynx", "2", "3"])
    assert found.label_map == LabelMap(targets=(0, 0, None, 2), num_classes=3)
    assert found.note == (
        "label map map.json: 1 of the 3 classes of the student small has no counterpart in big and no probability from "
        "it: 'dog'; 1 of the 4 classes of big is left out, their probability dropped: '2'"
    )
    # the name '0' is another class than the index 0
    assert mapped(("0", "0"), student=["x", "y", "0"], teacher=None).label_map == LabelMap(
        targets=(2, None, None, None), num_classes=3
    )
    covered = mapped(("0", "0"), ("1", "1"), ("2", "2"), ("3", "2"), ("3", "2"))
    assert covered == TeacherMatch(label_map=LabelMap(targets=(0, 1, 2, 2), num_classes=3), note=None)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((), "map.json: the label map is empty: expected pairs of a teacher's class and a student's"),
        (
            (("tabbi", "cat"),),
            "map.json: 'tabbi' is no class of the teacher big; near matches: tabby; expected one of its 4 classes "
            "('tabby', 'lynx', 'pug', …) or an index from 0",
        ),
        (
            (("pug", "dgo"),),
            "map.json: 'dgo' is no class of the student small, which names none: give indices from 0 to 2, or its "
            "names (?classes= in the model reference sets a model's class names)",
        ),
        (
            (("pug", "3"),),
            "map.json: class 3 of the student is out of range: small has 3 classes, expected 0 to 2",
        ),
        ((("-1", "0"),), "map.json: class -1 of the teacher is out of range: big has 4 classes, expected 0 to 3"),
        (
            (("pug", "0"), ("2", "1")),
            "map.json: the teacher's class '2' is mapped to '0' and to '1': expected one of the student's classes for "
            "each of the teacher's",
        ),
        ((("wolf", "0"),), "the class name 'wolf' occurs 2 times in big"),
    ],
)
def test_mistakes_in_label_maps_are_told(pairs: tuple[tuple[str, str], ...], message: str) -> None:
    teacher = ["tabby", "lynx", "wolf", "wolf"] if pairs == (("wolf", "0"),) else ["tabby", "lynx", "pug", "wolf"]
    student = ["cat", "dog", "cow"] if pairs == (("tabbi", "cat"),) else None
    with pytest.raises(DataError) as caught:
        mapped(*pairs, student=student, teacher=teacher)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_count_that_is_not_the_number_of_names_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="resnet18: expected 3 class names, got 2"):
        match(["a"], ["a", "b"], model_count=3)


@SETTINGS
@given(names=st.lists(st.text(alphabet="abAB _-", min_size=1, max_size=4), min_size=1, unique=True), data=st.data())
def test_a_shuffled_list_is_found_again(names: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(names))
    order = order_of(align(names, shuffled, len(names), len(names)))
    assert order is not None
    assert [shuffled[index] for index in order] == names
