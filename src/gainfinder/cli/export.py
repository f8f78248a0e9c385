"""`gainfinder export`: a result's student as an ONNX file, and how its answers differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..startup import heavy_imports
from .command import command
from .options import DATA_HELP, Json

if TYPE_CHECKING:
    from ..sharing import ExportedStudent


@command
def export(
    folder: Annotated[Path, typer.Argument(help="Folder that a transfer left.", show_default=False)],
    onnx: Annotated[Path, typer.Option(help="ONNX file to write.", show_default=False)],
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in integers of 8 bits, their ranges set by 128 transfer images.")
    ] = False,
    student: Annotated[
        str | None,
        typer.Option(
            help="The student that the transfer was given, where it runs Python code (file:): leave to run it again.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"Images to measure on, in place of the transfer's: {DATA_HELP}.", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on so many images, at most; default: all.")] = None,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators, 14 to 20.")] = 17,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: Json = False,
) -> None:
    """Write a result's student as an ONNX file, run it, and say how its answers differ.

    PyTorch and ONNX Runtime answer the images that the result was measured on, on the CPU. The file says how its inputs
    are made and what its classes are called: onnx:FILE loads it.
    """
    with heavy_imports():
        from .. import api
        from .progress import make_progress
        from .tables import print_json, print_lines

    progress = make_progress()

    def on_stage(name: str, images: int) -> Any:
        progress.stage(name, images)
        return progress.advance

    try:
        found = api.export(
            folder,
            onnx,
            int8=int8,
            student=student,
            data=data,
            limit=limit,
            opset=opset,
            force=force,
            on_stage=on_stage,
        )
    finally:
        progress.close()
    if json:
        print_json(found.to_dict())
    else:
        print_lines(*_lines(found))


def _lines(found: "ExportedStudent") -> list[str]:
    kind = f"8-bit integers, ranges by {found.calibrated_on} transfer images" if found.int8 else "float32"
    lines = [f"{found.path}: ONNX of opset {found.opset}, {kind}, {found.bytes:,} bytes"]
    if found.delta_ci_pp is not None:
        low, high = found.delta_ci_pp
        lines.append(
            f"accuracy on {found.images:,} images: {found.accuracy_torch:.4f} in PyTorch, {found.accuracy_onnx:.4f} in "
            f"ONNX Runtime: {found.delta_pp:+.2f} pp (95 % interval {low:+.2f} to {high:+.2f})"
        )
    return [
        *lines,
        f"other answers on {found.disagreements:,} of {found.images:,} images; "
        f"logits differ by {found.largest_difference:.2g} at most",
        f"load it as {found.reference}",
    ]
