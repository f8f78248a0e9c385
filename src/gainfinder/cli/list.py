"""`gainfinder list`: the results under a folder, the best first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..startup import heavy_imports
from .command import command
from .options import Json

if TYPE_CHECKING:
    from ..results import Listing


@command
def list_(
    folder: Annotated[
        Path, typer.Argument(help="Folder with results of transfers under it, such as a study's.", show_default=False)
    ],
    page: Annotated[Path | None, typer.Option(help="Write them as a page for a browser into this file, too.")] = None,
    json: Json = False,
) -> None:
    """Show the results of transfers under a folder, the largest transfer delta first.

    Deltas compare only where students and the images measured on are the same: the table names both.
    """
    with heavy_imports():
        from ..report import write_listing_page
        from ..results import list_results
        from .tables import print_json, print_lines

    found = list_results(folder)
    if page is not None:
        write_listing_page(found, page)
    if json:
        print_json(found.to_dict())
        return
    _show(found)
    if page is not None:
        print_lines(f"{page}: a page of them, for a browser")


def _show(found: "Listing") -> None:
    from ..report import counted, listed_cells
    from .tables import print_lines, print_table

    about = ("folder", "student ← teachers", "method", "measured on")
    columns = (*about, "after", "delta pp (95 %)", "vouched for by", "took")
    rows = []
    for one in found.results:
        cells = listed_cells(one)
        shown = (cells.models, cells.method, cells.images, cells.accuracy, cells.delta)
        rows.append((one.folder, *shown, one.certificate, cells.took))
    if rows:
        print_table(f"{counted(len(rows), 'result')} under {found.folder}", columns, rows)
    else:
        print_lines(f"{found.folder}: no finished transfer is under it")
    for other in found.others:
        print_lines(f"{found.folder if other.folder == '.' else other.folder}: {other.reason}")
