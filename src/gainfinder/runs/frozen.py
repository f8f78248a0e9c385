"""Models that do not train: their predictions, computed once a run, and re-estimated batch-norm statistics."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..data import Samples
from ..errors import BankError, DataError
from ..inference import BankEntry, EntryKey
from ..models import Classifier, PredictionTable, has_batch_norm, reestimate
from ..predictions import Predictions
from ..views import epoch_order
from .context import RunContext
from .prepare import PreparedTransfer

STATISTICS_IMAGES = 2000
"""Images that batch-norm statistics are re-estimated on, at most."""


@dataclass(frozen=True, kw_only=True)
class FrozenPredictions:
    """Predictions of the frozen models for some images.

    Attributes:
        before: predictions of the initial student.
        teachers: predictions of each teacher; None for a table that lacks some of these images.
    """

    before: Predictions
    teachers: tuple[Predictions | None, ...]


def predict_frozen(run: RunContext, images: Samples, *, prefix: str = "") -> FrozenPredictions:
    """Predictions of the initial student and of the teachers, saved in the folder.

    They are computed once a run: a resumed run reads the saved ones.

    Args:
        run: the run to predict for.
        images: the images to predict.
        prefix: prefix of the file names.
    """
    prepared = run.prepared
    before = _predict_once(run, prepared.student, images, f"{prefix}before")
    return FrozenPredictions(
        before=before,
        teachers=tuple(
            _look_up(run, teacher, before, f"{prefix}teacher-{number}")
            if isinstance(teacher, PredictionTable)
            else _predict_once(run, teacher, images, f"{prefix}teacher-{number}")
            for number, teacher in enumerate(prepared.teachers, start=1)
        ),
    )


def predict_referees(run: RunContext, images: Samples, before: Predictions) -> list[Predictions]:
    """Predictions of the models that judge for the guard, saved in the folder.

    Args:
        run: the run to predict for.
        images: the guard images.
        before: the initial student's predictions for them.

    Raises:
        DataError: a table lacks some of the images.
    """
    found = []
    for number, referee in enumerate(run.prepared.referees, start=1):
        name = f"probe-referee-{number}"
        if isinstance(referee, Classifier):
            found.append(_predict_once(run, referee, images, name))
            continue
        looked_up = _look_up(run, referee, before, name)
        if looked_up is None:
            raise DataError(f"referee {referee.reference}: the table lacks guard {images.noun}s; predict these, too")
        found.append(looked_up)
    return found


def reestimate_on_views(prepared: PreparedTransfer, model: Classifier) -> None:
    """Re-estimate the batch-norm statistics of a student, in place, on views as it saw them while it learned.

    On the first 2,000 views of the first epoch, none of them mixed: images that are predicted are not, either. Every
    process does the same.
    """
    if not has_batch_norm(model.module):
        return
    model.to(prepared.accelerator.device)
    reestimate(model.module, _view_inputs(prepared, model), model.logits)


def load_trained(prepared: PreparedTransfer, model: Classifier, state: Mapping[str, Any]) -> None:
    """Load a trained student's weights, ready to predict with.

    One that learned from mixed views has batch-norm statistics of mixed views; they are re-estimated on unmixed ones.
    """
    model.module.load_state_dict(state)
    if prepared.settings.mixup and prepared.settings.student_mode == "train":
        reestimate_on_views(prepared, model)


def _predict_once(run: RunContext, model: Classifier, images: Samples, name: str) -> Predictions:
    path = run.folder.predictions / f"{name}.parquet"
    predictions = run.shared.find(model, images)
    if predictions is None and path.exists():
        with contextlib.suppress(DataError):  # damaged from outside; it can be made again
            predictions = Predictions.load(path)
            run.shared.add(model, images, predictions)
            return predictions
    if predictions is None:
        predictions = _from_bank(run, model, images)
    run.keep_predictions(predictions, name)
    run.shared.add(model, images, predictions)
    return predictions


def predict_given(run: RunContext, model: Classifier, images: Samples) -> Predictions:
    """A frozen model's predictions for some images, which another transfer or the bank may have; not saved here.

    Args:
        run: the run to predict for.
        model: the frozen model.
        images: the images to predict.
    """
    predictions = run.shared.find(model, images) or _from_bank(run, model, images)
    run.shared.add(model, images, predictions)
    return predictions


def _look_up(run: RunContext, table: PredictionTable, like: Predictions, name: str) -> Predictions | None:
    """A table's predictions for the images of other predictions; None where it lacks some of them."""
    if table.missing(like.ids):
        return None
    logits, kept = table.lookup_and_kept(like.ids)
    found = Predictions(
        model=table.reference,
        ids=like.ids,
        logits=logits,
        target=like.target,
        class_names=table.class_names,
        dropped_mass=float((1 - kept).mean()),
        noun=like.noun,
    )
    run.keep_predictions(found, name)
    return found


def _from_bank(run: RunContext, model: Classifier, images: Samples) -> Predictions:
    """Predictions of a frozen model, from the bank if there is one: other transfers measure the same models."""
    stage, bank = f"measuring {model.reference}", run.prepared.bank
    if bank is None or not run.prepared.is_given(model):
        return run.predict(model, images, stage)
    key = EntryKey(
        model=model.fingerprint(precision="no"), images=images.fingerprint, view="evaluation", storage="exact"
    )
    entry = bank.find(key)
    if all(gather_object([entry is not None])) and entry is not None:
        return _predictions_of(entry, model, images)
    found = run.predict(model, images, stage)
    if run.prepared.is_main:
        position_of = {sample_id: i for i, sample_id in enumerate(images.ids)}
        positions = np.array([position_of[sample_id] for sample_id in found.ids], dtype=np.int64)
        with contextlib.suppress(BankError):  # full: the run can do without
            bank.build(
                key,
                lambda: [(positions, found.logits)],
                images=len(images),
                classes=model.num_classes,
                labels_n=images.labels,
                about={"broken": list(found.broken), "dropped_mass": found.dropped_mass},
            )
    return found


def _predictions_of(entry: BankEntry, model: Classifier, images: Samples) -> Predictions:
    logits = entry.logits(torch.arange(len(images)))
    # Broken images have rows of NaN; a model whose logits are NaN is refused before.
    decoded = np.flatnonzero(~logits[:, 0].isnan().numpy())
    return Predictions(
        model=model.reference,
        ids=tuple(images.ids[i] for i in decoded),
        logits=logits[decoded],
        target=None if images.labels is None else torch.from_numpy(images.labels[decoded]),
        class_names=model.class_names,
        broken=tuple(entry.about["broken"]),
        dropped_mass=entry.about["dropped_mass"],
        noun=images.noun,
    )


def _view_inputs(prepared: PreparedTransfer, model: Classifier) -> Iterator[Tensor]:
    images, settings = prepared.train_images, prepared.settings
    order = epoch_order(images.ids, seed=settings.seed, epoch=0)[:STATISTICS_IMAGES]
    count = max(1, round(len(order) / max(2, settings.batch_size)))
    for batch in prepared.views.unmixed().batches(np.array_split(order, count), epoch=0):
        if batch.views is not None and len(batch.views) > 1:
            yield batch.views.inputs(model.preprocessing)
