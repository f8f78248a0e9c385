"""What it costs to compare all pairs of a zoo: matrix products beside a loop over pairs, and a scan's records.

    python -m benchmarks.zoo.pairs --out benchmarks/zoo/pairs.csv
    python -m benchmarks.zoo.pairs --table benchmarks/zoo/pairs.csv

Predictions are made up, of the size of the paper's study: 301 models of 60 to 85 % accuracy, 50,000 images, 1,000
classes. Images differ in difficulty and models in the classes that they are good at, so that errors correlate. What is
measured, each in a process of its own that has made the predictions before:

    matrices        `compare_zoo`: all matrices, flips of each class among them
    pair by pair    `flips.compare` and `flips.flip_counts` of some pairs
    scan            `scan_predictions` without logits: a record of each pair, with the routed ensemble's accuracy

A row each and round: seconds on the clock and of the processors, and the process's peak of memory, before and after.
The matrices are then held against the functions of a pair, for as many pairs as are looped over; that is not timed.
"""

import argparse
import csv
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from benchmarks.lab.rows import append
from gainfinder import flips
from gainfinder.metrics import Answers, PredictedClasses, ZooFlips, compare_zoo, scan_predictions

ACCURACIES = (0.6, 0.85)
"""Of the weakest and the strongest model."""
CONFUSED_WITH = 4
"""Classes that an image is taken for by models that have it wrong."""
KINDS = ("matrices", "pair by pair", "scan")


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """Predictions of M models for N images of C classes.

    Attributes:
        predicted_MN: predicted classes, int64 (M, N).
        confidence_MN: largest probabilities, float32 (M, N).
        target_N: labels, int64 (N,).
        num_classes: C.
    """

    predicted_MN: Tensor
    confidence_MN: Tensor
    target_N: Tensor
    num_classes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pairs.csv"))
    parser.add_argument("--table", type=Path, metavar="ROWS", help="only print the table of these rows")
    parser.add_argument("--models", type=int, default=301)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--looped", type=int, default=300, help="pairs that are compared one by one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.table is None:
        for number in range(asked.rounds):
            for kind in KINDS:
                # A process that is new, so that its peak is of this work alone.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                    append(asked.out, fresh.submit(measured, kind, number, asked).result())
    print_table(asked.table or asked.out)


def measured(kind: str, number: int, asked: argparse.Namespace) -> dict[str, Any]:
    """A row: what the work of a kind took in this process."""
    torch.set_num_threads(asked.threads)
    zoo = made_up(asked.models, asked.images, asked.classes, seed=number)
    every = list(permutations(range(asked.models), 2))
    looped = Random(number).sample(every, min(asked.looped, len(every)))
    work = work_of(kind, zoo, looped)
    before_mib, load = peak_mib(), os.getloadavg()[0]
    began, processor = time.perf_counter(), time.process_time()
    found = work()
    row = {
        "kind": kind,
        "models": asked.models,
        "images": asked.images,
        "classes": asked.classes,
        "threads": asked.threads,
        "round": number,
        "load": round(load, 2),
        "pairs": len(looped if kind == "pair by pair" else every),
        "seconds": round(time.perf_counter() - began, 3),
        "processor_s": round(time.process_time() - processor, 3),
        "before_mib": round(before_mib),
        "peak_mib": round(peak_mib()),
    }
    if isinstance(found, ZooFlips):
        check(found, zoo, looped)
    return row


def work_of(kind: str, zoo: Zoo, looped: Sequence[tuple[int, int]]) -> Callable[[], Any]:
    match kind:
        case "matrices":
            return lambda: by_products(zoo)
        case "pair by pair":
            return lambda: [compared(zoo, s, t) for s, t in looped]
        case _:
            models = kept_by_a_scan(zoo)
            return lambda: scan_predictions(models, num_classes=zoo.num_classes)


def peak_mib() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def made_up(models: int, images: int, classes: int, *, seed: int) -> Zoo:
    """Models of evenly spread accuracy. A model at a time, so that making them needs no more memory than they do."""
    generator = torch.Generator().manual_seed(seed)
    target_N = (torch.arange(images) % classes)[torch.randperm(images, generator=generator)]
    difficulty_N = 1.5 * torch.randn(images, generator=generator)
    confused_NK = torch.randint(1, max(2, classes), (images, CONFUSED_WITH), generator=generator)
    predicted_MN = torch.empty(models, images, dtype=torch.int64)
    confidence_MN = torch.empty(models, images)
    for model, accuracy in enumerate(torch.linspace(*ACCURACIES, models).tolist()):
        score_N = torch.randn(images, generator=generator) - difficulty_N
        score_N += 0.5 * torch.randn(classes, generator=generator)[target_N]
        score_N -= score_N.quantile(1 - accuracy)
        choice_N1 = torch.randint(CONFUSED_WITH, (images, 1), generator=generator)
        wrong_N = (target_N + confused_NK.gather(1, choice_N1).squeeze(1)) % classes
        predicted_MN[model] = torch.where(score_N > 0, target_N, wrong_N)
        confidence_MN[model] = (score_N.abs() + torch.rand(images, generator=generator)).sigmoid()
    return Zoo(predicted_MN=predicted_MN, confidence_MN=confidence_MN, target_N=target_N, num_classes=classes)


def by_products(zoo: Zoo) -> ZooFlips:
    """All matrices, also those that are worked out when they are asked for."""
    found = compare_zoo(zoo.predicted_MN, zoo.target_N, zoo.num_classes)
    for name in ("positive_flips", "negative_flips", "delta_acc_pp", "oracle_accuracy", "error_overlap"):
        getattr(found, f"{name}_MM")
    assert found.error_consistency_MM.shape == found.flip_entropy_MM.shape
    return found


def compared(zoo: Zoo, s: int, t: int) -> tuple[flips.PairFlips, Tensor]:
    """What a pair's own functions say of it, student first."""
    student_N, teacher_N = zoo.predicted_MN[s], zoo.predicted_MN[t]
    flips_N = flips.positive_flips(student_N, teacher_N, zoo.target_N)
    return (
        flips.compare(student_N, teacher_N, zoo.target_N, zoo.num_classes),
        flips.flip_counts(flips_N, zoo.target_N, zoo.num_classes),
    )


def check(found: ZooFlips, zoo: Zoo, looped: Sequence[tuple[int, int]]) -> None:
    """Stop where the matrices say otherwise than a pair's own functions."""
    assert found.flip_counts_CMM is not None
    positive, negative, entropy = found.positive_flips_MM, found.negative_flips_MM, found.flip_entropy_MM
    for s, t in looped:
        pair, counts_C = compared(zoo, s, t)
        assert (float(positive[s, t]), float(negative[s, t])) == (pair.positive_flips, pair.negative_flips)
        assert pair.flip_entropy is not None and abs(float(entropy[s, t]) - pair.flip_entropy) < 1e-12
        assert torch.equal(found.flip_counts_CMM[:, s, t].long(), counts_C)


def kept_by_a_scan(zoo: Zoo) -> list[PredictedClasses]:
    ids = tuple(map(str, range(len(zoo.target_N))))
    return [
        PredictedClasses(
            model=f"model {number}",
            ids=ids,
            answers=Answers(predicted_N=predicted_N, confidence_N=confidence_N),
            target=zoo.target_N,
        )
        for number, (predicted_N, confidence_N) in enumerate(zip(zoo.predicted_MN, zoo.confidence_MN, strict=True))
    ]


def print_table(path: Path) -> None:
    """Medians over the rounds, least and most in brackets; a loop's seconds scaled to all pairs."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    print("| kind | threads | rounds | seconds | of the processors | peak, MiB | before | load |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, threads in dict.fromkeys((row["kind"], row["threads"]) for row in rows):
        own = [row for row in rows if (row["kind"], row["threads"]) == (kind, threads)]
        models = int(own[0]["models"])
        scales = [models * (models - 1) / int(row["pairs"]) for row in own]
        cells = []
        for column in ("seconds", "processor_s"):
            values = [float(row[column]) * scale for row, scale in zip(own, scales, strict=True)]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        for column in ("peak_mib", "before_mib", "load"):
            median = statistics.median(float(row[column]) for row in own)
            cells.append(f"{median:.1f}" if column == "load" else f"{median:,.0f}")
        print(f"| {kind} | {threads} | {len(own)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
