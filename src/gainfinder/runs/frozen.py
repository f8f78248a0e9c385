"""What a run does with models that do not train: ask them, once, and re-estimate their batch-norm statistics."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..data import Images, check_broken
from ..errors import BankError, DataError
from ..inference import BankEntry, EntryKey, merge_shards, predict_images
from ..models import Classifier, PredictionTable, has_batch_norm, reestimate
from ..predictions import Predictions
from ..views import epoch_order
from .callbacks import Callback
from .planning import Plan

STATISTICS_IMAGES = 2000
"""Images that batch-norm statistics are re-estimated on, at most."""


def constant_predictions(
    plan: Plan, model: Classifier, images: Images, path: Path, *, known: Predictions | None, callback: Callback
) -> Predictions:
    """Predictions of a frozen model, made once a run: a resumed one reads what was written at `path` before.

    Predictions that are `known` already are written there as they are.
    """
    if known is None and path.exists():
        try:
            return Predictions.load(path)
        except DataError:
            pass  # damaged from outside; it can be made again
    predictions = known or _kept_or_asked(plan, model, images, callback)
    if plan.is_main:
        predictions.write(path)
    plan.accelerator.wait_for_everyone()
    return predictions


def _kept_or_asked(plan: Plan, model: Classifier, images: Images, callback: Callback) -> Predictions:
    """Predictions of a frozen model, from the bank if there is one: other transfers measure the same models."""
    stage = f"measuring {model.reference}"
    if plan.bank is None or not plan.is_given(model):
        return shared_predictions(plan, model, images, stage, callback=callback)
    key = EntryKey(
        model=model.fingerprint(precision="no"), images=images.fingerprint, view="evaluation", storage="exact"
    )
    entry = plan.bank.find(key)
    if all(gather_object([entry is not None])) and entry is not None:
        return _predictions_of(entry, model, images)
    found = shared_predictions(plan, model, images, stage, callback=callback)
    if plan.is_main:
        place = {sample_id: i for i, sample_id in enumerate(images.ids)}
        positions = np.array([place[sample_id] for sample_id in found.ids], dtype=np.int64)
        with contextlib.suppress(BankError):  # full: the run can do without
            plan.bank.build(
                key,
                lambda: [(positions, found.logits)],
                images=len(images),
                classes=model.num_classes,
                labels_n=images.labels,
                about={"broken": list(found.broken), "dropped_mass": found.dropped_mass},
            )
    return found


def _predictions_of(entry: BankEntry, model: Classifier, images: Images) -> Predictions:
    logits = entry.logits(torch.arange(len(images)))
    # Broken images have rows of NaN; a model that answers with NaN is refused.
    there = np.flatnonzero(~logits[:, 0].isnan().numpy())
    return Predictions(
        model=model.reference,
        ids=tuple(images.ids[i] for i in there),
        logits=logits[there],
        target=None if images.labels is None else torch.from_numpy(images.labels[there]),
        class_names=model.class_names,
        broken=tuple(entry.about["broken"]),
        dropped_mass=entry.about["dropped_mass"],
    )


def table_predictions(table: PredictionTable, like: Predictions) -> Predictions | None:
    """A table's predictions for the images of other predictions; None where it does not have them all."""
    if table.missing(like.ids):
        return None
    logits, kept = table.lookup_and_kept(like.ids)
    return Predictions(
        model=table.reference,
        ids=like.ids,
        logits=logits,
        target=like.target,
        class_names=table.class_names,
        dropped_mass=float((1 - kept).mean()),
    )


def shared_predictions(plan: Plan, model: Classifier, images: Images, stage: str, *, callback: Callback) -> Predictions:
    """Predictions for some images, shared out between processes; every process gets all of them."""
    accelerator = plan.accelerator
    shard = (accelerator.process_index, accelerator.num_processes)
    callback.stage(stage, len(images))
    part = predict_images(
        model,
        images,
        device=accelerator.device,
        batch_size=plan.settings.batch_size,
        workers=plan.workers,
        shard=shard,
        crops=plan.crops(images, model),
        max_broken=1.0,  # a process sees its share only; all of them are counted below
        on_images=lambda count: callback.advance(count * shard[1]),
    )
    whole = merge_shards([part] if shard[1] == 1 else gather_object([part]), images)
    check_broken(whole.broken, total=len(images), max_share=plan.settings.max_broken, reference=images.reference)
    return whole


def reestimate_on_views(plan: Plan, model: Classifier) -> None:
    """Re-estimate the batch-norm statistics of a student, in place, on views as it saw them while it learned.

    On the first 2,000 views of the first epoch. Every process does the same.
    """
    if not has_batch_norm(model.module):
        return
    model.place(plan.accelerator.device)
    reestimate(model.module, _view_inputs(plan, model), model.logits)


def _view_inputs(plan: Plan, model: Classifier) -> Iterator[Tensor]:
    images, settings = plan.train_images, plan.settings
    order = epoch_order(images.ids, seed=settings.seed, epoch=0)[:STATISTICS_IMAGES]
    count = max(1, round(len(order) / max(2, settings.batch_size)))
    for batch in plan.views.batches(np.array_split(order, count), epoch=0):
        if batch.views is not None and len(batch.views) > 1:
            yield batch.views.inputs(model.preprocessing)
