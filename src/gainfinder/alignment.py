"""One class order for a student, its teachers and the images: the student's."""

import logging
from collections.abc import Sequence

import numpy as np

from .classes import align_teacher, match_classes
from .data.images import Images
from .errors import DataError
from .models.classifier import Classifier

_log = logging.getLogger("gainfinder")


def align(models: Sequence[Classifier], images: Images) -> tuple[list[Classifier], Images]:
    """Bring models and images into the class order of the first model, by class name where both carry names.

    What is matched by position although names differ is logged as a warning.

    Args:
        models: the student first.
        images: labelled or not.

    Raises:
        ModelError: class counts differ, or some class names are found and others not.
        DataError: labels do not fit the models' classes.
    """
    student = models[0]
    return [student, *(_aligned(model, student) for model in models[1:])], align_images(images, student)


def align_images(images: Images, student: Classifier) -> Images:
    """The images with labels in the student's class order; unlabelled images as they are.

    Raises:
        DataError: labels do not fit the student's classes.
    """
    if images.labels is None:
        return images
    if images.class_names is None:
        _check_labels(images, student)
        return images.relabel(images.labels, class_names=student.class_names, num_classes=student.num_classes)
    assert images.num_classes is not None
    match = match_classes(
        images.class_names,
        student.class_names,
        data=images.reference,
        model=student.reference,
        data_count=images.num_classes,
        model_count=student.num_classes,
    )
    _note(match.note)
    labels = images.labels if match.order is None else np.array(match.order, dtype=np.int64)[images.labels]
    names = student.class_names or images.class_names
    return images.relabel(labels, class_names=names, num_classes=student.num_classes)


def _aligned(model: Classifier, student: Classifier) -> Classifier:
    match = align_teacher(
        student.class_names,
        model.class_names,
        student=student.reference,
        teacher=model.reference,
        student_count=student.num_classes,
        teacher_count=model.num_classes,
    )
    _note(match.note)
    return model if match.order is None else model.with_class_order(match.order, student.class_names)


def _check_labels(images: Images, student: Classifier) -> None:
    assert images.labels is not None
    wrong = np.flatnonzero(images.labels >= student.num_classes)
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{images.reference}: label {int(images.labels[first])} of sample {images.ids[first]!r} is out of range: "
            f"{student.reference} has {student.num_classes} classes, expected 0 to {student.num_classes - 1}"
        )


def _note(text: str | None) -> None:
    if text is not None:
        _log.warning(text)
