"""Kinds of training step that are timed beside one another: a transfer's, and other ways to the same end.

A step takes a batch of views and learns from it. Each kind has models of its own, so that none moves or lays out
another's.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from timm.task import LogitDistillationTask
from torch import Tensor, nn

from gainfinder.config import TransferConfig
from gainfinder.models import Classifier, prepare
from gainfinder.runs import Callback, PreparedTransfer, TargetModels, make_trainer
from gainfinder.training import StudentTrainer, epoch_batches, make_batch
from gainfinder.views import ViewBatch

Step: TypeAlias = Callable[[ViewBatch], Tensor | None]


def gentle(**changed: Any) -> TransferConfig:
    """Settings of a step by SGD with `kl-dp-u`, and what differs from them."""
    usual = {"preset": "gentle", "method": "kl-dp-u", "guard": False, "epochs": 1, "lr": 1e-4}
    return TransferConfig.model_validate({**usual, **changed})


def with_own_models(of: PreparedTransfer) -> PreparedTransfer:
    """The transfer with copies of its models: making a trainer moves the ones that it was prepared with to the CPU."""
    teachers = tuple(one.copied() if isinstance(one, Classifier) else one for one in of.teachers)
    return replace(of, student=of.student.copied(), teachers=teachers)


def batches(of: PreparedTransfer, number: int, *, steps: int) -> Iterator[ViewBatch]:
    """Views of the first epoch in the order of some number, as many batches as are wanted."""
    wanted = epoch_batches(of.train_images.ids, of.settings.batch_size, seed=number, epoch=0)
    yield from of.views.batches((wanted * steps)[:steps], epoch=0)


def of_trainer(of: PreparedTransfer, *, copies: bool = True) -> Step:
    """A step of the transfer itself, its frozen models asked or replayed as it was prepared.

    Args:
        of: the transfer.
        copies: on a GPU frozen models answer by copies that do so faster; without, by themselves.
    """
    of = with_own_models(of)
    targets = TargetModels(of, Callback())
    targets.prepare(range(of.settings.epochs))
    changing = () if copies else [model for model in targets.models if isinstance(model, Classifier)]
    trainer: StudentTrainer = make_trainer(of, targets.models, changing=changing)

    def step(batch: ViewBatch) -> Tensor:
        return trainer.step(make_batch(trainer, of.views, batch, total=len(batch.positions_N)))[0]

    return step


def fine_tuning(of: PreparedTransfer) -> Step:
    """Cross-entropy with the labels, written out."""
    student, module, optimizer, target_n = alone(of)

    def step(batch: ViewBatch) -> Tensor:
        with of.accelerator.autocast():
            logits = student.logits(inputs(batch, student), module=module)
            loss = F.cross_entropy(logits.float(), labels(batch, target_n))
        return descend(loss, optimizer)

    return step


def of_timm(of: PreparedTransfer) -> Step:
    """timm's `LogitDistillationTask`: cross-entropy and KL from the teacher."""
    of = with_own_models(of)
    student, module, optimizer, target_n = alone(of)
    described: Any = module  # as timm's models describe themselves
    described.pretrained_cfg = {"mean": student.image_preprocessing.mean, "std": student.image_preprocessing.std}
    described.num_classes, described.in_chans = student.num_classes, 3
    teacher = of.teachers[0]
    assert isinstance(teacher, Classifier)
    device = of.accelerator.device
    teacher.to(device)
    watched = Resized(teacher, described.pretrained_cfg)
    task = LogitDistillationTask(module, watched, criterion=nn.CrossEntropyLoss(), device=device, verbose=False)
    task.train()

    def step(batch: ViewBatch) -> Tensor:
        watched.views = batch.views.at(teacher.image_preprocessing.view_size) if batch.views else None
        with of.accelerator.autocast():
            loss = task(inputs(batch, student), labels(batch, target_n))["loss"]
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
        self.preprocessing = teacher.image_preprocessing
        self.views: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.views is not None
        logits: Tensor = self.model(prepare(self.views, self.preprocessing))
        return logits


def naive(of: PreparedTransfer) -> Step:
    """As the published code does it: masks and losses sample by sample."""
    of = with_own_models(of)
    student, module, optimizer, _ = alone(of)
    frozen, teacher = of.student, of.teachers[0]
    assert isinstance(teacher, Classifier)
    for model in (frozen, teacher):
        model.to(of.accelerator.device).eval()

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


def views_alone(batch: ViewBatch) -> Tensor | None:
    """Only waits for the views."""
    return batch.views.renderings[0].flatten()[0].float() if batch.views else None


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
    """The views as the model takes them."""
    assert batch.views is not None
    return batch.views.inputs(model.image_preprocessing)


def labels(batch: ViewBatch, target_n: Tensor) -> Tensor:
    """The labels of a batch, found without waiting for the device, as they come from a loader."""
    return target_n[batch.positions_N.to(target_n.device, non_blocking=True)]


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step of the optimiser."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()
