"""Calls into other libraries: quiet while they run, without the hub where it cannot be reached, errors as one line."""

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

from huggingface_hub import constants, get_session

from .errors import MissingExtra

_CONNECT_S = 4.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Mute warnings and the named loggers within the block; both are as they were after it."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def quiet_transformers(purpose: str) -> Iterator[None]:
    """Mute the bars, reports and warnings of transformers within the block.

    Args:
        purpose: what it is needed for, for the message.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        from transformers.utils import logging as their_logging  # noqa: PLC0415 (slow, and an extra)
    except ImportError as error:
        raise MissingExtra("transformers", "hf", purpose) from error

    verbosity, bars = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity(their_logging.CRITICAL)
    their_logging.disable_progress_bar()
    try:
        with quiet("huggingface_hub", "huggingface_hub.utils._http", "httpx"):
            yield
    finally:
        their_logging.set_verbosity(verbosity)
        if bars:
            their_logging.enable_progress_bar()


class _PrintedToStderr:
    """As `contextlib.redirect_stdout`, for threads: the first to enter changes the stream, the last restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stdout: TextIO | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._stdout, sys.stdout = sys.stdout, sys.stderr
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._stdout is not None:
                sys.stdout, self._stdout = self._stdout, None


_PRINTED_TO_STDERR = _PrintedToStderr()
_TENSORS_ONLY = threading.RLock()


def printed_to_stderr() -> AbstractContextManager[None]:
    """Within the block what a user's code prints goes to stderr: results alone go to stdout.

    A scan loads a model in one thread while another one runs, and both may print.
    """
    return _PRINTED_TO_STDERR


@contextmanager
def tensors_only() -> Iterator[None]:
    """Within the block torch reads pickles as tensors alone, however a library calls it: no file can run code.

    torchvision reads its weights from torch's cache without asking for that.
    """
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    with _TENSORS_ONLY:  # the environment is the whole process's: one thread at a time
        before = {name: os.environ.pop(name, None) for name in names}
        os.environ[names[0]] = "1"
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def hub_or_cache(*, needed: bool = True) -> Iterator[bool]:
    """Within the block the hub client uses its cache alone if the hub cannot be reached.

    Left to itself, the client tries an unreachable hub for half a minute a file.

    Args:
        needed: False for models in a local folder: nothing is requested or changed.

    Yields:
        Whether the hub is reachable.
    """
    if not needed:
        yield True
        return
    was_offline = constants.HF_HUB_OFFLINE
    reachable = not was_offline and _hub_reachable()
    constants.HF_HUB_OFFLINE = not reachable
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def hub_reason(error: BaseException, *, reachable: bool) -> str:
    """Why a model that the hub may hold could not be loaded, for error messages.

    Args:
        error: error that the library raised.
        reachable: what `hub_or_cache` gave.
    """
    if reachable or not isinstance(error, OSError):
        return first_line(error)
    return (
        f"it is not in the cache, and the hub at {constants.ENDPOINT} cannot be reached (or HF_HUB_OFFLINE is set); "
        "with a network, load it once to fill the cache"
    )


def first_line(error: BaseException) -> str:
    """An error's class and the first line of its text.

    >>> first_line(ValueError("no such thing\\nmore"))
    'ValueError: no such thing'
    """
    lines = [line.strip() for line in _ANSI.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _hub_reachable() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=_CONNECT_S)
    except Exception:  # each client version has exceptions of its own
        return False
    return True
