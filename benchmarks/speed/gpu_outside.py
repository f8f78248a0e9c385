"""Sections `doctor`, `tests` and `several`: what is run in processes of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import gainfinder
from benchmarks.speed.bench import Bench
from benchmarks.speed.sections import Sheet

ROOT = Path(__file__).parents[2]
GRACE_S = 8.0
"""Seconds that a process has for its last words when it is stopped."""
SEVERAL = 2
"""Processes, one a GPU."""


def measure_doctor(sheet: Sheet, bench: Bench) -> None:
    """What `gainfinder doctor` finds for each model, on images as large as photographs."""
    folder = bench.images(bench.scale.files)
    for model in bench.scale.models:
        command = [
            "-m", "gainfinder", "doctor", "--json", "--data", folder, "--augment", "rrc",
            "--student", bench.reference(model), "--teacher", bench.reference(model, teacher=True),
            "--batch-size", str(bench.scale.batch_size), "--device", bench.device.type,
        ]  # fmt: skip
        code, text = run(command, seconds=sheet.left_s())
        (bench.out / f"doctor-{model.name}.txt").write_text(text, encoding="utf-8")
        if code != 0:
            raise RuntimeError(f"gainfinder doctor ended with {code}: {_last(text)}")
        found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
        for part in found["parts"]:
            name = part["name"].replace(bench.reference(model, teacher=True), "").replace(bench.reference(model), "")
            note = "by workers, beside the step" if part["overlapped"] else ""
            sheet.add("batch_ms", 1000 * part["batch_s"], model=model.name, kind=name.strip(), note=note)
        for name in ("live_s", "replayed_s", "student_s"):
            sheet.add("step_ms", 1000 * found[name], model=model.name, kind=name.removesuffix("_s"))
        sheet.add("bottleneck", found["bottleneck"].split(" local-dir:")[0], model=model.name)


def measure_tests(sheet: Sheet, bench: Bench) -> None:
    """The tests that need a GPU; their output is in `tests.txt`."""
    if not (ROOT / "tests").is_dir():
        sheet.add("tests", "not tried", note=f"{ROOT / 'tests'} is not there")
        return
    processes = "15" if bench.device.type == "cuda" else "0"
    # a line a test, so that the output tells how far they came; plugins that a machine has may object to processes
    options = ["-vv", "--tb=short", "-n", processes, "-p", "no:cacheprovider", "-p", "no:benchmark"]
    command = ["-m", "pytest", "-m", "gpu", *options, *bench.scale.tests]
    code, text = run(command, seconds=sheet.left_s() - GRACE_S, folder=ROOT)
    (bench.out / "tests.txt").write_text(text, encoding="utf-8")
    said = {0: "passed", 1: "failed", 5: "there are none", None: "stopped: no time left"}
    sheet.add("tests", said.get(code, f"pytest ended with {code}"), note=_last(text))
    for name in dict.fromkeys(re.findall(r"\b(?:FAILED|ERROR) (tests/\S+)", text)):  # when it happens, or at the end
        sheet.add("test", "failed", note=name)


def measure_several(sheet: Sheet, bench: Bench) -> None:
    """A few steps of two processes, a GPU each, with a student whose batch-norm they share."""
    cuda = bench.device.type == "cuda"
    if cuda and torch.cuda.device_count() < SEVERAL:
        sheet.add("step_ms", "not tried", note="one GPU")
        return
    model = bench.scale.models[0 if cuda else -1]  # CPU processes cannot share batch-norm's statistics
    sizes = {"--batch-size": bench.scale.batch_size, "--limit": bench.scale.limit, "--steps": 4 * bench.scale.steps}
    arguments = [str(part) for pair in sizes.items() for part in pair]
    for processes in (1, SEVERAL):
        # its way to start several processes, on a CPU too: its --cpu does so under MPI alone
        where = ["--multi_gpu", "--main_process_port", str(_free_port())] if processes > 1 else []
        command = [
            "-m", "accelerate.commands.launch", *where, "--num_processes", str(processes), "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no",
            "-m", "benchmarks.speed.gpu_several", *arguments,
            "--student", bench.reference(model), "--teacher", bench.reference(model, teacher=True),
            "--data", bench.images(bench.scale.small), "--val", bench.images(bench.scale.measured),
        ]  # fmt: skip
        code, text = run(command, seconds=sheet.left_s(), folder=ROOT)
        (bench.out / f"several-{processes}.txt").write_text(text, encoding="utf-8")
        if code != 0:
            raise RuntimeError(f"with {processes} processes it ended with {code}: {_last(text)}")
        line = next(line for line in text.splitlines() if line.startswith("{"))
        for measure, value in json.loads(line).items():
            sheet.add(measure, value, model=model.name, kind=f"processes: {processes}")


def run(arguments: list[str], *, seconds: float, folder: Path | None = None) -> tuple[int | None, str]:
    """Run Python in a process of its own.

    Args:
        arguments: Python's.
        seconds: it is interrupted after so many, and soon ended, with the processes that it began.
        folder: where it runs.

    Returns:
        Its exit code, or None where it was stopped; and all that it wrote.
    """
    paths = [str(Path(gainfinder.__file__).parents[1]), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        process_group=0,
    )
    try:
        text, _ = process.communicate(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        return None, _stopped(process)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, text


def _stopped(process: subprocess.Popen[str]) -> str:
    """Stop a process, and give all that it wrote: pytest says what failed when it is interrupted."""
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C: what it waits for is interrupted, too
    try:
        text, _ = process.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
    return text


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-300:]
