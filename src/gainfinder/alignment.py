"""One class order for a student, its teachers and the images: the student's."""

import logging
from dataclasses import replace

import numpy as np

from .classes import align_teacher, match_classes
from .data.images import Images
from .errors import DataError
from .models.classifier import Classifier

_log = logging.getLogger("gainfinder")


def named_after(student: Classifier, images: Images) -> Classifier:
    """The student with the class names of the images, where it has none of its own and their counts are equal.

    Teachers that carry names can then be matched by name although the student does not.
    """
    if student.class_names is None and images.class_names is not None and images.num_classes == student.num_classes:
        return replace(student, class_names=images.class_names)
    return student


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


def align_model(model: Classifier, student: Classifier) -> Classifier:
    """The model with its logits in the student's class order.

    Raises:
        ModelError: class counts differ, or some class names are found and others not.
    """
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
