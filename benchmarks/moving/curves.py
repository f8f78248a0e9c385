"""How much arrives with how many views: learning curves by views, mixing, rate and target.

    python -m benchmarks.moving.curves --models ZOO ZOO2 --images IMAGES --out benchmarks/moving/curves.csv \\
        --pair STUDENT TEACHER [--views crop-flip] [--mix none] [--target product] [--lr 1e-3] [--seen 800000] \\
        [--device cpu]

A loop of its own, on images that stay on the device: each step draws fresh views of 128 images of `train.parquet#5/5`,
the same for all models; the student fits the target of these views by AdamW at a constant rate, and an average of its
weights (0.998) is measured on all test images at shares of the run. Without guard and without trials, so that nothing
but what is compared changes. Views: `crop-flip` shifts by up to 4 pixels and mirrors, `rrc` crops 35 % to all of the
image, `strong` does so and changes colours. Mixing, of 70 % of the views: `mixup` lays another image over one, up to a
half; `both` does that to one half and pastes a box of another image into the others (CutMix). The target is the product
of teacher and initial student (`kl-prod-u`), the `teacher` alone (`kl`), the `surest` of both (`kl-dp-u`), or the true
`labels`. Rows that are there already are not run again.
"""

import argparse
import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lab.images import read
from benchmarks.lab.rows import append, done
from benchmarks.lab.zoo import reference_in
from gainfinder import load_images, load_model
from gainfinder.models import Preprocessing

BATCH = 128
WARMUP = 200
"""Steps in which the rate rises."""
EMA = 0.998
MIXED = 0.7
MARKS = (0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Shares of the run after which the student is measured."""
KEY = ("student", "teacher", "views", "mix", "target", "lr", "length")


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A model and how it is shown images of 32 pixels."""

    module: nn.Module
    size: int
    mean: Tensor
    std: Tensor

    @classmethod
    def load(cls, reference: str, device: torch.device) -> "Frozen":
        found = load_model(reference)
        about: Preprocessing = found.image_preprocessing
        mean, std = (torch.tensor(value).view(1, -1, 1, 1).to(device) for value in (about.mean, about.std))
        return cls(module=found.module.to(device).eval(), size=about.view_size[0], mean=mean, std=std)

    def of(self, module: nn.Module) -> "Frozen":
        """The same for another module."""
        return Frozen(module=module, size=self.size, mean=self.mean, std=self.std)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        if self.size != x.shape[-1]:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        logits: Tensor = self.module((x - self.mean) / self.std)
        return logits.float()

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Accuracy in evaluation mode for uint8 images, in per cent."""
        self.module.eval()
        right = [
            (self(x_i / 255).argmax(1) == y_i).double() for x_i, y_i in zip(x.split(1000), y.split(1000), strict=True)
        ]
        return float(torch.cat(right).mean()) * 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pair", nargs=2, metavar=("STUDENT", "TEACHER"), required=True)
    parser.add_argument("--views", default="crop-flip", choices=("crop-flip", "rrc", "strong"))
    parser.add_argument("--mix", default="none", choices=("none", "mixup", "both"))
    parser.add_argument("--target", default="product", choices=("product", "teacher", "surest", "labels"))
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seen", type=int, default=800_000)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    about = {
        "student": asked.pair[0],
        "teacher": asked.pair[1],
        "views": asked.views,
        "mix": asked.mix,
        "target": asked.target,
        "lr": asked.lr,
        "length": asked.seen,
    }
    if tuple(map(str, about.values())) not in done(asked.out, KEY):
        Curve(asked, about).run()


class Curve:
    """One student that learns."""

    def __init__(self, asked: argparse.Namespace, about: dict[str, Any]) -> None:
        self.asked, self.about, self.device = asked, about, torch.device(asked.device)
        torch.manual_seed(0)
        self.x, self.y = (part.to(self.device) for part in _fifth(asked.images))
        self.test = tuple(part.to(self.device) for part in read(asked.images / "test.parquet"))
        self.teacher, self.student = (
            Frozen.load(reference_in(asked.models, about[name]), self.device) for name in ("teacher", "student")
        )
        self.taught = self.teacher.accuracy(*self.test)
        self.before = self.student.accuracy(*self.test)
        reestimated = self._reestimated(self.student)
        self.adapted = reestimated.accuracy(*self.test)
        self.initial = reestimated if self.adapted > self.before else self.student

    def run(self) -> None:
        learner, slow = (self.initial.of(copy.deepcopy(self.initial.module)) for _ in range(2))
        module = learner.module
        decayed = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.about["lr"])
        states = [module.state_dict(), slow.module.state_dict()]
        fast_weights, slow_weights = ([v for v in state.values() if v.is_floating_point()] for state in states)
        steps = self.about["length"] // BATCH
        marks = {int(steps * share) for share in MARKS}
        losses, alike, since, began = 0.0, 0.0, 0, time.monotonic()
        order, at = torch.randperm(len(self.x)), 0
        for step in range(1, steps + 1):
            if at + BATCH > len(order):
                order, at = torch.randperm(len(self.x)), 0
            rows, at = order[at : at + BATCH].to(self.device), at + BATCH
            for group in optimizer.param_groups:
                group["lr"] = self.about["lr"] * min(1.0, step / WARMUP)
            module.train()
            views, target_NC = self._batch(rows)
            logits_NC = learner(views)
            loss = F.kl_div(logits_NC.log_softmax(1), target_NC, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(slow_weights, fast_weights, 1 - min(EMA, step / (step + 9)))
            losses += float(loss.detach())
            alike += float((logits_NC.argmax(1) == target_NC.argmax(1)).double().mean())
            since += 1
            if step in marks:
                found = {
                    "seen": step * BATCH,
                    "before": round(self.before, 2),
                    "reestimated": round(self.adapted, 2),
                    "teacher_accuracy": round(self.taught, 2),
                    "average": round(self._reestimated(slow).accuracy(*self.test), 2),
                    "last": round(self._reestimated(learner).accuracy(*self.test), 2),
                    "loss": round(losses / since, 4),
                    "agreement": round(100 * alike / since, 1),
                    "seconds": round(time.monotonic() - began, 1),
                    "device": self.device.type,
                }
                append(self.asked.out, {**self.about, **found})
                losses, alike, since = 0.0, 0.0, 0

    def _batch(self, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        """Views in [0, 1], and their targets."""
        kind, labels_NC = self.about["target"], None
        if kind == "labels":
            labels_NC = F.one_hot(self.y[rows_N], 10).float()
        views, labels_NC = _mixed(_views(self.x[rows_N] / 255, self.about["views"]), labels_NC, self.about["mix"])
        if labels_NC is not None:
            return views, labels_NC
        with torch.no_grad():
            own, teachers = (model(views).log_softmax(1) for model in (self.initial, self.teacher))
        if kind == "teacher":
            return views, teachers.exp()
        if kind == "surest":
            return views, torch.where((teachers.amax(1) > own.amax(1))[:, None], teachers, own).exp()
        return views, ((own + teachers) / 2).softmax(1)

    def _reestimated(self, model: Frozen) -> Frozen:
        """The model with batch-norm statistics of 5,000 unmixed views, where it has any."""
        if not any(isinstance(part, nn.BatchNorm2d) for part in model.module.modules()):
            return model
        copied = copy.deepcopy(model.module)
        for part in copied.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
        copied.train()
        with torch.no_grad():
            for _ in range(20):
                rows = torch.randint(0, len(self.x), (250,), device=self.device)
                model.of(copied)(_views(self.x[rows] / 255, "crop-flip"))
        return model.of(copied.eval())


def _fifth(images: Path) -> tuple[Tensor, Tensor]:
    """The images that no model of the zoos has seen, and their labels."""
    chosen = load_images(f"{images}/train.parquet#5/5")
    pixels = [np.asarray(chosen.read(i).convert("RGB")).transpose(2, 0, 1) for i in range(len(chosen))]
    return torch.from_numpy(np.stack(pixels)), torch.tensor(chosen.labels)


def _views(x: Tensor, kind: str) -> Tensor:
    """Shifted or cropped, mirrored and coloured, each image by draws of its own."""
    n = len(x)
    flip = torch.where(_drawn(x) < 0.5, -1.0, 1.0)
    if kind == "crop-flip":
        across = down = torch.ones(n, device=x.device)
        right, below = ((torch.floor(_drawn(x) * 9) - 4) / 16 for _ in range(2))
    else:
        area, ratio = 0.35 + 0.65 * _drawn(x), torch.exp((_drawn(x) * 2 - 1) * math.log(4 / 3) / 2)
        across, down = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
        right, below = ((_drawn(x) * 2 - 1) * (1.125 - side) for side in (across, down))
    theta = torch.zeros(n, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, 0, 2], theta[:, 1, 2] = across * flip, down, right, below
    views = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    return _coloured(views) if kind == "strong" else views


def _coloured(x: Tensor) -> Tensor:
    """Brightness, contrast and saturation changed by up to 40 % in 80 % of the views; a tenth of these is grey."""
    bright, contrast, saturation = (1 + 0.8 * (_drawn(x).view(-1, 1, 1, 1) - 0.5) for _ in range(3))
    y = (x * bright).clamp(0, 1)
    mean = y.mean((1, 2, 3), keepdim=True)
    y = ((y - mean) * contrast + mean).clamp(0, 1)
    grey = y.mean(1, keepdim=True)
    y = ((y - grey) * saturation + grey).clamp(0, 1)
    y = torch.where(_drawn(x).view(-1, 1, 1, 1) < 0.1, y.mean(1, keepdim=True).expand_as(y), y)
    return torch.where(_drawn(x).view(-1, 1, 1, 1) < 0.8, y, x)


def _mixed(x: Tensor, target_NC: Tensor | None, kind: str) -> tuple[Tensor, Tensor | None]:
    """Mixed views, and targets mixed alike."""
    if kind == "none":
        return x, target_NC
    other, side = x.roll(1, 0), x.shape[-1]
    own_N = torch.where(_drawn(x) < MIXED, 0.5 + 0.5 * _drawn(x), 1.0)
    share = own_N.view(-1, 1, 1, 1)
    mixed = share * x + (1 - share) * other
    if kind == "both":
        edge, across, down = (1 - own_N).sqrt() * side, _drawn(x) * side, _drawn(x) * side
        at = torch.arange(side, device=x.device) + 0.5
        inside = [(at[None] - centre[:, None]).abs() <= edge[:, None] / 2 for centre in (down, across)]
        box = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
        pasted = _drawn(x) < 0.5
        mixed = torch.where(pasted.view(-1, 1, 1, 1), torch.where(box, other, x), mixed)
        own_N = torch.where(pasted, 1 - box.float().mean((1, 2, 3)), own_N)
    if target_NC is not None:
        target_NC = own_N[:, None] * target_NC + (1 - own_N[:, None]) * target_NC.roll(1, 0)
    return mixed, target_NC


def _drawn(x: Tensor) -> Tensor:
    return torch.rand(len(x), device=x.device)


if __name__ == "__main__":
    main()
