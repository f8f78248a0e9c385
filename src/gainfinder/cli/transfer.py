"""`gainfinder transfer`: move what a teacher knows into a student."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import guarded, typed_command
from .options import DATA_HELP, MODEL_HELP, Device, Json, MaxBroken, Workers, count_or_auto


@guarded
def transfer(
    student: Annotated[str, typer.Option(help=f"The model that learns: {MODEL_HELP}.", show_default=False)],
    teacher: Annotated[
        list[str],
        typer.Option(help="A model that teaches, in the same form.", show_default=False),
    ],
    data: Annotated[str, typer.Option(help=f"Images to learn from: {DATA_HELP}.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the student and its metrics.", show_default=False)],
    val: Annotated[
        str | None, typer.Option(help="Images to measure on, in full; default: a tenth of --data is set apart.")
    ] = None,
    guard_data: Annotated[
        str | None,
        typer.Option(
            help="Images for the guard, which no model was trained on; default: a tenth of --data is set apart."
        ),
    ] = None,
    guard: Annotated[
        bool, typer.Option(help="Keep the best point between the old and the new student, judged on guard images.")
    ] = True,
    control: Annotated[
        bool,
        typer.Option(
            "--control",
            help="Transfer from the student's own copy, too: what that changes is adaptation.",
        ),
    ] = False,
    label_map: Annotated[
        list[Path] | None,
        typer.Option(help="JSON or CSV file: teacher's class, student's class; one for all teachers, or one each."),
    ] = None,
    strategy: Annotated[str, typer.Option(help="With several teachers: sequential, parallel or soup.")] = "sequential",
    order: Annotated[
        str, typer.Option(help="Of teachers in a sequence: ascending accuracy, descending, or as given.")
    ] = "ascending",
    labels: Annotated[str, typer.Option(help="use, or none: training reads no label.")] = "use",
    method: Annotated[
        str | None,
        typer.Option(help="See `gainfinder methods`; default: kl-dp with labels, kl-dp-u without."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="paper: the paper's own values.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images; default 5.")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="Images a step, over all processes; default 64; auto: 64, as many at once as memory holds."),
    ] = None,
    micro_batch: Annotated[
        str | None,
        typer.Option(help="Images at once in a process, gradients of a batch add up; auto: as many as memory holds."),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default: 1 / steps, at most 1e-3 (most methods).")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the distillation; default: mostly 1.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the rate: linear (to 0 by the last step; default) or constant.")
    ] = None,
    distill_weight: Annotated[
        float | None, typer.Option(help="Of the distillation, 0 to 1; the cross-entropy with the labels gets the rest.")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Of that cross-entropy.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Classes that kl-top-k compares; default 10.")] = None,
    sharpness: Annotated[float | None, typer.Option(help="Of the -soft methods; default 4.")] = None,
    slow_momentum: Annotated[float | None, typer.Option(help="Of xe-kl-mcl (τ); default: by steps.")] = None,
    slow_every: Annotated[int | None, typer.Option(help="Of xe-kl-mcl (N); default 2.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Of crd: negatives a sample; default 4096.")] = None,
    warmup_epochs: Annotated[
        int | None, typer.Option(help="First epochs that train the classifier layer alone; default: the method's.")
    ] = None,
    student_mode: Annotated[
        str | None,
        typer.Option(help="Batch-norm and dropout of the student: train (as published), frozen or reestimate."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes order, augmentation and dropout.")] = 0,
    augment: Annotated[
        str | None,
        typer.Option(
            help="paper, rrc, crop-flip or none; default: none for digits, crop-flip below 96 pixels, else paper."
        ),
    ] = None,
    views: Annotated[
        int | None, typer.Option(help="Views of each image, used in turn; default: a fresh one each epoch.")
    ] = None,
    view_seed: Annotated[int | None, typer.Option(help="Of the views; default: the seed.")] = None,
    bank: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps what frozen models answer for the views, shared with other transfers."),
    ] = None,
    bank_storage: Annotated[
        str, typer.Option(help="full (16-bit logits), or top-K: the K most probable classes of each image.")
    ] = "full",
    bank_limit: Annotated[
        str | None, typer.Option(help="Size such as 20GB; answers used least recently go first.")
    ] = None,
    bank_check: Annotated[
        int, typer.Option(help="Views of each entry to ask the models about again; the largest difference is reported.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(help="Learn from a stratified so-many of the images.")] = None,
    subset: Annotated[float | None, typer.Option(help="Learn from a stratified share of the images.")] = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="Of training: auto (mixed where the device has it), fp32, bf16 or fp16.")
    ] = "auto",
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the models (torch.compile): takes a minute or more at first."),
    ] = False,
    workers: Workers = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints within an epoch; default: one after each epoch.")
    ] = None,
    max_broken: MaxBroken = 0.01,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Tell the measures to tensorboard (in OUT/tracking), wandb, mlflow … ; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved run with time, memory and disk; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Move what the teacher knows and the student does not into the student.

    Killed at any moment and started again with the same command, it goes on where it was.
    """
    from ..api import execute
    from ..config import settings_from
    from ..runs import plan_transfer
    from .progress import make_progress
    from .tables import print_json, print_lines, show_broken, transfer_table

    asked: dict[str, Any] = {
        "method": method, "labels": labels, "preset": preset, "epochs": epochs, "batch_size": count_or_auto(batch_size),
        "micro_batch": count_or_auto(micro_batch), "lr": lr,
        "temperature": temperature, "seed": seed, "augment": augment, "limit": limit, "subset": subset,
        "device": device, "precision": precision, "workers": workers, "checkpoint_every": checkpoint_every,
        "max_broken": max_broken, "distill_weight": distill_weight, "label_smoothing": label_smoothing,
        "top_k": top_k, "sharpness": sharpness, "slow_momentum": slow_momentum, "slow_every": slow_every,
        "negatives": negatives, "warmup_epochs": warmup_epochs, "student_mode": student_mode, "guard": guard,
        "control": control,
        "strategy": strategy, "order": order, "schedule": schedule, "views": views, "view_seed": view_seed,
        "bank": bank, "bank_storage": bank_storage, "bank_limit": bank_limit, "bank_check": bank_check,
        "compile": compile, "track": tuple(track or ()),
    }  # fmt: skip
    plan = plan_transfer(
        student,
        teacher,
        data,
        val=val,
        guard_data=guard_data,
        label_maps=label_map or (),
        settings=settings_from(asked),
        command=typed_command(),
    )
    if dry_run:
        _show_estimate(plan, out, as_json=json)
        return
    progress = make_progress(silent=not plan.is_main)
    try:
        result = execute(plan, out, callbacks=[progress])
    finally:
        progress.close()
    if not plan.is_main:
        return
    metrics = result.metrics
    show_broken(metrics.broken_images)
    if json:
        print_json(metrics.to_dict())
        return
    transfer_table(metrics)
    interval = metrics.transfer_delta_ci_pp
    if interval is not None and interval[0] <= 0:
        print_lines(
            "The student is not measurably better than before (the interval holds zero or less): keep the old one."
        )
    print_lines(
        f"{out / 'student'}: the student",
        f"{out / 'result.json'}: the metrics",
        f"{out / 'report.html'}: a page on it, for a browser",
    )
    if metrics.student_reference:
        print_lines(f"load it again as {metrics.student_reference}")


def _show_estimate(plan: Any, out: Path, *, as_json: bool) -> None:
    from ..profiling import estimate
    from ..results import RunFolder
    from .progress import duration
    from .tables import print_json, print_lines

    RunFolder(out).check(plan.config)
    cost = estimate(plan)
    if not plan.is_main:
        return
    if as_json:
        print_json({"config": plan.config, "estimate": cost.to_dict()})
        return
    print_lines(*_plan_lines(plan))
    bank = [f"bank: at most {cost.bank_mb:,.2f} MB in {plan.bank.folder}"] if plan.bank is not None else []
    print_lines(
        *bank,
        f"time: about {duration(cost.time_s)} ({cost.training_s:.0f} s training, {cost.measuring_s:.0f} s measuring)",
        f"memory: about {cost.memory_mb:,.0f} MB on {plan.accelerator.device.type}",
        f"disk: about {cost.disk_mb:,.0f} MB while running, {cost.result_mb:,.0f} MB afterwards",
    )


def _plan_lines(plan: Any) -> list[str]:
    """A resolved run in a few lines; `--json` has all of it."""
    settings, asked, config = plan.settings, plan.asked, plan.config
    steps = -(-len(plan.train_images) // settings.batch_size)
    rule = "" if asked.lr is not None else ", by rule" if asked.preset is None else f", by preset {asked.preset}"
    own = "" if asked.augment is not None else ", by rule"
    held_out = ", set apart from the data" if plan.held_out else ""
    lines = [
        f"{role}: {model.reference} ({model.num_classes} classes, {_input(model)})"
        for role, model in [("student", plan.student), *(("teacher", teacher) for teacher in plan.teachers)]
    ]
    return [
        *lines,
        f"learns from: {plan.train_images.reference}, {_images(plan.train_images)}",
        f"measured on: {plan.val_images.reference}, {_images(plan.val_images)}{held_out}",
        *_guard_line(plan),
        f"method: {settings.method.name}, {settings.method.summary}; student mode {settings.student_mode}",
        *([f"strategy: {asked.strategy}"] if len(plan.teachers) > 1 else []),
        f"steps: {settings.epochs} epochs of {steps}, at most {settings.batch_size} images each",
        f"learning rate: {settings.lr:g}{rule}, {settings.schedule}; temperature {settings.temperature:g}, "
        f"momentum {settings.momentum:g}, weight decay {settings.weight_decay:g}, seed {settings.seed}",
        f"views: {', '.join(map(_by, plan.spec.sizes))}, augmentation {settings.augment}{own}",
        f"device: {config['settings']['device']}, mixed precision {config['settings']['precision']}, "
        f"{plan.accelerator.num_processes} process(es), {plan.workers} worker(s)",
    ]


def _guard_line(plan: Any) -> list[str]:
    if plan.guard_images is None:
        return ["guard: none"]
    held_out = ", set apart from the data" if plan.guard_held_out else ""
    return [f"guarded by: {plan.guard_images.reference}, {_images(plan.guard_images)}{held_out}"]


def _input(model: Any) -> str:
    size = getattr(model, "preprocessing", None)
    return f"{len(model):,} predictions" if size is None else f"input {_by(size.view_size)}"


def _images(images: Any) -> str:
    return f"{len(images):,} images, " + ("labelled" if images.labels is not None else "no labels read")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
