"""libtiff, which Pillow decodes compressed TIFFs with, writes what is wrong with a file to stderr by itself."""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from PIL import _imaging

_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")
Setter = Callable[[int | None], int | None]
"""Takes the address of a function, or None for none, and gives that of the one before."""


class _Silent:
    """For threads: the first to enter takes libtiff's handlers away, the last gives them back.

    Stderr itself is not touched, so that no line of anything else can be lost.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: in a process that was forked while another thread was inside, which is not there."""
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Setter, int | None]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [(setter, setter(None)) for setter in _setters()]
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for setter, before in self._before:
                    setter(before)


_SILENT = _Silent()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SILENT.forget)


def libtiff_silent() -> AbstractContextManager[None]:
    """Within the block libtiff writes nothing: a damaged file is told in one line, by whoever catches Pillow's error.

    Where Pillow is built with a libtiff that cannot be reached, it writes on.
    """
    return _SILENT


@functools.cache
def _setters() -> Sequence[Setter]:
    """The functions that set the handlers of the very libtiff that Pillow has loaded; empty if they are not found."""
    try:
        library = ctypes.CDLL(_imaging.__file__)  # names are looked up in what it is linked to, as well
        found = [getattr(library, name) for name in _HANDLERS]
    except (OSError, AttributeError):
        return ()
    for setter in found:
        setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return found
