"""Reports: a page and figures from the files of a result folder; never a model, a GPU or the network."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ..files import remove_partials, write_text
from ..run_folder import REPORT_FILE
from .charts import FIGURE_NAMES, Figure, save_figure
from .page import scan_page, transfer_page
from .records import ScanRecord, read_record
from .sections import scan_section, transfer_section

FIGURES = "figures"
_log = logging.getLogger("gainfinder")


def write_report(folder: str | Path, *, images: bool = True, pdf: bool = False) -> Path:
    """Write `report.html` into a result folder, one page that opens anywhere, and its figures into `figures/`.

    Each figure is there as `NAME.svg` and its rows as `NAME-rows.parquet`. What was there of an earlier report is
    replaced, its PDFs too; nothing else is touched.

    Args:
        folder: that a transfer or a scan left.
        images: whether the page shows thumbnails of images.
        pdf: whether figures are written as PDF, too; those that are there are in any case.

    Returns:
        The page's path.

    Raises:
        RunFolderError: the folder holds no finished result, a damaged one, or cannot be written.
    """
    path = Path(folder)
    record = read_record(path)
    if isinstance(record, ScanRecord):
        scanned = scan_section(record)
        page, figures = scan_page(scanned), list(scanned.figures)
    else:
        section = transfer_section(record, images=images)
        page, figures = transfer_page(section, config=record.config), section.figures
    _write_figures(path / FIGURES, figures, pdf=pdf)
    report = path / REPORT_FILE
    write_text(report, page)
    return report


def _write_figures(folder: Path, figures: Sequence[Figure], *, pdf: bool) -> None:
    """Write figures and their rows, and PDFs anew where there are any; what no figure is of any more goes."""
    remove_partials(folder)  # of a report that was killed
    for figure in figures:
        save_figure(figure, folder / f"{figure.name}.svg")
        if pdf or (folder / f"{figure.name}.pdf").exists():
            save_figure(figure, folder / f"{figure.name}.pdf")
    for name in set(FIGURE_NAMES) - {figure.name for figure in figures}:
        for ending in (".svg", ".pdf", "-rows.parquet", "-steps.parquet"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)


def try_report(folder: Path) -> None:
    """Write the report of a result that is safe already: whatever goes wrong here is told and takes nothing away."""
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
