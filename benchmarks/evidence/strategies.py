"""Three teachers, one after another, side by side or averaged, by `kl` and by `kl-dp-u`: rows as they come.

    python -m benchmarks.evidence.strategies --models MODELS --images IMAGES --specialists SPECIALISTS \\
        --out benchmarks/evidence/strategies.csv

As in methods.py: 2,000 unlabelled training images, 2 epochs a teacher, half of the test images measure; without a
guard but for the rows that say so, which have a quarter of the test images for it, unlabelled. The separate transfers
of a soup are the single teachers to compare with. Rows that are there already are not run again.
"""

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import gainfinder
from benchmarks.evidence.methods import SETTINGS
from benchmarks.lab.rows import append, done, key_of
from benchmarks.lab.zoo import classifier

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
            if key_of(key, key) not in done(args.out, key):
                append(args.out, {**key, **measured(args, student, {**asked, "seed": args.seed})})


def measured(args: argparse.Namespace, student: str, asked: dict[str, Any]) -> dict[str, Any]:
    test = f"{args.images}/test.parquet"
    model = functools.partial(classifier, args.models, specialists=args.specialists)
    with tempfile.TemporaryDirectory() as scratch:
        account = gainfinder.transfer(
            model(student), [model(teacher) for teacher in TEACHERS[student]],
            f"{args.images}/train.parquet", val=f"{test}#2/2", guard_data=f"{test}#1/4" if asked["guard"] else None,
            labels="none", out=Path(scratch) / "run", **SETTINGS, **asked,
        ).account  # fmt: skip
    steps = [
        {
            "teacher": step["teacher"].rsplit("/", 1)[-1].removesuffix(".safetensors"),
            **{key: step[key] for key in ("accuracy_after", "transfer_delta_pp", "knowledge_gain", "knowledge_loss")},
            "kept": None if step["guard"] is None else [step["guard"]["alpha"], step["guard"]["bn_reestimated"]],
        }
        for step in account.get("steps", [])
    ]
    kept = ("accuracy_before", "accuracy_after", "transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain",
            "knowledge_loss", "positive_flips", "transfer_rate")  # fmt: skip
    return {**{key: account[key] for key in kept}, "steps": json.dumps(steps)}


if __name__ == "__main__":
    main()
