"""`gainfinder transfer`: move what a teacher knows into a student."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import RunFile, read_run
from ..errors import SettingsError
from ..startup import heavy_imports
from .command import command, typed_command, written_out
from .options import DATA_HELP, MODEL_HELP, Json, TrustRemoteCode, typed_settings, with_settings

if TYPE_CHECKING:
    from ..data import Samples
    from ..profiling import Estimate
    from ..runs import PreparedTransfer, TransferResult


@command
@with_settings()
def transfer(
    context: typer.Context,
    student: Annotated[
        str | None, typer.Option(help=f"The model that learns: {MODEL_HELP}. Needed.", show_default=False)
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="A model that teaches, in the same form; may be repeated. Needed.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"Images to learn from: {DATA_HELP}. Needed.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the student and its metrics. Needed.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="File of a transfer, in TOML as --write writes it, or a result's config.json; options go over it."
        ),
    ] = None,
    val: Annotated[
        str | None, typer.Option(help="Images to measure on, in full; default: a tenth of --data is set apart.")
    ] = None,
    guard_data: Annotated[
        str | None,
        typer.Option(
            help="Images for the guard, which no model was trained on; default: a tenth of --data is set apart."
        ),
    ] = None,
    label_map: Annotated[
        list[Path] | None,
        typer.Option(help="JSON or CSV file: teacher's class, student's class; one for all teachers, or one each."),
    ] = None,
    referee: Annotated[
        list[str] | None,
        typer.Option(help="A model that never teaches, to judge for the guard without labels; may be repeated."),
    ] = None,
    ask: Annotated[
        int | None,
        typer.Option(min=1, help="Ask for so many labels of changed samples afterwards, as `gainfinder ask` does."),
    ] = None,
    *,
    trust_remote_code: TrustRemoteCode = None,
    write: Annotated[Path | None, typer.Option(help="With --dry-run: a file to write for --config, in TOML.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved run with time, memory and disk; run nothing.")
    ] = False,
    json: Json = False,
    **settings: Any,
) -> None:
    """Move what the teacher knows and the student does not into the student.

    Killed at any moment and started again with the same command, it goes on where it was.
    """
    if write is not None and not dry_run:
        raise SettingsError("`write` is an option of a dry run: give `dry_run`, too")
    asked = (RunFile() if config is None else read_run(config)).updated(  # checked before what takes seconds to import
        {
            "student": student,
            "teachers": teacher,
            "data": data,
            "val": val,
            "guard_data": guard_data,
            "label_maps": [*map(str, label_map or ())],
            "referees": referee,
            "out": None if out is None else str(out),
            "ask": ask,
        },
        typed_settings(context, settings),
    )
    spec = asked.spec().trusting(trust_remote_code or ())
    if asked.out is None:
        raise SettingsError("no out is given: give `out`, a folder for the student and its metrics")
    if spec.config.both is not None and asked.ask is not None:
        raise SettingsError("`ask` is given together with `both`: ask afterwards, of one of both results")
    folder = Path(asked.out)
    with heavy_imports():
        from ..api import execute_with_reports
        from ..runs import prepare_spec
        from .ask import ask_after
        from .progress import make_progress
        from .tables import print_json, print_lines, show_broken

    prepared = prepare_spec(spec, command=typed_command() if config is None else written_out(asked))
    if dry_run:
        _show_estimate(prepared, folder, as_json=json, write=write, asked=asked)
        return
    noun = prepared.val_images.noun
    progress = make_progress(noun=noun, silent=not prepared.is_main)
    try:
        result = execute_with_reports(prepared, folder, callbacks=[progress])
    finally:
        progress.close()
    if not prepared.is_main:
        return
    both = [one for one in (result, result.partner) if one is not None]
    show_broken(sorted({reason for one in both for reason in one.metrics.broken_images}), noun)
    questions = ask_after(prepared, result.metrics, folder, labels=asked.ask)
    if json:
        found = [one.metrics.to_dict() for one in both]
        print_json(found[0] if len(found) == 1 else {"both": spec.config.both, "results": found})
        return
    for one in both:
        _show_result(one, prepared.val_images)
    if len(both) > 1:
        print_lines(f"{folder / 'report.html'}: a page on both, for a browser")
    if questions:
        print_lines(*questions)


def _show_result(result: "TransferResult", images: "Samples") -> None:
    from .tables import print_lines, transfer_table

    metrics, folder = result.metrics, result.out
    assert folder is not None, "the command has a folder for it"
    place = None if images.measured_places is None else images.classified
    transfer_table(metrics, noun=images.noun, place=place)
    interval = metrics.transfer_delta_ci_pp
    kept = metrics.guard is not None and metrics.guard.kept_initial  # the old one is kept already, as the table says
    if interval is not None and interval[0] <= 0 and not kept:
        advice = (
            "keep the old one" if metrics.guard is None else f"the guard was sure of a gain on its own {images.noun}s"
        )
        print_lines(
            f"The student is not measurably better than before on these {images.noun}s (the interval holds zero or "
            f"less): {advice}."
        )
    print_lines(
        f"{folder / 'student'}: the student",
        f"{folder / 'result.json'}: the metrics",
        f"{folder / 'report.html'}: a page on it, for a browser",
    )
    if metrics.student_reference:
        print_lines(f"load it again as {metrics.student_reference}")


def _show_estimate(
    prepared: "PreparedTransfer", out: Path, *, as_json: bool, write: Path | None, asked: RunFile
) -> None:
    from ..profiling import estimate
    from ..results import RunFolder, TwoWayFolder
    from ..runs import describe, settings_by_rule, trials_at_most
    from .tables import print_json, print_lines

    ways, folders = [prepared], [RunFolder(out)]
    if prepared.partner is not None:
        both = TwoWayFolder(out)
        both.check()
        ways, folders = [prepared, prepared.partner], [*both.results]
    configs = [describe(one) for one in ways]
    for folder, config in zip(folders, configs, strict=True):
        folder.check(config)
    costs = [estimate(one) for one in ways]
    if not prepared.is_main:
        return
    if write is not None:
        asked.write(write, by_rule=settings_by_rule(prepared, tries=trials_at_most(prepared) > 0))
    if as_json:
        found = [{"config": config, "estimate": cost.to_dict()} for config, cost in zip(configs, costs, strict=True)]
        print_json(found[0] if len(found) == 1 else {"both": asked.settings["both"], "ways": found})
        return
    for one, folder, config, cost in zip(ways, folders, configs, costs, strict=True):
        if len(ways) > 1:
            step = "in step with the other" if one.requested.both == "live" else "for itself"
            print_lines(f"{folder.path}: {one.student.reference} learns from {one.teachers[0].reference}, {step}")
        print_lines(*_described(one, config), *_costs(one, cost))
    if write is not None:
        print_lines(f"{write}: the transfer, for --config")


def _costs(prepared: "PreparedTransfer", cost: "Estimate") -> list[str]:
    from ..report import duration

    bank = []
    if prepared.bank is not None:
        bank = [f"bank: at most {cost.bank_mb + cost.crops_mb:,.2f} MB in {prepared.bank.folder}"]
    return [
        *bank,
        f"time: about {duration(cost.time_s)} ({cost.training_s:.0f} s training, {cost.measuring_s:.0f} s measuring)",
        f"memory: about {cost.memory_mb:,.0f} MB on {prepared.accelerator.device.type}",
        f"disk: about {cost.disk_mb:,.0f} MB while running, {cost.result_mb:,.0f} MB afterwards",
    ]


def _described(prepared: "PreparedTransfer", config: Any) -> list[str]:
    """A resolved run in a few lines; `--json` has all of it."""
    settings, requested = prepared.settings, prepared.requested
    steps = prepared.steps_per_epoch
    held_out = ", set apart from the data" if prepared.val_held_out else ""
    lines = [
        f"{role}: {model.reference} ({model.num_classes} classes, {_input(model)})"
        for role, model in [
            ("student", prepared.student),
            *(("teacher", teacher) for teacher in prepared.teachers),
            *(("referee", referee) for referee in prepared.referees),
        ]
    ]
    return [
        *lines,
        f"learns from: {prepared.train_images.reference}, {_images(prepared.train_images)}",
        f"measured on: {prepared.val_images.reference}, {_images(prepared.val_images)}{held_out}",
        *_guard_line(prepared),
        f"method: {settings.method.name}, {settings.method.summary}; student mode {settings.student_mode}",
        *([f"strategy: {requested.strategy}"] if len(prepared.teachers) > 1 else []),
        f"steps: {'at most ' * (settings.schedule == 'plateau')}{settings.epochs} epochs of {steps}, at most "
        f"{settings.batch_size} {prepared.train_images.noun}s each",
        f"optimiser and rate: {_recipe(prepared)}, schedule {settings.schedule}; temperature "
        f"{settings.temperature:g}, seed {settings.seed}",
        f"views: {_views(prepared)}",
        f"device: {config['settings']['device']}, mixed precision {config['settings']['precision']}, "
        f"{prepared.accelerator.num_processes} process(es), {prepared.workers} worker(s)",
    ]


def _views(prepared: "PreparedTransfer") -> str:
    """How the models see a sample; texts, which are not augmented, each by its own tokenizer."""
    from ..predictions import IMAGE

    sizes = ", ".join(dict.fromkeys(map(_by, prepared.view_spec.sizes)))
    if prepared.train_images.noun != IMAGE:
        return f"texts as they are, {sizes}"
    own = "" if prepared.requested.augment is not None else ", by rule"
    return f"{sizes}, augmentation {prepared.settings.augment}{own}"


def _recipe(prepared: "PreparedTransfer") -> str:
    """How the student is optimised, as far as it is known before any trial."""
    from ..runs import trials_at_most, trials_share

    settings, requested = prepared.settings, prepared.requested
    trials = trials_at_most(prepared)
    if trials:
        share = trials_share(prepared)
        return f"{settings.optimizer}, its rate chosen by at most {trials} trials, {share:.0%} of the steps at most"
    rule = "" if requested.preset is None else f" {requested.preset}"
    by = "" if requested.lr is not None else ", by preset" + rule if rule else ", by rule"
    momentum = f"momentum {settings.momentum:g}, " if settings.optimizer == "sgd" else ""
    return f"{settings.optimizer} at {settings.lr:g}{by}, {momentum}weight decay {settings.weight_decay:g}"


def _guard_line(prepared: "PreparedTransfer") -> list[str]:
    if prepared.guard_images is None:
        return ["guard: none"]
    held_out = ", set apart from the data" if prepared.guard_held_out else ""
    return [f"guarded by: {prepared.guard_images.reference}, {_images(prepared.guard_images)}{held_out}"]


def _input(model: Any) -> str:
    size = getattr(model, "preprocessing", None)
    return f"{len(model):,} predictions" if size is None else f"input {_by(size.view_size)}"


def _images(images: Any) -> str:
    each = "" if images.measured_places is None else f" in {images.classified}s"
    return f"{len(images):,} {images.noun}s{each}, " + ("labelled" if images.labels is not None else "no labels read")


def _by(size: Any) -> str:
    return f"{size[0]}x{size[1]}" if isinstance(size, tuple) else f"up to {size.max_length} tokens"
