"""The command line: thin, one command a file. Results go to stdout; progress, notes and errors to stderr.

Exit codes: 0 done; 1 an unexpected failure, or a result that was not repeated; 2 a user's mistake; 130 stopped by
Ctrl-C.
Imports: startup, redaction, errors, references, files, config, predictions, metrics, data, inference, results, study,
runs, zoo, profiling, workers, report, sharing, api, demo.
"""

import sys

import typer

from ..errors import readable
from .ask import ask
from .completion import completing
from .demo import demo
from .doctor import doctor
from .export import export
from .fit_head import fit_head
from .list import list_
from .methods import methods
from .predict import predict
from .push import push
from .rank import rank
from .repeat import repeat
from .report import report
from .scan import scan
from .study import study
from .transfer import transfer

app = typer.Typer(
    name="gainfinder",
    help="Find what other trained classifiers know that yours does not, and move it into yours.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)) -> None:
    if version:
        from .._version import __version__

        typer.echo(f"gainfinder {__version__}")
        raise typer.Exit


for command in (demo, scan, rank, predict, fit_head, transfer, ask, repeat, report, push, export, methods, doctor):
    app.command()(completing(command))
app.command("list")(completing(list_))
app.add_typer(study)


def main() -> None:
    """Entry point of the `gainfinder` command: mistakes in options are one line, as all mistakes are."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        # Which package's UsageError it is depends on Typer's version; all of them can format their message.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            sys.exit(0)
        known = getattr(getattr(error, "ctx", None), "command_path", "gainfinder")
        message = readable(" ".join(error.format_message().split()))
        typer.echo(f"gainfinder: {message} (see {known} --help)", err=True)
        code = getattr(error, "exit_code", 2)
    sys.exit(code)
