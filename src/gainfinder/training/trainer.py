"""The student under training: its optimiser, and one step of learning from a batch.

A step: the frozen models' logits for the views of the batch; the partition, where the method has one; the loss on the
student's logits; one step of the optimiser. A batch that memory does not hold is learned from in parts whose gradients
add up.
"""

import gc
import logging
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..config import ResolvedConfig
from ..data import Samples
from ..devices import seed_generators, synchronised
from ..errors import ModelError, OutOfMemory
from ..inference import Targets, TargetSource
from ..losses import Losses, OverlaidLabels, Temperatures, TransferLoss, with_label_loss
from ..models import Classifier, find_classifier_layer, has_batch_norm, out_of_memory
from ..predictions import refuse_features, refuse_unusable, unusable
from ..views import ViewBatch, Views, ViewSource, blank_views
from .features import FeatureComparison
from .optimizer import make_optimizer, rate_at
from .places import losses_in_places
from .tensors import LiveState, SavedBuffers
from .weights import SlowWeights

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This process's share of a batch.

    Attributes:
        views: views of the samples, on the device.
        positions_N: int64, positions of the samples among the transfer images; on the CPU.
        target_N: int64 labels on the device, for settings that need them; of samples in places (N, P), -1 for none.
        overlaid: labels of what is laid over mixed views, for settings that fit labels.
        total: samples of the batch over all processes.
        seed: seed of the random draws of the step.
        number: number of the views.
        weight: 0 for a placeholder, where a process has no image of this batch but must take part in the step. Its
            black view does enter the statistics of synchronised batch-norm.
    """

    views: Views
    positions_N: Tensor
    target_N: Tensor | None
    total: int
    overlaid: OverlaidLabels | None = None
    seed: int = 0
    number: int = 0
    weight: float = 1.0

    def parts(self, size: int | None, *, smallest: int = 1) -> "list[Batch]":
        """The batch in parts of at most so many samples, whose sizes differ by at most one.

        Args:
            size: largest size of a part; None for the whole batch.
            smallest: parts are no smaller, even if they are larger than `size` for that.
        """
        count = len(self.positions_N)
        if size is None or size >= count:
            return [self]
        parts = max(1, min(-(-count // size), count // smallest))
        return [
            replace(
                self,
                views=self.views.map(operator.itemgetter(rows)),
                positions_N=self.positions_N[rows],
                target_N=None if self.target_N is None else self.target_N[rows],
                overlaid=None if self.overlaid is None else self.overlaid.of(rows),
                seed=self.seed + at,
            )
            for at, rows in enumerate(np.array_split(np.arange(count), parts))
        ]


class StudentTrainer:
    """The student under training with its optimiser, prepared for devices, precision and processes.

    Args:
        student: the student; its module is trained in place.
        targets: source of the frozen models' logits.
        settings: the run's resolved settings.
        accelerator: this process's accelerator, which prepares module and optimiser.
        temperatures: each frozen model's temperature, for calibrated methods.
        comparison: taps on both models, for methods that compare features.
    """

    def __init__(
        self,
        student: Classifier,
        targets: TargetSource,
        *,
        settings: ResolvedConfig,
        accelerator: Accelerator,
        temperatures: Temperatures | None = None,
        comparison: FeatureComparison | None = None,
    ) -> None:
        self.student = student
        self.targets = targets
        self.settings = settings
        self.accelerator = accelerator
        self.comparison = comparison
        self.criterion: TransferLoss | None = None
        if comparison is None:
            self.criterion = loss_of(settings, temperatures=temperatures).to(accelerator.device)
        # Warm-up trains it alone; found before wrappers get at the module.
        self.classifier_layer = find_classifier_layer(student) if settings.warmup_epochs else ""
        module = synchronised(student.to(accelerator.device, learns=True), accelerator)
        others: list[nn.Parameter] = []
        if comparison is not None:
            comparison.to(accelerator.device)
            others = comparison.parameters()
        optimizer = make_optimizer(module, settings, others=others, device=accelerator.device)
        self.module, scaled = accelerator.prepare(module, optimizer)
        # Accelerate's step looks twice each time whether a package is installed, 0.2 ms; only scaling needs it.
        self.optimizer = optimizer if accelerator.scaler is None else scaled
        self.slow: SlowWeights | None = None
        if settings.method.interpolated:
            every, momentum = settings.slow_every, settings.slow_momentum
            self.slow = SlowWeights(self.fast_weights(), momentum=momentum, every=every)
        elif settings.ema_decay:
            self.slow = SlowWeights(self.fast_weights(), momentum=settings.ema_decay, warmup=True)
        self.smallest_batch = 2 if settings.student_mode == "train" and has_batch_norm(student.module) else 1
        self.micro_batch = settings.micro_batch
        self._buffers, self._live = SavedBuffers(self.module), LiveState(self._unwrapped())
        self._trains: bool | None = None
        # Samples whose logits cannot be used, of each frozen model, those whose features cannot, and all; reading them
        # waits for the device.
        self._unusable = torch.zeros(len(targets.models) + 2, dtype=torch.int64, device=accelerator.device)

    def set_rate(self, done: float, *, cooled: float = 0.0) -> None:
        """Set the learning rate for the next step.

        Args:
            done: share of all steps of the run that are done, from 0 to below 1.
            cooled: share of the cool-down of schedule `plateau` that is done.
        """
        rate = rate_at(self.settings, done, cooled=cooled)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    @property
    def rate(self) -> float:
        """The highest learning rate of the last step, or of the next one where it has been set."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def step(self, batch: Batch, *, warmup: bool = False) -> tuple[Tensor, Tensor]:
        """Learn from one batch, in parts of `micro_batch` samples whose gradients add up.

        Where the device's memory does not hold a part, parts become smaller from then on, which is logged.

        Args:
            batch: this process's share of the batch.
            warmup: train the classifier layer alone, on features as in evaluation.

        Returns:
            The sum of this process's losses and the number of its samples given to a teacher, both on the device.

        Raises:
            OutOfMemory: not even the smallest part fits; or there are several processes: the others would wait for
                ever for one that repeats the step.
        """
        self._set_mode(self.settings.student_mode == "train" and not warmup)
        loss_sum, taught = self._gradients(batch)
        if warmup:
            self._keep_classifier_gradients()
        try:
            self.optimizer.step()
        except torch.OutOfMemoryError as error:  # the momentum of all weights, in the first step
            raise out_of_memory(len(batch.views), self.student.reads, error) from error
        self.optimizer.zero_grad()
        if self.slow is not None:
            self.slow.after_step(self._live)
        return loss_sum, taught

    def check_targets(self, where: str) -> None:
        """Refuse frozen models of whose logits or features so far some cannot be used; in every process alike.

        Args:
            where: what they were computed for, for the message.

        Raises:
            NotFinite: such logits or features were met.
        """
        if not self.targets.names:  # nothing is distilled
            return
        *unusable_M, unusable_features, seen = self.accelerator.reduce(self._unusable, "sum").tolist()
        mixed = self.accelerator.mixed_precision
        remedy = "" if mixed == "no" else f" Training runs in {mixed}: `precision='fp32'` may help."
        for name, count in zip(self.targets.names, unusable_M, strict=True):
            refuse_unusable(count, of=seen, model=name, where=where, remedy=remedy)
        if self.comparison is not None:
            teacher = self.comparison.teacher.reference
            refuse_features(unusable_features, of=seen, model=teacher, where=where, remedy=remedy)

    def weights_are_finite(self) -> bool:
        """Whether all weights are, of the student that trains and of its average, and no buffer holds NaN."""
        averaged = {} if self.slow is None else self.slow.weights
        module = self._unwrapped()
        checks = [parameter.detach().isfinite().all() for parameter in module.parameters()]
        checks += [~value.isnan().any() for value in averaged.values() if isinstance(value, Tensor)]
        checks += [~buffer.isnan().any() for buffer in module.buffers()]
        return not checks or bool(torch.stack(checks).all())

    def fit_in_memory(self, batch: Batch) -> None:
        """Find a micro-batch that fits, by a pass over a batch without a step."""
        self._set_mode(self.settings.student_mode == "train")
        self._gradients(batch)
        self._undo_pass()
        self._unusable.zero_()  # black views tell nothing of a model

    def _set_mode(self, trains: bool) -> None:
        """Put the module into training or evaluation mode, where it is in the other one: it visits every layer."""
        if trains is not self._trains:
            self.module.train(trains)
            self._trains = trains

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gradients of a batch, in parts as large as memory allows; sums of losses and of samples taught."""
        while True:
            self._buffers.save()
            try:
                return self._gradients_by_parts(batch)
            except OutOfMemory as error:
                smaller = self._smaller(len(batch.positions_N))
                if smaller is None:
                    raise
                self.micro_batch = smaller
                _log.warning("%s; going on with %d at once", str(error).split(": lower")[0], smaller)
                note_parts(self.settings, self.student, smaller)
            # Outside the handler, which holds on to the tensors of the failed pass.
            self._undo_pass()
            gc.collect()
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()

    def _smaller(self, count: int) -> int | None:
        """The next smaller size of parts, or None where there is none to try."""
        size = min(count, self.micro_batch or count) // 2
        # The memory of CRD is updated already; other processes cannot be made to repeat the step.
        if size < self.smallest_batch or self.settings.method.keeps_memory or self.accelerator.num_processes > 1:
            return None
        return size

    def _gradients_by_parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        # Dropout draws from torch's generators: seeding them by the step makes a resumed run draw the same.
        seed_generators(batch.seed, self.accelerator.device)
        *others, last = batch.parts(self.micro_batch, smallest=self.smallest_batch)
        sums = []
        for part in others:
            with self.accelerator.no_sync(self.module):
                sums.append(self._backward(part))
        sums.append(self._backward(last))
        if not others:
            return sums[0]
        loss_sums, taught = zip(*sums, strict=True)
        return torch.stack(loss_sums).sum(), torch.stack(taught).sum()

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        losses = self._losses(batch)
        loss_sum = losses.values.sum() * batch.weight
        if not loss_sum.requires_grad:
            raise ModelError(
                f"{self.student.reference}: no gradient leads from the logits to the weights; does its forward detach "
                "them?"
            )
        try:
            # Gradients are averaged over processes: this makes them those of the mean over the whole batch.
            self.accelerator.backward(loss_sum * (self.accelerator.num_processes / batch.total))
        except torch.OutOfMemoryError as error:
            raise out_of_memory(len(batch.views), self.student.reads, error) from error
        taught = losses.taught
        return loss_sum.detach(), taught if batch.weight else torch.zeros_like(taught)

    def _undo_pass(self) -> None:
        self._buffers.restore()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and gradient scaler, as `load_state` takes them."""
        scaler = self.accelerator.scaler
        return {
            "student": self.fast_weights(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "slow": None if self.slow is None else self.slow.state(),
            "comparison": None if self.comparison is None else self.comparison.state(),
            "micro_batch": self.micro_batch,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._unwrapped().load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.slow is not None:
            self.slow.load_state(state["slow"])
        if self.comparison is not None:
            self.comparison.load_state(state["comparison"])
        self.micro_batch = state["micro_batch"]

    def weights(self) -> Mapping[str, Any]:
        """State dict of the student to measure and return: the slow one of Eq. 3, or the average, where there is one.

        Its tensors are not copies and change with the next step; load them into another module.
        """
        return self.fast_weights() if self.slow is None else self.slow.weights

    def fast_weights(self) -> dict[str, Any]:
        """State dict of the module that trains; not a copy either."""
        return self._unwrapped().state_dict()

    def _unwrapped(self) -> nn.Module:
        module: nn.Module = self.accelerator.unwrap_model(self.module, keep_torch_compile=False)
        return module

    def _count_unusable(self, targets: Targets) -> None:
        *shape, M, _ = targets.logits_NMC.shape
        unusable_NM = unusable(targets.logits_NMC.flatten(0, -2)).view(*shape, M)
        seen: int | Tensor = math.prod(shape)
        if targets.usable_NP is not None:  # where there is no place, kept logits are NaN
            unusable_NM &= targets.usable_NP[..., None]
            seen = targets.usable_NP.sum()
        self._unusable[:M] += unusable_NM.flatten(0, -2).sum(dim=0)
        self._unusable[-1] += seen

    def _keep_classifier_gradients(self) -> None:
        for name, parameter in self._unwrapped().named_parameters():
            if not name.startswith(f"{self.classifier_layer}."):
                parameter.grad = None

    def _losses(self, batch: Batch) -> Losses:
        settings = self.settings
        # Before the student, whose activations live until the backward pass: a lower peak of memory.
        targets = self.targets(batch.views, batch.positions_N, number=batch.number, target_N=batch.target_N)
        if batch.weight:
            self._count_unusable(targets)
        inputs = batch.views.inputs(self.student.preprocessing)
        with self.accelerator.autocast():
            student_logits = self.student.logits(inputs, module=self.module).float()
        if self.criterion is not None and self.student.in_places:
            own_NP = self.student.preprocessing.usable_places(inputs)
            return losses_in_places(self.criterion, student_logits, own_NP, targets, batch.target_N)
        if self.criterion is not None:
            return self.criterion.losses(
                student_logits,
                targets.logits_NMC,
                batch.target_N,
                log_confidence=targets.log_confidence_NM,
                choice=targets.choice_N,
                overlaid=batch.overlaid,
            )
        assert self.comparison is not None, "a method compares logits or features"
        feature_losses_N, finite_N = self.comparison.losses(batch.positions_N, seed=batch.seed)
        if batch.weight:
            self._unusable[-2] += (~finite_N).sum()
        values_N = with_label_loss(
            feature_losses_N,
            student_logits,
            batch.target_N,
            distill_weight=settings.distill_weight,
            label_weight=settings.label_weight,
            label_smoothing=settings.label_smoothing,
            overlaid=batch.overlaid,
        )
        return Losses(values=values_N, weights=values_N.new_ones((len(values_N), 1)).bool())


def loss_of(settings: ResolvedConfig, *, temperatures: Temperatures | None) -> TransferLoss:
    """The loss of a run.

    Args:
        settings: the run's resolved settings.
        temperatures: each frozen model's temperature, for calibrated methods.

    Raises:
        SettingsError: the method compares features.
    """
    arguments: dict[str, Any] = {
        name: getattr(settings, name) for name in ("top_k", "sharpness") if name in settings.method.settings
    }
    if settings.label_weight > 0:
        arguments["label_smoothing"] = settings.label_smoothing
    return TransferLoss(
        settings.method,
        temperature=settings.temperature,
        distill_weight=settings.distill_weight,
        label_weight=settings.label_weight,
        temperatures=temperatures,
        **arguments,
    )


def note_parts(settings: ResolvedConfig, student: Classifier, size: int) -> None:
    """Log a warning where micro-batches give another result than whole batches."""
    reasons = []
    if settings.student_mode == "train" and has_batch_norm(student.module):
        reasons.append("batch-norm takes the statistics of")
    if settings.method.compares_batch:
        reasons.append(f"method {settings.method.name!r} compares the {student.reads}s of")
    if reasons:
        _log.warning(
            "%s parts of %d %ss, not of whole batches: the result is another than with whole ones",
            " and ".join(reasons),
            size,
            student.reads,
        )


def make_batch(
    trainer: StudentTrainer, source: ViewSource, view_batch: ViewBatch, *, total: int, seed: int = 0
) -> Batch:
    """A batch for the trainer from loaded views; a black placeholder of weight 0 where none could be loaded."""
    settings, device = trainer.settings, trainer.accelerator.device
    views, positions_N, weight = view_batch.views, view_batch.positions_N, 1.0
    if views is None:
        views, positions_N, weight = blank_views(1, source.spec, device=device), torch.zeros(1, dtype=torch.int64), 0.0
    target = overlaid = None
    if settings.needs_labels:
        assert source.images.labels is not None, "resolve_settings refuses methods that need labels without any"
        target = _labels_of(source.images, positions_N, device)
        if view_batch.overlay is not None and settings.label_weight > 0:
            other_N = _labels_of(source.images, view_batch.overlay.positions_N, device)
            overlaid = OverlaidLabels(target_N=other_N, shares_N=view_batch.overlay.shares_N.to(device))
    return Batch(
        views=views,
        positions_N=positions_N,
        target_N=target,
        overlaid=overlaid,
        total=total,
        seed=seed,
        number=view_batch.number,
        weight=weight,
    )


def _labels_of(images: Samples, positions_N: Tensor, device: torch.device) -> Tensor:
    return torch.from_numpy(images.labels_of(positions_N.numpy())).to(device, non_blocking=True)


def blank_batch(trainer: StudentTrainer, source: ViewSource) -> Batch:
    """A batch of black views, as large as a process's share of a batch becomes."""
    settings, accelerator = trainer.settings, trainer.accelerator
    images = min(settings.batch_size, len(source.images))
    count = -(-images // accelerator.num_processes)
    shape = (count, 1) if trainer.student.in_places else (count,)
    target_N = torch.zeros(shape, dtype=torch.int64, device=accelerator.device) if settings.needs_labels else None
    return Batch(
        views=blank_views(count, source.spec, device=accelerator.device),
        positions_N=torch.zeros(count, dtype=torch.int64),
        target_N=target_N,
        total=images,
    )
