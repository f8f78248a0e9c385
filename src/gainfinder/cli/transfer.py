"""`gainfinder transfer`: move what a teacher knows into a student."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .guard import guarded
from .options import DATA_HELP, MODEL_HELP, Device, Json, MaxBroken, Workers


@guarded
def transfer(
    student: Annotated[str, typer.Option(help=f"The model that learns: {MODEL_HELP}.", show_default=False)],
    teacher: Annotated[list[str], typer.Option(help="The model that teaches, in the same form.", show_default=False)],
    data: Annotated[str, typer.Option(help=f"Images to learn from: {DATA_HELP}.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the student and its account.", show_default=False)],
    val: Annotated[
        str | None, typer.Option(help="Images to measure on, in full; default: a tenth of --data is set apart.")
    ] = None,
    labels: Annotated[str, typer.Option(help="use, or none: training reads no label.")] = "use",
    method: Annotated[
        str | None, typer.Option(help="kl, xe-kl, kl-dp or kl-dp-u; default: kl-dp with labels, kl-dp-u without.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="paper: the paper's own values.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images; default 5.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all processes; default 64.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default: 1 / steps, at most 1e-3.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the distillation; default 1.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes order, augmentation and dropout.")] = 0,
    augment: Annotated[
        str | None,
        typer.Option(
            help="paper, rrc, crop-flip or none; default: none for digits, crop-flip below 96 pixels, else paper."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Learn from a stratified so-many of the images.")] = None,
    subset: Annotated[float | None, typer.Option(help="Learn from a stratified share of the images.")] = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="Of training: auto (mixed where the device has it), fp32, bf16 or fp16.")
    ] = "auto",
    workers: Workers = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints within an epoch; default: one after each epoch.")
    ] = None,
    max_broken: MaxBroken = 0.01,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved run with time, memory and disk; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Move what the teacher knows and the student does not into the student.

    Killed at any moment and started again with the same command, it goes on where it was.
    """
    from ..planning import plan_transfer
    from ..run import run_transfer
    from ..settings import settings_from
    from .progress import make_watcher
    from .tables import print_json, print_lines, show_broken, transfer_table

    asked: dict[str, Any] = {
        "method": method, "labels": labels, "preset": preset, "epochs": epochs, "batch_size": batch_size, "lr": lr,
        "temperature": temperature, "seed": seed, "augment": augment, "limit": limit, "subset": subset,
        "device": device, "precision": precision, "workers": workers, "checkpoint_every": checkpoint_every,
        "max_broken": max_broken,
    }  # fmt: skip
    plan = plan_transfer(student, teacher, data, val=val, settings=settings_from(asked))
    if dry_run:
        _show_estimate(plan, out, as_json=json)
        return
    watcher = make_watcher(silent=not plan.is_main)
    try:
        result = run_transfer(plan, out, watcher=watcher)
    finally:
        watcher.close()
    if not plan.is_main:
        return
    show_broken(result.account["broken_images"])
    if json:
        print_json(result.account)
        return
    transfer_table(result.account)
    print_lines(f"{out / 'student'}: the student", f"{out / 'result.json'}: the account")
    if result.account["student_reference"]:
        print_lines(f"load it again as {result.account['student_reference']}")


def _show_estimate(plan: Any, out: Path, *, as_json: bool) -> None:
    from ..estimate import estimate
    from ..run_folder import RunFolder
    from .progress import duration
    from .tables import print_json, print_lines

    RunFolder(out).check(plan.config)
    cost = estimate(plan)
    if not plan.is_main:
        return
    if as_json:
        print_json({"config": plan.config, "estimate": cost.to_dict()})
        return
    for section, values in plan.config.items():
        print_lines(f"{section}: {_inline(values)}")
    print_lines(
        f"time: about {duration(cost.time_s)} ({cost.training_s:.0f} s training, {cost.measuring_s:.0f} s measuring)",
        f"memory: about {cost.memory_mb:,.0f} MB on {plan.accelerator.device.type}",
        f"disk: about {cost.disk_mb:,.0f} MB while running, {cost.result_mb:,.0f} MB afterwards",
    )


def _inline(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{key} {_inline(value)}" for key, value in values.items())
    if isinstance(values, list):
        return "; ".join(_inline(value) for value in values)
    return "–" if values is None else str(values)
