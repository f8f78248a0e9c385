"""What a training step costs: plain fine-tuning, transfers with models that are asked or replayed, and two other ways.

    python -m benchmarks.speed.steps --student REF --teacher REF --data REF --val REF --out benchmarks/speed/steps.csv

Kinds of step, all on the same views of the same images, with the same optimiser and threads:

    fine-tuning          cross-entropy with the labels, written out below
    live                 `kl-dp-u`: frozen student and teacher are asked
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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.task import LogitDistillationTask
from torch import Tensor, nn

from gainfinder.config import TransferConfig
from gainfinder.models import Classifier, prepare
from gainfinder.runs import Callback, PreparedTransfer, TargetModels, make_trainer, prepare_transfer
from gainfinder.training import StudentTrainer, epoch_batches, make_batch
from gainfinder.views import ViewBatch

STEPS = 6
"""Steps of a kind in a round; the first does not count."""
KINDS = ("fine-tuning", "live", "replayed", "timm", "naive", "views alone")
Step = Callable[[ViewBatch], Tensor | None]


def main() -> None:
    asked = arguments()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        plans = {kind: plan(asked, Path(folder) if kind == "replayed" else None) for kind in ("live", "replayed")}
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


def plan(asked: argparse.Namespace, bank: Path | None) -> PreparedTransfer:
    settings = TransferConfig.model_validate(
        {
            "preset": "gentle", "method": "kl-dp-u", "guard": False, "epochs": 1,
            "limit": asked.limit, "batch_size": asked.batch_size,
            "augment": asked.augment, "device": asked.device, "precision": asked.precision, "bank": bank,
            "lr": 1e-4, "compile": asked.compile,
        }
    )  # fmt: skip
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
    views = batches(of, number)
    for _ in range(STEPS):
        began = time.perf_counter()
        found = step(next(views))
        if found is not None:
            float(found)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def batches(of: PreparedTransfer, number: int) -> Iterator[ViewBatch]:
    settings = of.settings
    wanted = epoch_batches(of.train_images.ids, settings.batch_size, seed=number, epoch=0)
    yield from of.views.batches((wanted * STEPS)[:STEPS], epoch=0)


def make_step(kind: str, plans: dict[str, PreparedTransfer]) -> Step:
    live = plans["live"]
    match kind:
        case "live" | "replayed":
            return of_learner(plans[kind])
        case "fine-tuning":
            return fine_tuning(live)
        case "timm":
            return of_timm(live)
        case "naive":
            return naive(live)
        case _:
            return lambda batch: batch.views.renderings[0].flatten()[0].float() if batch.views else None


def of_learner(of: PreparedTransfer) -> Step:
    targets = TargetModels(of, Callback())
    targets.prepare(range(of.settings.epochs))
    trainer: StudentTrainer = make_trainer(of, targets.models)

    def step(batch: ViewBatch) -> Tensor:
        return trainer.step(make_batch(trainer, of.views, batch, total=len(batch.positions_N)))[0]

    return step


def fine_tuning(of: PreparedTransfer) -> Step:
    student, module, optimizer, target_n = alone(of)

    def step(batch: ViewBatch) -> Tensor:
        with of.accelerator.autocast():
            logits = student.logits(inputs(batch, student), module=module)
            loss = F.cross_entropy(logits.float(), target_n[batch.positions_N])
        return descend(loss, optimizer)

    return step


def of_timm(of: PreparedTransfer) -> Step:
    student, module, optimizer, target_n = alone(of)
    described: Any = module  # as timm's models describe themselves
    described.pretrained_cfg = {"mean": student.preprocessing.mean, "std": student.preprocessing.std}
    described.num_classes, described.in_chans = student.num_classes, 3
    teacher = of.teachers[0]
    assert isinstance(teacher, Classifier)
    watched = Resized(teacher, described.pretrained_cfg)
    device = of.accelerator.device
    task = LogitDistillationTask(module, watched, criterion=nn.CrossEntropyLoss(), device=device, verbose=False)
    task.train()

    def step(batch: ViewBatch) -> Tensor:
        watched.views = batch.views.at(teacher.preprocessing.view_size) if batch.views else None
        with of.accelerator.autocast():
            loss = task(inputs(batch, student), target_n[batch.positions_N])["loss"]
        return descend(loss, optimizer)

    return step


class Resized(nn.Module):
    """A teacher that sees the views at its own size, which the task knows nothing of."""

    pretrained_cfg: dict[str, Any]
    num_classes: int

    def __init__(self, teacher: Classifier, pretrained_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.pretrained_cfg = pretrained_cfg  # the student's, for the task; it normalises for itself, below
        self.num_classes = teacher.num_classes
        self.model = teacher.module
        self.preprocessing = teacher.preprocessing
        self.views: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.views is not None
        logits: Tensor = self.model(prepare(self.views, self.preprocessing))
        return logits


def naive(of: PreparedTransfer) -> Step:
    student, module, optimizer, _ = alone(of)
    frozen, teacher = of.student, of.teachers[0]
    assert isinstance(teacher, Classifier)
    for model in (frozen, teacher):
        model.module.to(of.accelerator.device).eval()

    def step(batch: ViewBatch) -> Tensor:
        assert batch.views is not None
        with of.accelerator.autocast():
            logits = student.logits(inputs(batch, student), module=module).float()
            with torch.no_grad():
                taught = teacher.logits(inputs(batch, teacher)).float()
                kept = frozen.logits(inputs(batch, frozen)).float()
        mask = [
            float(t.softmax(0).max()) > float(s.softmax(0).max()) for t, s in zip(taught, kept, strict=True)
        ]  # a value at a time, as the published code
        losses = [
            F.kl_div(z.log_softmax(0), (t if surer else s).softmax(0), reduction="sum")
            for z, t, s, surer in zip(logits, taught, kept, mask, strict=True)
        ]
        return descend(torch.stack(losses).mean(), optimizer)

    return step


def alone(of: PreparedTransfer) -> tuple[Classifier, nn.Module, torch.optim.Optimizer, Tensor]:
    """A copy of the student as anybody would train it: on the device, with SGD; and the labels."""
    trainer = make_trainer(replace(of, bank=None), [])
    module = trainer.module.train()
    assert of.train_images.labels is not None
    return (
        trainer.student,
        module,
        trainer.optimizer,
        torch.from_numpy(of.train_images.labels).to(of.accelerator.device),
    )


def inputs(batch: ViewBatch, model: Classifier) -> Tensor:
    assert batch.views is not None
    return batch.views.inputs(model.preprocessing)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def print_memory(kind: str, plans: dict[str, PreparedTransfer]) -> None:
    import resource  # noqa: PLC0415 - not there on Windows

    of = plans["replayed" if kind == "replayed" else "live"]
    step = make_step(kind, plans)
    cuda = of.accelerator.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for batch in batches(of, 0):
        step(batch)
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{kind}: {peak / 1e6:.0f} MB")


def name_of(reference: str) -> str:
    return reference.split("@", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1].rsplit(":", maxsplit=1)[-1]


if __name__ == "__main__":
    main()
