"""What every command does alike: errors as one line, exit codes, notes to stderr."""

import functools
import logging
import shlex
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from ..errors import GainfinderError

P = ParamSpec("P")
STOPPED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: user mistakes become one line and exit code 2, Ctrl-C becomes exit code 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _show_notes()
        try:
            command(*args, **kwargs)
        except GainfinderError as error:
            _fail(str(error), code=2)
        except KeyboardInterrupt:
            _fail("stopped; the same command goes on from the last checkpoint, if it writes any", code=STOPPED)
        except BrokenPipeError:
            # The reader of stdout has gone (a pipe into `head`); flushing at exit would fail once more.
            sys.stderr.close()
            raise typer.Exit(1) from None
        except OSError as error:
            if error.strerror is None:
                raise
            _fail(f"{error.strerror}: {error.filename}" if error.filename else error.strerror, code=1)

    return run


def typed_command() -> str:
    """The command as it was typed, for a shell to repeat."""
    return shlex.join(["gainfinder", *sys.argv[1:]])


def _fail(message: str, *, code: int) -> None:
    typer.echo(f"gainfinder: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Not by typer.echo, which gets past a live view and writes into it.
        sys.stderr.write(f"note: {record.getMessage()}\n")
        sys.stderr.flush()


def _show_notes() -> None:
    logger = logging.getLogger("gainfinder")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())
    logger.propagate = False
