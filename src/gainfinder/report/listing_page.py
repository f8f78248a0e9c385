"""A page of the results under a folder: a table to sort and filter, each row with a link to its own report."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

from ..errors import RunFolderError
from ..files import write_text
from ..references import short_names
from ..results import REPORT_FILE, ListedResult, Listing
from .page import render_page
from .rows import counted, duration

NONE = "–"


@dataclass(frozen=True, kw_only=True)
class ListedCells:
    """What a row of a table of results says.

    Attributes:
        models: student and teachers, by short names.
        method: the method, and the strategy of several teachers.
        images: the images measured on.
        accuracy: accuracy of the student that is kept.
        delta: transfer delta in percentage points with its interval.
        took: time from start to end.
        finished: date of the end, in UTC.
    """

    models: str
    method: str
    images: str
    accuracy: str
    delta: str
    took: str
    finished: str


def listed_cells(one: ListedResult) -> ListedCells:
    """A result's row."""
    name = short_names([one.student, *one.teachers])
    delta, interval = one.transfer_delta_pp, one.transfer_delta_ci_pp
    shown = NONE if delta is None else f"{delta:+.2f}"
    return ListedCells(
        models=f"{name[one.student]} ← {', '.join(name[teacher] for teacher in one.teachers)}",
        method=one.method if one.strategy is None else f"{one.method}, {one.strategy}",
        images=f"{one.val} ({one.images:,})",
        accuracy=NONE if one.accuracy_after is None else f"{one.accuracy_after:.4f}",
        delta=shown if interval is None else f"{shown} ({interval[0]:+.2f} to {interval[1]:+.2f})",
        took=NONE if one.seconds is None else duration(one.seconds),
        finished=NONE if one.finished is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.finished)),
    )


def write_listing_page(listing: Listing, path: str | Path) -> None:
    """Write the page atomically; a page of results that is there is replaced.

    Args:
        listing: the results.
        path: the page's file.

    Raises:
        RunFolderError: the file holds something else, or cannot be written.
    """
    target = Path(path)
    _refuse_other(target)
    rows = [
        {"result": one, "cells": listed_cells(one), "link": _link(Path(listing.folder) / one.folder, target)}
        for one in listing.results
    ]
    title = f"{counted(len(rows), 'result')} under {listing.folder}"
    write_text(target, render_page("listing.html.j2", section=SimpleNamespace(title=title), listing=listing, rows=rows))


MARK = '<table class="many" id="results"'
"""What tells a page of results from other files."""


def _refuse_other(path: Path) -> None:
    """Refuse to replace a file that is no page of results."""
    try:
        there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
    if there is not None and MARK not in there:
        raise RunFolderError(f"{path}: is no page of results, and is not overwritten: choose another name")


def _link(folder: Path, page: Path) -> str | None:
    """The address of a result's report, seen from the page; None where there is none."""
    report = folder / REPORT_FILE
    if not report.exists():
        return None
    return quote(Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix())
