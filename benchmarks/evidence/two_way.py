"""Do two models that learn from each other live gain more than from each other's frozen copies?

    python -m benchmarks.evidence.two_way --models ZOO ZOO2 --images IMAGES --out benchmarks/evidence/two_way.csv

Two-way transfers of both kinds, alike in all else: `frozen` is two transfers one way, bit for bit. Both models learn
from images that no model of the second zoo has seen, and are measured on a part of the test images; without a guard,
whose judgement would hide small differences. A row for each model; pairs in turn, so that what there is of the rows at
any time is of all of them. Rows that are there are not run again.
"""

import argparse
import time
from pathlib import Path
from typing import Literal

import gainfinder
from benchmarks.lab.rows import append, done, key_of
from benchmarks.lab.zoo import reference_in
from gainfinder import TransferResult

PAIRS = (
    ("mixer_a", "convnext_a"), ("resnet20", "resnet32"), ("vit_a", "resnet_a"), ("vit_a", "vit_b"),
    ("xcit_a", "regnet_a"),
)  # fmt: skip
Both = Literal["frozen", "live"]
BOTH: tuple[Both, ...] = ("frozen", "live")
KEY = ("student", "teacher", "method", "both", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("two_way.csv"))
    parser.add_argument("--methods", nargs="+", default=["kl-dp"])
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--val", default="test.parquet#2/4")
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    there = done(asked.out, KEY)
    for seed in range(asked.seeds):
        for method in asked.methods:
            for pair in PAIRS:
                for both in BOTH:
                    about = {"method": method, "both": both, "seed": seed}
                    ways = [{"student": one, "teacher": other, **about} for one, other in (pair, pair[::-1])]
                    if any(key_of(way, KEY) not in there for way in ways):
                        for row in run(asked, pair, method=method, both=both, seed=seed):
                            append(asked.out, row)


def run(
    asked: argparse.Namespace, pair: tuple[str, str], *, method: str, both: Both, seed: int
) -> list[dict[str, object]]:
    """A two-way transfer, a row for each model."""
    began = time.perf_counter()
    found = gainfinder.transfer(
        reference_in(asked.models, pair[0]),
        reference_in(asked.models, pair[1]),
        f"{asked.images}/train.parquet#5/5",
        val=f"{asked.images}/{asked.val}",
        both=both,
        method=method,
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
    assert found.partner is not None, "both learned"
    about = {"method": method, "both": both, "seed": seed, "images": asked.limit, "epochs": asked.epochs}
    seconds = round(time.perf_counter() - began, 1)
    return [
        {"student": one, "teacher": other, **about, **measures(result), "seconds_both": seconds}
        for (one, other), result in ((pair, found), (pair[::-1], found.partner))
    ]


def measures(result: TransferResult) -> dict[str, object]:
    """What was measured of a model."""
    metrics = result.metrics
    assert metrics.transfer_delta_pp is not None and metrics.transfer_delta_ci_pp is not None, "there are labels"
    assert metrics.knowledge_gain is not None and metrics.knowledge_loss is not None, "there are labels"
    low, high = metrics.transfer_delta_ci_pp
    return {
        "before": metrics.accuracy_before,
        "delta_pp": round(metrics.transfer_delta_pp, 3),
        "low_pp": round(low, 3),
        "high_pp": round(high, 3),
        "gain": round(metrics.knowledge_gain, 4),
        "loss": round(metrics.knowledge_loss, 4),
        "teacher_share": round(metrics.teacher_share or 0.0, 4),
    }


if __name__ == "__main__":
    main()
