"""Does it matter whether who teaches an image is decided by each view or once, by the plain image?

    python -m benchmarks.evidence.deciding --models ZOO ZOO2 --images IMAGES --out benchmarks/evidence/deciding.csv

Transfers of both kinds, alike in all else, learn from images that no model of the second zoo has seen, and are measured
on the second half of the test images; without a guard, whose judgement would hide small differences. A row each; pairs
in turn, so that what there is of the rows at any time is of all of them. Rows that are there are not run again.
"""

import argparse
import time
from pathlib import Path
from typing import Literal

import gainfinder
from benchmarks.lab.rows import append, done, key_of
from benchmarks.lab.zoo import reference_in

PAIRS = (
    ("convnext_32", "resnet20"), ("tiny_mixer", "resnet10_64"), ("resnet20", "resnet32"), ("resnet20", "tiny_mixer"),
    ("convnext_a", "mixer_a"), ("mixer_a", "convnext_32"), ("vit_a", "resnet20"), ("mixer_a", "xcit_a"),
)  # fmt: skip
METHODS = ("kl-dp-u", "kl-dp")
DecideOn = Literal["view", "image"]
DECIDE_ON: tuple[DecideOn, ...] = ("view", "image")
KEY = ("student", "teacher", "method", "decide_on", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("deciding.csv"))
    parser.add_argument("--limit", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    there = done(asked.out, KEY)
    for seed in range(asked.seeds):
        for method in METHODS:
            for student, teacher in PAIRS:
                for decide_on in DECIDE_ON:
                    about = {
                        "student": student,
                        "teacher": teacher,
                        "method": method,
                        "decide_on": decide_on,
                        "seed": seed,
                        "images": asked.limit,
                        "epochs": asked.epochs,
                    }
                    if key_of(about, KEY) not in there:
                        append(
                            asked.out,
                            {**about, **run(asked, student, teacher, method=method, decide_on=decide_on, seed=seed)},
                        )


def run(
    asked: argparse.Namespace, student: str, teacher: str, *, method: str, decide_on: DecideOn, seed: int
) -> dict[str, object]:
    began = time.perf_counter()
    found = gainfinder.transfer(
        reference_in(asked.models, student),
        reference_in(asked.models, teacher),
        f"{asked.images}/train.parquet#5/5",
        val=f"{asked.images}/test.parquet#2/2",
        method=method,
        decide_on=decide_on,
        seed=seed,
        epochs=asked.epochs,
        limit=asked.limit,
        batch_size=64,
        lr=2e-4,
        schedule="cosine",
        mixup=0.0,
        augment="crop-flip",
        guard=False,
    )
    metrics = found.metrics
    loss = found.epochs[-1].train_loss
    assert metrics.transfer_delta_pp is not None and metrics.transfer_delta_ci_pp is not None, "there are labels"
    assert loss is not None, "each epoch has one"
    low, high = metrics.transfer_delta_ci_pp
    return {
        "before": metrics.accuracy_before,
        "delta_pp": round(metrics.transfer_delta_pp, 3),
        "low_pp": round(low, 3),
        "high_pp": round(high, 3),
        "teacher_share": round(metrics.teacher_share or 0.0, 4),
        "train_loss": round(loss, 5),
        "seconds": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    main()
