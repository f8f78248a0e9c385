"""The report of a study: the paper's tables and figures, and whether its findings hold, from the rows of its cells.

Nothing is read but the rows: no model, no image, no predictions. What is missing is shown as missing.
"""

from collections.abc import Iterable
from pathlib import Path

from ...files import remove_partials, write_text
from ...study import StudyFolder, epoch_rows, study_rows
from ..drawing import Drawer
from .report import StudySection, study_page, study_section
from .rows_files import RowsFormat as RowsFormat
from .rows_files import write_rows
from .table import latex, markdown

PAGE = "index.html"
ENDINGS = (".md", ".tex", ".svg", ".pdf", ".parquet")
"""Endings of the files of tables and figures."""


def write_study_report(folder: str | Path, *, pdf: bool = False, rows_format: RowsFormat = "parquet") -> Path:
    """Write the report of a study into its folder: `report/index.html`, and tables, figures and rows beside it.

    Tables are in `tables/` as Markdown and LaTeX, figures in `figures/` as SVG, each with its rows as Parquet; all rows
    of the study are in `rows.parquet`, the epochs of its sequences in `epochs.parquet`. An earlier report is replaced.
    A study that is still running has a report of what is done.

    Args:
        folder: the study's folder.
        pdf: whether figures are written as PDF, too.
        rows_format: `parquet` or `csv`, for all rows.

    Returns:
        The page's path.

    Raises:
        RunFolderError: the folder holds no study, a damaged one, or cannot be written.
    """
    study = StudyFolder(folder)
    document, cells = study.read(), study.all_cells()
    rows, epochs = study_rows(study, cells), epoch_rows(study, cells)
    section = study_section(document, rows, epochs, rows_format=rows_format)
    _write_tables(study.report / "tables", section)
    write_rows(study.report, rows, epochs, rows_format=rows_format)
    with Drawer() as drawer:
        _write_figures(study.report / "figures", section, drawer, pdf=pdf)
        write_text(study.report / PAGE, study_page(section, drawer=drawer))
    drawer.warn(study.report / PAGE)
    return study.report / PAGE


def write_study_rows(folder: str | Path, *, rows_format: RowsFormat = "parquet") -> tuple[Path, Path]:
    """Write all rows of a study into `report/` in its folder, and nothing else.

    Args:
        folder: the study's folder.
        rows_format: `parquet` or `csv`.

    Returns:
        The paths of the rows of cells and of the rows of epochs.

    Raises:
        RunFolderError: as `write_study_report`.
    """
    study = StudyFolder(folder)
    cells = study.all_cells()
    return write_rows(study.report, study_rows(study, cells), epoch_rows(study, cells), rows_format=rows_format)


def _write_tables(folder: Path, section: StudySection) -> None:
    for table in section.tables:
        write_text(folder / f"{table.name}.md", markdown(table))
        write_text(folder / f"{table.name}.tex", latex(table))
    _keep(folder, [f"{table.name}.{ending}" for table in section.tables for ending in ("md", "tex")])


def _write_figures(folder: Path, section: StudySection, drawer: Drawer, *, pdf: bool) -> None:
    kept = []
    for one in section.figures:
        for ending in ("svg", "pdf") if pdf else ("svg",):
            drawer.save(one.figure, folder / f"{one.figure.name}.{ending}")
            kept.append(f"{one.figure.name}.{ending}")
        kept += [f"{one.figure.name}-{key}.parquet" for key in one.figure.rows]
    _keep(folder, kept)


def _keep(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of an earlier report that this one does not have."""
    remove_partials(folder)
    known = set(names)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in ENDINGS and path.name not in known:
            path.unlink()
