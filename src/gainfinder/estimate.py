"""What a planned transfer will take: time, memory and disk, from a few real steps that change nothing."""

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from .data.loading import load_batches
from .planning import Plan
from .predictions import predict_images
from .run import make_learner
from .training import epoch_batches
from .views import TrainingViews

STEPS = 8
"""Steps measured; the first, which warms up workers and kernels, does not count."""
IMAGES = 256
"""Images measured on, a model."""
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will take.

    Attributes:
        training_s: all steps of all epochs.
        measuring_s: predictions before, after each epoch, and of the teachers.
        memory_mb: peak so far of this process on the CPU, or of the GPU's allocations.
        disk_mb: the most that the folder holds while the run goes on.
        result_mb: what it holds at the end.
    """

    training_s: float
    measuring_s: float
    memory_mb: float
    disk_mb: float
    result_mb: float

    @property
    def time_s(self) -> float:
        """Training and measuring."""
        return self.training_s + self.measuring_s

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the total time among them."""
        return {"time_s": self.time_s, **asdict(self)}


def estimate(plan: Plan) -> Estimate:
    """Time a few steps and predictions of a plan on this machine; write nothing, change no model."""
    steps = plan.settings.epochs * -(-len(plan.train_images) // plan.settings.batch_size)
    cuda = plan.accelerator.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with torch.random.fork_rng(devices=[plan.accelerator.device] if cuda else []):
        training_s = _step_s(plan) * steps
    student_s = _image_s(plan, 0) * (plan.settings.epochs + 2)
    measuring_s = len(plan.val_images) * (student_s + sum(_image_s(plan, m + 1) for m in range(len(plan.teachers))))
    memory = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    weights = _size(plan.student.module, trained_only=False)
    predictions = 4 * len(plan.val_images) * plan.student.num_classes * (2 + len(plan.teachers))
    checkpoint = weights + _size(plan.student.module, trained_only=True)  # weights and momentum
    return Estimate(
        training_s=training_s,
        measuring_s=measuring_s,
        memory_mb=memory / MB,
        disk_mb=(2 * checkpoint + weights + predictions) / MB,  # a new checkpoint is complete before the old one goes
        result_mb=(weights + predictions) / MB,
    )


def _step_s(plan: Plan) -> float:
    """Seconds a training step, data loading included; the median of some."""
    learner = make_learner(plan)
    times = []
    for batch in _batches(plan):
        began = time.perf_counter()
        if batch.inputs is None:
            continue
        views = batch.inputs.to(plan.accelerator.device)
        labels = plan.train_images.labels
        target = None if labels is None else torch.from_numpy(labels[batch.positions.numpy()]).to(views.device)
        loss, _ = learner.step(views, target, total=len(views))
        float(loss)  # waits for the device
        times.append(time.perf_counter() - began)
    loading_s = _loading_s(plan)
    return max(float(np.median(times[1:] or times)), loading_s)


def _batches(plan: Plan) -> Iterator[Any]:
    settings = plan.settings
    order = epoch_batches(plan.train_images.ids, settings.batch_size, seed=settings.seed, epoch=0)
    views = TrainingViews(plan.spec, plan.train_images.ids, seed=settings.seed, epoch=0)
    chosen = [batch.tolist() for batch in islice(order, STEPS)]
    return iter(load_batches(plan.train_images, views, batch_indices=chosen, workers=0))


def _loading_s(plan: Plan) -> float:
    """Seconds a batch for decoding and augmenting, shared by the workers."""
    began = time.perf_counter()
    count = sum(1 for _ in _batches(plan))
    return (time.perf_counter() - began) / max(1, count) / max(1, plan.workers)


def _image_s(plan: Plan, number: int) -> float:
    """Seconds an image for measuring the student (0) or a teacher (1 and up)."""
    model = (plan.student, *plan.teachers)[number]
    images = plan.val_images.select(range(min(IMAGES, len(plan.val_images))))
    frozen = replace(model, module=copy.deepcopy(model.module))
    began = time.perf_counter()
    predict_images(
        frozen,
        images,
        device=plan.accelerator.device,
        batch_size=plan.settings.batch_size,
        max_broken=1.0,
    )
    return (time.perf_counter() - began) / len(images)


def _size(module: nn.Module, *, trained_only: bool) -> int:
    """Bytes of a module's state, or of its trainable parameters alone."""
    tensors = [p for p in module.parameters() if p.requires_grad] if trained_only else module.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
