"""`gainfinder report`: the page and the figures of a result folder."""

from pathlib import Path
from typing import Annotated

import typer

from ..startup import heavy_imports
from .command import command
from .options import Json


@command
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that a transfer or a scan left.", show_default=False)],
    images: Annotated[bool, typer.Option(help="Show small copies of images whose answer changed.")] = True,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write the figures as PDF, too.")] = False,
    json: Json = False,
) -> None:
    """Make report.html of a result folder anew: one page that opens anywhere, without network.

    Every transfer makes it by itself. Figures go to figures/ as SVG, each with its rows as Parquet beside it. No model,
    GPU or image is needed.
    """
    with heavy_imports():
        from ..report import write_report
        from .tables import print_json, print_lines

    page = write_report(folder, images=images, pdf=pdf)
    if json:
        print_json({"report": str(page)})
    else:
        figures = folder / "figures"
        print_lines(
            f"{page}: the page" + (f"; its figures and their rows are in {figures}" if figures.is_dir() else "")
        )
