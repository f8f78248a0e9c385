"""The only training loop.

Each step: one view of each sample of the batch; the frozen models' logits for it; the partition, where the method has
one; the loss on the student's logits; one step of SGD. Batches are shared out between processes, and the loss is
scaled so that the gradient is that of the whole batch.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from .checkpoint import Progress
from .data.images import Images
from .data.loading import LoadedBatch, check_broken, load_batches
from .devices import has_batch_norm, synchronised
from .errors import ModelError
from .models.classifier import Classifier, out_of_memory
from .models.preprocessing import prepare
from .objectives import cross_entropy, partitioned_kl
from .partition import most_confident
from .settings import Resolved
from .targets import TargetSource
from .views import TrainingViews, Views, ViewSpec, blank_views, epoch_order

CHECK_EVERY = 100
"""Steps between checks that the loss is finite; each waits for the device."""


class Learner:
    """The student under training with its optimiser, prepared for devices, precision and processes.

    Args:
        student: its module is trained in place, in training mode.
        targets: the frozen models' answers.
        settings: of the run.
        accelerator: of this process.
    """

    def __init__(
        self, student: Classifier, targets: TargetSource, *, settings: Resolved, accelerator: Accelerator
    ) -> None:
        self.student = student
        self.targets = targets
        self.settings = settings
        self.accelerator = accelerator
        module = synchronised(student.module.to(accelerator.device), accelerator)
        optimizer = torch.optim.SGD(
            [p for p in module.parameters() if p.requires_grad],
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self.smallest_batch = 2 if has_batch_norm(student.module) else 1

    def step(self, views: Views, target_N: Tensor | None, *, total: int, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """Learn from one batch.

        Args:
            views: this process's share of the batch, on the device.
            target_N: int64 labels, for methods that need them.
            total: samples of the batch over all processes.
            weight: 0 for a stand-in, where a process has no image of this batch but must take part in the step. Its
                black view does enter the statistics of synchronised batch-norm.

        Returns:
            The sum of this process's losses and the number of its samples given to a teacher, both on the device.
        """
        self.module.train()
        losses_N, taught = self._losses(views, target_N)
        loss_sum = losses_N.sum() * weight
        if not loss_sum.requires_grad:
            raise ModelError(
                f"{self.student.reference}: no gradient leads from the logits to the weights; does its forward detach "
                "them?"
            )
        try:
            # Gradients are averaged over processes: this makes them those of the mean over the whole batch.
            self.accelerator.backward(loss_sum * (self.accelerator.num_processes / total))
        except torch.OutOfMemoryError as error:
            raise out_of_memory(len(views), error) from error
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss_sum.detach(), taught if weight else torch.zeros_like(taught)

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and gradient scaler, as `load_state` takes them."""
        scaler = self.accelerator.scaler
        return {
            "student": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._unwrapped().load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def weights(self) -> dict[str, Any]:
        """The student's state dict; its tensors are alive and change with the next step."""
        return self._unwrapped().state_dict()

    def _unwrapped(self) -> nn.Module:
        module: nn.Module = self.accelerator.unwrap_model(self.module, keep_torch_compile=False)
        return module

    def _losses(self, views: Views, target_N: Tensor | None) -> tuple[Tensor, Tensor]:
        settings, method = self.settings, self.settings.method
        inputs = prepare(views.at(self.student.preprocessing.view_size), self.student.preprocessing)
        with self.accelerator.autocast():
            student_logits = self.student.logits(inputs, module=self.module).float()
        targets_NMC = self.targets(views)
        choice_N = torch.zeros(len(targets_NMC), dtype=torch.int64, device=targets_NMC.device)
        if method.partition is not None:
            by = target_N if method.partition == "label" else None
            choice_N = most_confident(targets_NMC.softmax(dim=-1), by)
        losses = partitioned_kl(student_logits, targets_NMC, choice_N, settings.temperature, reduction="none")
        if method.distill_weight < 1:
            assert target_N is not None, "methods with a cross-entropy get labels"
            fit = cross_entropy(student_logits, target_N, reduction="none")
            losses = method.distill_weight * losses + (1 - method.distill_weight) * fit
        return losses, (choice_N > 0).sum()


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a student learns from, and how it is read.

    Attributes:
        images: the transfer images, with labels where the method needs them.
        spec: how views are made.
        workers: processes that make them; they change no result.
    """

    images: Images
    spec: ViewSpec
    workers: int


def train(
    learner: Learner,
    data: TrainingData,
    progress: Progress,
    *,
    checkpoint_every: int | None,
    save: Callable[[Progress], None],
    measure: Callable[[], dict[str, Any]],
    on_images: Callable[[int], None],
) -> None:
    """Train from where `progress` stands to the end; `progress` is brought forward in place.

    Args:
        learner: the student, its weights and optimiser already those of `progress`.
        data: the transfer images and their views.
        progress: where the run stands.
        checkpoint_every: steps between checkpoints within an epoch, or None.
        save: called with the progress, in every process, when it should be kept.
        measure: called after each epoch, in every process; its values become a row of `progress.rows`.
        on_images: called after each step with the number of its images, over all processes.

    Raises:
        DataError: too many images are broken.
        ModelError: the loss is not finite.
    """
    settings = learner.settings
    while progress.epoch < settings.epochs:
        totals = _Totals(progress, learner.accelerator)
        batches = epoch_batches(data.images.ids, settings.batch_size, seed=settings.seed, epoch=progress.epoch)
        for batch, size in _shares(learner, data, batches, progress):
            _one_step(learner, data, batch, totals)
            progress.step += 1
            on_images(size)
            if progress.step % CHECK_EVERY == 0:
                totals.check()
            if checkpoint_every and progress.step % checkpoint_every == 0 and progress.step < len(batches):
                totals.settle(data.images, settings.max_broken)
                save(progress)
        totals.settle(data.images, settings.max_broken)
        save(progress)  # measuring may take long: killed there, the epoch is not trained again
        _finish_epoch(progress, measure(), partitioned=settings.method.partition is not None)
        save(progress)


def epoch_batches(ids: Sequence[str], batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of an epoch, as positions: every sample once, at most `batch_size` a batch, sizes within one.

    Equal batches rather than a short last one: a batch of one or two would take a noisy step, and batch-norm could
    not use it.
    """
    order = epoch_order(ids, seed=seed, epoch=epoch)
    return [np.asarray(batch) for batch in np.array_split(order, -(-len(order) // batch_size))]


class _Totals:
    """Running sums of an epoch, kept on the device and written into the progress where it is about to be saved."""

    def __init__(self, progress: Progress, accelerator: Accelerator) -> None:
        self.progress = progress
        self.accelerator = accelerator
        self.broken: set[str] = set(progress.broken)
        # What an interrupted run had summed up is counted by one process only.
        start = progress if accelerator.is_main_process else Progress()
        device = accelerator.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sum = torch.tensor(start.loss_sum, dtype=exact, device=device)
        self.counts = torch.tensor([start.epoch_seen, start.epoch_taught], dtype=torch.int64, device=device)

    def add(self, loss_sum: Tensor, taught: Tensor, seen: int) -> None:
        self.loss_sum += loss_sum
        self.counts[0] += seen
        self.counts[1] += taught

    def check(self) -> None:
        """Raise if the loss has left the finite numbers."""
        if not torch.isfinite(self.loss_sum):
            raise ModelError(
                f"the loss is not finite in epoch {self.progress.epoch + 1} by step {self.progress.step}; "
                "a lower --lr, or --precision fp32, may help"
            )

    def settle(self, images: Images, max_broken: float) -> None:
        """Write the sums of all processes into the progress."""
        self.check()
        progress = self.progress
        progress.loss_sum = float(self.accelerator.reduce(self.loss_sum, "sum"))
        progress.epoch_seen, progress.epoch_taught = self.accelerator.reduce(self.counts, "sum").tolist()
        if self.accelerator.num_processes > 1:
            self.broken = set(gather_object(sorted(self.broken)))
        progress.broken = sorted(self.broken)
        check_broken(progress.broken, total=len(images), max_share=max_broken, reference=images.reference)


def _shares(
    learner: Learner, data: TrainingData, batches: Sequence[NDArray[np.int64]], progress: Progress
) -> Iterator[tuple[LoadedBatch, int]]:
    """This process's share of each batch still to do, and the size of the whole batch."""
    accelerator = learner.accelerator
    to_do = batches[progress.step :]
    mine = [batch[accelerator.process_index :: accelerator.num_processes].tolist() for batch in to_do]
    views = TrainingViews(data.spec, data.images.ids, seed=learner.settings.seed, epoch=progress.epoch)
    loaded = load_batches(data.images, views, batch_indices=mine, workers=data.workers)
    return zip(loaded, (len(batch) for batch in to_do), strict=True)


def _one_step(learner: Learner, data: TrainingData, batch: LoadedBatch, totals: _Totals) -> None:
    accelerator, settings, images = learner.accelerator, learner.settings, data.images
    device = accelerator.device
    if batch.broken:
        totals.broken.update(batch.broken)
        check_broken(
            sorted(totals.broken), total=len(images), max_share=settings.max_broken, reference=images.reference
        )
    count = 0 if batch.inputs is None else len(batch.inputs)
    total = count
    if accelerator.num_processes > 1:
        total = int(accelerator.reduce(torch.tensor(count, device=device), "sum"))
    if total < learner.smallest_batch:  # broken images have left too few
        return
    given = batch.inputs
    views = (blank_views(1, data.spec) if given is None else Views(packed=given, sizes=data.spec.sizes)).to(device)
    target = None
    if settings.method.needs_labels:
        assert images.labels is not None, "resolve_settings refuses methods that need labels where there are none"
        labels = images.labels[batch.positions.numpy()] if count else np.zeros(1, dtype=np.int64)
        target = torch.from_numpy(labels).to(device)
    # Dropout draws from torch's generators: seeding them by the step makes a resumed run draw the same.
    torch.manual_seed(_step_seed(settings.seed, totals.progress, accelerator.process_index))
    loss_sum, taught = learner.step(views, target, total=total, weight=1.0 if count else 0.0)
    totals.add(loss_sum, taught, count)


def _finish_epoch(progress: Progress, measures: dict[str, Any], *, partitioned: bool) -> None:
    seen = max(1, progress.epoch_seen)
    row = {
        "epoch": progress.epoch + 1,
        "train_loss": progress.loss_sum / seen,
        "teacher_share": progress.epoch_taught / seen if partitioned else None,
    }
    progress.rows.append({**row, **measures})
    progress.seen += progress.epoch_seen
    progress.taught += progress.epoch_taught
    progress.epoch += 1
    progress.step = progress.epoch_seen = progress.epoch_taught = 0
    progress.loss_sum = 0.0


def _step_seed(seed: int, progress: Progress, process: int) -> int:
    key = f"step/{seed}/{progress.epoch}/{progress.step}/{process}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
