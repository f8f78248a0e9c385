"""Byte ranges of files, read from any process: forked and spawned workers open handles of their own."""

import os
import threading
from collections import OrderedDict
from io import FileIO
from pathlib import Path

_MOST_OPEN = 16


class FileRanges:
    """Reads byte ranges, keeping the most recently used files open.

    A forked process shares the file offset of the handles it inherits, so handles belong to the process that opened
    them. A pickled copy starts without any.
    """

    def __init__(self) -> None:
        self._reset()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`.

        Raises:
            OSError: the file cannot be opened or read.
            EOFError: it ends earlier.
        """
        if self._process != os.getpid():
            self.close()
            self._reset()
        with self._lock:
            file = self._open(path)
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise EOFError(f"the file ends after {len(data)} of {size} bytes")
        return data

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, FileIO] = OrderedDict()

    def _open(self, path: Path) -> FileIO:
        if path not in self._files:
            # Unbuffered: closing an inherited handle must not move the offset that the parent uses.
            self._files[path] = FileIO(path)
        self._files.move_to_end(path)
        if len(self._files) > _MOST_OPEN:
            self._files.popitem(last=False)[1].close()
        return self._files[path]

    def __reduce__(self) -> tuple[type["FileRanges"], tuple[()]]:
        return (FileRanges, ())

    def __del__(self) -> None:
        self.close()
