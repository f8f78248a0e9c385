"""`gainfinder demo`: the main job on handwritten digits, without network."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..startup import heavy_imports
from .command import command
from .options import Json

if TYPE_CHECKING:
    from ..demo import Demo


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the zoo, the students and the figure.")] = Path(
        "gainfinder-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: Json = False,
) -> None:
    """Show the main job on handwritten digits: train a small zoo, scan it, transfer from a weaker model.

    Four architectures (ResNet, ConvNeXt, ViT, MLP-Mixer), each trained mostly on its own digits. Takes about a minute
    on two cores and downloads nothing.
    """
    with heavy_imports():
        from ..demo import run_demo
        from .progress import make_progress
        from .tables import print_json

    began = time.monotonic()
    progress = make_progress()
    try:
        done = run_demo(out, callback=progress, seed=seed)
    finally:
        progress.close()
    figure = out / "figure.svg"
    _draw(done, figure)
    if json:
        transfers = {method: result.metrics.to_dict() for method, result in done.transfers.items()}
        print_json({"scan": done.scan.to_dict(), "transfers": transfers, "figure": str(figure)})
    else:
        _show(done, figure, seconds=time.monotonic() - began)


def _show(done: "Demo", figure: Path, *, seconds: float) -> None:
    from ..config import find_method
    from ..references import short_names
    from .tables import print_lines, print_table, scan_tables

    best = next(iter(done.transfers))
    scan_tables(done.scan.to_dict())
    name = short_names(done.zoo)
    first = next(iter(done.transfers.values())).metrics
    teacher, student = name[first.teachers[0]], name[first.student]
    rows = []
    for method, result in done.transfers.items():
        m = result.metrics
        assert m.transfer_delta_ci_pp is not None, "the digits carry labels"
        low, high = m.transfer_delta_ci_pp
        rows.append(
            (
                method,
                f"{m.accuracy_before:.4f} → {m.accuracy_after:.4f}",
                f"{m.transfer_delta_pp:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{m.knowledge_gain:.2%}",
                f"{m.knowledge_loss:.2%}",
                "teacher and own copy" if find_method(method).pooling else "teacher",
            )
        )
    print_table(
        f"Transfer without labels: the student {student} learns from the weaker {teacher}",
        ("method", "accuracy", "delta pp (95 % interval)", "gained", "lost", "taught by"),
        rows,
    )
    print_lines(
        f"{figure}: the figure",
        f"{figure.parent / best / 'report.html'}: a page on what it learned, and scan/report.html on the zoo",
        f"{figure.parent / best / 'student'}: the student that learned from its teacher and its own copy together",
        f"done in {seconds:.0f} s",
    )


def _draw(done: "Demo", path: Path) -> None:
    from ..report import write_demo_figure

    epochs = [
        {"method": method, "epoch": epoch, "transfer_delta_pp": delta}
        for method, result in done.transfers.items()
        for epoch, delta in ((0, 0.0), *((row.epoch, row.transfer_delta_pp) for row in result.epochs))
    ]
    write_demo_figure(done.scan.to_dict(), epochs, path)
