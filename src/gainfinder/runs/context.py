"""The context of a run: its folder, its callbacks and trackers, and the predictions of frozen models made so far.

Functions that write, log or notify take a `RunContext`; functions that need only models, images and settings take the
`PreparedTransfer` in it.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from ..data import Samples, check_broken, stratified
from ..inference import evaluation_crops, merge_shards, predict_samples
from ..models import Classifier
from ..predictions import Predictions, check_logits
from ..results import RunFolder, written_to
from ..views import CropCache, CropKeeper, ViewSource
from .callbacks import Callback
from .clock import WorkClock
from .describe import describe
from .prepare import PreparedTransfer
from .tracking import Tracking, tracking

SHARED_BYTES = 2**31
"""Bytes of predictions that transfers in one process share, at most."""
PROBE_IMAGES = 2000
"""Images on which models are compared: of the transfer images where there are no guard images, and for the loss on
guard images."""


class SharedWork:
    """Work that several transfers do only once: predictions of frozen models, and decoded images.

    Found again by content, so that it does not matter who loaded a model; images are those of a source that was loaded
    once. What was used least recently goes when it takes more memory than `limit`.

    Args:
        limit: bytes of predictions that are kept, at most, and twice as many of crops.
    """

    def __init__(self, limit: int = SHARED_BYTES) -> None:
        self.limit = limit
        self.view_crops = CropCache(2 * limit)
        self._predictions: OrderedDict[Hashable, Predictions] = OrderedDict()
        self._probes: dict[Hashable, Samples] = {}
        self._images: dict[Hashable, Samples] = {}

    def find(self, model: Classifier, images: Samples) -> Predictions | None:
        """A frozen model's predictions for some images, if they exist already."""
        key = _content(model, images)
        found = self._predictions.get(key)
        if found is None:
            return None
        self._predictions.move_to_end(key)
        return replace(found, model=model.reference)

    def add(self, model: Classifier, images: Samples, predictions: Predictions) -> None:
        """Keep a frozen model's predictions for some images."""
        key = _content(model, images)
        self._predictions[key] = predictions
        self._predictions.move_to_end(key)
        while len(self._predictions) > 1 and sum(map(_bytes, self._predictions.values())) > self.limit:
            self._predictions.popitem(last=False)

    def known(self, images: Samples) -> Samples:
        """These images as an earlier transfer had them, whose pixels are digested already; the first time these."""
        about = (images.reference, images.class_names, images.num_classes, images.mirrorable)
        return self._images.setdefault((images.identity, about), images)

    def probes(self, images: Samples) -> Samples:
        """Some of the transfer or guard images, at most `PROBE_IMAGES`, to compare models on."""
        key = images.identity
        if key not in self._probes:
            count = min(PROBE_IMAGES, len(images))
            self._probes[key] = images.select(stratified(images, count=count, salt="probe"))
        return self._probes[key]

    def crops(
        self, images: Samples, model: Classifier, *, workers: int, keeper: CropKeeper | None = None
    ) -> ViewSource | None:
        """Images that students are measured on again and again, decoded once; None where they do not fit in memory.

        Args:
            images: the images.
            model: the student.
            workers: number of decoding processes.
            keeper: keeps the crops for other runs, too.
        """
        source = evaluation_crops(images, model.preprocessing, workers=workers, cache=self.view_crops, keeper=keeper)
        if source is not None:
            source.load()
        return source


def _content(model: Classifier, images: Samples) -> Hashable:
    """What predictions depend on: the model with the order of its classes, and the images with their labels."""
    return model.fingerprint(precision="no"), model.class_names, images.identity


def _bytes(predictions: Predictions) -> int:
    return predictions.logits.numel() * predictions.logits.element_size()


@dataclass(kw_only=True)
class RunContext:
    """One run in its folder, which is locked until `open_run` exits.

    Attributes:
        prepared: the transfer to run.
        folder: the result folder.
        callback: notified of progress and of the result.
        tracking: experiment trackers that log the measures; none in processes that do not write.
        shared: work that this run shares with the others of its sequence.
        clock: tells how long it has worked.
        origin: predictions of the student that a sequence of transfers began with, for the images measured on; None
            for a transfer of its own.
    """

    prepared: PreparedTransfer
    folder: RunFolder
    callback: Callback
    tracking: Tracking
    shared: SharedWork
    clock: WorkClock
    origin: Predictions | None = None

    @property
    def probe_images(self) -> Samples:
        """Images on which models are compared before any training: the guard's, else some of the transfer images."""
        guard_images = self.prepared.guard_images
        return self.shared.probes(self.prepared.train_images) if guard_images is None else guard_images

    def predict(self, model: Classifier, images: Samples, stage: str) -> Predictions:
        """Predictions for some images, shared out between processes; every process gets all of them.

        Args:
            model: the classifier, with its current weights.
            images: the images to predict.
            stage: name of the stage, for callbacks.

        Raises:
            DataError: too many images are broken.
            NotFinite: the model gives logits that cannot be used.
        """
        prepared, accelerator = self.prepared, self.prepared.accelerator
        shard = (accelerator.process_index, accelerator.num_processes)
        self.callback.stage(stage, len(images))
        own = model.preprocessing == prepared.student.preprocessing
        keeper = None if prepared.bank is None else prepared.bank.crops
        part = predict_samples(
            model,
            images,
            device=accelerator.device,
            batch_size=prepared.settings.batch_size,
            workers=prepared.workers,
            shard=shard,
            crops=self.shared.crops(images, model, workers=prepared.workers, keeper=keeper) if own else None,
            max_broken=1.0,  # a process sees its share only; all of them are counted below
            check=False,  # likewise: one that stopped alone would leave the others waiting
            on_images=lambda count: self.callback.advance(count * shard[1]),
        )
        whole = merge_shards([part] if shard[1] == 1 else gather_object([part]), images)
        largest = prepared.settings.max_broken
        check_broken(whole.broken, of=images, max_share=largest)
        check_logits(whole.logits, model=model.reference, noun=images.noun)
        return whole

    def keep_predictions(self, predictions: Predictions, name: str) -> None:
        """Write predictions into the folder, in the process that writes."""
        if self.prepared.is_main:
            self.folder.check_in_place()
            predictions.write(self.folder.predictions / f"{name}.parquet")
            self.note_worked()
        self.prepared.accelerator.wait_for_everyone()

    def note_worked(self) -> None:
        """Note in the folder how long the run has worked, in the process that writes, when it has kept something."""
        seconds = self.clock.own_s
        if self.prepared.is_main and seconds is not None:
            self.folder.write_worked(seconds)


@contextmanager
def open_run(
    prepared: PreparedTransfer,
    out: Path,
    *,
    callback: Callback,
    name: str | None = None,
    shared: SharedWork | None = None,
    origin: Predictions | None = None,
) -> Iterator[RunContext]:
    """Lock the folder of a run, among all processes, and connect its trackers.

    Args:
        prepared: the transfer to run.
        out: the result folder.
        callback: notified of progress and of the result.
        name: the run's name for trackers; by default the folder's.
        shared: work that the runs of a sequence share.
        origin: predictions of the student that a sequence of transfers began with; the rows of the epochs then
            include the change since then.

    Raises:
        RunFolderError: the folder belongs to another run, is in use or is damaged.
    """
    folder = RunFolder(out)
    trackers = prepared.requested.trackers if prepared.is_main else ()
    with (
        written_to(),
        lock_folder(folder, prepared) as config,
        tracking(trackers, folder.tracking, run=name or out.name, config=config) as connected,
    ):
        yield RunContext(
            prepared=prepared,
            folder=folder,
            callback=callback,
            tracking=connected,
            shared=shared or SharedWork(),
            clock=WorkClock(folder.read_worked()),
            origin=origin,
        )


@contextmanager
def lock_folder(folder: RunFolder, prepared: PreparedTransfer) -> Iterator[dict[str, Any]]:
    """Lock the folder for this run, among all processes; yields the run's description in the process that writes."""
    # Only one process writes and checks; the others wait until it has found the folder in order.
    with folder if prepared.is_main else nullcontext():
        config: dict[str, Any] = {}
        if prepared.is_main:
            config = describe(prepared)
            if not folder.claim(config):
                folder.write_worked(0.0)
        prepared.accelerator.wait_for_everyone()
        yield config


@contextmanager
def forked_generators(prepared: PreparedTransfer) -> Iterator[None]:
    """Restore torch's random generators on exit: training seeds them for dropout."""
    device = prepared.accelerator.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
