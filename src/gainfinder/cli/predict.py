"""`gainfinder predict`: a model's predictions as a Parquet or CSV file."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..startup import heavy_imports
from .command import command
from .options import DATA_HELP, MODEL_HELP, BatchSize, Device, Json, MaxBroken, TrustRemoteCode, Workers


@command
def predict(
    model: Annotated[str, typer.Option(help=f"The model: {MODEL_HELP}.", show_default=False)],
    data: Annotated[str, typer.Option(help=f"Samples: {DATA_HELP}.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write: CSV if it ends in .csv, else Parquet.", show_default=False)],
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Write only so many classes an image, the most probable; default: all.")
    ] = None,
    labels: Annotated[str, typer.Option(help="use, or none: labels are not read and need not fit the model.")] = "use",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = None,
    max_broken: MaxBroken = 0.01,
    trust_remote_code: TrustRemoteCode = None,
    json: Json = False,
) -> None:
    """Write a model's predictions: sample ids, logits and, where the images carry them, labels.

    The file can stand for the model as a teacher: --teacher table:FILE.
    """
    with heavy_imports():
        from ..data import load_samples
        from ..errors import RunFolderError, SettingsError
        from ..files import check_writable
        from ..inference import predict as predict_all
        from ..inference import predict_top
        from ..predictions import Predictions, TopPredictions, write_predictions
        from ..references import trusting
        from .progress import make_progress
        from .tables import print_json, print_lines, show_broken

    if out.is_dir() or (out.exists() and not force):
        raise RunFolderError(f"{out}: exists already; give another --out" + ("" if out.is_dir() else " or --force"))
    if labels not in ("use", "none"):
        raise SettingsError(f"labels is {labels!r}: expected use or none")
    check_writable(out)
    (model,) = trusting([model], trust_remote_code or ())
    progress = make_progress()
    try:
        images = load_samples(data, labels=labels == "use")
        progress.noun = images.noun
        progress.stage(model, len(images))
        run: Callable[..., Predictions | TopPredictions] = (
            predict_all if top_k is None else functools.partial(predict_top, top_k=top_k)
        )
        found = run(
            model,
            images,
            labels=labels == "use",
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_broken=max_broken,
            on_images=progress.advance,
        )
    finally:
        progress.close()
    write_predictions(found, out)
    show_broken(found.broken, images.noun)
    teacher = f"table:{out}"
    if top_k is not None and out.suffix.lower() == ".csv":  # the one file that does not say how many classes there are
        named = found.class_names is not None
        teacher += "?classes=@FILE, a class name a line" if named else f"?num_classes={found.num_classes}"
    accuracy = None if found.target is None else found.accuracy
    if json:
        document = {"model": model, "samples": len(found), "accuracy": accuracy, "top_k": top_k}
        print_json({**document, "broken_images": list(found.broken), "out": str(out)})
    else:
        known = "" if accuracy is None else f", accuracy {accuracy:.4f}"
        print_lines(
            f"{out}: predictions of {model} for {len(found):,} {images.noun}s{known}", f"as a teacher: {teacher}"
        )
