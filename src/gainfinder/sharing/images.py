"""The images of a result, found again: those that its student was measured on, and those that it learned from."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from ..data import Samples, SampleSource, digest_order, load_samples
from ..errors import DataError, GainfinderError
from ..inference import align_samples
from ..models import Classifier
from ..predictions import Predictions, answered_otherwise
from ..report import TransferRecord

CALIBRATION = 128
"""Transfer images that ranges of integers are set by."""
NAMED = 2
"""Ids of images that are named."""
_OTHERS = "give images as `data`"


def measured_images(
    record: TransferRecord, student: Classifier, *, data: SampleSource | None = None, limit: int | None = None
) -> Samples:
    """The images that a result was measured on, or others.

    Args:
        record: the transfer.
        student: its student, in whose class order the labels are.
        data: other images; None for those of the result.
        limit: number of images at most, the first by a hash of their ids; None for all.

    Raises:
        DataError: they cannot be read, or are not those that the result was measured on.
    """
    images = align_samples(load_samples(data), student) if data is not None else _of_result(record, student)
    if limit is None or limit >= len(images):
        return images
    return images.select(np.sort(np.argsort(digest_order(images.ids, "measure"), kind="stable")[:limit]))


def refuse_other_answers(record: TransferRecord, found: Predictions, *, ids: Sequence[str]) -> None:
    """Refuse images that the student answers otherwise than when the result was measured: those are others.

    Digests hold the contents of a few images only; the answers tell of all of them. By another version of Pillow, which
    may decode a file a little otherwise, only those count whose class is another.

    Args:
        record: the transfer.
        found: the student's answers now.
        ids: ids of the images that it was asked about.

    Raises:
        DataError: logits of some differ by more than rounding on another device explains (`predictions.ROUNDING`).
    """
    asked = frozenset(ids)
    rows = [row for row, one in enumerate(record.after.ids) if one in asked]
    then = replace(record.after, ids=tuple(record.after.ids[row] for row in rows), logits=record.after.logits[rows])
    others = answered_otherwise(then, found, classes=not _same_decoder(record))
    if others:
        named = " and ".join(map(repr, others[:NAMED])) + " …" * (len(others) > NAMED)
        raise DataError(
            f"{record.config.val.reference}: the student answers {len(others):,} of {len(rows):,} {found.noun}s "
            f"({named}) otherwise than when the result was measured: they, or the weights in "
            f"{record.folder / 'student'}, are others since; {_OTHERS}"
        )


def calibration_images(record: TransferRecord) -> Samples:
    """The first `CALIBRATION` transfer images by a hash of their ids, without any that the result was measured on.

    Raises:
        DataError: they cannot be read, or there is none.
    """
    images = _loaded(record.config.data.reference, labels=False)
    measured = frozenset(record.before.ids) if images.reference == record.config.val.reference else frozenset()
    order = np.argsort(digest_order(images.ids, "calibrate"), kind="stable")
    chosen = [i for i in order.tolist() if images.ids[i] not in measured][:CALIBRATION]
    if not chosen:
        raise DataError(f"{images.reference}: holds no image to calibrate on that the result was not measured on")
    return images.select(chosen)


def _of_result(record: TransferRecord, student: Classifier) -> Samples:
    """Those of `config.json` that were measured on, in their order; refused where anything about them differs."""
    reference = record.config.val.reference
    found = _loaded(reference, labels=record.before.target is not None)
    images = align_samples(found, student) if found.labels is not None else found
    position_of = {sample_id: i for i, sample_id in enumerate(images.ids)}
    missing = next((one for one in record.after.ids if one not in position_of), None)
    if missing is not None:
        raise DataError(f"{reference}: has no {found.noun} {missing!r}, which the result was measured on; {_OTHERS}")
    chosen = images.select([position_of[one] for one in record.after.ids])
    if record.after.target is not None and (
        chosen.labels is None or not np.array_equal(chosen.labels, record.after.target.numpy())
    ):
        raise DataError(f"{reference}: its labels are others than those that the result was measured by; {_OTHERS}")
    val = record.config.val
    whole = len(chosen) == val.samples and _same_decoder(record) and val.pixels is not None
    if whole and chosen.few_digest != val.pixels:
        raise DataError(
            f"{reference}: its {found.noun}s are others than those that the result was measured on; {_OTHERS}"
        )
    return chosen


def _loaded(reference: str, *, labels: bool) -> Samples:
    try:
        return load_samples(reference, labels=labels)
    except GainfinderError as error:
        raise DataError(f"{error}; {_OTHERS}") from error


def _same_decoder(record: TransferRecord) -> bool:
    return record.config.environment.pillow in (None, version("pillow"))
