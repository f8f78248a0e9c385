"""What a training step costs: plain fine-tuning, transfers with models that are asked or replayed, and two other ways.

    python -m benchmarks.speed.steps --student REF --teacher REF --data REF --val REF --out benchmarks/speed/steps.csv

Kinds of step, all on the same views of the same images, with the same optimiser and threads:

    fine-tuning          cross-entropy with the labels
    live                 `kl-dp-u`: frozen student and teacher are asked
    decided              `kl-dp-u` with `decide_on="image"`: one of them is asked for a view
    replayed             `kl-dp-u`: their answers are read from the bank
    timm                 timm's `LogitDistillationTask`: cross-entropy and KL from the teacher
    naive                as the published code does it: masks and losses sample by sample
    views alone          only the batch of views is made (fine-tuning needs them too)

Rounds of a few steps of each kind follow one another, so that a busy machine slows all of them; a row each, with the
median of its steps. `--memory KIND` makes steps of one kind alone and prints the process's (or GPU's) peak.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import kinds
from benchmarks.speed.kinds import Step
from gainfinder.runs import PreparedTransfer, prepare_transfer

STEPS = 6
"""Steps of a kind in a round; the first does not count."""
KINDS = ("fine-tuning", "live", "decided", "replayed", "timm", "naive", "views alone")


def main() -> None:
    asked = arguments()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        plans = {
            "live": plan(asked),
            "decided": plan(asked, decide_on="image"),
            "replayed": plan(asked, bank=Path(folder)),
        }
        plans["live"].views.load()
        if asked.memory:
            print_memory(asked.memory, plans)
            return
        write_rows(asked, plans, {kind: make_step(kind, plans) for kind in KINDS})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("student", "teacher", "data", "val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", type=Path, default=Path("steps.csv"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int, default=640)
    parser.add_argument("--augment", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="compile the models of all steps but timm's and naive")
    parser.add_argument("--memory", choices=KINDS)
    return parser.parse_args()


def plan(asked: argparse.Namespace, **changed: Any) -> PreparedTransfer:
    settings = kinds.gentle(
        limit=asked.limit,
        batch_size=asked.batch_size,
        augment=asked.augment,
        device=asked.device,
        precision=asked.precision,
        compile=asked.compile,
        **changed,
    )
    return prepare_transfer(asked.student, [asked.teacher], asked.data, val=asked.val, settings=settings)


def write_rows(asked: argparse.Namespace, plans: dict[str, PreparedTransfer], steps: dict[str, Step]) -> None:
    columns = (
        "student", "teacher", "batch_size", "device", "precision", "threads", "compiled", "round", "kind", "step_ms",
    )  # fmt: skip
    new = not asked.out.exists()
    device = plans["live"].accelerator.device
    about = {
        "student": name_of(asked.student),
        "teacher": name_of(asked.teacher),
        "batch_size": asked.batch_size,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": plans["live"].accelerator.mixed_precision,
        "threads": torch.get_num_threads(),
        "compiled": asked.compile,
    }
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    with asked.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        for number in range(asked.rounds + 1):
            for kind, step in steps.items():
                found = 1000 * timed(step, plans["replayed" if kind == "replayed" else "live"], number)
                if number:  # the first round warms everything up
                    times[kind].append(found)
                    writer.writerow({**about, "round": number, "kind": kind, "step_ms": f"{found:.3f}"})
                    file.flush()
    print(
        f"{about['student']} ← {about['teacher']}, batch {asked.batch_size}, {about['device']}, {asked.rounds} rounds"
    )
    print("| step | median ms | of fine-tuning |")
    print("|---|---|---|")
    for kind in steps:
        ratios = [mine / base for mine, base in zip(times[kind], times["fine-tuning"], strict=True)]
        print(f"| {kind} | {statistics.median(times[kind]):.1f} | {statistics.median(ratios):.3f} |")


def timed(step: Step, of: PreparedTransfer, number: int) -> float:
    """Seconds a step, the median of a round's, each waited for."""
    times = []
    views = kinds.batches(of, number, steps=STEPS)
    for _ in range(STEPS):
        began = time.perf_counter()
        found = step(next(views))
        if found is not None:
            float(found)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def make_step(kind: str, plans: dict[str, PreparedTransfer]) -> Step:
    live = plans["live"]
    match kind:
        case "live" | "decided" | "replayed":
            return kinds.of_trainer(plans[kind])
        case "fine-tuning":
            return kinds.fine_tuning(live)
        case "timm":
            return kinds.of_timm(live)
        case "naive":
            return kinds.naive(live)
        case _:
            return kinds.views_alone


def print_memory(kind: str, plans: dict[str, PreparedTransfer]) -> None:
    import resource  # noqa: PLC0415 - not there on Windows

    of = plans["replayed" if kind == "replayed" else "live"]
    step = make_step(kind, plans)
    cuda = of.accelerator.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for batch in kinds.batches(of, 0, steps=STEPS):
        step(batch)
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{kind}: {peak / 1e6:.0f} MB")


def name_of(reference: str) -> str:
    return reference.split("@", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1].rsplit(":", maxsplit=1)[-1]


if __name__ == "__main__":
    main()
