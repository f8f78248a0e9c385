"""What differs between two configurations: the most telling first, digests in words."""

import pytest

from gainfinder.results.differences import differences, in_words


def config(pixels: str | None, pillow: str) -> dict[str, object]:
    known = {} if pixels is None else {"pixels": pixels}
    return {"data": {"reference": "a", **known}, "settings": {}, "environment": {"pillow": pillow}}


@pytest.mark.parametrize(
    ("stored", "asked", "differ"),
    [
        (config("1", "12"), config("1", "12"), False),
        (config("1", "12"), config("2", "12"), True),
        (config("1", "12"), config("2", "13"), False),  # another decoder
        (config(None, "12"), config("2", "12"), False),  # an earlier version
    ],
)
def test_other_pixels_are_another_run_where_they_can_be_compared(
    stored: dict[str, object], asked: dict[str, object], differ: bool
) -> None:
    found = differences(stored, asked)
    assert bool(found) == differ
    if differ:
        assert in_words(found, asked, asked=True) == [
            "of the images to learn from, a, some are others, by their contents (digest 1 then, 2 now)"
        ]


def test_digests_are_told_in_words() -> None:
    stored = {
        "student": {"reference": "small", "digest": "1" * 32},
        "teachers": [{"reference": "big", "digest": "a"}, {"reference": "table:p.csv", "digest": "b"}],
        "val": {"reference": "photos", "digest": "c", "pixels": "f", "noun": "text"},
    }
    asked = {
        "student": {"reference": "small", "digest": "2" * 32},
        "teachers": [{"reference": "big", "digest": "a"}, {"reference": "table:p.csv", "digest": "d"}],
        "val": {"reference": "photos", "digest": "e", "pixels": "g", "noun": "text"},
    }
    assert in_words(differences(stored, asked), asked, asked=False) == [
        "the weights of the student small are others (digest 111111111111… then, 222222222222… now)",
        "the file of the teacher table:p.csv is another (digest b then, d now)",
        "ids or labels of the texts to measure on, photos, are others (digest c then, e now)",
    ]


def test_another_reference_says_it_and_settings_come_after_it() -> None:
    stored = {"settings": {"lr": 0.1}, "student": {"reference": "a", "digest": "1"}, "views": {"augment": "none"}}
    asked = {"settings": {"lr": 0.2}, "student": {"reference": "b", "digest": "2"}, "views": {"augment": "rrc"}}
    found = differences(stored, asked)
    assert in_words(found, asked, asked=True) == [
        "student.reference: a in the folder, b asked for",
        "settings.lr: 0.1 in the folder, 0.2 asked for",
        "views.augment: none in the folder, rrc asked for",
    ]
    assert in_words(found, asked, asked=False)[1] == "settings.lr: 0.1 then, 0.2 now"
