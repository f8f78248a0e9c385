"""One class order for a student, its teachers and the images: the student's."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..classes import (
    TeacherMatch,
    align_teacher,
    counts_from_one,
    map_teacher,
    match_classes,
    number_doubt,
    numbering_doubt,
    order_doubt,
    read_label_map,
)
from ..data import Images, MaskedImages, NextTokens, Samples, Texts, in_cells, next_tokens
from ..errors import DataError, ModelError
from ..models import Classifier, PredictionTable, Preprocessing, Tokenization

Teacher: TypeAlias = Classifier | PredictionTable

_log = logging.getLogger("gainfinder")


def named_after(student: Classifier, images: Samples) -> Classifier:
    """The student with the class names of the images, where it has none of its own and their counts are equal.

    Teachers that carry names can then be matched by name although the student does not. Where frameworks sort these
    names in different orders the user is told.
    """
    if student.class_names is None and images.class_names is not None and images.num_classes == student.num_classes:
        _note(order_doubt(images.class_names, named=images.reference, nameless=student.reference))
        return replace(student, class_names=images.class_names)
    return student


def align_samples(images: Samples, student: Classifier) -> Samples:
    """The samples with labels in the student's class order; unlabelled ones as they are.

    Where the student gives cells of images a class, they are on its grid; images without labels need no masks.

    Raises:
        DataError: the student does not read such samples, or labels do not fit its classes.
    """
    images = _on_grid_of(student, images)
    if isinstance(images, Texts) and images.classified == "text" and student.classifies == "token":
        images = _with_next_tokens(images, student)
    if images.classified != student.classifies:
        unlabelled = isinstance(images, Images) and student.reads == images.noun
        raise DataError(
            f"{images.reference} holds {_held(images)}, and {student.reference} classifies {student.classifies}s: give "
            f"data of that kind, or a classifier of {images.classified}s"
            + (", or read them without labels" if unlabelled else "")
        )
    if images.labels is None:
        return images
    if images.class_names is None:
        _check_labels(images, student)
        if images.numbers is not None:
            _note(
                number_doubt(
                    images.numbers, data=images.reference, model=student.reference, model_count=student.num_classes
                )
            )
        return images.reordered(None, class_names=student.class_names, num_classes=student.num_classes)
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
    names = student.class_names or images.class_names
    return images.reordered(match.order, class_names=names, num_classes=student.num_classes)


def numbering_doubts(images: Sequence[Samples], student: Classifier, models: Sequence[Teacher]) -> str | None:
    """A line where labels are bare numbers and a model has the student's classes at other positions; else None.

    Args:
        images: samples as they were loaded, before `align_samples`.
        student: the student, among whose classes the numbers are positions.
        models: the others as they were loaded, before `align_model`.
    """
    for source in images:
        for model in models:
            doubt = numbering_doubt(
                source.numbers or (),
                data=source.reference,
                model=student.reference,
                names=student.class_names,
                other=model.reference,
                other_names=model.class_names,
            )
            if doubt is not None:
                return doubt
    return None


def align_model(model: Teacher, student: Classifier, label_map: Path | None = None) -> Teacher:
    """The model, or table of predictions, with its logits in the student's class order.

    Args:
        model: the model, or table of predictions, to align.
        student: the student, whose class order the result has.
        label_map: file that maps the model's classes to the student's, as `read_label_map` reads it;
            None to match by name, or by position where a side has no names.

    Raises:
        ModelError: the model reads something else than the student; class counts differ, and there is neither a common
            name nor a map.
        DataError: the map cannot be read, or does not fit the classes.
    """
    if isinstance(model, Classifier):
        if model.classifies != student.classifies:
            raise ModelError(
                f"{model.reference} classifies {model.classifies}s, and {student.reference} {student.classifies}s: "
                "both have to classify the same"
            )
        if student.classifies == "token":
            _check_tokenizer(model, student)
            return model
        model = _with_grid_of(student, model)
    find: Callable[..., TeacherMatch] = align_teacher
    if label_map is not None:
        find = partial(map_teacher, read_label_map(label_map), where=str(label_map))
    match = find(
        student.class_names,
        model.class_names,
        student=student.reference,
        teacher=model.reference,
        student_count=student.num_classes,
        teacher_count=model.num_classes,
    )
    _note(match.note)
    if match.label_map is None:
        return model
    if match.label_map.order is not None:
        return model.with_class_order(match.label_map.order, student.class_names)
    return model.with_label_map(match.label_map, student.class_names)


def _on_grid_of(student: Classifier, images: Samples) -> Samples:
    """Images on the grid of a student that gives their cells a class; others, and whole images with labels, as is."""
    preprocessing = student.preprocessing
    if not isinstance(preprocessing, Preprocessing) or preprocessing.grid is None:
        return images
    if isinstance(images, MaskedImages):
        return images.on_grid(preprocessing.grid)
    if isinstance(images, Images) and images.labels is None:
        return in_cells(images, preprocessing.grid)
    return images


def _with_grid_of(student: Classifier, model: Classifier) -> Classifier:
    """The model on the student's grid, so that both answer for the same cells.

    Raises:
        ModelError: its input has fewer pixels than the grid has cells.
    """
    own, theirs = model.preprocessing, student.preprocessing
    if not isinstance(own, Preprocessing) or not isinstance(theirs, Preprocessing) or own.grid == theirs.grid:
        return model
    try:
        return replace(model, preprocessing=replace(own, grid=theirs.grid))
    except ModelError as error:
        raise ModelError(
            f"{model.reference}: it has to answer for the {theirs.grid}×{theirs.grid} cells of {student.reference}, "
            f"and cannot ({error}): give the student fewer cells by ?grid=CELLS"
        ) from None


def _with_next_tokens(texts: Texts, student: Classifier) -> NextTokens:
    """Texts with the tokens that a language model has to predict."""
    tokenization = student.preprocessing
    assert isinstance(tokenization, Tokenization)
    tokens = [tokenization.tokens_of(texts, index) for index in range(len(texts))]
    return next_tokens(texts, tokens, vocabulary=student.num_classes)


def _check_tokenizer(model: Classifier, student: Classifier) -> None:
    own, other = student.preprocessing, model.preprocessing
    assert isinstance(own, Tokenization) and isinstance(other, Tokenization)
    if own.digest != other.digest:
        raise ModelError(
            f"{model.reference} and {student.reference} are language models of two tokenizers, and what they predict "
            "cannot be compared: both have to have the same"
        )


def _held(images: Samples) -> str:
    return f"{images.noun}s" if images.classified == images.noun else f"{images.noun}s of labelled {images.classified}s"


def _check_labels(images: Samples, student: Classifier) -> None:
    assert images.labels is not None
    highest = images.highest_labels
    wrong = np.flatnonzero(highest >= student.num_classes)
    if len(wrong):
        first, numbers = int(wrong[0]), images.numbers or ()
        raise DataError(
            f"{images.reference}: label {int(highest[first])} of sample {images.ids[first]!r} is out of range: "
            f"{student.reference} has {student.num_classes} classes, expected 0 to {student.num_classes - 1}"
            + _count_remedy(images, from_one=counts_from_one(numbers))
        )


def _count_remedy(images: Samples, *, from_one: bool) -> str:
    if isinstance(images, MaskedImages):
        return "; where pixels of 0 have no class and classes count from 1, add ?count_from=1 to its reference"
    return "; no label is 0: if they count from 1, subtract 1 from each" if from_one else ""


def _note(text: str | None) -> None:
    if text is not None:
        _log.warning(text)
