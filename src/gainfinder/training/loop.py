"""The only training loop: epochs, steps, sums and checkpoints.

Each step is one view of each sample of the batch, which the student learns from. Batches are shared out between
processes, and the loss is scaled so that the gradient is that of the whole batch.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from ..config import ResolvedConfig
from ..data import Samples, check_broken
from ..errors import Diverged
from ..views import ViewBatch, ViewSource, epoch_order
from .checkpoint import Progress
from .optimizer import CoolDown, cool_down
from .trainer import StudentTrainer, make_batch

CHECK_EVERY = 100
"""Steps between checks that training has not diverged; each waits for the device."""
MOST_GROWTH = 1e3
"""A batch's mean loss may be so many times the first batch's, or 1 if that is less: hundreds of nats above it the
student contradicts what it learns from with all certainty, and leads nowhere even where the loss stays finite."""
SHOW_EVERY_S = 2.0
"""Seconds between reports of an epoch's averages so far; each waits for the device, too."""


class TrainingLoop:
    """A training, advanced by whoever calls: a step, and where an epoch has none left, its end.

    `train` advances one to its end; two can be advanced in turn. What a step needs of another training is asked for
    when the step is made, so that its result depends on nothing but the progress of both.

    Args:
        trainer: the student, with the weights and optimiser state of `progress`.
        source: source of the views; its images carry labels where the method needs them.
        progress: progress of the run so far, updated in place.
        begin: called with the progress, in every process, before each epoch, also one that is gone on with.
        measure: called after each epoch, in every process; its values become a row of `progress.rows`.
        on_images: called after each step with the number of its images, over all processes.
        on_sums: called every few seconds with the averages of the epoch so far, named as in its row, over the samples
            of this process.
    """

    def __init__(
        self,
        trainer: StudentTrainer,
        source: ViewSource,
        progress: Progress,
        *,
        begin: Callable[[Progress], None],
        measure: Callable[[], dict[str, Any]],
        on_images: Callable[[int], None],
        on_sums: Callable[[dict[str, Any]], None],
    ) -> None:
        self.trainer, self.source, self.progress = trainer, source, progress
        self._begin, self._measure, self._on_images, self._on_sums = begin, measure, on_images, on_sums
        self._partitioned = trainer.settings.method.partition is not None
        self._epoch: _Epoch | None = None

    @property
    def ended(self) -> bool:
        """Whether all epochs are trained and measured."""
        return self.progress.epoch >= run_length(self.trainer.settings, self.progress)

    @property
    def steps_left(self) -> int:
        """Steps of the epoch in progress that are not made; with 0 the epoch waits for `finish_epoch`."""
        return self._of_epoch().steps - self.progress.step

    def step(self) -> None:
        """Make the next step of the epoch.

        Raises:
            DataError: too many images are broken.
            Diverged: the loss or the weights are not finite, or the loss has grown beyond reason.
            NotFinite: logits of a frozen model are not.
        """
        epoch, trainer, progress = self._of_epoch(), self.trainer, self.progress
        batch, size = next(epoch.batches)
        _set_rate(trainer, progress, epoch.falling, steps=epoch.steps)
        _one_step(trainer, self.source, batch, epoch.totals)
        progress.step += 1
        self._on_images(size)
        if epoch.totals.due():
            self._on_sums(epoch.totals.averages(partitioned=self._partitioned))
        if progress.step % CHECK_EVERY == 0:
            epoch.totals.check()
        if progress.step == epoch.steps:
            next(epoch.batches, None)  # exhausted: workers that decoded for it end before the student is measured

    def write_progress(self) -> None:
        """Have everything in `progress` that it takes to go on from here; raises as `step`."""
        if self._epoch is not None:
            self._epoch.totals.write_progress(self.source.images, self.trainer.settings.max_broken)

    def check_bounds(self) -> None:
        """Raise `Diverged` if the loss or the weights have left all bounds in this epoch, whatever was learned from."""
        if self._epoch is not None:
            self._epoch.totals.check_bounds()

    def finish_epoch(self) -> None:
        """Measure the epoch, of which no step is left and whose progress is written.

        Raises:
            Diverged: what is measured is not finite.
        """
        rate, measures = self.trainer.rate, self._measure()
        _finish_epoch(self.progress, measures, rate=rate, partitioned=self._partitioned)
        self._epoch = None

    def _of_epoch(self) -> "_Epoch":
        """The epoch in progress, which begins where there is none."""
        if self._epoch is None:
            self._begin(self.progress)
            self._epoch = _Epoch(self.trainer, self.source, self.progress)
        return self._epoch


class _Epoch:
    """The epoch in progress: its sums, its schedule, and the batches that are left."""

    def __init__(self, trainer: StudentTrainer, source: ViewSource, progress: Progress) -> None:
        settings = trainer.settings
        self.totals = _Totals(progress, trainer)
        batches = epoch_batches(source.images.ids, settings.batch_size, seed=settings.seed, epoch=progress.epoch)
        self.steps = len(batches)
        self.falling = _cool_down(settings, progress)
        self.batches = _local_batches(trainer, source, batches, progress)


def train(loop: TrainingLoop, *, checkpoint_every: int | None, save: Callable[[Progress], None]) -> None:
    """Train to the end.

    Args:
        loop: the training, from its progress on.
        checkpoint_every: steps between checkpoints within an epoch, or None.
        save: called with the progress, in every process, when it should be saved.

    Raises:
        DataError: too many images are broken.
        Diverged: the loss or the weights are not finite, or the loss has grown beyond reason. Nothing was saved since.
        NotFinite: logits of a frozen model are not.
    """
    while not loop.ended:
        while loop.steps_left:
            loop.step()
            if checkpoint_every and loop.progress.step % checkpoint_every == 0 and loop.steps_left:
                loop.write_progress()
                save(loop.progress)
        loop.write_progress()
        save(loop.progress)  # measuring may take long: killed there, the epoch is not trained again
        loop.finish_epoch()
        save(loop.progress)


def train_steps(trainer: StudentTrainer, source: ViewSource, steps: int, *, on_images: Callable[[int], None]) -> None:
    """Train for some steps from the first view of the first epoch, without measuring and without checkpoints.

    Args:
        trainer: the student; its rate goes by the share of these steps that is done.
        source: source of the views.
        steps: how many; more than an epoch has go on into the next.
        on_images: called after each step with the number of its images.

    Raises:
        DataError: too many images are broken.
        Diverged, NotFinite: as `TrainingLoop.step`.
    """
    settings, progress, done = trainer.settings, Progress(), 0
    while done < steps:
        totals = _Totals(progress, trainer)
        batches = epoch_batches(source.images.ids, settings.batch_size, seed=settings.seed, epoch=progress.epoch)
        for batch, size in _local_batches(trainer, source, batches[: steps - done], progress):
            trainer.set_rate(done / steps)
            _one_step(trainer, source, batch, totals)
            done += 1
            progress.step += 1
            on_images(size)
        totals.check()
        progress.epoch, progress.step = progress.epoch + 1, 0


def run_length(settings: ResolvedConfig, progress: Progress) -> int:
    """Epochs of the run, as far as its finished ones tell: the most there may be, until the rate is to fall."""
    falling = _cool_down(settings, progress)
    return settings.epochs if falling is None else falling.end


def _cool_down(settings: ResolvedConfig, progress: Progress) -> CoolDown | None:
    if settings.schedule != "plateau":
        return None
    losses = [row.get("guard_loss") for row in progress.rows]
    return cool_down(losses, epochs=settings.epochs, patience=settings.patience)


def _set_rate(trainer: StudentTrainer, progress: Progress, falling: CoolDown | None, *, steps: int) -> None:
    """Set the rate for the next step of an epoch of so many steps."""
    epochs = progress.epoch + progress.step / steps
    cooled = 0.0 if falling is None else max(0.0, epochs - falling.start) / falling.epochs
    done = (progress.epoch * steps + progress.step) / (trainer.settings.epochs * steps)
    trainer.set_rate(done, cooled=cooled)


def epoch_batches(ids: Sequence[str], batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of an epoch, as positions: every sample once, at most `batch_size` a batch, sizes within one.

    Equal batches rather than a short last one: a batch of one or two would take a noisy step, and batch-norm could
    not use it.
    """
    order = epoch_order(ids, seed=seed, epoch=epoch)
    return [np.asarray(batch) for batch in np.array_split(order, -(-len(order) // batch_size))]


class _Totals:
    """Running sums of an epoch, kept on the device and written into the progress where it is about to be saved.

    So is the step at which the loss left its bounds: reading a loss at each step would wait for the step.
    """

    def __init__(self, progress: Progress, trainer: StudentTrainer) -> None:
        self.progress = progress
        self.trainer = trainer
        self.accelerator: Accelerator = trainer.accelerator
        accelerator = self.accelerator
        self.broken: set[str] = set(progress.broken)
        # The sums of an interrupted run are counted by one process only.
        start = progress if accelerator.is_main_process else Progress()
        device = accelerator.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sum = torch.tensor(start.loss_sum, dtype=exact, device=device)
        # A soft partition gives shares of a sample to a teacher.
        self.counts = torch.tensor([start.epoch_seen, start.epoch_taught], dtype=exact, device=device)
        self.reported_s = time.monotonic()
        self.first: Tensor | None = None
        if progress.first_loss is not None:
            self.first = torch.tensor(progress.first_loss, dtype=exact, device=device)
        self.began_N2 = torch.zeros(1, 2, dtype=exact, device=device)  # the step, 0 for none, and its mean loss

    def add(self, loss_sum: Tensor, taught: Tensor, seen: int) -> None:
        """Add a step to the sums, and note the first step whose mean loss is out of bounds; waits for no device.

        Args:
            loss_sum: sum of the losses of this process's samples, floating point, ().
            taught: number of these given to a teacher, ().
            seen: number of all of these.
        """
        self.loss_sum += loss_sum
        self.counts[0] += seen
        self.counts[1] += taught
        mean = loss_sum.to(self.began_N2.dtype) / max(1, seen)
        if self.first is None:
            self.first = mean
        within = mean.isfinite() & (mean <= MOST_GROWTH * self.first.clamp_min(1))
        here = torch.stack([torch.full_like(mean, self.progress.step + 1), mean])[None]
        self.began_N2 = torch.where(within | (self.began_N2[0, 0] > 0), self.began_N2, here)

    def due(self) -> bool:
        """Whether it is time to report the averages so far."""
        return time.monotonic() - self.reported_s >= SHOW_EVERY_S

    def averages(self, *, partitioned: bool) -> dict[str, Any]:
        """Averages of the epoch so far, over the samples of this process."""
        loss_sum, seen, taught = torch.stack([self.loss_sum, *self.counts]).tolist()
        self.reported_s = time.monotonic()
        return _averages(loss_sum, taught, seen=seen, partitioned=partitioned)

    def check(self) -> None:
        """Raise if training has diverged, or a frozen model's logits cannot be used; in every process alike."""
        self.trainer.check_targets(f"views by step {self.progress.step} of epoch {self.progress.epoch + 1}")
        self.check_bounds()
        if self.first is not None:
            self.progress.first_loss = float(self.accelerator.reduce(self.first, "mean"))

    def check_bounds(self) -> None:
        """Raise if training has diverged, whatever it learned from."""
        epoch, step = self.progress.epoch + 1, self.progress.step
        began = [(int(at), loss) for at, loss in self.accelerator.gather(self.began_N2).tolist() if at > 0]
        if began:
            at, loss = min(began, key=lambda one: one[0])
            first = 0.0 if self.first is None else float(self.first)
            grown = f"the loss has grown from {first:.3g} to {loss:.3g}"
            _diverged(epoch, at, grown if math.isfinite(loss) else "the loss is not finite")
        if not self.trainer.weights_are_finite():
            _diverged(epoch, step, "the weights are not finite")

    def write_progress(self, images: Samples, max_broken: float) -> None:
        """Write the sums of all processes into the progress."""
        self.check()
        progress = self.progress
        progress.loss_sum = float(self.accelerator.reduce(self.loss_sum, "sum"))
        seen, progress.epoch_taught = self.accelerator.reduce(self.counts, "sum").tolist()
        progress.epoch_seen = round(seen)
        if self.accelerator.num_processes > 1:
            self.broken = set(gather_object(sorted(self.broken)))
        progress.broken = sorted(self.broken)
        check_broken(progress.broken, of=images, max_share=max_broken)


def _local_batches(
    trainer: StudentTrainer, source: ViewSource, batches: Sequence[NDArray[np.int64]], progress: Progress
) -> Iterator[tuple[ViewBatch, int]]:
    """This process's share of each remaining batch, and the size of the whole batch."""
    accelerator = trainer.accelerator
    to_do = batches[progress.step :]
    local = [batch[accelerator.process_index :: accelerator.num_processes] for batch in to_do]
    return zip(source.batches(local, epoch=progress.epoch), (len(batch) for batch in to_do), strict=True)


def _one_step(trainer: StudentTrainer, source: ViewSource, view_batch: ViewBatch, totals: _Totals) -> None:
    accelerator, settings, images = trainer.accelerator, trainer.settings, source.images
    if view_batch.broken:
        totals.broken.update(view_batch.broken)
        check_broken(sorted(totals.broken), of=images, max_share=settings.max_broken)
    count = len(view_batch.positions_N)
    total = count
    if accelerator.num_processes > 1:
        total = int(accelerator.reduce(torch.tensor(count, device=accelerator.device), "sum"))
    if total < trainer.smallest_batch:  # broken images have left too few
        return
    seed = _step_seed(settings.seed, totals.progress, accelerator.process_index)
    loss_sum, taught = trainer.step(
        make_batch(trainer, source, view_batch, total=total, seed=seed),
        warmup=totals.progress.epoch < settings.warmup_epochs,
    )
    totals.add(loss_sum, taught, count)


def _diverged(epoch: int, step: int, reason: str) -> NoReturn:
    message = f"training diverges: {reason} since step {step} of epoch {epoch}"
    raise Diverged(message, epoch=epoch, step=step, reason=reason)


def _averages(loss_sum: float, taught: float, *, seen: float, partitioned: bool) -> dict[str, Any]:
    seen = max(1, seen)
    return {"train_loss": loss_sum / seen, "teacher_share": taught / seen if partitioned else None}


def _finish_epoch(progress: Progress, measures: dict[str, Any], *, rate: float, partitioned: bool) -> None:
    averages = _averages(progress.loss_sum, progress.epoch_taught, seen=progress.epoch_seen, partitioned=partitioned)
    progress.rows.append({"epoch": progress.epoch + 1, "learning_rate": rate, **averages, **measures})
    progress.seen += progress.epoch_seen
    progress.taught += progress.epoch_taught
    progress.epoch += 1
    progress.step = progress.epoch_seen = progress.epoch_taught = 0
    progress.loss_sum = 0.0


def _step_seed(seed: int, progress: Progress, process: int) -> int:
    key = f"step/{seed}/{progress.epoch}/{progress.step}/{process}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
