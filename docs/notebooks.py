"""Execute the notebooks of `docs/notebooks/` anew and store their outputs in them.

    python docs/notebooks.py

All are executed by one kernel, since to import torch and timm takes longer than what they do: on one thread, each in an
empty folder and without the names of the one before. `tests/docs/test_notebooks.py` does the same and compares.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = tuple(sorted(Path(__file__).with_name("notebooks").glob("*.ipynb")))
TIMEOUT_S = 900
"""Of a cell: the first of each may train the demo's models."""
QUIET = "ignore:IProgress not found"
"""What tqdm says where ipywidgets is missing, which changes nothing else."""


def execute(
    paths: Sequence[Path], folders: Sequence[Path], *, allow_errors: bool = False
) -> list[nbformat.NotebookNode]:
    """The notebooks with the outputs that they have now; the files stay as they are.

    Args:
        paths: the notebooks.
        folders: the working folder of each, in which it finds `gainfinder-demo/` or makes it.
        allow_errors: whether an error is an output like others, and the rest is executed all the same.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails, and errors are not allowed.
    """
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    chain = nbformat.v4.new_notebook()
    for notebook, folder in zip(notebooks, folders, strict=True):
        begin = nbformat.v4.new_code_cell(f"%reset -f\n__import__('os').chdir({str(folder.resolve())!r})")
        chain.cells += [begin, *notebook.cells]
    _run(chain, allow_errors=allow_errors)
    for notebook in notebooks:
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
    return notebooks


def _run(notebook: nbformat.NotebookNode, *, allow_errors: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="ipython-") as own:  # nobody's start-up files, and no history
        alone = {"IPYTHONDIR": own, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": QUIET}
        with patch.dict(os.environ, {**alone, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}):
            NotebookClient(
                notebook,
                timeout=TIMEOUT_S,
                kernel_name="python3",
                allow_errors=allow_errors,
                coalesce_streams=True,
                record_timing=False,
                extra_arguments=["--log-level=ERROR"],
            ).execute()


def main() -> None:
    """Run the demo, execute all of them in its folder, and write them back."""
    with tempfile.TemporaryDirectory(prefix="notebooks-") as folder:
        # not by their first cell, which would have its tables among its outputs
        subprocess.run([sys.executable, "-m", "gainfinder", "demo"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        for path, notebook in zip(NOTEBOOKS, execute(NOTEBOOKS, [Path(folder)] * len(NOTEBOOKS)), strict=True):
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
