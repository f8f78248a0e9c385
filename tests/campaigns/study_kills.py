"""Kills a study of 48 small cells with two workers, twenty times at random moments: workers, and the study itself.

    PYTHONPATH=tests/helpers python tests/campaigns/study_kills.py --out FOLDER [--kills 20] [--seed 0]

After each kill of the study the same command is started again. In the end its results are compared, bit for bit, with
those of an undisturbed study, and the work that was done twice is counted: views learned from, of all attempts, beyond
those that the results needed, as far as workers noted them (every half second), and at most: a whole epoch a
kill. Exits with 1 where anything differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from gainfinder.study import StudyFolder, read_measures
from studies import result_of
from tiny_models import train_zoo
from transfers import same

STUDY = """
[study]
students = ["vit", "resnet", "convnext"]
teachers = ["vit", "resnet", "convnext"]
[paths]
zoo = "zoo"
[models]
vit = "local-dir:{zoo}/vit"
resnet = "local-dir:{zoo}/resnet"
convnext = "local-dir:{zoo}/convnext"
[data]
data = "digits#1/2"
val = "digits#2/2"
[settings]
preset = "gentle"
epochs = 24
limit = 400
batch_size = 32
device = "cpu"
guard = false
[axes]
seed = [0, 1, 2, 3]
[variants.kl]
method = "kl"
[variants.dp]
method = "kl-dp-u"
"""
"""Six pairs × four seeds × two methods: 48 cells."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if not (asked.out / "zoo").exists():
        train_zoo(asked.out / "zoo")
    (asked.out / "kills.toml").write_text(STUDY, encoding="utf-8")
    began = time.monotonic()
    _start(asked.out, "calm", asked.workers).wait()
    calm_s = time.monotonic() - began
    began = time.monotonic()
    kills = _disturbed(asked.out, random.Random(asked.seed), kills=asked.kills, workers=asked.workers, over_s=calm_s)
    disturbed_s = time.monotonic() - began
    report = {**_compared(asked.out, sum(kills.values())), "kills": kills, "calm_s": calm_s, "disturbed_s": disturbed_s}
    print(json.dumps(report, indent=2))
    sys.exit(int(report["different"] != 0 or report["cells"] != 48))


def _start(out: Path, name: str, workers: int) -> "subprocess.Popen[bytes]":
    command = ["-m", "gainfinder", "study", "run", "kills.toml", "--out", name, "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, *command, "--threads", "1"],
        cwd=out,
        stdout=subprocess.DEVNULL,
        stderr=(out / f"{name}.log").open("ab"),
    )


def _disturbed(out: Path, drawn: random.Random, *, kills: int, workers: int, over_s: float) -> dict[str, int]:
    """Run the study to its end through so many kills; a third of them hit the study itself."""
    counts = {"worker": 0, "study": 0}
    process = _start(out, "killed", workers)
    folder = StudyFolder(out / "killed")
    while sum(counts.values()) < kills:
        time.sleep(drawn.uniform(0.3, 1.7) * over_s / kills)
        if process.poll() is not None:
            break
        pids = _pids(folder)
        if drawn.random() < 1 / 3:
            process.send_signal(signal.SIGKILL)
            process.wait()
            counts["study"] += 1
            process = _start(out, "killed", workers)
        elif pids:
            os.kill(drawn.choice(pids), signal.SIGKILL)
            counts["worker"] += 1
    if process.wait() != 0:
        process = _start(out, "killed", workers)
        process.wait()
    return counts


def _pids(folder: StudyFolder) -> list[int]:
    if not folder.document.exists():
        return []
    notes = [folder.progress(cell) for cell in folder.all_cells()]
    return [int(note["pid"]) for note in notes if note is not None]


def _compared(out: Path, kills: int) -> dict[str, float]:
    calm, killed = StudyFolder(out / "calm"), StudyFolder(out / "killed")
    cells = killed.all_cells()
    different = needed = trained = epoch = 0
    for cell in cells:
        (metrics, state), (expected, expected_state) = result_of(killed, cell), result_of(calm, cell)
        different += not (metrics == expected and same(state, expected_state))
        measures = read_measures(killed.run_folder(cell).path / "cell.json")
        needed += measures.images_seen
        trained += measures.trained
        epoch = max(epoch, measures.images_seen // measures.epochs)
    return {
        "cells": len(cells),
        "different": different,
        "done_twice": trained / needed - 1,
        "done_twice_at_most": (kills * epoch) / needed,
    }


if __name__ == "__main__":
    main()
