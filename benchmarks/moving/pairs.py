"""How much of what is there to win arrives: pairs of models, by the default recipe, the former one and the paper's.

    python -m benchmarks.moving.pairs --models ZOO ZOO2 --images IMAGES --runs RUNS --out benchmarks/moving/pairs.csv \\
        [--pair STUDENT TEACHER] [--recipe NAME ...] [--limit N] [--epochs N] [--device auto] [--part k/n]

Transfer images `train.parquet#5/5` without labels, guard `test.parquet#1/2`, measured on `test.parquet#2/2`: all by
default but what a recipe names. With `--control` the student's own ceiling is measured, too: the same recipe with the
true labels of the same images. Without --pair: all ordered pairs of the models in the folders. Each run has a folder
under RUNS, in which one that was stopped goes on; rows that are there are not run again. Several such processes may
share the work with --part k/n.
"""

import argparse
from itertools import permutations
from pathlib import Path
from typing import Any

import gainfinder
from benchmarks.lab.rows import append, done
from benchmarks.lab.zoo import models_in, reference_in

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "sgd": {"optimizer": "sgd"},
    "gentle": {"preset": "gentle", "method": "kl-dp-u"},
    "paper": {"preset": "paper", "method": "kl-dp-u"},
}
KEY = ("student", "teacher", "recipe", "limit", "epochs", "seed")
MEASURES = (
    "accuracy_before", "oracle_accuracy", "routed_accuracy", "mean_accuracy", "headroom_pp", "transfer_delta_pp",
    "transfer_delta_ci_pp", "headroom_captured", "optimizer", "learning_rate",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pair", nargs=2, action="append", metavar=("STUDENT", "TEACHER"))
    parser.add_argument("--recipe", nargs="*", default=("default", "gentle", "paper"), choices=tuple(RECIPES))
    parser.add_argument("--limit", type=int, help="learn from so many of the images")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true", help="train by the true labels, too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--part", default="1/1")
    asked = parser.parse_args()
    k, n = map(int, asked.part.split("/"))
    there = done(asked.out, KEY)
    pairs = [tuple(pair) for pair in asked.pair or permutations(models_in(asked.models), 2)]
    for student, teacher in pairs[k - 1 :: n]:
        for recipe in asked.recipe:
            about = {
                "student": student,
                "teacher": teacher,
                "recipe": recipe,
                "limit": asked.limit or "",
                "epochs": asked.epochs or "",
                "seed": asked.seed,
            }
            if tuple(map(str, about.values())) not in there:
                append(asked.out, {**about, **measured(asked, about)})


def measured(asked: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """One transfer, and what became of it, guarded and not."""
    result = gainfinder.transfer(
        reference_in(asked.models, about["student"]),
        reference_in(asked.models, about["teacher"]),
        f"{asked.images}/train.parquet#5/5",
        labels="none",
        val=f"{asked.images}/test.parquet#2/2",
        guard=True,
        guard_data=f"{asked.images}/test.parquet#1/2",
        out=asked.runs / "-".join(str(value) for value in about.values() if value != ""),
        limit=asked.limit,
        seed=asked.seed,
        device=asked.device,
        control="labels" if asked.control else (),
        **{**RECIPES[about["recipe"]], **({} if asked.epochs is None else {"epochs": asked.epochs})},
    )
    metrics = result.account
    guard, labels = metrics["guard"], metrics["control_labels"]
    return {
        **{name: metrics[name] for name in MEASURES},
        "epochs_made": len(result.epochs),
        "kept_alpha": guard["alpha"],
        "kept_reestimated": guard["bn_reestimated"],
        "unguarded_delta_pp": guard["unguarded_delta_pp"],
        "unguarded_delta_ci_pp": guard["unguarded_delta_ci_pp"],
        "labels_delta_pp": None if labels is None else labels["transfer_delta_pp"],
    }


if __name__ == "__main__":
    main()
