"""A study's report put together: its data sets with findings, tables and figures, and what is left out."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..._version import __version__
from ...study import EpochRow, StudyDocument, StudyRow
from ..drawing import Drawer
from ..page import render_page
from .cells import Omitted, bounded
from .figures import StudyFigure, across_figures, data_set_figures, named
from .findings import StudyFinding, study_findings
from .grouping import Results, group_rows
from .table import StudyTable, words
from .tables import study_tables

LEADING = "methods"
"""The table that the page shows open, above the figures."""


@dataclass(frozen=True, kw_only=True)
class DataSetPart:
    """What the report says of one data set.

    Attributes:
        data: its name.
        noun: what a sample of it is: `image` or `text`.
        findings: the paper's findings, by claim.
        tables: all tables, the ones over methods first.
        figures: all figures.
    """

    data: str
    noun: str
    findings: tuple[tuple[str, tuple[StudyFinding, ...]], ...]
    all_tables: tuple[StudyTable, ...]
    figures: tuple[StudyFigure, ...]

    @property
    def leading(self) -> list[StudyTable]:
        """The tables above the figures."""
        return [one for one in self.all_tables if one.name.startswith(LEADING)]

    @property
    def tables(self) -> list[StudyTable]:
        """The others."""
        return [one for one in self.all_tables if not one.name.startswith(LEADING) and one.name[:8] != "findings"]


@dataclass(frozen=True, kw_only=True)
class StudySection:
    """A study's report.

    Attributes:
        title: title of the page.
        about: what the study is for.
        counts: how many cells are in which state.
        done: number of finished cells.
        parts: each data set.
        across: figures over several data sets.
        omitted: what the cells do not allow.
        failures: why cells failed.
        rows_file: name of the file of all rows.
        epochs_file: name of the file of all epochs.
        version: the program's version.
    """

    title: str
    about: str
    counts: str
    done: int
    parts: tuple[DataSetPart, ...]
    across: tuple[StudyFigure, ...]
    omitted: tuple[str, ...]
    failures: tuple[str, ...]
    rows_file: str
    epochs_file: str
    version: str = __version__

    @property
    def figures(self) -> list[StudyFigure]:
        """All figures."""
        return [*itertools.chain.from_iterable(part.figures for part in self.parts), *self.across]

    @property
    def tables(self) -> list[StudyTable]:
        """All tables."""
        return [*itertools.chain.from_iterable(part.all_tables for part in self.parts)]


def study_section(
    document: StudyDocument, rows: Sequence[StudyRow], epochs: Sequence[EpochRow], *, rows_format: str = "parquet"
) -> StudySection:
    """The report of a study.

    Args:
        document: the study.
        rows: a row for each of its cells.
        epochs: the epochs of its sequences.
        rows_format: ending of the files of all rows.
    """
    done = sum(row.state == "done" for row in rows)
    by_data = group_rows(rows) if done else {}
    omitted: list[str] = []
    parts = [
        _part(results, rows, epochs, omitted, several=len(by_data) > 1) for results in by_data.values()
    ]  # a list: each adds to what is left out
    across = across_figures(by_data) if done else []
    omitted += [str(one) for one in across if isinstance(one, Omitted)]
    return StudySection(
        title=f"Study {document.study.name}",
        about=document.study.about,
        counts=_counts(rows),
        done=done,
        parts=tuple(parts),
        across=tuple(one for one in across if isinstance(one, StudyFigure)),
        omitted=tuple(omitted),
        failures=tuple(_failure(row) for row in rows if row.state == "failed"),
        rows_file=f"rows.{rows_format}",
        epochs_file=f"epochs.{rows_format}",
    )


def study_page(section: StudySection, *, drawer: Drawer) -> str:
    """The page: one file that opens offline; `drawer` draws its figures."""
    return render_page("study.html.j2", drawer=drawer, section=section)


def findings_table(found: Sequence[StudyFinding]) -> StudyTable:
    """The findings as a table."""
    return StudyTable(
        name="findings",
        title="Findings of the paper in this study",
        columns=("finding", "method", "verdict", "over", "estimate [95 %]"),
        rows=tuple(
            (
                words(one.claim), words(one.method or "–"), words(one.verdict), words(one.count or "–"),
                bounded(one.estimate, one.interval),
            )
            for one in found
        ),
        words=4,
        notes=tuple(dict.fromkeys(one.text for one in found)),
    )  # fmt: skip


def _part(
    results: Results, rows: Sequence[StudyRow], epochs: Sequence[EpochRow], omitted: list[str], *, several: bool
) -> DataSetPart:
    """The part of a data set; what it does not allow is added to `omitted`."""
    suffix = named(results, several=several)
    found = study_findings(results)
    tables: list[StudyTable | Omitted] = [findings_table(found), *study_tables(results)]
    figures = data_set_figures(results, epochs, rows, suffix=suffix)
    before = f"{results.data}: " if several else ""
    omitted += [f"{before}{one}" for one in (*tables, *figures) if isinstance(one, Omitted)]
    by_claim = itertools.groupby(found, key=lambda one: one.claim)
    return DataSetPart(
        data=results.data,
        noun=results.noun,
        findings=tuple((claim, tuple(of_claim)) for claim, of_claim in by_claim),
        all_tables=_renamed([one for one in tables if isinstance(one, StudyTable)], suffix),
        figures=tuple(one for one in figures if isinstance(one, StudyFigure)),
    )


def _renamed(tables: Sequence[StudyTable], suffix: str) -> tuple[StudyTable, ...]:
    """Tables with the data set in their names, and a number where two would have one name."""
    seen: Counter[str] = Counter()
    found = []
    for one in tables:
        seen[one.name] += 1
        number = f"-{seen[one.name]}" if seen[one.name] > 1 else ""
        found.append(replace(one, name=f"{one.name}{number}{suffix}"))
    return tuple(found)


def _counts(rows: Sequence[StudyRow]) -> str:
    states = Counter(row.state for row in rows)
    told = ", ".join(f"{states[name]} {name}" for name in ("done", "running", "failed", "missing") if states[name])
    unlabelled = sum(row.state == "done" and row.transfer_delta_pp is None for row in rows)
    more = (
        f" {unlabelled} of those that are done were measured without labels and have no part in this."
        if unlabelled
        else ""
    )
    return f"{len(rows)} cells: {told}.{more}"


def _failure(row: StudyRow) -> str:
    about = ", ".join(one for one in (row.variant or row.method, row.strategy or "", f"seed {row.seed}") if one)
    return f"{row.student} from {row.teacher} ({about}): {row.error or 'no reason was noted'}"
