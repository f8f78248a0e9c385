"""`gainfinder doctor`: where the time of a transfer goes on this machine."""

from typing import Annotated, Any

import typer

from ..config import TransferConfig
from ..startup import heavy_imports
from .command import as_options, command
from .options import DATA_HELP, MODEL_HELP, Json, TrustRemoteCode, with_settings


@command
@with_settings(
    "labels", "method", "decide_on", "epochs", "batch_size", "augment", "mixup", "device", "precision", "workers",
    "max_broken",
)  # fmt: skip
def doctor(
    student: Annotated[str, typer.Option(help=f"The model that learns: {MODEL_HELP}.", show_default=False)],
    teacher: Annotated[list[str], typer.Option(help="A model that teaches, in the same form.", show_default=False)],
    data: Annotated[str, typer.Option(help=f"Images to learn from: {DATA_HELP}.", show_default=False)],
    *,
    trust_remote_code: TrustRemoteCode = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Time loader, student, frozen models and bank for themselves, and say which of them is the bottleneck."""
    config = TransferConfig(**settings, guard=False, strategy="parallel" if len(teacher) > 1 else "sequential")
    with heavy_imports():
        from ..profiling import diagnose
        from ..references import trusting
        from ..runs import prepare_transfer
        from .tables import print_json, print_lines, print_table

    student, *teacher = trusting([student, *teacher], trust_remote_code or ())
    prepared = prepare_transfer(student, teacher, data, val=None, settings=config)
    found = diagnose(prepared)
    if json:
        print_json(found.to_dict())
        return
    noun = prepared.train_images.noun
    size = min(prepared.settings.batch_size, len(prepared.train_images))
    print_table(
        f"A batch of {size} {noun}s on {prepared.accelerator.device.type}, method {prepared.settings.method.name}",
        ("part", "ms", f"{noun}s/s"),
        [(one.name, f"{1000 * one.batch_s:.1f}", f"{one.images_per_s:,.0f}") for one in found.parts],
    )
    base = found.student_s
    step = "a step, the frozen models asked once before" if found.asked_once else "a step with the frozen models"
    print_lines(
        f"{step}: {1000 * found.live_s:.1f} ms, {found.live_s / base:.2f} of the student's own",
        f"a step with the bank: {1000 * found.replayed_s:.1f} ms, {found.replayed_s / base:.2f} of it",
        f"bottleneck: {found.bottleneck}",
        *map(as_options, found.advice),
    )
