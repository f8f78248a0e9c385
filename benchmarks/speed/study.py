"""A study of four students, four teachers and three methods: with a shared bank, and one by one.

    python -m benchmarks.speed.study --models MODELS --images IMAGES --out benchmarks/speed/study.csv

Every transfer is done twice, one way right after the other, so that a busy machine slows both: without a bank, and with
one that all transfers share, from an empty folder on. Both ways measure before, after each epoch and the teacher; the
guard is off unless `--guard` is given. A row each, as they come; rows that are there already are not done again, but a
study that is taken up again starts with an empty bank.
"""

import argparse
import csv
import itertools
import logging
import statistics
import tempfile
import time
from pathlib import Path

import gainfinder
from benchmarks.lab import zoo

STUDENTS = ("resnet20", "convnext_32", "tiny_mixer", "resnet10_64")
TEACHERS = ("resnet32", "vit_48", "resnet10_64", "tiny_mixer")
METHODS = ("kl", "kl-dp", "kl-dp-u")
COLUMNS = (
    "student",
    "teacher",
    "method",
    "bank",
    "seconds",
    "made",
    "teacher_share",
    "train_loss",
    "transfer_delta_pp",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--val", default="test.parquet#1/10")
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=64)
    asked = parser.parse_args()
    logging.getLogger("gainfinder").setLevel(logging.ERROR)
    new = not asked.out.exists()
    with asked.out.open("a", newline="") as file, tempfile.TemporaryDirectory() as bank:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        done = {tuple(row[name] for name in COLUMNS[:4]) for row in read(asked.out)}
        for student, teacher, method in itertools.product(STUDENTS, TEACHERS, METHODS):
            for kind, folder in (("none", None), ("shared", bank)):
                if (student, teacher, method, kind) in done:
                    continue
                about = {"student": student, "teacher": teacher, "method": method, "bank": kind}
                writer.writerow({**about, **transfer(asked, student, teacher, method, folder)})
                file.flush()
    summarise(read(asked.out))


def transfer(asked: argparse.Namespace, student: str, teacher: str, method: str, bank: str | None) -> dict[str, object]:
    began = time.perf_counter()
    found = gainfinder.transfer(
        zoo.reference(asked.models, student),
        zoo.reference(asked.models, teacher),
        str(asked.images / "train.parquet"),
        val=str(asked.images / asked.val),
        guard_data=str(asked.images / "test.parquet#2/10") if asked.guard else None,
        guard=asked.guard,
        preset="gentle",  # what the rows were measured with
        method=method,
        limit=asked.limit,
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        device=asked.device,
        bank=bank,
    )
    return {
        "seconds": f"{time.perf_counter() - began:.3f}",
        "made": "" if found.metrics.bank is None else found.metrics.bank.made,
        "teacher_share": found.metrics.teacher_share,
        "train_loss": found.epochs[-1].train_loss,
        "transfer_delta_pp": found.metrics.transfer_delta_pp,
    }


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summarise(rows: list[dict[str, str]]) -> None:
    pairs: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in rows:
        pairs.setdefault((row["student"], row["teacher"], row["method"]), {})[row["bank"]] = row
    both = [pair for pair in pairs.values() if len(pair) == 2]
    seconds = {kind: sum(float(pair[kind]["seconds"]) for pair in both) for kind in ("none", "shared")}
    print(f"{len(both)} transfers: one by one {seconds['none']:.0f} s, ", end="")
    print(f"with a shared bank {seconds['shared']:.0f} s, ", end="")
    print(f"{seconds['shared'] / seconds['none']:.3f} of it; the bank filled included")
    full = [pair for pair in both if pair["shared"]["made"] == "0"]
    if full:
        ratios = [float(pair["shared"]["seconds"]) / float(pair["none"]["seconds"]) for pair in full]
        print(f"{len(full)} transfers that found all in the bank: median ratio {statistics.median(ratios):.3f}")
    same = sum(pair["shared"]["teacher_share"] == pair["none"]["teacher_share"] for pair in both)
    losses = [abs(float(p["shared"]["train_loss"]) - float(p["none"]["train_loss"])) for p in both]
    deltas = [abs(float(p["shared"]["transfer_delta_pp"]) - float(p["none"]["transfer_delta_pp"])) for p in both]
    print(f"same share of samples taught by the teacher: {same} of {len(both)}; ", end="")
    print(f"losses differ by at most {max(losses):.1g}, Δ_transf by at most {max(deltas):.2f} pp")


if __name__ == "__main__":
    main()
