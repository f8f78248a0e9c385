"""Small transfers, many in an hour on one core of a CPU, with the answers of all models and candidates kept.

Students and teachers are the zoos' models. Some students are worn first, trained on shortly with true labels at too
high a rate, on all classes or half of them, so that there is something to regain; some teachers are broken on purpose.
"""

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.lab.zoo import reference_in
from gainfinder import load_images, load_model, partition
from gainfinder.data import Images
from gainfinder.metrics import Candidate, class_temperatures
from gainfinder.models import Classifier, has_batch_norm, prepare, reestimate
from gainfinder.training import between
from gainfinder.views import ViewSource, view_spec

STUDENTS = (
    *("convnext_32", "convnext_a") * 2,
    *("tiny_mixer", "convnext_32", "resnet10_64", "convnext_a", "convnext_32", "convnext_32", "resnet20", "vit_48"),
)
TEACHERS = ("resnet20", "resnet32", "tiny_mixer", "resnet10_64", "convnext_a", "convnext_32", "vit_48", "resnet_a")
METHODS = ("kl", "kl-dp-u", "kl-prod-u", "kl-prod-cal-u")
BROKEN = ("perm2", "perm3", "perm3", "perm10", "random", "surenoise", "half", "half")
TRANSFER_IMAGES, GUARD_IMAGES, TEST_IMAGES, VIEWS = 2000, 2000, 3000, 2
SHARES = (0.5, 1.0)
ADAPTED = Candidate(alpha=0.0, bn_reestimated=True)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A transfer: so many images, epochs in batches of 64, AdamW at a rate that falls to 0."""

    student: str
    teacher: str
    broken: str
    worn: bool
    method: str
    lr: float
    images: int
    epochs: int
    seed: int


class Parts(NamedTuple):
    """Logits for the images that guard and for those that measure."""

    guard: Tensor
    test: Tensor


class Recording(NamedTuple):
    """The answers of the student before, of the teacher, and of the candidates."""

    before: Parts
    teacher: Parts
    candidates: dict[Candidate, Parts]


def jobs(first: int) -> Iterator[Job]:
    """Jobs without end: three in five with a worn student, one natural, one with a broken teacher."""
    draw = random.Random(first)
    for seed in itertools.count(first):
        student = draw.choice(STUDENTS)
        teacher = draw.choice([name for name in TEACHERS if name != student])
        kind = "worn" if seed % 5 < 3 else "natural" if seed % 5 == 3 else "broken"
        rates = {"worn": (1e-4, 2e-4, 3e-4, 4e-4, 5e-4), "natural": (1e-4, 3e-4, 1e-3), "broken": (3e-4, 5e-4, 1e-3)}
        yield Job(
            student=student,
            teacher=teacher,
            broken=draw.choice(BROKEN) if kind == "broken" else "",
            worn=kind == "worn" or (kind == "broken" and draw.random() < 0.4),
            method=draw.choice(METHODS),
            lr=draw.choice(rates[kind]),
            images=draw.choice((1000, 1000, 2000)),
            epochs=2,
            seed=seed,
        )


def long_jobs(first: int) -> Iterator[Job]:
    """Jobs without end that go as far as a run by default: at AdamW's usual rate for many epochs; half of the teachers
    are broken."""
    draw = random.Random(first)
    for seed in itertools.count(first):
        student = draw.choice(("convnext_32", "convnext_32", "convnext_a", "tiny_mixer", "resnet10_64"))
        yield Job(
            student=student,
            teacher=draw.choice([name for name in TEACHERS if name != student]),
            broken=draw.choice(BROKEN) if seed % 2 else "",
            worn=False,
            method=draw.choice(("kl-prod-cal-u", "kl-prod-cal-u", "kl-prod-u", "kl")),
            lr=1e-3,
            images=2000,
            epochs=draw.choice((10, 20, 30)),
            seed=seed,
        )


def breaking(job: Job) -> Callable[[Tensor, int], Tensor]:
    """What a broken teacher answers in place of its logits; the second argument tells sets of images apart."""
    draw = torch.Generator().manual_seed(job.seed)
    if job.broken.startswith("perm"):
        chosen, order = torch.randperm(10, generator=draw)[: int(job.broken[4:])], torch.arange(10)
        order[chosen] = chosen.roll(1)
        return lambda z, _: z[:, order]
    if job.broken == "half":
        unknown = torch.full((10,), -8.0)
        unknown[torch.randperm(10, generator=draw)[:5]] = 0.0
        return lambda z, _: z + unknown
    if job.broken == "random":
        return lambda z, salt: 2 * torch.randn(z.shape, generator=torch.Generator().manual_seed(job.seed + salt))
    if job.broken == "surenoise":
        return lambda z, salt: (
            12.0 * F.one_hot(torch.randint(10, (len(z),), generator=torch.Generator().manual_seed(job.seed + salt)), 10)
        )
    return lambda z, _: z


class Small:
    """Everything in memory: views of the transfer images, the other images, and the teachers' logits for them."""

    def __init__(self, models: Sequence[Path], images: Path) -> None:
        self.references = {name: reference_in(models, name) for name in dict.fromkeys((*TEACHERS, *STUDENTS))}
        self.frozen = {name: load_model(reference) for name, reference in self.references.items()}
        transfer = drawn(load_images(f"{images}/train.parquet#5/5"), TRANSFER_IMAGES, seed=5)
        guard, test = (
            drawn(load_images(f"{images}/test.parquet#{part}/2"), count, seed=part)
            for part, count in ((1, GUARD_IMAGES), (2, TEST_IMAGES))
        )
        assert transfer.labels is not None and guard.labels is not None and test.labels is not None
        self.y, self.guard_y, self.test_y = (torch.from_numpy(one.labels) for one in (transfer, guard, test))
        self.views = [self.inputs(transfer, "crop-flip", epoch) for epoch in range(VIEWS)]
        self.guard, self.test = (self.inputs(part, "none", 0) for part in (guard, test))
        self.answers = {
            name: [self.logits(model, x) for x in (*self.views, self.guard, self.test)]
            for name, model in self.frozen.items()
        }

    def inputs(
        self, images: Images, augment: Literal["crop-flip", "none"], epoch: int
    ) -> dict[tuple[int, int], Tensor]:
        """Pixels at each model's size."""
        spec = view_spec([model.image_preprocessing for model in self.frozen.values()], augment)
        source = ViewSource(images, spec, workers=0, device=torch.device("cpu"))
        source.load()
        batches = list(source.batches(np.array_split(np.arange(len(images)), 20), epoch=epoch))
        sizes = {model.image_preprocessing.view_size for model in self.frozen.values()}
        return {size: torch.cat([batch.views.at(size) for batch in batches if batch.views]) for size in sizes}

    def logits(self, model: Classifier, x: dict[tuple[int, int], Tensor]) -> Tensor:
        model.module.eval()
        with torch.inference_mode():
            parts = x[model.image_preprocessing.view_size].split(250)
            return torch.cat([model.logits(prepare(part, model.image_preprocessing)).float() for part in parts])

    def record(self, job: Job) -> Recording:
        """Run a transfer; the answers of its candidates."""
        student, broken = load_model(self.references[job.student]), breaking(job)
        if job.worn:
            self.wear(student, job)
            own = [self.logits(student, x) for x in (*self.views, self.guard, self.test)]
        else:
            own = self.answers[job.student]
        taught = [broken(z, salt) for salt, z in enumerate(self.answers[job.teacher])]
        by_class = class_temperatures([own[VIEWS], taught[VIEWS]])
        targets = [target(job.method, own[view], taught[view], by_class) for view in range(VIEWS)]
        start = copy.deepcopy(student.module.state_dict())
        self.distil(student, job, targets)
        return Recording(Parts(*own[VIEWS:]), Parts(*taught[VIEWS:]), self.candidates(student, start))

    def candidates(self, student: Classifier, start: dict[str, Tensor]) -> dict[Candidate, Parts]:
        end, norms = copy.deepcopy(student.module.state_dict()), has_batch_norm(student.module)
        points = [*([ADAPTED] if norms else []), *(Candidate(alpha=share) for share in SHARES)]
        found = {}
        for point in points:
            student.module.load_state_dict(between(start, end, point.alpha))
            if norms and point.alpha < 1:
                parts = self.views[-1][student.image_preprocessing.view_size].split(250)
                inputs = (prepare(part, student.image_preprocessing) for part in parts)
                reestimate(student.module, inputs, student.logits)
            found[point] = Parts(self.logits(student, self.guard), self.logits(student, self.test))
        return found

    def wear(self, student: Classifier, job: Job) -> None:
        """Train it on at too high a rate: on 640 images of all classes, or on 320 of half of them."""
        halves = (torch.arange(len(self.y)), self.y.lt(5).nonzero()[:, 0], self.y.ge(5).nonzero()[:, 0])
        kind = 0 if job.seed % 2 == 0 else 1 + (job.seed % 4 == 3)
        draw = torch.Generator().manual_seed(job.seed + 99)
        chosen = halves[kind][torch.randperm(len(halves[kind]), generator=draw)[: 640 if kind == 0 else 320]]
        rate = (1e-3 if kind == 0 else 2e-4) * (1.0 if job.seed % 3 else 0.4)
        optimizer = torch.optim.AdamW(student.module.parameters(), lr=rate)
        student.module.train()
        for batch in chosen.split(64):
            x = self.views[0][student.image_preprocessing.view_size][batch]
            logits = student.logits(prepare(x, student.image_preprocessing))
            F.cross_entropy(logits, self.y[batch], label_smoothing=0.1).backward()
            optimizer.step()
            optimizer.zero_grad()

    def distil(self, student: Classifier, job: Job, targets: Sequence[Tensor]) -> None:
        draw = torch.Generator().manual_seed(job.seed)
        chosen = torch.randperm(TRANSFER_IMAGES, generator=draw)[: job.images]
        weights = list(student.module.parameters())
        decayed = [{"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.05}]
        others = [{"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(decayed + others, lr=job.lr)
        steps, step = job.epochs * math.ceil(job.images / 64), 0
        for epoch in range(job.epochs):
            student.module.train()
            x = self.views[epoch % VIEWS][student.image_preprocessing.view_size]
            for batch in chosen[torch.randperm(job.images, generator=draw)].split(64):
                for group in optimizer.param_groups:
                    warm = min(1.0, (step + 1) / (0.05 * steps + 1))
                    group["lr"] = job.lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
                logits = student.logits(prepare(x[batch], student.image_preprocessing))
                wanted = targets[epoch % VIEWS][batch]
                F.kl_div(logits.log_softmax(dim=1), wanted, reduction="batchmean").backward()
                optimizer.step()
                optimizer.zero_grad()
                step += 1


def drawn(images: Images, count: int, *, seed: int) -> Images:
    return images.select(np.sort(np.random.default_rng(seed).permutation(len(images))[:count]))


def target(method: str, own: Tensor, taught: Tensor, by_class: Tensor) -> Tensor:
    """The probabilities that a method learns from."""
    if method == "kl":
        return taught.softmax(dim=1)
    if method == "kl-dp-u":
        p, q = own.softmax(dim=1), taught.softmax(dim=1)
        return torch.where((q.amax(dim=1) > p.amax(dim=1))[:, None], q, p)
    if method == "kl-prod-cal-u":
        taught = (taught.double() / by_class[1][taught.argmax(dim=1)][:, None]).float()
    return partition.pooled_log_probs(torch.stack([own, taught], dim=1), "product").exp()
