"""The main job on public CIFAR-10 models: complementary knowledge of the pair, then transfers both ways.

    python -m benchmarks.evidence.main_job --models MODELS --images IMAGES --out benchmarks/evidence/main_job.csv

MODELS holds cifar_resnet.py with resnet20.safetensors and resnet32.safetensors, IMAGES the CIFAR-10 images as
train.parquet and test.parquet. Rows are appended as they come; those that are there already are not run again.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from benchmarks.lab.rows import append

METHODS = ("kl", "kl-dp-u", "kl-dp", "xe-kl")
SETTINGS = ["--limit", "4000", "--epochs", "3", "--batch-size", "64", "--augment", "crop-flip", "--device", "cpu"]
SETTINGS += ["--no-guard", "--schedule", "constant", "--preset", "gentle"]
KEPT = (
    "accuracy_before", "accuracy_after", "transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain",
    "knowledge_loss", "positive_flips", "negative_flips", "transfer_rate", "teacher_share",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    done = set()
    if args.out.exists():
        with args.out.open(newline="") as file:
            done = {(row["student"], row["method"], row["seed"]) for row in csv.DictReader(file)}
    for seed, method, student in product(range(args.seeds), METHODS, ("resnet20", "resnet32")):
        if (student, method, str(seed)) not in done:
            append(args.out, transfer(args, student, method, seed))


def transfer(args: argparse.Namespace, student: str, method: str, seed: int) -> dict[str, object]:
    """One transfer through the command line, as a user runs it."""
    teacher = "resnet32" if student == "resnet20" else "resnet20"
    reference = {
        name: f"file:{args.models}/cifar_resnet.py:{name}@{args.models}/{name}.safetensors"
        for name in (student, teacher)
    }
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [
            sys.executable, "-m", "gainfinder", "transfer", "--student", reference[student],
            "--teacher", reference[teacher], "--data", f"{args.images}/train.parquet",
            "--val", f"{args.images}/test.parquet", "--method", method, "--seed", str(seed), *SETTINGS,
            "--out", str(out), "--json",
        ]  # fmt: skip
        account = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        lr = json.loads((out / "config.json").read_text())["settings"]["lr"]
    kept = {key: account[key] for key in KEPT}
    return {"student": student, "teacher": teacher, "method": method, "seed": seed, "lr": lr, **kept}


if __name__ == "__main__":
    main()
