"""`gainfinder study`: many transfers from one file: planned, run, watched."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SettingsError
from ..startup import heavy_imports
from .command import command
from .completion import completing
from .options import Json, TrustRemoteCode

if TYPE_CHECKING:
    from ..report import RowsFormat
    from ..study import StudyDocument

study = typer.Typer(
    name="study",
    help="Run many transfers from one file: students, teachers, methods, seeds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Argument(help="The study, a TOML file.", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="The study's folder, the --out of `study run`.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE: a value in place of the file's, such as settings.epochs=1.", metavar="K=V"),
]


@command
def plan(
    file: File,
    out: Annotated[
        Path | None, typer.Option(help="Folder it is run in; cells that are done there cost nothing.")
    ] = None,
    overrides: Overrides = None,
    timed: Annotated[int, typer.Option(min=0, help="Cells to time, at most; 0: count them, load nothing.")] = 24,
    trust_remote_code: TrustRemoteCode = None,
    json: Json = False,
) -> None:
    """Show a study's cells, and what they will cost; write nothing.

    Some cells are prepared and a few of their steps timed on this machine: hours are those of one worker. Every model
    and all images are loaded once, so that what is wrong with one is told before `run`.
    """
    with heavy_imports():
        from ..study import StudyFolder, read_study, study_cells
        from ..workers import plan_study
        from .progress import make_progress
        from .tables import print_json, print_lines

    document = read_study(file, overrides or ()).trusting(trust_remote_code or ())
    folder = StudyFolder(out if out is not None else Path(document.study.name))
    cells = study_cells(document, folder.path)
    progress = make_progress()
    try:
        found = plan_study(
            folder,
            cells,
            keep_all=document.study.keep == "all",
            most=timed,
            on_cell=lambda cell: progress.stage(f"trying {cell.label}", 0),
        )
    finally:
        progress.close()
    if json:
        print_json({**found.to_dict(), "labels": {cell.key: cell.label for cell in cells}})
    else:
        print_lines(*_plan_lines(document, found.to_dict()))
    if found.mistakes:
        raise SettingsError(f"{len(found.mistakes)} of the cells tried cannot be run; the first: {found.mistakes[0]}")


@command
def run(
    file: File,
    out: Annotated[Path, typer.Option(help="Folder for all results.", show_default=False)],
    overrides: Overrides = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes at once: for each GPU of this machine, or of the engine.")
    ] = 1,
    on: Annotated[str, typer.Option(help="Where workers run: local, ray or slurm.")] = "local",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for Ray (address, num_cpus, num_gpus) or Slurm (slurm_partition, timeout_min, …).",
            metavar="NAME=VALUE",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Torch's threads of each worker; default: the cores, shared out.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="URL that finished cells are copied to, too (s3://…, gs://…, any of fsspec).")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try cells that failed once more.")] = False,
    trust_remote_code: TrustRemoteCode = None,
    json: Json = False,
) -> None:
    """Run the cells of a study that are not done.

    What is missing on disk is what is left to do: a folder that is deleted runs again, a value that is added to the
    file adds its cells, and a study that was stopped, however, goes on with the same command.
    """
    with heavy_imports():
        from ..study import read_study
        from ..workers import make_backend, run_study
        from .study_view import StudyView, failure_lines
        from .tables import print_json, print_lines

    document = read_study(file, overrides or ()).trusting(trust_remote_code or ())
    backend = make_backend(on, out=out, options=_pairs(engine or ()))
    total = workers * backend.devices
    view = StudyView()
    try:
        found = run_study(
            document,
            out,
            backend=backend,
            workers=total,
            threads=_threads(threads, total) if on == "local" else threads,
            retry=retry,
            mirror=mirror,
            on_start=view.begin,
            on_poll=view.refresh,
        )
    finally:
        view.close()
    lost = f"; {found.lost} workers were lost" if found.lost else ""
    if json:
        print_json(vars(found))
    else:
        print_lines(
            f"{found.done} cells done, {found.failed} failed{lost}",
            *failure_lines(out),
            f"`gainfinder study report {out}` makes tables and figures of them",
        )
    if found.failed:
        raise typer.Exit(1)


@command
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking, until nobody is at work.")] = False,
    json: Json = False,
) -> None:
    """Show what is done, running, failed and missing, the time left, and the best cell so far."""
    with heavy_imports():
        from ..study import StudyFolder
        from .study_view import StudyView, failure_lines, snapshot
        from .tables import print_json, print_lines

    found = snapshot(StudyFolder(folder))
    if json:
        print_json(found.to_dict())
        return
    if watch:
        view = StudyView()
        try:
            view.watch(StudyFolder(folder))
            while view.refresh():
                time.sleep(1.0)
        finally:
            view.close()
        found = snapshot(StudyFolder(folder))
    print_lines(*found.lines(), *failure_lines(folder))


@command
def report(
    folder: Folder,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write the figures as PDF, too.")] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Write all rows alone, in this form: parquet or csv.", metavar="FORM"),
    ] = None,
    json: Json = False,
) -> None:
    """Make the paper's tables and figures of the cells that are done, and say which of its findings hold.

    A page, tables as Markdown and LaTeX, figures as SVG, and all rows go to report/ in the study's folder. What is
    missing is shown as missing. No model, GPU or image is needed.
    """
    with heavy_imports():
        from ..report import write_study_report, write_study_rows
        from .tables import print_json, print_lines

    if form is not None:
        rows, epochs = write_study_rows(folder, rows_format=_rows_format(form))
        if json:
            print_json({"rows": str(rows), "epochs": str(epochs)})
        else:
            print_lines(f"{rows}: a row for each cell", f"{epochs}: a row for each epoch of a sequence of teachers")
        return
    page = write_study_report(folder, pdf=pdf)
    if json:
        print_json(
            {"report": str(page), "tables": str(page.parent / "tables"), "figures": str(page.parent / "figures")}
        )
    else:
        print_lines(f"{page}: the page; tables, figures and all rows are beside it")


def _rows_format(form: str) -> "RowsFormat":
    """The form of rows that was given.

    Raises:
        SettingsError: it is unknown.
    """
    known: dict[str, RowsFormat] = {"parquet": "parquet", "csv": "csv"}
    if form not in known:
        raise SettingsError(f"`format` is {form!r}: expected {' or '.join(known)}")
    return known[form]


def _plan_lines(document: "StudyDocument", found: dict[str, object]) -> list[str]:
    """A plan for people."""
    from ..report import duration

    about = document.study
    lines = [
        f"study {about.name}: {found['cells']} cells, {found['done']} of them done",
        f"students {len(about.students)}, teachers {len(about.teachers)}, variants {max(1, len(document.variants))}"
        + "".join(f", {name} {len(values)}" for name, values in document.axes.items())
        + (f", data {len(document.data)}" if len(document.data) > 1 else ""),
    ]
    if found["hours"] is None:
        return [*lines, "time: not estimated"]
    hours, disk_mb, bank_mb = (float(str(found[name] or 0)) for name in ("hours", "disk_mb", "bank_mb"))
    return [
        *lines,
        f"time: about {duration(3600 * hours)} of one worker (from {found['timed']} kinds of cells)",
        f"disk: about {disk_mb:,.0f} MB, and at most {bank_mb:,.0f} MB for the bank",
    ]


def _pairs(options: list[str] | tuple[()]) -> dict[str, str]:
    found = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key or not value:
            raise SettingsError(f"`engine` is {option!r}: expected NAME=VALUE, such as num_gpus=0.25")
        found[key] = value
    return found


def _threads(given: int | None, workers: int) -> int | None:
    """Threads of each worker of this machine, so that all of them together take its cores once."""
    import os

    if given is not None or workers == 1:
        return given
    return max(1, (os.cpu_count() or 1) // workers)


for one in (plan, run, status, report):
    study.command()(completing(one))
