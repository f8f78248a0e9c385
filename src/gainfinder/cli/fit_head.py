"""`gainfinder fit-head`: a model's classifier layer, fitted to the classes of other images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..startup import heavy_imports
from .command import command, typed_command
from .options import DATA_HELP, MODEL_HELP, BatchSize, Device, Json, MaxBroken, TrustRemoteCode, Workers

if TYPE_CHECKING:
    from ..results import HeadMetrics


@command
def fit_head(
    model: Annotated[str, typer.Option(help=f"The model: {MODEL_HELP}.", show_default=False)],
    data: Annotated[str, typer.Option(help=f"Labelled images to fit to: {DATA_HELP}.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the model with its new head.", show_default=False)],
    val: Annotated[
        str | None, typer.Option(help="Images to measure on, in full; default: a tenth of --data is set apart.")
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Of the head, on standardised features; default: chosen on images that are set apart."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which images are set apart to choose it.")] = 0,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = None,
    max_broken: MaxBroken = 0.01,
    trust_remote_code: TrustRemoteCode = None,
    json: Json = False,
) -> None:
    """Fit a model's classifier layer to the classes of other images, before a transfer on these.

    The layer gets the images' classes, in their order and by their names. The rest of the model stays as it is:
    features are computed once, without augmentation, and the layer is fitted to them.

    Killed at any moment and started again with the same command, it goes on where it was.
    """
    with heavy_imports():
        from .. import api
        from ..data import load_samples
        from ..references import trusting
        from .progress import make_progress
        from .tables import print_json, print_lines, show_broken

    (model,) = trusting([model], trust_remote_code or ())
    images = load_samples(data)
    progress = make_progress(noun=images.noun)
    try:
        found = api.fit_head(
            model,
            images,
            val=val,
            weight_decay=weight_decay,
            seed=seed,
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_broken=max_broken,
            out=out,
            callbacks=[progress],
            command=typed_command(),
        )
    finally:
        progress.close()
    metrics = found.metrics
    show_broken(metrics.broken_images, images.noun)
    if json:
        print_json(metrics.to_dict())
    else:
        print_lines(*_lines(metrics, images.noun))


def _lines(metrics: "HeadMetrics", noun: str) -> list[str]:
    before = "" if metrics.accuracy_before is None else f", {metrics.accuracy_before:.4f} before"
    how = f"chosen among {len(metrics.tried)}" if metrics.tried else "as given"
    fitted_to = f"{metrics.samples:,} {noun}s of {metrics.data}"
    times = f"features {metrics.features_s:.1f} s, fit {metrics.fit_s:.1f} s"
    lines = [
        f"{metrics.student}: a head for {metrics.classes} classes, fitted to {fitted_to}",
        f"accuracy on {metrics.val_samples:,} {noun}s: {metrics.accuracy_after:.4f}{before}",
        f"weight decay {metrics.weight_decay:.2g}, {how}; {times}",
    ]
    if metrics.student_reference is not None:
        lines.append(f"load it as {metrics.student_reference}")
    return lines
