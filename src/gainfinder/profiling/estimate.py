"""Estimates the time, memory and disk of a prepared transfer, from a few real steps that change nothing."""

import contextlib
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch
from torch import nn

from ..errors import BrokenSample
from ..inference import predict_samples
from ..models import Classifier
from ..runs import (
    PROBE_IMAGES,
    PreparedTransfer,
    asked_once,
    bank_bytes,
    bank_crop_bytes,
    banked_models,
    candidates,
    control_of,
    dummy_target_models,
    make_trainer,
    missing_views,
    trials_share,
)
from .timing import learning_s, reading

IMAGES = 256
"""Images on which prediction is timed, for each model."""
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimated cost of a run.

    Attributes:
        training_s: seconds of all steps of all epochs, and of the entries that the bank lacks.
        measuring_s: seconds of predictions: before, after each epoch, of the teachers and for the guard.
        memory_mb: peak memory, of this process on the CPU or of the GPU's allocations.
        disk_mb: largest size of the result folder during the run.
        result_mb: size of the result folder at the end.
        bank_mb: size of the logits in the bank that the run reads, existing ones included.
        crops_mb: size of the decoded images there, likewise.
    """

    training_s: float
    measuring_s: float
    memory_mb: float
    disk_mb: float
    result_mb: float
    bank_mb: float
    crops_mb: float

    @property
    def time_s(self) -> float:
        """Training and measuring."""
        return self.training_s + self.measuring_s

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the total time among them."""
        return {"time_s": self.time_s, **asdict(self)}


def estimate(prepared: PreparedTransfer) -> Estimate:
    """Time a few steps and predictions of a prepared transfer on this machine; write nothing, change no model."""
    device = prepared.accelerator.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    several = prepared.one_by_one
    transfers = len(prepared.teachers) if several else 1
    one = replace(prepared, teachers=prepared.teachers[:1]) if several else prepared
    epochs = prepared.settings.epochs
    with torch.random.fork_rng(devices=[device] if cuda else []):
        training_s = _training_s(one, epochs=epochs * transfers) * (1 + trials_share(one))
        controls = prepared.requested.controls
        training_s += sum(_training_s(control_of(prepared, name, epochs=epochs), epochs=epochs) for name in controls)
    # Images that each model predicts besides the views; each process predicts its share.
    guards = 0 if prepared.guard_images is None else len(prepared.guard_images)
    of_student = len(prepared.val_images) * (1 + transfers * epochs) + guards * (
        1 + transfers * len(candidates(prepared))
    )
    of_student += len(prepared.val_images) * epochs * len(controls)
    if prepared.settings.schedule == "plateau":
        of_student += transfers * epochs * min(guards, PROBE_IMAGES)
    of_teacher = len(prepared.val_images) + guards
    predicted = [(prepared.student, of_student)]
    predicted += [(teacher, of_teacher) for teacher in prepared.teachers if isinstance(teacher, Classifier)]
    predicted += [(referee, guards) for referee in prepared.referees if isinstance(referee, Classifier)]
    processes = prepared.accelerator.num_processes
    measuring_s = sum(_image_s(prepared, model) * count / processes for model, count in predicted)
    if prepared.bank is not None:
        of_views = [
            (model, len(prepared.train_images) * missing_views(prepared, model)) for model in banked_models(prepared)
        ]
        training_s += sum(_image_s(prepared, model) * count / processes for model, count in of_views)
    once = asked_once(one)  # by each process
    training_s += transfers * sum(_image_s(prepared, model) * len(prepared.train_images) for model in once)
    logits = 4 * len(prepared.val_images) * prepared.student.num_classes
    memory = torch.cuda.max_memory_allocated() if cuda else _peak_bytes() + logits * (2 + len(prepared.teachers))
    memory += prepared.views.resident_size
    memory += len(once) * prepared.answer_bytes
    weights = _size(prepared.student.module, trained_only=False)
    predictions = logits * (2 + len(prepared.teachers))
    results = 1 + len(controls)
    # A student that a guard without labels does not keep stays beside the one that it does.
    result = results * (weights + predictions) + weights * (guards > 0 and not _labelled(prepared))
    averages = prepared.settings.ema_decay > 0 or prepared.settings.method.interpolated
    checkpoint = weights * (2 + 2 * averages)  # of now and of the last finished epoch; a moving average, in float64
    moments = 1 + (prepared.settings.optimizer == "adamw" or bool(prepared.settings.recipes))
    checkpoint += moments * _size(prepared.student.module, trained_only=True)  # SGD has one, AdamW two
    return Estimate(
        training_s=training_s,
        measuring_s=measuring_s,
        memory_mb=memory / MB,
        # A new checkpoint is complete before the old one goes; a control comes after the transfer.
        disk_mb=(2 * checkpoint + result) / MB,
        result_mb=result / MB,
        bank_mb=bank_bytes(prepared) / MB,
        crops_mb=bank_crop_bytes(prepared) / MB,
    )


def _labelled(prepared: PreparedTransfer) -> bool:
    return prepared.guard_images is not None and prepared.guard_images.labels is not None


def _training_s(prepared: PreparedTransfer, *, epochs: int) -> float:
    """Seconds for reading and learning in this process; worker processes read while it learns."""
    steps = prepared.steps_per_epoch
    batches, reading_s = reading(prepared)
    step_s = learning_s(prepared, make_trainer(prepared, dummy_target_models(prepared)), batches)
    if prepared.views.fits:  # images are read once, before the first step
        return steps * (_overlapped_s(0.0, reading_s, prepared.workers) + epochs * step_s)
    return steps * epochs * _overlapped_s(step_s, reading_s, prepared.workers)


def _image_s(prepared: PreparedTransfer, model: Classifier) -> float:
    """Seconds an image for measuring a model."""
    images = prepared.val_images.select(range(min(IMAGES, len(prepared.val_images))))
    own = model.copied()
    transform = model.preprocessing.evaluation_transform()
    began = time.perf_counter()
    for index in range(len(images)):
        with contextlib.suppress(BrokenSample):
            transform(images.read(index))
    reading_s = time.perf_counter() - began
    began = time.perf_counter()
    predict_samples(
        own, images, device=prepared.accelerator.device, batch_size=prepared.settings.batch_size, max_broken=1.0
    )
    whole_s = time.perf_counter() - began
    return _overlapped_s(max(0.0, whole_s - reading_s), reading_s, prepared.workers) / len(images)


def _overlapped_s(computing_s: float, reading_s: float, workers: int) -> float:
    return max(computing_s, reading_s / workers) if workers else computing_s + reading_s


def _peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    try:
        import resource  # noqa: PLC0415 - not there on Windows
    except ImportError:
        return int(psutil.Process().memory_info().rss)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _size(module: nn.Module, *, trained_only: bool) -> int:
    """Bytes of a module's state, or of its trainable parameters alone."""
    tensors = [p for p in module.parameters() if p.requires_grad] if trained_only else module.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
