"""What a command takes before it does anything: imports, and the shortest commands, each in a process of its own.

    python -m benchmarks.speed.startup --model REF --data REF --out benchmarks/speed/startup.csv

A row each, of the seconds by the clock and those of the processor, in rounds that go through all of them in turn; one
thread, so that both are about the same on a machine with nothing else to do. The first round, which compiles what is
imported, does not count.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gainfinder

IMPORTS = ("torch", "timm", "gainfinder.api")
COLUMNS = ("round", "what", "seconds", "cpu_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a small model, scanned beside itself")
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("startup.csv"))
    asked = parser.parse_args()
    program = (sys.executable, "-m", "gainfinder")
    kinds = {
        **{f"import {name}": (sys.executable, "-c", f"import {name}") for name in IMPORTS},
        "gainfinder --help": (*program, "--help"),
        "gainfinder scan": (*program, "scan", "--model", asked.model, "--model", f"{asked.model}?mean=0.5",
                            "--data", asked.data, "--device", "cpu"),
    }  # fmt: skip
    times: dict[str, list[tuple[float, float]]] = {what: [] for what in kinds}
    with asked.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(asked.rounds + 1):
            for what, command in kinds.items():
                found = timed(command)
                if number:
                    times[what].append(found)
                    writer.writerow((number, what, *(f"{seconds:.3f}" for seconds in found)))
                    file.flush()
    print(f"gainfinder {gainfinder.__version__}, {asked.rounds} rounds, medians")
    print("| | s | s of the processor |\n|---|---|---|")
    for what, found_s in times.items():
        clock, processor = (statistics.median(values) for values in zip(*found_s, strict=True))
        print(f"| `{what}` | {clock:.2f} | {processor:.2f} |")


def timed(command: tuple[str, ...]) -> tuple[float, float]:
    """Seconds by the clock and of the processor of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
