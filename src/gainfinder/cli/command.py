"""Common behaviour of all commands: errors as one line, exit codes, notes to stderr."""

import functools
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import typer

from ..config import SETTINGS, RunFile, TransferConfig
from ..errors import GainfinderError, readable
from ..redaction import redacted

P = ParamSpec("P")
STOPPED = 130
QUOTES = "'\""
_SETTING = re.compile(r"`(?P<name>[a-z][a-z_]*)(?:=(?P<value>[^`]+))?`")


def command(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: user mistakes become one line and exit code 2, Ctrl-C becomes exit code 130."""

    @functools.wraps(command)
    @shown_notes()
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
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
    """The command as it was typed, for a shell to repeat, without secrets."""
    return redacted(shlex.join(["gainfinder", *sys.argv[1:]]))


def written_out(asked: RunFile) -> str:
    """The command that a file and the options over it make together, without secrets: files change, and stay behind.

    >>> written_out(RunFile(student="vit", teachers=["a", "b"], data="my photos", out="x", settings={"guard": False}))
    "gainfinder transfer --student vit --teacher a --teacher b --data 'my photos' --out x --no-guard"
    """
    given = asked.model_dump(mode="json", exclude_defaults=True, exclude={"settings"})
    values = {name.removesuffix("s") if isinstance(value, list) else name: value for name, value in given.items()}
    values |= TransferConfig(**asked.settings).model_dump(mode="json", include={*asked.settings})
    off = {one.name for one in SETTINGS if one.default is False}  # these can be switched on alone
    words = ["gainfinder", "transfer"]
    for name, value in values.items():
        option = name.replace("_", "-")
        for one in value if isinstance(value, list) else [value]:
            if one is True or one is False:
                words += [] if not one and name in off else [f"--{option}" if one else f"--no-{option}"]
            elif one is not None:
                words += [f"--{option}", str(one)]
    return redacted(shlex.join(words))


def as_options(message: str) -> str:
    """A message of the library as a user of the command line reads it: settings in backticks become options.

    >>> as_options("raise `max_broken`, or give `labels='none'` and `guard=False`; see `id`")
    'raise --max-broken, or give --labels none and --no-guard; see `id`'
    """
    return _SETTING.sub(_as_option, message)


def _as_option(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if name not in _option_names():
        return found[0]
    option = name.replace("_", "-")
    if value in ("True", "False"):
        return f"--{option}" if value == "True" else f"--no-{option}"
    return f"--{option}" if value is None else f"--{option} {value.strip(QUOTES)}"


@functools.cache
def _option_names() -> frozenset[str]:
    """The names of all options of all commands."""
    from . import app  # it holds the commands, which import this module

    commands: list[Any] = [typer.main.get_command(app)]
    for one in commands:  # which grows while groups are opened
        commands += getattr(one, "commands", {}).values()
    return frozenset(option.opts[0].lstrip("-").replace("-", "_") for one in commands for option in one.params)


def _fail(message: str, *, code: int) -> None:
    typer.echo(f"gainfinder: {readable(' '.join(as_options(message).split()))}", err=True)
    raise typer.Exit(code)


class _Stderr(logging.Handler):
    """Writes each note once a command: images that are loaded for two purposes are noted once."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        note = " ".join(as_options(record.getMessage()).split())
        if note in self.said:
            return
        self.said.add(note)
        # Not by typer.echo, which gets past a live view and writes into it.
        sys.stderr.write(f"note: {readable(note)}\n")
        sys.stderr.flush()


@contextmanager
def shown_notes() -> Iterator[None]:
    """Within the block what gainfinder notes is written to stderr, each note once."""
    logger = logging.getLogger("gainfinder")
    handler, propagate = _Stderr(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
