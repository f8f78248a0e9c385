"""What the student learns from: the logits of M frozen models for the views of a batch.

A target source gives these logits. The training loop does not know how: a model is run, the rows of a table of saved
predictions are looked up, or a model's cached logits are read from the bank. Model 0 is the initial student where a
method needs it.

Shapes: N samples of a batch, n transfer images, M models, C classes; of samples in places P places.
"""

import logging
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..models import Classifier, answering_copy
from ..partition import log_confidences
from ..views import Views
from .bank import BankEntry

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class _KeptModel:
    """A model whose logits are at hand.

    Attributes:
        places: of samples in places how many rows there are for each; None for one row a sample.
    """

    places: int | None = None

    def rows(self, positions_N: Tensor, views: Views) -> Tensor:
        """The rows that some views need, int64 (N,), or (N, P) of samples in places."""
        if self.places is None:
            return positions_N
        return place_rows(positions_N, most=self.places)[:, : views.most_places]


@dataclass(frozen=True, kw_only=True)
class TableModel(_KeptModel):
    """A model that gives the same logits for every view: known by its predictions alone, or asked once.

    Attributes:
        logits: float32 (n, C), of the n transfer samples in their order, or (n · places, C), NaN where there is none.
    """

    logits: Tensor

    def read(self, rows_N: Tensor, *, number: int) -> Tensor:
        """The logits of these rows, float32 (N, C), on the CPU; of any view."""
        return self.logits[rows_N]

    def written(self, rows_N: Tensor, *, number: int) -> Tensor:
        """Which rows have logits, bool (N,)."""
        return ~self.logits[rows_N, 0].isnan()


@dataclass(frozen=True, kw_only=True)
class BankedModel(_KeptModel):
    """A model whose logits are read from the bank.

    Attributes:
        entries: entries of the bank, by view number.
    """

    entries: Mapping[int, BankEntry]

    def read(self, rows_N: Tensor, *, number: int) -> Tensor:
        """The logits of these rows for a view, float32 (N, C), on the CPU."""
        return self.entries[number].logits(rows_N)

    def written(self, rows_N: Tensor, *, number: int) -> Tensor:
        """Which rows have logits for a view, bool (N,)."""
        return self.entries[number].written(rows_N)


TargetModel: TypeAlias = Classifier | TableModel | BankedModel


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The logits of the frozen models for a batch.

    Attributes:
        logits_NMC: float32, without gradient; of samples in places (N, P, M, C).
        log_confidence_NM: `partition.log_confidences` of the unrounded logits, where `logits_NMC` are rounded and a
            partition compares them; else None.
        choice_N: int64, the model that teaches each sample, where that is decided already: logits of others may be 0.
        usable_NP: of samples in places bool, which of them all models have read; None else.
    """

    logits_NMC: Tensor
    log_confidence_NM: Tensor | None
    choice_N: Tensor | None = None
    usable_NP: Tensor | None = None


class TargetSource:
    """Gives the logits of frozen models; live ones run in evaluation mode and without gradients.

    Args:
        models: M frozen models with the same classes in the same order; modules are moved to `device`.
        device: device that live models run on.
        autocast: context in which they run (mixed precision).
        compiled: whether live models run compiled (torch.compile).
        partition: the method's (`Method.partition`); with one, the exact confidences of cached logits are given, too.
        choice_n: int64 (n,), the model that teaches each transfer image, where that is decided before training: then a
            live model is asked for its own images alone.
        names: references of the models, for messages.
        themselves: models that are asked themselves, since their weights change meanwhile or their layers are watched;
            on a GPU in mixed precision the others answer by copies that do so faster (`models/answering.py`).
    """

    def __init__(
        self,
        models: Sequence[TargetModel],
        *,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
        compiled: bool = False,
        partition: str | None = None,
        choice_n: Tensor | None = None,
        names: Sequence[str] = (),
        themselves: Collection[Classifier] = (),
    ) -> None:
        self.models = tuple(models)
        self.device = device
        self.autocast = autocast
        self.partition = partition
        self.choice_n = choice_n
        self.names = tuple(names)
        self.modules: list[nn.Module | None] = []
        made: dict[int, nn.Module] = {}  # a student that is its own teacher, as a control, is there once
        for model in self.models:
            if isinstance(model, Classifier) and id(model) not in made:
                if compiled or any(model is one for one in themselves):
                    module = model.to(device).eval()
                else:
                    module = self._asked(model)
                made[id(model)] = cast(nn.Module, torch.compile(module)) if compiled else module
            self.modules.append(made.get(id(model)))

    def __call__(self, views: Views, positions_N: Tensor, *, number: int, target_N: Tensor | None = None) -> Targets:
        """The logits of all models for some views.

        Args:
            views: views of N samples.
            positions_N: int64, positions of the samples among the transfer images; on the CPU.
            number: number of the view; see `views.ViewSpec.number`.
            target_N: int64 labels, for a partition that reads them.
        """
        choice_N = None if self.choice_n is None else self.choice_n[positions_N]
        # A student that is its own teacher, as a control, runs once.
        logits_by_model: dict[int, Tensor] = {}
        with torch.inference_mode(), self.autocast():
            for model, module in zip(self.models, self.modules, strict=True):
                if id(model) not in logits_by_model:
                    rows = None if choice_N is None else self._own_rows(model, choice_N)
                    logits_by_model[id(model)] = self._logits(
                        model, module, views, positions_N, number=number, rows=rows
                    )
        logits = [logits_by_model[id(model)] for model in self.models]
        usable = [self._usable(model, views, positions_N, number) for model in self.models]
        usable_NP = usable_by_all(logits, usable)
        if usable_NP is not None:
            logits = [one[:, : usable_NP.shape[1]] for one in logits]
        # Stacked outside inference mode: the loss saves this tensor for its backward pass.
        logits_NMC = torch.stack(logits, dim=-2)
        if choice_N is not None:
            decided_N = choice_N.to(self.device, non_blocking=True)
            return Targets(logits_NMC=logits_NMC, log_confidence_NM=None, choice_N=decided_N)
        exact = self.partition is not None and any(isinstance(model, BankedModel) for model in self.models)
        if not exact:
            return Targets(logits_NMC=logits_NMC, log_confidence_NM=None, usable_NP=usable_NP)
        by = target_N if self.partition == "label" else None
        if by is not None and usable_NP is not None:
            by = labels_in_places(by, usable_NP.shape[1]).clamp_min(0).flatten()
        sound_NMC = logits_NMC.nan_to_num() if usable_NP is not None else logits_NMC  # of no place there are none
        log_confidence_NM = log_confidences(sound_NMC.flatten(0, -3), by).view(logits_NMC.shape[:-1])
        for m, model in enumerate(self.models):
            if isinstance(model, BankedModel):
                rows = model.rows(positions_N, views)
                if usable_NP is not None:
                    rows = rows[:, : usable_NP.shape[1]]
                found = model.entries[number].log_confidence(rows.flatten(), labelled=by is not None)
                log_confidence_NM[..., m] = found.view(rows.shape).to(self.device, non_blocking=True)
        return Targets(logits_NMC=logits_NMC, log_confidence_NM=log_confidence_NM, usable_NP=usable_NP)

    def _asked(self, model: Classifier) -> nn.Module:
        """The module that answers for a model, on the device and in evaluation mode."""
        dtype = self._autocast_dtype()
        if self.device.type == "cuda" and dtype is not None:
            try:
                return self._answering(model, dtype)
            except (ModelError, RuntimeError) as error:  # out of memory, too: then it is told where the model is asked
                _log.debug("%s: asked as it is, not by a faster copy: %s", model.reference, error)
        return model.to(self.device).eval()

    def _answering(self, model: Classifier, dtype: torch.dtype) -> nn.Module:
        copy = replace(model, module=answering_copy(model, dtype))
        module = copy.to(self.device)
        with torch.inference_mode(), self.autocast():
            # whether it takes such weights at all, and which of its kernels are used
            copy.logits(model.preprocessing.noise(torch.Generator().manual_seed(0)).to(self.device))
        return module

    def _autocast_dtype(self) -> torch.dtype | None:
        with self.autocast():
            enabled = torch.is_autocast_enabled(self.device.type)
            return torch.get_autocast_dtype(self.device.type) if enabled else None

    def _usable(self, model: TargetModel, views: Views, positions_N: Tensor, number: int) -> Tensor | None:
        if isinstance(model, TableModel | BankedModel) and model.places is not None:
            rows = model.rows(positions_N, views)
            written = model.written(rows.flatten(), number=number)
            return written.view(rows.shape).to(self.device, non_blocking=True)
        if not isinstance(model, Classifier) or not model.in_places:
            return None
        return model.preprocessing.usable_places(views.at(model.preprocessing.view_size))

    def _own_rows(self, model: TargetModel, choice_N: Tensor) -> Tensor:
        """The samples that a model teaches, int64, on the CPU: their number is known there without waiting."""
        own = torch.tensor([m for m, other in enumerate(self.models) if other is model])
        return torch.isin(choice_N, own).nonzero().flatten()

    def _logits(
        self,
        model: TargetModel,
        module: nn.Module | None,
        views: Views,
        positions_N: Tensor,
        *,
        number: int,
        rows: Tensor | None,
    ) -> Tensor:
        """A model's logits, float32 (N, C); with `rows`, a live model's for these alone, and 0 for the others."""
        if isinstance(model, TableModel | BankedModel):
            rows_read = model.rows(positions_N, views)
            found = model.read(rows_read.flatten(), number=number).to(self.device, non_blocking=True)
            return found.view(*rows_read.shape, -1)
        if rows is None or len(rows) == len(views):
            return model.logits(views.inputs(model.preprocessing), module=module).float()
        logits_NC = torch.zeros(len(views), model.num_classes, device=self.device)
        if count := len(rows):
            if self.device.type == "cuda":
                rows = padded_rows(rows, of=len(views))
            rows = rows.to(self.device, non_blocking=True)
            own = views.map(operator.itemgetter(rows))
            logits = model.logits(own.inputs(model.preprocessing), module=module)
            logits_NC[rows[:count]] = logits[:count].float()
        return logits_NC


def padded_rows(rows: Tensor, *, of: int) -> Tensor:
    """Rows of a batch, the last one repeated up to the next eighth of the batch.

    Each new number of samples costs a GPU plans for all convolutions and memory of another size: there are few so.

    Args:
        rows: int64 (n,), n ≥ 1.
        of: samples of the batch.

    >>> padded_rows(torch.tensor([0, 3, 5]), of=16).tolist()
    [0, 3, 5, 5]
    """
    step = max(1, of // 8)
    count = min(of, -(-len(rows) // step) * step)
    return torch.cat([rows, rows[-1:].expand(count - len(rows))])


def labels_in_places(target_NP: Tensor, places: int) -> Tensor:
    """Labels of so many places of each sample, int64 (N, places), -1 where there is none.

    Args:
        target_NP: labels, int64, of as many places as the longest sample has.
        places: number of places.
    """
    return F.pad(target_NP, (0, max(0, places - target_NP.shape[1])), value=-1)[:, :places]


def place_rows(positions_N: Tensor, *, most: int) -> Tensor:
    """The rows of an entry for all places of some samples, int64 (N, P): those of a sample follow each other.

    >>> place_rows(torch.tensor([0, 2]), most=3).tolist()
    [[0, 1, 2], [6, 7, 8]]
    """
    return positions_N[:, None] * most + torch.arange(most)


def usable_by_all(logits: Sequence[Tensor], usable: Sequence[Tensor | None]) -> Tensor | None:
    """Which places of each sample all models have read, bool (N, P): of as many places as the fewest of them have.

    Args:
        logits: logits of each model, (N, P, C), with a P of its own.
        usable: which places each model has read, bool (N, P) of its P; None for samples that have no places.

    Returns:
        None for samples that have no places.
    """
    known = [one for one in usable if one is not None]
    if not known:
        return None
    shortest = min(one.shape[1] for one in logits)
    return torch.stack([one[:, :shortest] for one in known]).all(dim=0)
