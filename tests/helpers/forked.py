"""Commands in processes forked from one that has imported the libraries; what they leave, compared.

Importing takes longer than most of what tests and campaigns run.
"""

import hashlib
import json
import multiprocessing
import os
import runpy
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors import safe_open

RESULTS = frozenset({"out", "out.parquet", "bank"})
"""What commands are told to write."""
UNLIKE = {"resumed_epochs", "trained", "seconds", "host", "finished", "made", "replayed"}
"""Values in documents that tell of kills, or of the clock."""
NOT_COMPARED = (".lock", ".running.json", ".log", ".html", "study.json")


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
    sys.argv[1:] = shlex.split(command)
    runpy.run_module("gainfinder", run_name="__main__", alter_sys=True)


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
