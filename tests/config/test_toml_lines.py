"""The line that a value of a TOML file stands on."""

import pytest

from gainfinder.config.toml_lines import line_of

TEXT = """\
title = "x"
[study]
students = [
    "a",
    "b.c",
]
[models]
"b.c" = "local-dir:b"
a = { reference = "local-dir:a" }
[variants.kl]
method = "kl"
[[exclude]]
student = "a"
[[exclude]]
student = "b.c"
"""


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("title",), None, 1),
        (("study",), None, 2),
        (("study", "students"), None, 3),
        (("study", "students"), "a", 4),
        (("study", "students"), "b.c", 5),
        (("models", "b.c"), None, 8),
        (("models", "a", "reference"), None, 9),
        (("variants", "kl", "method"), None, 11),
        (("exclude", 1), None, 14),
        (("exclude", 1, "student"), None, 15),
        (("variants", "dp", "method"), None, None),
    ],
)
def test_a_value_is_found_by_its_keys(path: tuple[str | int, ...], value: object, line: int | None) -> None:
    assert line_of(TEXT, path, value) == line
