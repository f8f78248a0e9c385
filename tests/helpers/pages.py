"""Pages of the documentation as a reader would follow them: their blocks, run from top to bottom, and what they print.

A page is Markdown. A fence begins and ends at the margin; the first word after it says what the block is:

    ```console   each line that begins with `$ ` is a command, with the lines that it is continued on after a `\\`
    ```python    Python, all blocks of a page in one namespace; one that begins with `# NAME.py` is written to that file
    ```json      one that follows "`NAME.json`:" is written to that file; `toml` likewise
    ```text      what the block before it prints

and one without a word is a drawing, which nobody runs.

See `differences` for how much of the output must agree.
"""

import ast
import contextlib
import difflib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gainfinder.cli import main

FENCE = re.compile(r"^```(?P<kind>[a-z]*)(?P<rest>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_PYTHON = re.compile(r"# (?P<name>\w+\.py)\n")
NAMED = re.compile(r"`(?P<name>\w+\.(?:json|toml))`:\s*$")
FIGURE = re.compile(r"(?<![\w.])[+−-]?\d[\d,]*(?:\.\d+(?:e[+-]?\d+)?(?=%|\b)|(?=%| %))")
INSTALLS = "pip install uv && uv run gainfinder "
"""What stands before a command that is run without it: the package is there already."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        kind: console, python, json, toml, text, or nothing.
        figures: whether its figures may differ.
        code: what stands in it.
        line: of its first line in the page, counted from 1.
        file: that it is written to, or None.
    """

    kind: str
    figures: bool
    code: str
    line: int
    file: str | None


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


def blocks(page: str) -> list[Block]:
    """The blocks of a page, from top to bottom."""
    found = []
    for match in FENCE.finditer(page):
        kind, code = match["kind"], match["code"]
        name = NAMED_PYTHON.match(code) if kind == "python" else None
        if kind in ("json", "toml"):
            name = NAMED.search(page[: match.start()])
        found.append(
            Block(
                kind=kind,
                figures=match["rest"].split() == ["figures"],
                code=code,
                line=page[: match.start("code")].count("\n") + 1,
                file=name["name"] if name else None,
            )
        )
    return found


def commands(code: str) -> list[str]:
    """The commands of a console block; what stands in none of them is an error."""
    found: list[str] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append(line.removeprefix("$ "))
        else:
            assert found and found[-1].endswith("\\"), f"neither a command nor its continuation: {line!r}"
            found[-1] = found[-1].removesuffix("\\") + line.strip()
    return [re.sub(r"\s+# .*", "", command).strip() for command in found]


def differences(expected: str, got: str, *, figures: bool = False) -> str:
    """What a page shows against what was printed; empty where they agree.

    They agree line by line, up to the number of spaces in a row. `…` stands for anything within a line, and a line that
    is nothing but `…` for any number of lines. With `figures`, numbers that have a point or are followed by % may be
    others: they come from training, whose arithmetic is not the same on every machine.
    """
    lines = [line.rstrip() for line in expected.strip("\n").splitlines()]
    pattern = "".join(r"(?:[^\n]*\n)*?" if line.strip() == "…" else _line(line, figures) + r"[ ]*\n" for line in lines)
    if re.fullmatch(pattern, got.strip("\n") + "\n"):
        return ""
    return "\n".join(difflib.unified_diff(lines, got.strip("\n").splitlines(), "in the page", "printed", lineterm=""))


def _line(line: str, figures: bool) -> str:
    def text(part: str) -> str:
        words = re.split(r"( +|…)", part)
        return "".join(" +" if word.isspace() else r"[^\n]*" if word == "…" else re.escape(word) for word in words)

    if not figures:
        return text(line)
    pieces, end = [], 0
    for number in FIGURE.finditer(line):
        pieces += [text(line[end : number.start()]), FIGURE.pattern]
        end = number.end()
    return "".join([*pieces, text(line[end:])])


class Reader:
    """Whoever follows a page: in one folder, with one Python namespace.

    Args:
        folder: working folder, which is the current one.
        names: names that the page leaves to its reader.
    """

    def __init__(self, folder: Path, names: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__", **(names or {})}

    def follow(self, block: Block, *, page: str, skipped: Sequence[str] = ()) -> str:
        """Run a block that is code, and return what it prints: of a command that fails, its error."""
        if block.file is not None:
            (self.folder / block.file).write_text(block.code, encoding="utf-8")
            return ""
        if block.kind == "python":
            return self._python(block, page)
        return "".join(_run(command, self.folder) for command in commands(block.code) if command not in skipped)

    def _python(self, block: Block, page: str) -> str:
        tree = ast.parse(block.code, filename=page)
        ast.increment_lineno(tree, block.line - 1)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(tree, page, "exec"), self.names)
        return out.getvalue()


def _run(command: str, folder: Path) -> str:
    ran = gainfinder(shlex.split(command)[1:]) if command.startswith("gainfinder ") else _shell(command, folder)
    assert ran.code in (0, 2), f"{command} ends with {ran.code}:\n{ran.out}{ran.err}"
    if ran.code == 0:
        return ran.out
    return "".join(line + "\n" for line in ran.err.splitlines() if line.startswith("gainfinder: "))


def gainfinder(arguments: Sequence[str]) -> Ran:
    """The program as its entry point runs it, in this process: importing torch takes longer than most commands."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["gainfinder", *arguments]),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ran(code=code, out=out.getvalue(), err=err.getvalue())


def _shell(command: str, folder: Path) -> Ran:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)
