"""`gainfinder scan`: complementary knowledge between all models given."""

from pathlib import Path
from typing import Annotated

import typer

from .command import command, typed_command
from .options import DATA_HELP, MODEL_HELP, BatchSize, Device, Json, MaxBroken, Workers


@command
def scan(
    model: Annotated[list[str], typer.Option(help=f"Two or more models, each {MODEL_HELP}.", show_default=False)],
    data: Annotated[str, typer.Option(help=f"Labelled images: {DATA_HELP}.", show_default=False)],
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = None,
    max_broken: MaxBroken = 0.01,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the scan in, with a report of it.")] = None,
    json: Json = False,
) -> None:
    """Show what each model knows that each other one does not.

    For every ordered pair: positive flips (teacher right, student wrong), negative flips, the difference in accuracy,
    the entropy of the positive flips over classes (low: an area of expertise), and what there is to win: the share that
    either has right (oracle), the accuracy of the surer of the two answers (routed) and of the mean of their calibrated
    probabilities, and the better of these two less the student's accuracy (headroom).
    """
    from .. import api
    from .progress import make_progress
    from .tables import print_json, print_lines, scan_tables, show_broken

    progress = make_progress()
    try:
        found = api.scan(
            model,
            data,
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_broken=max_broken,
            on_model=lambda name, images: (progress.stage(name, images), progress.advance)[1],
            out=out,
            command=typed_command(),
        )
    finally:
        progress.close()
    show_broken(found.broken)
    if json:
        print_json(found.to_dict())
    else:
        scan_tables(found.to_dict())
        if out is not None:
            print_lines(f"{out / 'report.html'}: a page on it, for a browser")
