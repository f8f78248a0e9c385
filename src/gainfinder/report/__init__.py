"""Reports: a page and figures from the files of a result folder; never a model, a GPU or the network."""

from pathlib import Path

from ..files import write_text
from ..run_folder import REPORT_FILE
from .charts import save_figure
from .page import scan_page, transfer_page
from .records import ScanRecord, read_record
from .sections import scan_section, transfer_section

FIGURES = "figures"


def write_report(folder: str | Path, *, images: bool = True, pdf: bool = False) -> Path:
    """Write `report.html` into a result folder, one page that opens anywhere, and its figures into `figures/`.

    Each figure is there as `NAME.svg` and its rows as `NAME-rows.parquet`. What was there of an earlier report is
    replaced; nothing else is touched.

    Args:
        folder: that a transfer or a scan left.
        images: whether the page shows thumbnails of images.
        pdf: whether figures are written as PDF, too.

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
    for figure in figures:
        for ending in (".svg", ".pdf") if pdf else (".svg",):
            save_figure(figure, path / FIGURES / f"{figure.name}{ending}")
    report = path / REPORT_FILE
    write_text(report, page)
    return report
