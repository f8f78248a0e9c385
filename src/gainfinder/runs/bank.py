"""The logits of a run's frozen models for its views: read from the bank, computed before the epoch of a view and cached
there, asked once where all epochs show the same view, or asked in each step.

Not all at once before training: of the most epochs that a run may take, it often needs fewer.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..inference import (
    Bank,
    BankedModel,
    BankEntry,
    EntryKey,
    TableModel,
    TargetModel,
    crop_bytes,
    entry_bytes,
    evaluation_crops,
)
from ..models import Classifier, PredictionTable
from ..results import BankUse
from ..views import Size, ViewSource
from .answers import ViewAnswers
from .callbacks import Callback
from .context import PROBE_IMAGES
from .prepare import PreparedTransfer

_log = logging.getLogger("gainfinder")


class TargetModels:
    """The frozen models of a run as sources of logits: asked in each step, or once; looked up in a table or the bank.

    Args:
        prepared: the transfer.
        callback: notified of what is computed.
        choice_n: int64 (n,), the model that teaches each transfer image, where that is decided once (`deciding.py`).
        changing: models whose weights are renewed while they are asked (`live.py`).

    Attributes:
        models: the frozen models, the initial student first where the method needs it.
    """

    def __init__(
        self,
        prepared: PreparedTransfer,
        callback: Callback,
        *,
        choice_n: Tensor | None = None,
        changing: Collection[Classifier] = (),
    ) -> None:
        self.prepared = prepared
        self.choice_n = choice_n
        self.changing = tuple(changing)
        self._answers = ViewAnswers(prepared, callback)
        self._tables: dict[int, TableModel] = {}  # by the id of a model that is asked once
        self._unasked: list[Classifier] = []
        self._builder: _BankBuilder | None = None
        self._entries: dict[int, dict[int, BankEntry]] = {}  # by the id of a model, and by the number of a view
        banked = banked_models(prepared)
        if prepared.bank is not None and prepared.settings.needs_teachers:
            wanted = {key for model in banked for key in _keys(prepared, model, _view_numbers(prepared)).values()}
            self._builder = _BankBuilder(prepared, prepared.bank, wanted, self._answers)
        models: list[TargetModel] = []
        for model in frozen_models(prepared):
            if any(model is one for one in banked):
                models.append(BankedModel(entries=self._entries.setdefault(id(model), {}), places=prepared.places))
            elif isinstance(model, Classifier) and prepared.asks_once and not any(model is one for one in changing):
                models.append(self._asked_once(model))
            else:
                models.append(_live(prepared, model))
        self.models = tuple(models) or (_zeros(prepared),)

    def prepare(self, epochs: Iterable[int]) -> None:
        """Have the logits for the views of these epochs at hand: read what the bank has, and compute what it lacks.

        Several processes share that work; each calls this with the same epochs. Models that are asked once are asked
        here, the first time, by each process.

        Raises:
            BankError: there is no room for them.
            DataError: too many images are broken.
            NotFinite: logits that are computed here cannot be used.
        """
        while self._unasked:
            self._ask(self._unasked[-1])
            self._unasked.pop()
        if self._builder is None:
            return
        asked = dict.fromkeys(self.prepared.view_spec.number(epoch) for epoch in epochs)
        for model in banked_models(self.prepared):
            there = self._entries[id(model)]
            if numbers := [number for number in asked if number not in there]:
                there.update(self._builder.entries(model, _keys(self.prepared, model, numbers)))

    def _asked_once(self, model: Classifier) -> TableModel:
        if id(model) not in self._tables:  # a student that is its own teacher, as a control, is there once
            logits = torch.full((self.prepared.answer_rows, model.num_classes), torch.nan)
            self._tables[id(model)] = TableModel(logits=logits, places=self.prepared.places)
            self._unasked.append(model)
        return self._tables[id(model)]

    def _ask(self, model: Classifier) -> None:
        stage = f"asking {model.reference}"
        for positions, logits in self._answers.of_all(model, 0, self.prepared.views, stage=stage):
            self._tables[id(model)].logits[torch.from_numpy(positions)] = logits.cpu()
        model.offload()

    def bank_use(self, epochs: int) -> BankUse | None:
        """What a run of so many epochs has read and computed; None without a bank."""
        builder = self._builder
        if builder is None:
            return None
        numbers = _view_numbers(self.prepared, epochs=epochs)
        models = banked_models(self.prepared)
        read = {key for model in models for key in _keys(self.prepared, model, numbers).values()}
        return BankUse(
            folder=str(builder.bank.folder),
            entries=len(read),
            made=builder.made,
            bytes=len(read) * _view_bytes(self.prepared),
            checked=self.prepared.requested.bank_check,
            largest_difference=builder.largest_difference,
        )


def frozen_models(prepared: PreparedTransfer) -> tuple[Classifier | PredictionTable, ...]:
    """The models whose logits for the views a run needs: the initial student first, where the method needs it; none
    where nothing is distilled."""
    if not prepared.settings.needs_teachers:
        return ()
    return (*([prepared.student] if prepared.settings.method.needs_initial_student else []), *prepared.teachers)


def asked_once(prepared: PreparedTransfer) -> tuple[Classifier, ...]:
    """The frozen models that need to be asked for each transfer image once, as all epochs show the same view of it."""
    if not prepared.asks_once:
        return ()
    changes = prepared.requested.both == "live"  # the partner, which learns meanwhile
    return tuple(
        model
        for model in frozen_models(prepared)
        if isinstance(model, Classifier) and (model is prepared.student or not changes)
    )


def banked_models(prepared: PreparedTransfer) -> tuple[Classifier, ...]:
    """The frozen models whose logits the bank caches: no tables, and no student that an earlier teacher changed, since
    no other transfer would use its logits."""
    if prepared.bank is None:
        return ()
    return tuple(
        model for model in frozen_models(prepared) if isinstance(model, Classifier) and prepared.is_given(model)
    )


def bank_bytes(prepared: PreparedTransfer) -> int:
    """The most bytes that the logits of a run's entries take on disk."""
    views = len({_view_key(prepared, prepared.student, number) for number in _view_numbers(prepared)})
    return len(banked_models(prepared)) * views * _view_bytes(prepared)


def bank_crop_bytes(prepared: PreparedTransfer) -> int:
    """The most bytes that the crops take which the bank keeps for a run: of views, and of images measured on."""
    if prepared.bank is None:
        return 0
    student = prepared.student.preprocessing
    sizes = dict.fromkeys([student.view_size, *(model.preprocessing.view_size for model in banked_models(prepared))])
    measured, compared_on = [prepared.val_images], prepared.train_images
    if prepared.guard_images is not None:
        compared_on = prepared.guard_images
        measured.append(compared_on)
    if len(compared_on) > PROBE_IMAGES and (prepared.needs_probes or prepared.one_by_one):
        measured.append(compared_on.select(range(PROBE_IMAGES)))
    evaluated = [evaluation_crops(images, student, workers=0) for images in measured]
    sources = [prepared.views.at(size) for size in sizes] + [source for source in evaluated if source is not None]
    return sum(map(crop_bytes, sources))


def _view_bytes(prepared: PreparedTransfer) -> int:
    return entry_bytes(prepared.answer_rows, prepared.student.num_classes, prepared.requested.bank_storage)


def require_room(prepared: PreparedTransfer) -> None:
    """Log the size of what a run caches, and refuse a run for whose logits there is no room, before any work.

    Without room for its crops it goes on.

    Raises:
        BankError: there is no room.
    """
    if prepared.bank is None:
        return
    needed = bank_bytes(prepared)
    prepared.bank.require([needed])
    if prepared.is_main:
        crops = bank_crop_bytes(prepared)
        _log.warning(
            "the logits that the bank caches for this run take up to %.2f MB in %s%s",
            needed / 1e6,
            prepared.bank.folder,
            f", and decoded images {crops / 1e6:.2f} MB" if crops else "",
        )


def missing_views(prepared: PreparedTransfer, model: Classifier) -> int:
    """How many views of each image the bank lacks for a model."""
    assert prepared.bank is not None
    keys = _keys(prepared, model, _view_numbers(prepared))
    return sum(prepared.bank.find(key) is None for key in set(keys.values()))


def dummy_target_models(prepared: PreparedTransfer, *, everything: bool = False) -> tuple[TargetModel, ...]:
    """The frozen models of a run; those that no step asks (or all) give logits of zero. Only for timing."""
    unasked = [*banked_models(prepared), *asked_once(prepared)]
    kept = {id(model) for model in (frozen_models(prepared) if everything else unasked)}
    zeros = _zeros(prepared)
    models = tuple(zeros if id(model) in kept else _live(prepared, model) for model in frozen_models(prepared))
    return models or (zeros,)


class _BankBuilder:
    """Finds or computes entries; crops rendered for one model serve others of its input size."""

    def __init__(
        self, prepared: PreparedTransfer, bank: Bank, wanted: Collection[EntryKey], answers: ViewAnswers
    ) -> None:
        self.prepared = prepared
        self.bank = bank
        self.wanted = wanted
        self.answers = answers
        self.made = 0
        self.largest_difference: float | None = None
        self._sources: dict[Size, ViewSource] = {}

    def entries(self, model: Classifier, keys: Mapping[int, EntryKey]) -> dict[int, BankEntry]:
        """A model's entries by view number."""
        accelerator = self.prepared.accelerator
        numbers = {key: number for number, key in keys.items()}
        missing = [key for key in numbers if self.bank.find(key) is None]
        accelerator.wait_for_everyone()  # all have looked before any of them computes one
        for at, key in enumerate(missing):
            if at % accelerator.num_processes == accelerator.process_index:
                self._build(model, key, numbers[key])
        accelerator.wait_for_everyone()
        self.made += len(missing)
        found = {}
        for key, number in numbers.items():
            found[key] = self.bank.find(key) or self._build(model, key, number)  # damaged or removed since
            if self.prepared.requested.bank_check:
                self._check(model, found[key], number)
        model.offload()
        return {number: found[key] for number, key in keys.items()}

    def _build(self, model: Classifier, key: EntryKey, number: int) -> BankEntry:
        stage = f"bank, view {number + 1}: {model.reference}"
        return self.bank.build(
            key,
            lambda: self.answers.of_all(model, number, self._source(model), stage=stage),
            images=self.prepared.answer_rows,
            classes=model.num_classes,
            labels_n=_labels_of_rows(self.prepared),
            keep=self.wanted,
        )

    def _source(self, model: Classifier) -> ViewSource:
        size = model.preprocessing.view_size
        return self._sources.setdefault(size, self.prepared.views.at(size))

    def _check(self, model: Classifier, entry: BankEntry, number: int) -> None:
        """Compute the logits of some of the views again, and keep the largest difference from the entry."""
        count = min(self.prepared.requested.bank_check, len(self.prepared.train_images))
        sample = np.linspace(0, len(self.prepared.train_images) - 1, count).astype(np.int64)
        batches = np.array_split(sample, -(-count // self.prepared.settings.batch_size))
        for positions, logits in self.answers.of_some(model, batches, number, self._source(model), broken=set()):
            found = entry.difference(torch.from_numpy(positions), logits)
            self.largest_difference = max(found, self.largest_difference or 0.0)


def _labels_of_rows(prepared: PreparedTransfer) -> NDArray[np.int64] | None:
    """Labels of an entry's rows, 0 where there is none: no partition reads those."""
    images = prepared.train_images
    if images.labels is None or prepared.places is None:
        return images.labels
    found = np.zeros((len(images), prepared.places), dtype=np.int64)
    labels = images.labels_of(np.arange(len(images)))
    found[:, : labels.shape[1]] = np.maximum(labels, 0)
    return found.reshape(-1)


def _keys(prepared: PreparedTransfer, model: Classifier, numbers: Iterable[int]) -> dict[int, EntryKey]:
    """Keys of a model's entries, by the numbers of these views."""
    about = {
        "model": model.fingerprint(precision=prepared.accelerator.mixed_precision),
        "images": prepared.train_images.fingerprint,
        "storage": prepared.requested.bank_storage,
    }
    return {number: EntryKey(view=_view_key(prepared, model, number), **about) for number in numbers}


def _view_numbers(prepared: PreparedTransfer, *, epochs: int | None = None) -> list[int]:
    """The numbers of the views that so many epochs show, by default the most of the run, each once."""
    most = prepared.settings.epochs if epochs is None else epochs
    return list(dict.fromkeys(prepared.view_spec.number(epoch) for epoch in range(most)))


def _view_key(prepared: PreparedTransfer, model: Classifier, number: int) -> str:
    spec = prepared.view_spec
    drawn: dict[str, Any] = {}
    if spec.augment != "none" or spec.mixup:
        drawn = {"seed": spec.seed, "number": number}
    if spec.mixup:
        drawn["mixup"] = spec.mixup
    crop = spec.crop_at(model.preprocessing.view_size).described()
    return json.dumps({"augment": spec.augment, **drawn, **crop}, sort_keys=True)


def _zeros(prepared: PreparedTransfer) -> TableModel:
    """A frozen model that costs nothing, in place of one whose logits do not matter."""
    return TableModel(logits=torch.zeros(1, prepared.student.num_classes).expand(len(prepared.train_images), -1))


def _live(prepared: PreparedTransfer, model: Classifier | PredictionTable) -> TargetModel:
    if isinstance(model, PredictionTable):
        return TableModel(logits=model.lookup(prepared.train_images.ids))
    return model
