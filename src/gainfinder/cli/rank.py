"""`gainfinder rank`: which models a student should learn from, and what to expect, before any training."""

from pathlib import Path
from typing import Annotated

import typer

from ..config import Rule
from ..startup import heavy_imports
from .command import command, typed_command
from .options import DATA_HELP, MODEL_HELP, BatchSize, Device, Json, MaxBroken, TrustRemoteCode, Workers
from .scan import check_source, named_models


@command
def rank(
    student: Annotated[str, typer.Option(help=f"Model that is to learn, {MODEL_HELP}.", show_default=False)],
    model: Annotated[
        list[str] | None, typer.Option(help="Models that could teach it, each named likewise.", show_default=False)
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
        str | None,
        typer.Option(
            help=f"Images that no model was trained on, labelled or not: {DATA_HELP}.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Folder of predictions, as predict and scan write them, in place of models and images.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        Rule | None,
        typer.Option(help="Rule to rank by, in place of the one that was measured best.", show_default=False),
    ] = None,
    choose: Annotated[
        int | None,
        typer.Option(help="Choose so many teachers at most that are best together.", min=1, show_default=False),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = None,
    max_broken: MaxBroken = 0.01,
    trust_remote_code: TrustRemoteCode = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to keep the ranking and each model's predictions in; that of a scan will do."),
    ] = None,
    json: Json = False,
) -> None:
    """Say which models to learn from, and what to expect, before any training.

    For each teacher the transfer delta to expect, with an interval, and what that comes from: accuracies, flips, those
    that the partition would send to the teacher, headroom, agreement, calibration. Without labels all of it is
    estimated by the models together.

    The rule that was used is named, with how well it chose over measured transfers, each time without the model that it
    chose for. Where no rule was measured to choose better than the most accurate teacher, that is the rule.

    A model that cannot be loaded or run is left out, with its reason. With --out predictions are made once.
    """
    with heavy_imports():
        from .. import api
        from ..data import load_samples
        from ..predictions import IMAGE
        from ..references import trusting
        from .progress import make_progress
        from .tables import print_json, ranking_tables, show_broken

    student, *named = trusting([student, *named_models(model, models, timm, timm_limit)], trust_remote_code or ())
    check_source(named, predictions, data, out, purpose="a ranking")
    images = None if data is None else load_samples(data)
    progress = make_progress(noun=IMAGE if images is None else images.noun)
    try:
        found = api.rank(
            student,
            named if predictions is None else predictions,
            images,
            by=by,
            choose=choose,
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
    show_broken(found.broken, found.noun)
    if json:
        print_json(found.to_dict())
    else:
        ranking_tables(found)
