"""What a report shows of samples: small images, excerpts of texts."""

import pytest

from gainfinder.runs.thumbnails import excerpt, shown

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("one\r\n\ttwo   three", "one two three"),
        ("twelve words of a text that go on and on", "twelve words of a…"),
        ("\u6587" * 40, "\u6587" * 19 + "…"),
        ("a" * 18 + "e\u0301" + "b" * 9, "a" * 18 + "…"),
        ("a" * 17 + FAMILY + "b" * 9, "a" * 17 + "…"),
    ],
    ids=["lines", "space", "no-space", "accent", "emoji"],
)
def test_an_excerpt_ends_between_words_or_letters(text: str, wanted: str) -> None:
    assert excerpt(text, 20) == wanted


def test_of_pairs_there_are_two_and_the_whole_keeps_its_lines() -> None:
    assert shown(("a\nb", "c"), characters=10) == ("a b", "c")
    assert shown("a\nb", characters=None) == ("a\nb",)
    assert shown("half \ud83d", characters=None) == ("half ?",), "no file can hold half a character"
