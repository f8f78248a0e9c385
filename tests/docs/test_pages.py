"""How pages are read and compared: the rules that docs/contributing.md tells."""

from pathlib import Path

import pytest

from pages import Reader, blocks, commands, differences

PAGE = """# A page

```console
$ echo one \\
    two        # a remark
$ echo 'three#4'
```

```text figures
1.5 %
```

`names.json`:

```json
{}
```

```python
# own.py
x = 1
```

```
a drawing
```
"""


def test_a_page_is_read() -> None:
    console, text, json, python, drawing = blocks(PAGE)
    assert (console.kind, console.line) == ("console", 4)
    assert commands(console.code) == ["echo one two", "echo 'three#4'"]
    assert text.figures and not console.figures
    assert (json.file, python.file, drawing.kind) == ("names.json", "own.py", "")
    with pytest.raises(AssertionError, match="neither a command nor its continuation: 'two'"):
        commands("$ one\ntwo\n")


@pytest.mark.parametrize(
    ("expected", "got", "figures", "agree"),
    [
        ("a  b", "a b", False, True),
        ("a b", "ab", False, False),
        ("a", "a\nb", False, False),
        ("a … c", "a bbb c", False, True),
        ("a … c", "a b\nb c", False, False),
        ("a\n…\nd", "a\nb\nc\nd", False, True),
        ("a\n…\nd", "a\nd", False, True),
        ("a\n…", "b\nc", False, False),
        ("accuracy 0.93", "accuracy 0.94", False, False),
        ("accuracy 0.93", "accuracy 0.94", True, True),
        ("+3.73 pp (31%)", "-0.10 pp (100%)", True, True),
        ("accuracy 0.93", "accuracy –", True, False),
        ("268 images", "267 images", True, False),
        ("resnet18 0.5", "resnet34 0.5", True, False),
        ("a.b (c)*", "a.b (c)*", False, True),
    ],
)
def test_what_a_page_shows_is_compared(expected: str, got: str, figures: bool, agree: bool) -> None:
    assert (differences(expected, got, figures=figures) == "") == agree


def test_blocks_run_in_one_folder_and_one_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, {"given": 2})
    page = "```python\nx = given + 1\n```\n```console\n$ echo hello > file\n$ cat file\n```\n```python\nprint(x)\n```\n"
    assert [reader.follow(block, page="page") for block in blocks(page)] == ["", "hello\n", "3\n"]


def test_what_fails_is_told(tmp_path: Path) -> None:
    reader = Reader(tmp_path)

    def follow(page: str) -> str:
        return reader.follow(blocks(page)[0], page="page")

    with pytest.raises(AssertionError, match="exit 1 ends with 1"):
        follow("```console\n$ exit 1\n```\n")
    with pytest.raises(AssertionError, match="no-such-command ends with 127"):
        follow("```console\n$ no-such-command\n```\n")
    with pytest.raises(ZeroDivisionError):
        follow("```python\n1 / 0\n```\n")
    printed = follow("```console\n$ gainfinder methods --jsn\n```\n")
    assert printed.startswith("gainfinder: ") and "--jsn" in printed
