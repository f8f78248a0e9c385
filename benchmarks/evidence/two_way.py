"""Do two models that learn from each other live gain more than from each other's frozen copies?

    gainfinder demo
    python -m benchmarks.evidence.two_way --models gainfinder-demo/zoo --out benchmarks/evidence/two_way_digits.csv
    python -m benchmarks.evidence.two_way --models ZOO ZOO2 --images IMAGES --out benchmarks/evidence/two_way.csv
    python -m benchmarks.evidence.two_way table benchmarks/evidence/two_way_digits.csv

Two-way transfers of both kinds, alike in all else: `frozen` is two transfers one way, bit for bit. Both models learn
from images that no model has seen, and are measured on others; without a guard, whose judgement would hide small
differences. Without `--images` they are the demo's models and its digits. A row for each model; pairs in turn, so that
what there is of the rows at any time is of all of them. Rows that are there are not run again.
"""

import argparse
import csv
import itertools
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
OF_DIGITS = tuple(itertools.combinations(("resnet", "convnext", "vit"), 2))
"""Pairs of the demo's models."""
Both = Literal["frozen", "live"]
BOTH: tuple[Both, ...] = ("frozen", "live")
KEY = ("student", "teacher", "method", "both", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", help="`table FILE` prints what a file holds")
    parser.add_argument("--models", type=Path, nargs="+")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, default=Path("two_way.csv"))
    parser.add_argument("--methods", nargs="+", default=["kl-dp"])
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--val", default="test.parquet#2/4")
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    if asked.table:
        print(_table(Path(asked.table[-1])))
        return
    there = done(asked.out, KEY)
    for seed in range(asked.seeds):
        for method in asked.methods:
            for pair in OF_DIGITS if asked.images is None else PAIRS:
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
    digits = asked.images is None
    found = gainfinder.transfer(
        reference_in(asked.models, pair[0]),
        reference_in(asked.models, pair[1]),
        "digits#2/3" if digits else f"{asked.images}/train.parquet#5/5",
        val="digits#3/3" if digits else f"{asked.images}/{asked.val}",
        both=both,
        method=method,
        seed=seed,
        epochs=asked.epochs,
        limit=asked.limit,
        batch_size=64,
        lr=asked.lr,
        schedule="cosine",
        mixup=0.0,
        augment="none" if digits else "crop-flip",
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


def _table(path: Path) -> str:
    """Mean transfer deltas over models and seeds, and of each pair, as a table in Markdown."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ways = dict.fromkeys((row["method"], row["student"], row["teacher"]) for row in rows)
    lines = [("method", "student ← teacher", *BOTH), ("---",) * 4]
    means: dict[str, list[float]] = {}
    for method, student, teacher in ways:
        cells = []
        for both in BOTH:
            own = [row for row in rows if [row[name] for name in KEY[:4]] == [student, teacher, method, both]]
            deltas = [float(row["delta_pp"]) for row in own]
            means.setdefault(f"{method} {both}", []).extend(deltas)
            cells.append(f"{sum(deltas) / len(deltas):+.2f} pp" if deltas else "–")
        lines.append((method, f"{student} ← {teacher}", *cells))
    for method in dict.fromkeys(method for method, _, _ in ways):
        of_kinds = [means[f"{method} {both}"] for both in BOTH]
        lines.append((method, "mean", *(f"{sum(one) / len(one):+.2f} pp" if one else "–" for one in of_kinds)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
