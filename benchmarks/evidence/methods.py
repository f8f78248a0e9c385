"""Every transfer method on public and small CIFAR-10 models, guarded and not: rows as they come.

    python -m benchmarks.evidence.methods --models MODELS --images IMAGES --specialists SPECIALISTS \\
        --out benchmarks/evidence/methods.csv [--only METHOD ...] [--pair STUDENT TEACHER] [--lr LR] [--part k/n]

MODELS holds the zoo (see lab/zoo.py), IMAGES train.parquet and test.parquet, SPECIALISTS what lab/specialists.py wrote.
Each row: 2,000 training images, 2 epochs; a quarter of the test images guards, another half measures. Label-free
methods run with `labels="none"`, so that the guard has no labels either; what labels would have said of its choice is
worked out afterwards on the guard images. Rows that are there already are not run again; several such processes may
share the work with --part k/n, and what frozen models answer for the views with --bank FOLDER, which moves a row by no
more than the bank's rounding.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

import gainfinder
from benchmarks.lab.rows import append, done
from benchmarks.lab.zoo import classifier
from gainfinder.config import METHODS, find_method
from gainfinder.metrics import Candidate, judge
from gainfinder.predictions import Predictions

PAIRS = (
    ("convnext_32", "vit_48"),  # about equal
    ("convnext_32", "resnet20"),  # much stronger
    ("convnext_32-high", "resnet10_64-low"),  # about equal; each knows other classes
    ("convnext_32-low", "convnext_32-high"),  # stronger; each knows other classes
    ("convnext_32-low", "resnet10_64-high"),  # stronger; each knows other classes
    ("resnet10_64-high", "convnext_32-low"),  # weaker; each knows other classes
    ("resnet10_64", "vit_48"),  # weaker; this student has batch-norm
    ("resnet10_64", "tiny_mixer"),  # about equal
    ("resnet10_64", "resnet32"),  # much stronger
    ("tiny_mixer", "vit_48"),  # weaker
)
"""Student and teacher; the quickest first."""
ADAPTED = (("resnet20", "resnet32"), ("resnet32", "resnet20"))
"""Models of one family, with batch-norm, trained on other images than these; for the first few methods only."""
FIRST = ("kl", "kl-dp-u", "kl-dp-cal-u", "kl-dp", "kl-dp-cal", "kl-dp-soft-u", "xe-kl")
SETTINGS: dict[str, Any] = {
    "preset": "gentle",
    "limit": 2000,
    "epochs": 2,
    "batch_size": 64,
    "augment": "crop-flip",
    "device": "cpu",
    "workers": 0,
}
KEY = ("student", "teacher", "method", "seed")
"""Columns that tell a row from the others."""
KEPT = (
    "accuracy_before", "accuracy_after", "transfer_delta_pp", "transfer_delta_ci_pp", "knowledge_gain",
    "knowledge_loss", "positive_flips", "transfer_rate", "teacher_share",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "specialists", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--pair", nargs=2, action="append", metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--lr", type=float, help="another than the default's; rows go to a file of their own")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--bank", type=Path, help="keeps what frozen models answer; methods on features do without")
    args = parser.parse_args()
    k, n = map(int, args.part.split("/"))
    names = args.only or [*FIRST, *(method.name for method in METHODS if method.name not in FIRST)]
    jobs = [
        (seed, method, pair)
        for pair, seed, method in product(map(tuple, args.pair or (*PAIRS, *ADAPTED)), range(args.seeds), names)
        if pair not in ADAPTED or method in FIRST[:4]
    ]
    for number, (seed, method, (student, teacher)) in enumerate(jobs):
        if number % n == k - 1 and (student, teacher, method, str(seed)) not in done(args.out, KEY):
            append(args.out, transfer(args, student, teacher, method, seed=seed))


def transfer(args: argparse.Namespace, student: str, teacher: str, method: str, *, seed: int) -> dict[str, Any]:
    """A row: one guarded transfer, and what it would have been without the guard."""
    about = find_method(method)
    labels: Literal["use", "none"] = "use" if about.needs_labels else "none"
    test = f"{args.images}/test.parquet"
    ours, theirs = (classifier(args.models, name, specialists=args.specialists) for name in (student, teacher))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        account = gainfinder.transfer(
            ours, theirs, f"{args.images}/train.parquet", val=f"{test}#2/2", guard_data=f"{test}#1/4", out=out,
            method=method, seed=seed, labels=labels, lr=args.lr, bank=None if about.needs_features else args.bank,
            **SETTINGS,
        ).account  # fmt: skip
        lr = json.loads((out / "config.json").read_text())["settings"]["lr"]
        gains = guard_gains(out / "predictions", labels_of(test), account["guard"]["points"])
        teacher_accuracy = Predictions.load(out / "predictions" / "teacher-1.parquet").accuracy
    kept = Candidate(alpha=account["guard"]["alpha"], bn_reestimated=account["guard"]["bn_reestimated"]).name
    return {
        "student": student, "teacher": teacher, "method": method, "seed": seed, "lr": lr, "labels": labels,
        "delta_acc_pp": 100 * (teacher_accuracy - account["accuracy_before"]),
        "unguarded_delta_pp": account["guard"]["unguarded_delta_pp"],
        "unguarded_delta_ci_pp": account["guard"]["unguarded_delta_ci_pp"],
        "kept": kept, "guard_gain_kept_pp": gains[kept], "guard_gain_best_pp": max(gains.values()),
        "guard_gain_whole_pp": gains["1"], **{key: account[key] for key in KEPT},
        "candidates": json.dumps([
            [name, round(gains[name], 3), round(point["gain"], 4), round(point["error"], 4), point["veto"]]
            for name, point in named(account["guard"]["points"])
        ]),
    }  # fmt: skip


def named(points: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The guard's candidates with their names."""
    return [(Candidate(alpha=point["alpha"], bn_reestimated=point["bn_reestimated"]).name, point) for point in points]


def labels_of(test: str) -> dict[str, int]:
    """The labels of the guard images, which a label-free run has not read."""
    images = gainfinder.load_images(f"{test}#1/4")
    assert images.labels is not None
    return dict(zip(images.ids, images.labels.tolist(), strict=True))


def guard_gains(folder: Path, labels: dict[str, int], points: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracy gained on the guard images by each candidate and the initial student ("0"), percentage points."""

    def labelled(name: str) -> Predictions:
        found = Predictions.load(folder / f"{name}.parquet")
        return replace(found, target=torch.tensor([labels[sample] for sample in found.ids]))

    before, any_candidate = labelled("probe-before"), Candidate(alpha=1.0)
    gains = {
        name: judge(before, labelled(f"guard-{name}"), [], candidate=any_candidate).gain for name, _ in named(points)
    }
    return {"0": 0.0, **gains}


if __name__ == "__main__":
    main()
