"""Commands in processes forked from one that has imported the libraries; what they leave, compared.

Importing takes longer than most of what tests and campaigns run.
"""

import contextlib
import faulthandler
import gc
import hashlib
import json
import multiprocessing
import os
import posix
import random
import runpy
import shlex
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors import safe_open

import gainfinder
from gainfinder.workers import backends

RESULTS = frozenset({"out", "out.parquet", "bank"})
"""What commands are told to write."""
UNLIKE = {"resumed_epochs", "trained", "seconds", "host", "finished", "made", "replayed"}
"""Values in documents that tell of kills, or of the clock."""
NOT_COMPARED = (".lock", ".running.json", ".log", ".html", "study.json")


def forked(
    run: Callable[..., object], *arguments: Any, environment: Mapping[str, str | None] | None = None, **options: Any
) -> "subprocess.Popen[str]":
    """Call a function in a process that is forked from this one, and is otherwise as a new one: for tests.

    What pytest and the test changed in modules is changed there too, but for the wait for the disk.

    Args:
        run: the function; the process ends with its end, as an interpreter would.
        arguments: the function's arguments.
        environment: variables that are set there, or removed (None).
        options: of `subprocess.Popen`: its streams, a session of its own.
    """
    gainfinder.transfer  # noqa: B018 - imports what every command needs before anything is forked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which pytest-xdist has
        return subprocess.Popen(
            ["forked"],  # nothing is executed: the call before that does not return
            preexec_fn=lambda: _child(run, arguments, environment or {}),  # noqa: PLW1509
            restore_signals=False,
            text=True,
            **options,
        )


def forked_command(arguments: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
    """Run a command of gainfinder, given without its first word, as `forked` runs functions."""
    return forked(run_module, "gainfinder", arguments, **options)


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Have studies fork their workers here, which are as ever but for the start of an interpreter and its imports."""

    def fork_worker(command: list[str], *, env: dict[str, str], **options: Any) -> "subprocess.Popen[str]":
        assert command[:3] == [sys.executable, "-m", "gainfinder.workers"]
        return forked(run_module, command[2], command[3:], environment=env, **options)

    named = SimpleNamespace(Popen=fork_worker, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    patch.setattr(backends, "subprocess", named)


def run_module(name: str, arguments: Sequence[str]) -> None:
    """`python -m NAME ARGUMENTS`, in this process, which is its own."""
    sys.argv[1:] = arguments
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _child(run: Callable[..., object], arguments: tuple[Any, ...], environment: Mapping[str, str | None]) -> NoReturn:
    code = 1
    try:
        _be_new(environment)
        run(*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _be_new(environment: Mapping[str, str | None]) -> None:
    """Let go of what is the parent's: its open files and streams, its seeds, and what Accelerate knows of processes."""
    faulthandler.disable()
    # Not closed: the parent's objects here may yet close their numbers, which would be those of other files.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(file.name) for file in Path("/dev/fd").iterdir()]:
        if number > 2 and number != nothing:
            with contextlib.suppress(OSError):  # the one of the listing
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.fsync = posix.fsync
    gc.enable()
    random.seed()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def start(command: str, folder: Path, before: Callable[[], object] | None = None) -> BaseProcess:
    """Start a command of gainfinder in a folder; what it prints goes to `log` there.

    Args:
        command: the command without its first word.
        folder: the folder in which it runs.
        before: called in the process before the command.
    """
    process = multiprocessing.get_context("fork").Process(target=run_here, args=(command, folder, before))
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    """Wait for a process; its exit code."""
    process.join()
    return process.exitcode


def run_here(command: str, folder: Path, before: Callable[[], object] | None = None) -> None:
    """Run a command in this process, which is its own and leads a group of its own."""
    os.setsid()
    os.chdir(folder)
    with Path("log").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    if before is not None:
        before()
    run_module("gainfinder", shlex.split(command))


def end_all(process: BaseProcess) -> None:
    """Kill a process with those that it started."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not come so far as to lead a group
        process.kill()
    process.join()


def last_line(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace").strip().rpartition("\n")[2][:300]


def results(folder: Path) -> Iterator[Path]:
    """The whole files that a command left."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if RESULTS.intersection(inside) and path.is_file() and not path.name.startswith(".partial-"):
            yield path


def unreadable(folder: Path) -> list[str]:
    """What has a whole file's name and is none."""
    wrong = []
    for path in results(folder):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - no mapping
            elif path.suffix == ".parquet":
                pq.read_table(path)
            elif path.suffix == ".pt":
                torch.load(path, weights_only=True)
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return wrong


def documents(folder: Path) -> dict[str, Any]:
    """All values that a command left, by file and key; of weights, tables and pictures a digest."""
    found: dict[str, Any] = {}
    for path in results(folder):
        name = str(path.relative_to(folder))
        if name.endswith(NOT_COMPARED):
            continue
        if path.suffix == ".json":
            found |= flat(json.loads(path.read_text(encoding="utf-8")), name)
        elif path.suffix == ".jsonl":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
                found |= flat(json.loads(line), f"{name}:{number}")
        elif path.suffix == ".parquet":
            found[name] = hashlib.sha256(repr(pq.read_table(path).to_pydict()).encode()).hexdigest()
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def comparable(one: Path, other: Path) -> dict[str, Any]:
    """The values that two undisturbed runs have in common: all but times."""
    found = documents(other)
    return {key: value for key, value in documents(one).items() if found.get(key) == value}


def flat(value: Any, name: str) -> dict[str, Any]:
    """A document's values by their path."""
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, one in value.items():
            found |= {} if key in UNLIKE else flat(one, f"{name}/{key}")
        return found
    return {name: value}
