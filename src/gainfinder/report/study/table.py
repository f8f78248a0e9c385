"""A table as a value, and its forms: Markdown, LaTeX (booktabs); the page's template makes HTML of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

NONE = "–"
"""What a cell without a value says."""
WIDE = 7
"""A table of more columns is fitted to the width of the text in LaTeX."""
_SYMBOL = re.compile(r"\$\\(Delta|rho)\$\\_(\w+)")
"""Δ_transf, Δ_acc, ρ_pos, ρ_neg, once they are escaped."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "–": "--", "−": "$-$", "Δ": r"$\Delta$", "ρ": r"$\rho$", "≤": r"$\leq$",
    "≥": r"$\geq$", "×": r"$\times$", "…": r"\ldots{}", "←": r"$\leftarrow$", "→": r"$\rightarrow$", "·": r"$\cdot$",
}  # fmt: skip


class TableCell(NamedTuple):
    """A cell.

    Attributes:
        text: what it says.
        value: what it is sorted by; None sorts by the text.
    """

    text: str
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """A table of the report.

    Attributes:
        name: name of its files, without the ending.
        title: what it shows.
        columns: heads of the columns.
        rows: the cells, as many a row as there are columns.
        notes: what has to be known to read it: units, intervals, what is missing.
        words: number of leading columns that hold words.
        totals: number of last rows that are over all the others.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    notes: tuple[str, ...] = ()
    words: int = 1
    totals: int = 0

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), f"{self.name}: rows differ from the columns"

    @property
    def body(self) -> tuple[tuple[TableCell, ...], ...]:
        """The rows but the totals."""
        return self.rows[: len(self.rows) - self.totals]

    @property
    def foot(self) -> tuple[tuple[TableCell, ...], ...]:
        """The totals."""
        return self.rows[len(self.rows) - self.totals :]


def words(text: str) -> TableCell:
    """A cell of words."""
    return TableCell(text)


def number(value: float | None, form: str = "{:+.2f}", *, missing: str = NONE) -> TableCell:
    """A cell of one number."""
    return TableCell(missing) if value is None else TableCell(formatted(value, form), value)


def formatted(value: float, form: str = "{:+.2f}") -> str:
    """A number as text; what rounds to zero has no minus.

    Example:
        >>> formatted(-0.001), formatted(-0.3)
        ('+0.00', '-0.30')
    """
    text = form.format(value)
    return form.format(0.0) if text.startswith("-") and not text.strip("-0.%") else text


def markdown(table: StudyTable) -> str:
    """The table in Markdown, its title above and its notes below."""
    align = ["---"] * table.words + ["---:"] * (len(table.columns) - table.words)
    lines = [f"**{_plain(table.title)}**", "", _piped(table.columns), _piped(align)]
    lines += [_piped([cell.text for cell in row]) for row in table.rows]
    lines += ["", *(f"- {_plain(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


def latex(table: StudyTable) -> str:
    """The table in LaTeX, for the packages booktabs and, of wide tables, graphicx."""
    columns = "l" * table.words + "r" * (len(table.columns) - table.words)
    rows = [*map(_row, table.body)]
    rows += [r"\midrule", *map(_row, table.foot)] if table.foot and rows else [*map(_row, table.foot)]
    before, after = ([r"\resizebox{\textwidth}{!}{%"], ["}"]) if len(table.columns) > WIDE else ([r"\small"], [])
    notes = [r"\par\smallskip\footnotesize " + " ".join(map(escape_latex, table.notes))] if table.notes else []
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(table.title)}}}", rf"\label{{tab:{table.name}}}",
        *before, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row([TableCell(one) for one in table.columns]),
        r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", *after, *notes, r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """A text whose special characters LaTeX prints as they are, a sign before a digit as a minus.

    Example:
        >>> print(escape_latex("resnet_50 & 3%: -0.30"))
        resnet\\_50 \\& 3\\%: $-$0.30
    """
    signed = re.sub(r"(?<![\w.-])-(?=\d)", "−", " ".join(text.split()))
    escaped = "".join(_LATEX.get(letter, letter) for letter in signed)
    return _SYMBOL.sub(r"$\\\1_{\\mathrm{\2}}$", escaped)


def _row(cells: Sequence[TableCell]) -> str:
    return " & ".join(escape_latex(cell.text) for cell in cells) + r" \\"


def _piped(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(text).replace("|", "\\|") for text in texts) + " |"


def _plain(text: str) -> str:
    """A text on one line that makes no HTML and no link in Markdown."""
    line = " ".join(text.split()).replace("\\", "\\\\")
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", line).replace("](", r"\](")
