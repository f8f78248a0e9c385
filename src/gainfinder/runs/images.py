"""The roles of a transfer's images: to learn from, to measure on, to guard with. No image has two unless requested."""

import logging
from dataclasses import dataclass

from ..config import TransferConfig
from ..data import Samples, SampleSource, holdout, load_samples, stratified
from ..errors import DataError
from ..inference import align_samples
from ..models import Classifier

_log = logging.getLogger("gainfinder")

HOLDOUT_SHARE = 0.1
"""Share of the data set apart for measuring, and as much for the guard, where no other images are given for them."""
FEW_IMAGES = 200
"""Fewer to measure on, or to guard with, than these are worth a warning."""
MAX_GUARD_IMAGES = 5000
"""Most images set apart for the guard."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The images of a transfer by role.

    Attributes:
        train: the transfer images, labelled only where labels may be read.
        val: the images measured on.
        guard: the images that the guard judges by; None without a guard.
    """

    train: Samples
    val: Samples
    guard: Samples | None

    @property
    def given(self) -> tuple[Samples, ...]:
        """Those that there are, the images measured on first."""
        return tuple(one for one in (self.val, self.train, self.guard) if one is not None)


def assign_roles(
    data: SampleSource, val: SampleSource | None, guard_data: SampleSource | None, settings: TransferConfig
) -> Roles:
    """The images to learn from, to measure on and to guard with; no image has two roles unless requested."""
    rest = load_samples(data, labels=settings.labels == "use")
    if val is None:
        rest, val_images = _set_apart(rest, data)
    else:
        val_images = load_samples(val)
    guard_images = None
    if guard_data is not None:
        guard_images = load_samples(guard_data, labels=settings.labels == "use")
        note_overlap(val_images, guard_images, "that guard", "measured on")
    elif settings.guarded:
        rest, guard_images = _set_apart_for_guard(rest)
    return Roles(train=rest, val=val_images, guard=guard_images)


def align_val(val_images: Samples, student: Classifier, *, requested: bool) -> Samples:
    """The images measured on, in the student's class order.

    Labels that were not requested (of the tenth held out from images that are learned from without labels) may be of
    other classes; they are then ignored.
    """
    try:
        return align_samples(val_images, student)
    except DataError as error:
        if requested:
            raise
        _log.warning("measuring without labels: %s", error)
        return align_samples(val_images.without_labels(), student)


def subset(images: Samples, settings: TransferConfig) -> Samples:
    """The requested share of the transfer images: stratified, or by id alone where no label may be read."""
    if settings.subset is None and (settings.limit is None or settings.limit >= len(images)):
        return images
    return images.select(stratified(images, count=settings.limit, share=settings.subset, salt="transfer"))


def with_labels(images: Samples, data: SampleSource, student: Classifier) -> Samples:
    """The transfer images with their labels, in the student's class order, for a control that learns from them.

    Args:
        images: the transfer images, maybe without labels.
        data: the source that they are from.
        student: the student.

    Raises:
        DataError: the source has no labels, or their classes do not fit the student's.
    """
    if images.labels is not None:
        return images
    wanted = f"{images.reference}: `control='labels'` learns from the labels of the transfer {images.noun}s, and"
    advice = f"leave it out, or give labelled {images.noun}s as `data`"
    try:
        found = align_samples(load_samples(data), student)
    except DataError as error:
        raise DataError(f"{wanted} they cannot be read ({error}): {advice}") from error
    if found.labels is None:
        raise DataError(f"{wanted} these carry none: {advice}")
    position_of = {sample_id: i for i, sample_id in enumerate(found.ids)}
    return found.select([position_of[sample_id] for sample_id in images.ids])


def note_guard(images: Samples | None, *, held_out: bool) -> None:
    """Warn of guard images that may flatter the student, or that are too few to judge by."""
    if images is None:
        return
    if held_out:
        _log.warning(
            "%d %ss of `data` are set apart for the guard; if a model was trained on them, the guard is conservative: "
            "give `guard_data` with %ss that none of the models was trained on",
            len(images),
            images.noun,
            images.noun,
        )
    if len(images) < FEW_IMAGES:
        few = f"the guard has {len(images)} {images.noun}s only"
        _log.warning("%s and will mostly keep the student as it was: give more", few)


def hold_out_to_measure(images: Samples) -> tuple[Samples, Samples]:
    """The images less a tenth, and that tenth, the same one for every command; a warning where it is small."""
    rest, held_out_images = holdout(images, share=HOLDOUT_SHARE, by_id_alone=images.labels is None)
    if (count := len(held_out_images)) < FEW_IMAGES:
        few = f"measured on {count} {images.noun}s only"
        _log.warning("%s, one is %.1f pp: give `val` for more", few, 100 / count)
    return rest, held_out_images


def _set_apart(train_images: Samples, data: SampleSource) -> tuple[Samples, Samples]:
    """A tenth to measure on; of these, labels are read where there are any."""
    rest, held_out_images = hold_out_to_measure(train_images)
    if train_images.labels is not None:
        return rest, held_out_images
    try:
        labelled = load_samples(data)
    except DataError as error:
        _log.warning("measuring without labels: %s", error)
        return rest, held_out_images
    position_of = {sample_id: i for i, sample_id in enumerate(labelled.ids)}
    return rest, labelled.select([position_of[sample_id] for sample_id in held_out_images.ids])


def _set_apart_for_guard(images: Samples) -> tuple[Samples, Samples]:
    share = min(HOLDOUT_SHARE, MAX_GUARD_IMAGES / len(images))
    return holdout(images, share=share, salt="guard", by_id_alone=images.labels is None)


def note_overlap(others: Samples, images: Samples, role: str, other_role: str) -> None:
    """Warn where images of one source have two roles."""
    bases = {source.reference.split("#")[0] for source in (others, images)}
    shared = len(set(others.ids) & set(images.ids)) if len(bases) == 1 else 0
    if shared:
        _log.warning("%d of the %d %ss %s are also %s", shared, len(images), images.noun, role, other_role)
