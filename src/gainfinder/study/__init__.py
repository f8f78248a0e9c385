"""Studies: many transfers from one file, each a run folder; what is missing on disk is what is left to do.

In: a study's TOML file, and the folder that its cells are run in. Out: the cells as `TransferSpec`s, which of them are
done, running, failed or missing, and a row of measures for each. Knows no model and no image; `workers/` runs them.
Imports: redaction, errors, references, files, config, predictions, metrics, results.
"""

from .cells import Cell, study_cells
from .document import StudyDocument, read_study
from .folder import CELL_FILE, CellState, Failure, StudyFolder
from .measures import CellMeasures, measure_cell, read_measures
from .rows import TOGETHER, EpochRow, StudyRow, epoch_rows, family_of, study_rows

__all__ = [
    "CELL_FILE",
    "TOGETHER",
    "Cell",
    "CellMeasures",
    "CellState",
    "EpochRow",
    "Failure",
    "StudyDocument",
    "StudyFolder",
    "StudyRow",
    "epoch_rows",
    "family_of",
    "measure_cell",
    "read_measures",
    "read_study",
    "study_cells",
    "study_rows",
]
