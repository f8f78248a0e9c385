"""Figures drawn by a process of their own, one a report, whose end leaves out figures and nothing else."""

import contextlib
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import altair as alt
import pyarrow.parquet as pq

from ..files import write_atomically
from . import drawing_process
from .charts import Figure, row_table
from .drawing_process import LENGTH_BYTES

Kind = Literal["svg", "pdf", "png"]
LONGEST_S = 300.0
"""Seconds for one figure; a large matrix takes some."""
MOST_DEATHS = 2
"""Processes in a row that end before they draw anything, after which no other is started."""
PPI = 144
_UNDRAWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_log = logging.getLogger("gainfinder")


class Drawer:
    """Draws figures as SVG, PDF or PNG, each once; a context manager around a report.

    A figure that cannot be drawn is None, and its reason is in `failures`. A process that ends while it draws a figure
    is replaced for the next one.

    Args:
        command: command of the process that draws; None for this package's.
        longest_s: seconds after which a figure is given up.
    """

    def __init__(self, *, command: list[str] | None = None, longest_s: float = LONGEST_S) -> None:
        self.command = command or [sys.executable, "-P", str(drawing_process.__file__)]
        self.longest_s = longest_s
        self.failures: dict[str, str] = {}
        """Why figures are left out, by name."""
        self._drawn: dict[tuple[int, Kind], tuple[Figure, bytes | None]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._last = ""

    def __enter__(self) -> "Drawer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def draw(self, figure: Figure, kind: Kind = "svg") -> bytes | None:
        """A figure's file; None where it cannot be drawn."""
        key = (id(figure), kind)
        if key not in self._drawn:
            self._drawn[key] = (figure, self._draw(figure, kind))  # the figure is kept, so that its id is
        return self._drawn[key][1]

    def svg(self, figure: Figure) -> str | None:
        """A figure as SVG text, with a transparent background; None where it cannot be drawn."""
        content = self.draw(figure)
        return None if content is None else content.decode()

    def save(self, figure: Figure, path: Path) -> bool:
        """Write a figure (`.svg`, `.pdf` or `.png` by the ending) and its rows beside it as `NAME-KEY.parquet`.

        Returns:
            Whether it could be drawn; if not, an older file is removed, and the rows are written all the same.

        Raises:
            RunFolderError: a file cannot be written.
        """
        kinds: dict[str, Kind] = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
        content = self.draw(figure, kinds[path.suffix])
        if content is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, lambda partial: _write(partial, content))
        for key, table in figure.rows.items():
            beside = path.with_name(f"{path.stem}-{key}.parquet")
            write_atomically(beside, lambda partial, table=table: pq.write_table(row_table(table), partial))  # type: ignore[misc]
        return content is not None

    def warn(self, path: Path) -> None:
        """Note which figures were left out of a report, and why, if any were."""
        if self.failures:
            reason = next(iter(self.failures.values()))
            _log.warning("%s: figures were left out (%s): %s", path, ", ".join(self.failures), reason)

    def _draw(self, figure: Figure, kind: Kind) -> bytes | None:
        if self._deaths >= MOST_DEATHS:
            self.failures[figure.name] = self._last
            return None
        with alt.data_transformers.disable_max_rows():
            spec = figure.chart.to_dict(context={"pre_transform": False})
        request = {
            "kind": kind,
            "spec": _drawable(spec),
            "version": ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]),
            "ppi": PPI,
        }
        try:
            status, content = self._asked(json.dumps(request).encode())
        except (OSError, EOFError) as error:
            self._deaths += 1
            self._last = self.failures[figure.name] = self._death(error)
            return None
        self._deaths = 0
        if status:
            self.failures[figure.name] = " ".join(content.decode().split("\n")[:2])
            return None
        return content

    def _asked(self, request: bytes) -> tuple[int, bytes]:
        """The process's answer to a request: its first byte, and the rest.

        Raises:
            OSError: the process cannot be started, or takes no request.
            EOFError: it ended, or was ended after `longest_s`.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        timer = threading.Timer(self.longest_s, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(len(request).to_bytes(LENGTH_BYTES, "big") + request)
            process.stdin.flush()
            status = _read(process.stdout, 1)[0]
            return status, _read(process.stdout, int.from_bytes(_read(process.stdout, LENGTH_BYTES), "big"))
        except EOFError:
            if not timer.is_alive():
                raise EOFError(f"it took more than {self.longest_s:.0f} s") from None
            raise
        finally:
            timer.cancel()

    def _death(self, error: Exception) -> str:
        """How a process that draws ended, in words; it is reaped."""
        code = self._end()
        if str(error).startswith("it took"):
            return f"the process that draws figures was ended: {error}"
        if code is None:
            return f"the process that draws figures could not be started ({error})"
        if code >= 0:
            return f"the process that draws figures ended with code {code}"
        with contextlib.suppress(ValueError):
            return f"the process that draws figures crashed ({signal.Signals(-code).name}){_limits()}"
        return f"the process that draws figures crashed (signal {-code}){_limits()}"

    def _end(self) -> int | None:
        """End the process, if there is one; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None, "both are pipes"
                pipe.close()
        try:
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _drawable(value: Any) -> Any:
    """A specification whose texts Vega's expressions and XML can hold: what neither has is shown as a sign for it."""
    if isinstance(value, str):
        return _UNDRAWN.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_drawable(key): _drawable(inner) for key, inner in value.items()}
    return [_drawable(inner) for inner in value] if isinstance(value, list) else value


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _read(pipe: IO[bytes], size: int) -> bytes:
    """`size` bytes of a pipe."""
    found = pipe.read(size)
    if len(found) < size:
        raise EOFError("the process ended")
    return found


def _limits() -> str:
    """What a process's end may come from: a limit of address space, where there is one."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return ""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return (
        f"; address space is limited to {limit / 1e9:.0f} GB here, and drawing needs more: `gainfinder report` where "
        "`ulimit -v` says unlimited adds them"
    )
