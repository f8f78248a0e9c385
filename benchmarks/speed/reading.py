"""Seconds of the stage that reads a transfer's images: without a bank, with an empty one, and with what that has kept.

    python -m benchmarks.speed.reading --student REF --data IMAGES --rounds 5

Each time is of a process of its own: of `ViewSource.load` alone, as a run calls it, after imports and the listing of
images. The files of images and of the bank are in the system's cache, as where runs follow each other.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from gainfinder import load_images, load_model
from gainfinder.inference import Bank
from gainfinder.views import ViewSource, view_spec

WAYS = ("without a bank", "decoded and kept", "read from the bank")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bank", type=Path, help="time one stage in this process, with this bank")
    parser.add_argument("--once", action="store_true", help="time one stage in this process")
    asked = parser.parse_args()
    if asked.once:
        print(seconds(asked.student, asked.data, asked.bank))
        return
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                bank = [] if way == WAYS[0] else ["--bank", folder]
                command = [sys.executable, "-m", "benchmarks.speed.reading", "--student", asked.student, *bank]
                command += ["--data", asked.data, "--once"]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                times[way].append(float(done.stdout.split()[-1]))
    for way, found in times.items():
        print(f"{way}: median {statistics.median(found):.3f} s, {min(found):.3f} to {max(found):.3f}")


def seconds(student: str, data: str, bank: Path | None) -> float:
    images, spec = load_images(data), view_spec([load_model(student).preprocessing], "crop-flip")
    keeper = None if bank is None else Bank(bank).crops
    source = ViewSource(images, spec, workers=0, device=torch.device("cpu"), keeper=keeper)
    began = time.perf_counter()
    source.load()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
