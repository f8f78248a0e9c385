"""What checkpoints cost a run of short epochs: written after each, and as often as takes a twentieth of the time.

    python -m benchmarks.speed.checkpoints --folder FOLDER --out benchmarks/speed/checkpoints.csv

A ResNet-50 of random weights learns from a ResNet-18 on the digits that come with scikit-learn: whole transfers into
`FOLDER`, which says on which disk, one way and the other in turn. Nothing else is needed.
"""

import argparse
import csv
import shutil
import statistics
import time
from pathlib import Path

import timm

import gainfinder
from gainfinder import load_model

WAYS = {"after each epoch": 1_000_000, "as due": None}
"""By `checkpoint_every`: with so many steps none within an epoch, but one after each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=128)
    asked = parser.parse_args()
    student, teacher = (
        load_model(timm.create_model(name, num_classes=10), size=32) for name in ("resnet50", "resnet18")
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with asked.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("way", "round", "seconds"))
        for number in range(1, asked.rounds + 1):
            for way, every in WAYS.items():
                out = asked.folder / "checkpoints"
                began_s = time.perf_counter()
                gainfinder.transfer(
                    student, teacher, "digits#2/4", val="digits#1/8", out=out, limit=asked.images, epochs=asked.epochs,
                    batch_size=32, lr=1e-4, schedule="cosine", guard=False, checkpoint_every=every,
                )  # fmt: skip
                seconds[way].append(time.perf_counter() - began_s)
                shutil.rmtree(out)
                writer.writerow((way, number, f"{seconds[way][-1]:.2f}"))
                file.flush()
                print(way, number, f"{seconds[way][-1]:.1f} s", flush=True)
    for way, found in seconds.items():
        print(f"{way}: median {statistics.median(found):.1f} s")


if __name__ == "__main__":
    main()
