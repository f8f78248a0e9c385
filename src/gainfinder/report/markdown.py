"""Texts as Markdown shows them as they are: names hold what they like, and make no markup, link or HTML."""

import re
from collections.abc import Sequence

from ..errors import readable

_SPECIAL = re.compile(r"[\\`*_\[\]|~$]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_FENCE = re.compile(r"`+")


def plain(text: str) -> str:
    r"""A text on one line, in which no character means anything to Markdown or HTML.

    >>> print(plain("a_b | <b> [x](y) `c` $d$"))
    a\_b \| &lt;b&gt; \[x\](y) \`c\` \$d\$
    """
    line = _SPECIAL.sub(r"\\\g<0>", " ".join(readable(text).split()))
    return "".join(_HTML.get(letter, letter) for letter in line)


def code(text: str, *, in_table: bool = False) -> str:
    r"""A text as code within a line.

    >>> print(code("a`b"), code("a|b", in_table=True))
    ``a`b`` `a\|b`
    """
    line = " ".join(readable(text).split()) or " "
    line = line.replace("|", r"\|") if in_table else line
    ticks = "`" * (_longest(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def block(text: str, language: str) -> str:
    """A text of several lines as a block of code that it cannot end."""
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _longest(text: str) -> int:
    return max((len(ticks) for ticks in _FENCE.findall(text)), default=0)
