"""Where the time of a transfer goes: loader, student, frozen models and bank, each timed separately."""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference import Bank, BankedModel, EntryKey, TargetSource
from ..models import Classifier, PredictionTable
from ..predictions import IMAGE
from ..runs import PreparedTransfer, dummy_target_models, frozen_models, make_trainer
from ..views import ViewBatch, Views, ViewSource
from .timing import learning_s, reading, seconds

ONCE = " (once, then kept in memory)"
BANK_ROWS = 4096
"""Most rows of the entry that the bank is timed with."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a step.

    Attributes:
        name: the part that is timed.
        batch_s: seconds for a batch.
        images_per_s: images a second.
        overlapped: whether worker processes do it in parallel with the step.
    """

    name: str
    batch_s: float
    images_per_s: float
    overlapped: bool = False


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The time of a step by parts, and its bottleneck.

    Attributes:
        parts: the parts of a step, each timed separately.
        live_s: seconds of a step that runs the frozen models, or where they are asked once, of one that need not.
        replayed_s: seconds of a step that reads their logits from the bank.
        student_s: seconds of the student's own pass and update in both, as long as fine-tuning would take.
        asked_once: whether the frozen models are asked once for all epochs.
        bottleneck: name of the part that takes longest.
        advice: suggestions, a sentence each.
    """

    parts: tuple[Part, ...]
    live_s: float
    replayed_s: float
    student_s: float
    asked_once: bool
    bottleneck: str
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def diagnose(prepared: PreparedTransfer) -> Diagnosis:
    """Time the parts of a prepared transfer on this machine; nothing is written, no model is changed.

    The transfer must be prepared without a bank, so that views are rendered at the size of every model.
    """
    device = prepared.accelerator.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batches, reading_s = reading(prepared)
        if prepared.workers and not prepared.views.fits:
            reading_s = reading(prepared, workers=prepared.workers)[1]
        student_s = learning_s(
            prepared, make_trainer(prepared, dummy_target_models(prepared, everything=True)), batches
        )
        frozen_s = {
            f"{'frozen student' if model is prepared.student else 'teacher'} {model.reference}": _frozen_s(
                prepared, model, batches
            )
            for model in frozen_models(prepared)
            if isinstance(model, Classifier)
        }
        rendering_s = _rendering_s(prepared, batches) if prepared.views.fits else None
        bank_s = len(frozen_s) * _bank_read_s(prepared, batches)
    size = len(batches[0].positions_N)

    def part(name: str, batch_s: float, *, overlapped: bool = False) -> Part:
        return Part(name=name, batch_s=batch_s, images_per_s=size / max(batch_s, 1e-9), overlapped=overlapped)

    kept, once = rendering_s is not None, prepared.asks_once
    noun = prepared.train_images.noun
    decoding = ("decoding and cropping" if noun == IMAGE else "tokenizing") + (ONCE if kept else "")
    loader = [part(decoding, reading_s, overlapped=prepared.workers > 0 and not kept)]
    if rendering_s is not None:
        loader.append(part("views from memory", rendering_s))
    models = [part(name + (ONCE if once else ""), batch_s) for name, batch_s in frozen_s.items()]
    student, bank = part("student learns", student_s), part("bank instead of frozen models", bank_s)
    loading_s = rendering_s if rendering_s is not None else reading_s
    asked_s = 0.0 if once else sum(frozen_s.values())
    decided_s = asked_s / max(1, len(frozen_models(prepared)))  # each model is asked for its share of the images
    live_s, replayed_s, live_decided_s = (
        max(loading_s, compute_s) if loader[0].overlapped else loading_s + compute_s
        for compute_s in (
            student_s + (decided_s if prepared.settings.decides_once else asked_s),
            student_s + bank_s,
            student_s + decided_s,
        )
    )
    steps = [loader[-1], student, *([] if once else models)]
    bottleneck = max(steps, key=lambda one: one.batch_s)
    return Diagnosis(
        parts=(*loader, student, *models, bank),
        live_s=live_s,
        replayed_s=replayed_s,
        student_s=student_s,
        asked_once=once,
        bottleneck=bottleneck.name,
        advice=(
            *_advice(prepared, bottleneck, loader=loader[-1], live_s=live_s, replayed_s=replayed_s),
            *_decide_once(prepared, live_s, live_decided_s),
        ),
    )


def _frozen_s(prepared: PreparedTransfer, model: Classifier, batches: list[ViewBatch]) -> float:
    source = TargetSource([model], device=prepared.accelerator.device, autocast=prepared.accelerator.autocast)

    def forward(batch: ViewBatch) -> Tensor:
        assert batch.views is not None
        return source(batch.views, batch.positions_N, number=0).logits_NMC

    found = seconds(forward, batches)
    model.offload()
    return found


def _rendering_s(prepared: PreparedTransfer, batches: list[ViewBatch]) -> float:
    """Seconds to augment a batch of crops in memory; those of the batches measured stand for all."""
    positions = np.concatenate([batch.positions_N.numpy() for batch in batches])
    some = prepared.train_images.select(positions)
    source = ViewSource(some, prepared.view_spec, workers=0, device=prepared.accelerator.device)
    source.load()
    bounds = np.cumsum([len(batch.positions_N) for batch in batches])[:-1]
    wanted = [indices for indices in np.split(np.arange(len(some)), bounds) if len(indices)]
    views = source.batches(wanted, epoch=0)
    return seconds(lambda _: _first(next(views).views), [batch for batch in batches if batch.views is not None])


def _first(views: Views | None) -> Tensor:
    return torch.zeros(()) if views is None else views.renderings[0]


def _bank_read_s(prepared: PreparedTransfer, batches: list[ViewBatch]) -> float:
    """Seconds to read one model's logits for a batch from a bank."""
    rows, classes = min(BANK_ROWS, len(prepared.train_images)), prepared.student.num_classes
    positions = np.arange(rows)
    labels = np.zeros(rows, dtype=np.int64)
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as folder:
        entry = Bank(Path(folder)).build(
            EntryKey(model="", images="", view="", storage=prepared.requested.bank_storage),
            lambda: [(positions, torch.zeros(rows, classes))],
            images=rows,
            classes=classes,
            labels_n=labels,
        )
        source = TargetSource(
            [BankedModel(entries={0: entry})],
            device=prepared.accelerator.device,
            autocast=prepared.accelerator.autocast,
            partition=prepared.settings.method.partition,
        )

        def read(batch: ViewBatch) -> Tensor:
            assert batch.views is not None
            target = torch.zeros(len(batch.positions_N), dtype=torch.int64, device=prepared.accelerator.device)
            return source(batch.views, batch.positions_N % rows, number=0, target_N=target).logits_NMC

        return seconds(read, batches)


def _decide_once(prepared: PreparedTransfer, live_s: float, live_decided_s: float) -> list[str]:
    settings = prepared.settings
    if settings.decides_once or "decide_on" not in settings.method.settings or live_s <= 1.1 * live_decided_s:
        return []
    share = live_decided_s / live_s
    which = "an image" if prepared.train_images.noun == IMAGE else "a text"
    once = f"deciding once who teaches {which} (`decide_on='image'`)"
    return [f"{once} takes about {share:.2f} of the time a step, and gains less"]


def _advice(
    prepared: PreparedTransfer, bottleneck: Part, *, loader: Part, live_s: float, replayed_s: float
) -> list[str]:
    found = []
    cores = os.cpu_count() or 1
    if bottleneck is loader:
        if prepared.accelerator.device.type == "cpu":
            found.append("reading takes longest, and workers would take the cores that the models need")
        else:
            found.append(f"reading takes longest: more `workers` help, up to the {cores} cores of this machine")
    elif bottleneck.name == "student learns":
        found.append("the student's own learning takes longest: fine-tuning it would take as long")
        if prepared.accelerator.device.type == "cuda" and prepared.accelerator.mixed_precision == "no":
            found.append("`precision='bf16'` or fp16 is likely to make it faster on this GPU")
    else:
        found.append("a frozen model takes longest")
    tables = [model for model in prepared.teachers if isinstance(model, PredictionTable)]
    if live_s > 1.1 * replayed_s and not prepared.settings.method.needs_features and not tables:
        share = replayed_s / live_s
        found.append(f"transfers that show the same views and share a `bank` take {share:.2f} of the time a step")
    return found
