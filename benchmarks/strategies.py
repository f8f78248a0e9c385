"""Three teachers, one after another, side by side or averaged, by `kl` and by `kl-dp-u`: rows as they come.

    python benchmarks/strategies.py --models MODELS --images IMAGES --specialists SPECIALISTS \\
        --out benchmarks/strategies.csv

As in methods.py: 2,000 unlabelled training images, 2 epochs a teacher, half of the test images measure; without a
guard but for the rows that say so, which have a quarter of the test images for it, unlabelled. The separate transfers
of a soup are the single teachers to compare with. Rows that are there already are not run again.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from rows import append
from zoo import laid_out, reference

import gainfinder
from gainfinder.models.classifier import Classifier

TEACHERS = {
    "convnext_32-low": ("vit_48", "tiny_mixer", "resnet10_64-high"),
    "resnet10_64": ("vit_48", "tiny_mixer", "resnet32"),
}
RUNS: tuple[dict[str, Any], ...] = (
    {"strategy": "soup", "method": "kl-dp-u", "order": "ascending", "guard": False},
    {"strategy": "sequential", "method": "kl-dp-u", "order": "ascending", "guard": False},
    {"strategy": "sequential", "method": "kl-dp-u", "order": "ascending", "guard": True},
    {"strategy": "parallel", "method": "kl-dp-u", "order": "ascending", "guard": False},
    {"strategy": "soup", "method": "kl", "order": "ascending", "guard": False},
    {"strategy": "sequential", "method": "kl", "order": "ascending", "guard": False},
    {"strategy": "sequential", "method": "kl-dp-u", "order": "descending", "guard": False},
)
SETTINGS = {"limit": 2000, "epochs": 2, "batch_size": 64, "augment": "crop-flip", "device": "cpu", "workers": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "specialists", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--students", nargs="*", default=list(TEACHERS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for student in args.students:
        for asked in RUNS:
            key = {"student": student, **asked, "seed": args.seed}
            if tuple(map(str, key.values())) not in done(args.out, tuple(key)):
                append(args.out, {**key, **measured(args, student, {**asked, "seed": args.seed})})


def done(path: Path, key: tuple[str, ...]) -> set[tuple[str, ...]]:
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[name] for name in key) for row in csv.DictReader(file)}


def measured(args: argparse.Namespace, student: str, asked: dict[str, Any]) -> dict[str, Any]:
    test = f"{args.images}/test.parquet"
    with tempfile.TemporaryDirectory() as scratch:
        account = gainfinder.transfer(
            loaded(args, student), [loaded(args, teacher) for teacher in TEACHERS[student]],
            f"{args.images}/train.parquet", val=f"{test}#2/2", guard_data=f"{test}#1/4" if asked["guard"] else None,
            labels="none", out=Path(scratch) / "run", **SETTINGS, **asked,
        ).account  # fmt: skip
    steps = [
        {
            "teacher": step["teacher"].rsplit("/", 1)[-1].removesuffix(".safetensors"),
            **{key: step[key] for key in ("accuracy_after", "transfer_delta_pp", "knowledge_gain", "knowledge_loss")},
            "kept": None if step["guard"] is None else [step["guard"]["share"], step["guard"]["adapted"]],
        }
        for step in account.get("steps", [])
    ]
    kept = ("accuracy_before", "accuracy_after", "transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain",
            "knowledge_loss", "positive_flips", "transfer_rate")  # fmt: skip
    return {**{key: account[key] for key in kept}, "steps": json.dumps(steps)}


def loaded(args: argparse.Namespace, name: str) -> Classifier:
    model = gainfinder.load_model(reference(args.models, name, specialists=args.specialists))
    laid_out(model.module, name)
    return model


if __name__ == "__main__":
    main()
