"""What a page shows of a two-way transfer: both results side by side, and the way to the page of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunFolderError
from ..files import write_text
from ..references import short_names
from ..results import REPORT_FILE, ListedResult, TwoWay, TwoWayFolder, list_results
from .listing_page import NONE
from .page import render_page
from .records import TransferRecord, read_record
from .sections import TransferSection, transfer_section

LED_BY = {
    "frozen": "Each learned from the other as it was given, in a transfer of its own.",
    "live": "Both learned in step, each from the other as it was by then.",
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of both ways.

    Attributes:
        student: short name of the model that learned.
        teacher: short name of the one that it learned from.
        section: the transfer, as its own page shows it.
        listed: the same as a row of a table.
        link: address of its own page, seen from this one.
        before: accuracy before, as text, like those below.
        after: accuracy after.
        interval: 95 % interval of the transfer delta.
    """

    student: str
    teacher: str
    section: TransferSection
    listed: ListedResult
    link: str
    before: str
    after: str
    interval: str


@dataclass(frozen=True, kw_only=True)
class TwoWaySection:
    """Both ways.

    Attributes:
        title: a line that names both models.
        lead: what each learned from.
        ways: the student's way, and the teacher's.
    """

    title: str
    lead: str
    ways: tuple[Way, ...]


def write_two_way_page(folder: Path, found: TwoWay) -> Path:
    """Write the page on both results atomically; their own pages stay as they are.

    Args:
        folder: the folder of the two-way transfer.
        found: what was done there.

    Raises:
        RunFolderError: a result is missing or damaged, or the page cannot be written.
    """
    report = TwoWayFolder(folder).report
    write_text(report, render_page("two_way.html.j2", section=_section(folder, found)), within=folder)
    return report


def _section(folder: Path, found: TwoWay) -> TwoWaySection:
    listed = {one.folder: one for one in list_results(folder).results}
    name = short_names([found.student, found.teacher])
    return TwoWaySection(
        title=f"What {name[found.student]} and {name[found.teacher]} learned from each other",
        lead=LED_BY[found.both],
        ways=tuple(_way(folder / one, listed.get(one), name) for one in found.results),
    )


def _way(path: Path, listed: ListedResult | None, name: Mapping[str, str]) -> Way:
    record = read_record(path)
    if not isinstance(record, TransferRecord) or listed is None:
        raise RunFolderError(f"{path}: holds no result of a transfer, which the two-way transfer left there")
    interval = listed.transfer_delta_ci_pp
    return Way(
        student=name.get(listed.student, listed.student),
        teacher=", ".join(name.get(one, one) for one in listed.teachers),
        section=transfer_section(record, images=False),
        listed=listed,
        link=f"{path.name}/{REPORT_FILE}",
        before=_share(listed.accuracy_before),
        after=_share(listed.accuracy_after),
        interval=NONE if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}",
    )


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.2%}"
