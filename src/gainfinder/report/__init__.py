"""Reports: a page and figures from the files of a result folder; never a model, a GPU or the network.

In: what `results` and `study` read. Out: `report.html`, figures and their rows, of a study also tables. Runs know
nothing of it: the API writes reports.
Imports: errors, references, files, config, predictions, metrics, results, study.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from pyarrow import ArrowException

from ..files import remove_partials, write_text
from ..results import CARD_FILE, DIRECTIONS, REPORT_FILE, SCAN_FILE, TWO_WAY_FILE, TwoWayFolder, unreadable
from .card import is_own_card as is_own_card
from .card import model_card as model_card
from .card import write_card
from .card_loading import student_library as student_library
from .certificates import certificate_text as certificate_text
from .charts import FIGURE_NAMES, Figure, demo_figure
from .drawing import Drawer
from .listing_page import listed_cells as listed_cells
from .listing_page import write_listing_page as write_listing_page
from .page import scan_page, transfer_page, unlabelled_scan_page
from .question_page import write_question_page as write_question_page
from .records import ScanRecord as ScanRecord
from .records import TransferRecord as TransferRecord
from .records import read_record as read_record
from .rows import counted as counted
from .rows import duration as duration
from .rows import pair_rows
from .scan_parts import unlabelled_scan_section
from .sections import transfer_section
from .study import RowsFormat as RowsFormat
from .study import write_study_report as write_study_report
from .study import write_study_rows as write_study_rows
from .two_way import write_two_way_page
from .zoo_section import scan_section

FIGURES = "figures"
DAMAGE = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, UndefinedError, ArrowException)
"""What reading a damaged scan raises."""
_log = logging.getLogger("gainfinder")


def write_report(folder: str | Path, *, images: bool = True, pdf: bool = False) -> Path:
    """Write `report.html` into a result folder, one page that opens anywhere, and its figures into `figures/`.

    The student of a transfer gets its model card, `student/README.md`, too; one that somebody wrote or changed stays.

    Each figure is there as `NAME.svg` and its rows as `NAME-rows.parquet`; those of a matrix of many models are the
    scan's `pairs.parquet`. Figures that cannot be drawn are left out, and a warning says why. What was there of an
    earlier report is replaced, its PDFs too; nothing else is touched.

    Of a two-way transfer it is the page on both results; a result whose own page is missing or older gets one, too.

    Args:
        folder: a result folder that a transfer, one way or both, or a scan left.
        images: whether the page shows thumbnails of images.
        pdf: whether figures are written as PDF, too; those that are there are in any case.

    Returns:
        The page's path.

    Raises:
        RunFolderError: the folder holds no finished result, a damaged one, or cannot be written.
    """
    path = Path(folder)
    if (both := TwoWayFolder(path).read()) is not None:
        for one in both.results:
            if not is_current(path / one):
                write_report(path / one, images=images, pdf=pdf)
        return write_two_way_page(path, both)
    record = read_record(path)
    if isinstance(record, TransferRecord):
        write_card(record)
    with Drawer() as drawer:
        page, figures = _page(record, drawer, images=images)
        _write_figures(path / FIGURES, figures, drawer, pdf=pdf)
    report = path / REPORT_FILE
    write_text(report, page)
    drawer.warn(report)
    return report


def write_demo_figure(scan: dict[str, Any], epochs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what the demo found: the pairs of its zoo, and the transfer delta of two methods over the epochs.

    Args:
        scan: a scan as a dictionary, as `metrics.Scan.to_dict` gives it.
        epochs: rows with the keys `method`, `epoch` and `transfer_delta_pp`.
        path: file of the figure, `.svg` or `.pdf`.
    """
    with Drawer() as drawer:
        drawer.save(demo_figure(pair_rows(scan), epochs, samples=scan["samples"]), path)
    drawer.warn(path)


def is_current(folder: Path) -> bool:
    """Whether a result folder has a report that was made after its result, and its student a model card."""
    if (folder / "student").is_dir() and not (folder / "student" / CARD_FILE).exists():
        return False
    report, results = folder / REPORT_FILE, [folder / name for name in ("result.json", SCAN_FILE, TWO_WAY_FILE)]
    if (folder / TWO_WAY_FILE).exists():
        results += [folder / name / "result.json" for name in DIRECTIONS]
    made_ns = report.stat().st_mtime_ns if report.exists() else 0
    return made_ns >= max((path.stat().st_mtime_ns for path in results if path.exists()), default=1)


def _page(record: TransferRecord | ScanRecord, drawer: Drawer, *, images: bool) -> tuple[str, list[Figure]]:
    """The page of a result, and the figures to be kept beside it."""
    if isinstance(record, ScanRecord):
        try:
            return _scan_page(record, drawer)
        except DAMAGE as error:  # a scan is read as it is, of whatever version: what is wrong shows where it is drawn
            raise unreadable(record.folder / SCAN_FILE, f"{type(error).__name__}: {error}") from error
    section = transfer_section(record, images=images)
    return transfer_page(section, config=record.config, drawer=drawer), section.figures


def _scan_page(record: ScanRecord, drawer: Drawer) -> tuple[str, list[Figure]]:
    """Likewise of a scan."""
    if not record.document.get("labelled", True):
        return unlabelled_scan_page(unlabelled_scan_section(record)), []
    scanned = scan_section(record)
    return scan_page(scanned, drawer=drawer), list(scanned.figures)


def _write_figures(folder: Path, figures: Sequence[Figure], drawer: Drawer, *, pdf: bool) -> None:
    """Write figures and their rows, and PDFs anew where there are any; files of figures that are no more go."""
    remove_partials(folder)  # left by a report that was killed
    for figure in figures:
        drawer.save(figure, folder / f"{figure.name}.svg")
        if pdf or (folder / f"{figure.name}.pdf").exists():
            drawer.save(figure, folder / f"{figure.name}.pdf")
    for name in set(FIGURE_NAMES) - {figure.name for figure in figures}:
        for ending in (".svg", ".pdf", "-rows.parquet", "-steps.parquet"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)


def refresh_report(folder: Path) -> None:
    """Write the report of a result unless it has one that is as new.

    The result is safe already: whatever goes wrong here is logged as a warning and takes nothing away.
    """
    if is_current(folder):
        return
    try:
        write_report(folder)
    except Exception as error:
        _log.warning(
            "%s could not be made (%s: %s); `gainfinder report %s` tries again",
            folder / REPORT_FILE,
            type(error).__name__,
            error,
            folder,
        )
