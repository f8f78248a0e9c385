"""Rows of several files as one source: which file and row a sample is."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RowsReader:
    """Where the rows of some files are; subclasses hold what is in them.

    Attributes:
        files: the files.
        starts: int64 (F,), position of each file's first row.
    """

    files: tuple[Path, ...]
    starts: NDArray[np.int64] = field(repr=False)

    def where(self, index: int) -> str:
        """The file and the row."""
        file, row = self._locate(index)
        return f"{self.files[file]}: row {row}"

    def _locate(self, index: int) -> tuple[int, int]:
        # Of several files that start at the same position all but the last are empty.
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        return file, index - int(self.starts[file])
