"""Options that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead of tables.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that decode images; default: none on a CPU, else up to 8.")
]
MaxBroken = Annotated[
    float, typer.Option(help="Largest share of images that may be undecodable; they are skipped and counted.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a forward pass.")]
MODEL_HELP = (
    "a timm name, hf-hub:REPO, local-dir:FOLDER, torchvision:NAME[/WEIGHTS], hf:REPO-OR-FOLDER, "
    "file:PATH.py:FACTORY[@WEIGHTS] or onnx:PATH; settings follow as ?size=64&mean=0.5,0.5,0.5"
)
DATA_HELP = (
    "a folder of class folders or of images, a .tar or a folder of them, a .parquet file, hfds/NAME?split=, "
    "torch/NAME?split=, or digits; #k/n takes part k of n"
)


def count_or_auto(text: str | None) -> int | str | None:
    """The number that an option says; what is none is left for the settings to take or to refuse."""
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else text
