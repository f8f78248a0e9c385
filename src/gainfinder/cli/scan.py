"""`gainfinder scan`: complementary knowledge between all models given."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError
from ..startup import heavy_imports
from .command import command, typed_command
from .options import DATA_HELP, MODEL_HELP, BatchSize, Device, Json, MaxBroken, TrustRemoteCode, Workers


@command
def scan(
    model: Annotated[
        list[str] | None, typer.Option(help=f"Models to compare, each {MODEL_HELP}.", show_default=False)
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="File that names models, a reference a line.", show_default=False)
    ] = None,
    timm: Annotated[
        list[str] | None,
        typer.Option(help="timm's pretrained models that match a pattern, such as 'resnet*'.", show_default=False),
    ] = None,
    timm_limit: Annotated[
        int | None, typer.Option(help="Of each pattern the first so many models.", min=1, show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"Images or texts, labelled or not: {DATA_HELP}.", show_default=False)
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Folder of predictions, as predict and scan write them, in place of models and images.",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(help="One of the models: choose teachers for it, one after another.", show_default=False),
    ] = None,
    choose: Annotated[int, typer.Option(help="Number of these teachers at most.", min=1)] = 3,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help='File of class names: one a line in class order, or JSON, a list or {"class": "name"}.',
            show_default=False,
        ),
    ] = None,
    class_embeddings: Annotated[
        Path | None,
        typer.Option(
            help="File of an embedding of each class, by name or in class order: .npy, .npz, .safetensors, .parquet "
            "or .csv. Says how alike the classes of an area of expertise are.",
            show_default=False,
        ),
    ] = None,
    embed: Annotated[
        str | None,
        typer.Option(
            help="Text model that embeds the class names, in its place: open_clip:NAME/PRETRAINED (the paper's is "
            "open_clip:ViT-B-32/openai), open_clip:local-dir:FOLDER or sentence-transformers:NAME-OR-FOLDER.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = None,
    max_broken: MaxBroken = 0.01,
    trust_remote_code: TrustRemoteCode = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to keep the scan in, with each model's predictions and a report."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what each model knows that each other one does not.

    For every ordered pair: positive flips (teacher right, student wrong), negative flips, the difference in accuracy,
    the entropy of the positive flips over classes (low: an area of expertise), and what there is to win: the share that
    either has right (oracle), the accuracy of the surer of the two answers (routed) and of the mean of their calibrated
    probabilities, and the better of these two less the student's accuracy (headroom).

    The smallest sets of classes that hold 2, 5, 10, 20 and 50 per cent of the positive flips are areas of expertise;
    with embeddings of the classes, how alike they are.

    Without labels: where the models disagree, who is the surer, and what all of them together hold for right, as
    estimates of accuracy and positive flips. With labels it says how well these follow what they stand in for.

    With --student: which teachers to take for it, each the one that adds most to the ensemble of all so far.

    A model that cannot be loaded or run is left out, with its reason. With --out a scan that was stopped goes on where
    it was, and one of more models makes only the predictions of the new ones.
    """
    with heavy_imports():
        from .. import api
        from ..data import load_samples
        from ..predictions import IMAGE
        from ..references import trusting
        from .progress import make_progress
        from .tables import print_json, print_lines, scan_tables, show_broken

    named = named_models(model, models, timm, timm_limit)
    asked = trusting([*named, *([] if student is None else [student])], trust_remote_code or ())
    named, student = asked[: len(named)], asked[-1] if student is not None else None
    check_source(named, predictions, data, out, purpose="a scan")
    images = None if data is None else load_samples(data)
    progress = make_progress(noun=IMAGE if images is None else images.noun)
    try:
        found = api.scan(
            named if predictions is None else predictions,
            images,
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_broken=max_broken,
            student=student,
            choose=choose,
            class_names=class_names,
            class_embeddings=class_embeddings,
            embed=embed,
            on_model=lambda name, images: (progress.stage(name, images), progress.advance)[1],
            out=out,
            command=typed_command(),
        )
    finally:
        progress.close()
    show_broken(found.broken, found.noun)
    if json:
        print_json(found.to_dict())
    else:
        scan_tables(found.to_dict())
        if out is not None:
            print_lines(f"{out / 'report.html'}: a page on it, for a browser")


def named_models(
    model: list[str] | None, models: Path | None, patterns: list[str] | None, limit: int | None
) -> list[str]:
    """The references asked for, in order; a model that a list or pattern names again is not repeated."""
    from ..zoo import read_model_list, timm_models

    if limit is not None and not patterns:
        raise SettingsError("`timm_limit` is a setting of `timm`, which is not given")
    listed = [] if models is None else read_model_list(models)
    matched = [name for pattern in patterns or () for name in timm_models(pattern, limit=limit)]
    given = list(model or ())
    return given + [name for name in dict.fromkeys([*listed, *matched]) if name not in given]


def check_source(
    named: list[str], predictions: Path | None, data: str | None, out: Path | None, *, purpose: str
) -> None:
    """Refuse models and images beside predictions, and models without images."""
    if predictions is not None and (named or data is not None or out is not None):
        raise SettingsError("`predictions` are compared by themselves: leave models, `data` and `out` out")
    if predictions is None and data is None:
        raise SettingsError(f"{purpose} needs images: give `data` beside the models, or `predictions` alone")
