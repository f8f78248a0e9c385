"""What the guard says of transfers that helped and that harmed, with labels and without; one loop, many runs.

    python -m benchmarks.guard.transfers --models MODELS --images IMAGES --out benchmarks/guard/transfers.csv

MODELS holds the zoo (see lab/zoo.py), IMAGES train.parquet and test.parquet. Each transfer in JOBS runs in a small loop
with everything in memory; rows that are in the file already are not run again. A row is a transfer and a candidate: the
initial student with statistics re-estimated (`adapted`, where it has batch-norm), half of the way in weight space, and
the whole way. The guard sees 3,000 test images, 6,000 others measure; both are predicted in bfloat16.

Columns: the job; `delta_pp`, the true change in accuracy, and `delta_error_pp`, its standard error, on the images that
measure; `delta_acc_pp`, how much better the teacher is than the initial student there; `measure` to `veto`, what
the former rule (`former.py`) says without labels; `labels_gain_pp` and `labels_error_pp`, what it says with labels; and
the numbers behind: `toward_pp` and `away_pp`, images whose answer moved to or from the teacher's, the consensus gain,
and the change of the entropy of the classes predicted, in nats, with standard errors.

Students and teachers made on purpose are trained on first, seeded by their names: `_a` and `_b` meet few images of
classes 5 to 9 or 0 to 4, `_bce` and `_ls` learn with binary cross-entropy or labels smoothed by 0.2, `_r48` sees images
enlarged to 48 pixels.
"""

import argparse
import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.guard.former import consensus_gain, judge
from benchmarks.lab.in_memory import Lab
from benchmarks.lab.rows import append, done, key_of
from benchmarks.lab.training import adapt, distil, fit, skewed
from benchmarks.lab.zoo import Model
from gainfinder.metrics import Candidate, information, selection
from gainfinder.models import has_batch_norm
from gainfinder.predictions import Predictions
from gainfinder.training import between

GUARD_IMAGES, TEST_IMAGES = 3000, 6000
ADAPTED = Candidate(alpha=0.0, bn_reestimated=True)
SHARES = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A transfer: n images, so many epochs in batches of 64 or a little less, at a rate that falls to 0."""

    student: str
    teacher: str
    method: str
    optimiser: str
    lr: float
    n: int
    epochs: int
    seed: int


KEY = (*Job.__dataclass_fields__, "candidate")
"""Columns that tell a row from the others."""


def jobs_of(setting: str, pairs: Mapping[str, str]) -> list[Job]:
    """Jobs of one setting, "method optimiser rate images epochs seed", for each student's teachers."""
    method, optimiser, lr, n, epochs, seed = setting.split()
    return [
        Job(
            student=student, teacher=teacher, method=method, optimiser=optimiser, lr=float(lr), n=int(n),
            epochs=int(epochs), seed=int(seed),
        )
        for student, teachers in pairs.items()
        for teacher in teachers.split()
    ]  # fmt: skip


ON_PURPOSE = {
    "convnext_32_a": "convnext_32_b resnet10_64_b resnet20 tiny_mixer_b vit_48",
    "convnext_32_b": "convnext_32_a resnet10_64_a resnet20_a tiny_mixer",
    "convnext_32_bce": "resnet20 tiny_mixer vit_48",
    "convnext_32_ls": "resnet20 tiny_mixer vit_48",
    "convnext_32_r48": "resnet20 tiny_mixer vit_48",
    "resnet10_64_a": "convnext_32_b resnet10_64_b resnet20 vit_48",
    "resnet20_a": "convnext_32_b resnet10_64 resnet20_b",
    "tiny_mixer_b": "convnext_32_a resnet10_64_a",
}
JOBS = [
    *jobs_of("kl-dp-u sgd 1e-3 2000 2 0", {
        "convnext_32": "convnext_32_b resnet10_64 resnet20 resnet32 tiny_mixer vit_48",
        "resnet10_64": "convnext_32 resnet10_64_b resnet20 resnet20_a resnet32 tiny_mixer vit_48",
        "resnet20": "convnext_32 resnet10_64 resnet20_a resnet32 tiny_mixer vit_48",
        "resnet32": "convnext_32 resnet10_64 resnet20 tiny_mixer vit_48",
        "tiny_mixer": "convnext_32 resnet10_64 resnet20 resnet32 vit_48",
        "vit_48": "convnext_32 resnet10_64 resnet20 resnet32 tiny_mixer",
        **ON_PURPOSE,
    }),
    *jobs_of("kl sgd 1e-3 2000 2 1", {
        "convnext_32": "resnet10_64 resnet10_64_a resnet20 resnet32 tiny_mixer vit_48",
        "resnet10_64": "convnext_32 resnet20 resnet32 tiny_mixer vit_48",
        "resnet20": "resnet32 tiny_mixer",
        "tiny_mixer": "resnet20 vit_48",
        **ON_PURPOSE,
    }),
    *jobs_of("kl-dp-u sgd 1e-3 2000 2 2", {"tiny_mixer": "resnet20 vit_48"}),
    *(
        job
        for optimiser in ("sgd 1e-3", "sgd 3e-3", "sgd 1e-2", "adamw 2e-4", "adamw 1e-3")
        for job in jobs_of(f"kl-dp-u {optimiser} 20000 2 5", {"convnext_32": "resnet20 tiny_mixer vit_48"})
    ),
    *jobs_of("kl sgd 1e-2 20000 2 5", {"convnext_32": "resnet20"}),
    *jobs_of("kl adamw 2e-4 20000 2 5", {"convnext_32": "resnet20"}),
    *(  # hard imitation of weaker teachers
        job
        for method in ("kl", "kl-dp-u")
        for size, pairs in {
            "3000 2": {"resnet20": "tiny_mixer"},
            "4000 2": {"resnet10_64": "resnet10_64_a", "tiny_mixer": "convnext_32 vit_48"},
            "6000 2": {"resnet10_64": "convnext_32 vit_48"},
            "8000 2": {"convnext_32": "convnext_32_b"},
            "8000 3": {"convnext_32": "resnet10_64_a"},
        }.items()
        for job in jobs_of(f"{method} sgd 1e-2 {size} 7", pairs)
    ),
]  # fmt: skip


class Recipe(NamedTuple):
    """How a model is trained on when one is made from it on purpose."""

    images: int
    lr: float
    optimiser: str
    epochs: int


RECIPES = {
    "convnext_32": Recipe(10_000, 2e-3, "adamw", 3),
    "tiny_mixer": Recipe(6_000, 1e-3, "adamw", 2),
    "resnet20": Recipe(6_000, 1e-2, "sgd", 3),
    "resnet10_64": Recipe(6_000, 2e-3, "adamw", 2),
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a": partial(F.cross_entropy, label_smoothing=0.05),
    "b": partial(F.cross_entropy, label_smoothing=0.05),
    "r48": partial(F.cross_entropy, label_smoothing=0.05),
    "ls": partial(F.cross_entropy, label_smoothing=0.2),
    "bce": lambda logits, y: 10 * F.binary_cross_entropy_with_logits(logits, F.one_hot(y, 10).float()),
}


class Parts(NamedTuple):
    """What belongs to the images that guard, and what to those that measure: pixels, classes or a model's logits."""

    guard: Tensor
    test: Tensor


def parted(values: Tensor) -> Parts:
    return Parts(values[:GUARD_IMAGES], values[GUARD_IMAGES : GUARD_IMAGES + TEST_IMAGES])


class Students(Lab):
    """The zoo, and what is made of it on purpose; models that are only asked run in bfloat16."""

    def __init__(self, models: Path, images: Path) -> None:
        super().__init__(models, images, autocast=True)
        self.adapted_answers: dict[str, Parts] = {}

    def made(self, name: str) -> Model:
        """One of the zoo, or one trained on as the end of its name says."""
        base, _, kind = name.rpartition("_")
        if kind not in LOSSES:
            return super().made(name)
        recipe, model = RECIPES[base], super().made(base)
        if kind == "r48":
            model.preprocessing = replace(model.preprocessing, input_size=(3, 48, 48))
        seed = int(hashlib.md5((base + kind).encode()).hexdigest()[:8], 16)
        generator = torch.Generator().manual_seed(seed)
        if kind in ("a", "b"):
            rare = self.y >= 5 if kind == "a" else self.y < 5
            chosen = skewed(self.y, rare=rare, count=recipe.images, generator=generator)
        else:
            chosen = torch.randperm(len(self.y), generator=generator)[: recipe.images]
        optimizer = optimizer_of(model, recipe.optimiser, recipe.lr, decay={"sgd": 1e-4, "adamw": 0.02})
        fit(
            model, optimizer, self.x[chosen], self.y[chosen], loss=LOSSES[kind], epochs=recipe.epochs,
            generator=generator,
        )  # fmt: skip
        return model.eval()

    def answers(self, model: Model, name: str | None = None) -> Parts:
        """Logits for the test images; those of a named model are worked out once."""
        images = parted(self.test_x)
        return Parts(
            *(self.logits(model, part, None if name is None else (name, which)) for which, part in enumerate(images))
        )

    def adapted(self, name: str) -> Parts:
        """Those of the initial student with statistics re-estimated on views of 2,000 training images."""
        if name not in self.adapted_answers:
            model = copy.deepcopy(self.model(name))
            adapt(model, self.views(self.chosen(0, 2000), 0, 0))
            self.adapted_answers[name] = self.answers(model)
        return self.adapted_answers[name]


def transfer(lab: Students, job: Job) -> dict[Candidate, Parts]:
    """Run a transfer; the answers of its candidates."""
    chosen = lab.chosen(job.seed, job.n)
    initial, teacher = lab.model(job.student), lab.model(job.teacher)
    views = [lab.views(chosen, job.seed, epoch) for epoch in range(job.epochs)]
    targets, batches = [], []
    for epoch, view in enumerate(views):
        mine = lab.logits(initial, view, (job.student, job.seed, job.n, epoch))
        others = lab.logits(teacher, view, (job.teacher, job.seed, job.n, epoch))
        if job.method == "kl-dp-u":
            surer = others.softmax(1).amax(1) > mine.softmax(1).amax(1)
            others = torch.where(surer[:, None], others, mine)
        targets.append(others.log_softmax(1))
        order = torch.randperm(job.n, generator=torch.Generator().manual_seed(job.seed * 77 + epoch))
        batches.append(order.tensor_split(-(-job.n // 64)))
    model = copy.deepcopy(initial)
    optimizer = optimizer_of(model, job.optimiser, job.lr, decay={"sgd": 1e-3, "adamw": 0.0})
    distil(model, optimizer, views, targets, batches, falling=True)
    start, end = initial.state_dict(), copy.deepcopy(model.state_dict())
    found = {ADAPTED: lab.adapted(job.student)} if has_batch_norm(initial) else {}
    for share in SHARES:
        model.load_state_dict(between(start, end, share))
        if share < 1:
            adapt(model, views[-1][:2000])
        found[Candidate(alpha=share)] = lab.answers(model)
    return found


def optimizer_of(model: Model, name: str, lr: float, *, decay: Mapping[str, float]) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 or AdamW, with the weight decay for its name."""
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay[name])
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay[name])


def rows_of(
    job: Job, before: Parts, teacher: Parts, candidates: Mapping[Candidate, Parts], labels: Parts
) -> Iterator[dict[str, Any]]:
    """A row for each candidate; floats to 6 decimals."""
    before_right, teacher_right = (right(one.test, labels.test) for one in (before, teacher))
    frozen, taught = predictions("before", before.guard), [predictions("teacher", teacher.guard)]
    labelled = replace(frozen, target=labels.guard)
    then = information.class_information(frozen.predicted, num_classes=before.guard.shape[1])
    for candidate, answers in candidates.items():
        after = predictions(candidate.name, answers.guard)
        blind = judge(frozen, after, taught, candidate=candidate)
        seeing = judge(labelled, after, taught, candidate=candidate)
        moves = selection.movement(frozen, after, taught)
        now = information.class_information(after.predicted, num_classes=before.guard.shape[1])
        delta, delta_error = mean_and_error(100 * (right(answers.test, labels.test) - before_right))
        consensus, consensus_error = mean_and_error(consensus_gain(frozen, after, taught))
        classes, classes_error = mean_and_error(now - then)
        row = {
            **asdict(job), "candidate": candidate.name,
            "delta_pp": delta, "delta_error_pp": delta_error,
            "delta_acc_pp": 100 * float((teacher_right - before_right).mean()),
            "measure": blind.measure, "gain": blind.gain, "error": blind.error, "sure_gain": blind.sure_gain,
            "veto": blind.veto or "",
            "labels_gain_pp": seeing.gain, "labels_error_pp": seeing.error,
            "toward_pp": 100 * float((moves > 0).double().mean()), "away_pp": 100 * float((moves < 0).double().mean()),
            "consensus_gain": consensus, "consensus_error": consensus_error,
            "classes_change": classes, "classes_error": classes_error,
        }  # fmt: skip
        yield {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


def right(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(1) == y).double()


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / len(values) ** 0.5


def predictions(model: str, logits: Tensor) -> Predictions:
    """Without labels; images go by their number."""
    return Predictions(model=model, ids=tuple(map(str, range(len(logits)))), logits=logits.float(), target=None)


def add(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add the rows that the file does not have."""
    there = done(path, KEY)
    for row in rows:
        if key_of(row, KEY) not in there:
            append(path, row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("models", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    lab = Students(args.models, args.images)
    there = done(args.out, KEY)
    for job in JOBS:
        if key_of({**asdict(job), "candidate": "1"}, KEY) in there:  # the last of its rows
            continue
        before, teacher = (lab.answers(lab.model(name), name) for name in (job.student, job.teacher))
        add(args.out, rows_of(job, before, teacher, transfer(lab, job), parted(lab.test_y)))


if __name__ == "__main__":
    main()
