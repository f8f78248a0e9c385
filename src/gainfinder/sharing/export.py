"""A student becomes an ONNX file, which ONNX Runtime runs on the images that the student was measured on."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data import SampleSource
from ..errors import ModelError, RunFolderError, SettingsError
from ..files import check_writable, write_atomically
from ..inference import ImageCount, predict_samples
from ..metrics import accuracy_change
from ..models import (
    OPSET,
    OPSETS,
    Classifier,
    ModelSource,
    load_copy,
    load_into,
    load_model,
    load_weights,
    parse_model_ref,
    refuse_unexportable,
    write_onnx,
)
from ..predictions import Predictions
from ..references import refuse_trust
from ..report import TransferRecord, student_library
from .bundle import read_result
from .images import calibration_images, measured_images, refuse_other_answers
from .quantisation import quantise

CPU = torch.device("cpu")
StageFunction = Callable[[str, int], ImageCount]
"""From what is being done, and the number of images, to what is called with the images done."""


@dataclass(frozen=True, kw_only=True)
class ExportedStudent:
    """An ONNX file, and how its answers differ from the student's in PyTorch on the same images.

    Attributes:
        path: the file.
        reference: the reference that loads it here.
        bytes: size of the file.
        opset: version of ONNX's operators.
        int8: whether its layers compute in integers of 8 bits.
        calibrated_on: number of images that their ranges were set by; 0 without `int8`.
        data: reference of the images measured on.
        images: number of them.
        accuracy_torch: the student's accuracy in PyTorch; None without labels.
        accuracy_onnx: that of the file in ONNX Runtime; None without labels.
        delta_pp: the difference, in percentage points; None without labels.
        delta_ci_pp: 95 % interval of it, paired; None without labels.
        disagreements: images for which the predicted classes differ.
        largest_difference: largest difference of two logits.
    """

    path: str
    reference: str
    bytes: int
    opset: int
    int8: bool
    calibrated_on: int
    data: str
    images: int
    accuracy_torch: float | None
    accuracy_onnx: float | None
    delta_pp: float | None
    delta_ci_pp: tuple[float, float] | None
    disagreements: int
    largest_difference: float

    def to_dict(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)


def export_student(
    folder: str | Path,
    onnx: str | Path,
    *,
    int8: bool = False,
    student: ModelSource | None = None,
    data: SampleSource | None = None,
    limit: int | None = None,
    opset: int = OPSET,
    force: bool = False,
    on_stage: StageFunction | None = None,
) -> ExportedStudent:
    """Write the student of a result as an ONNX file, run it, and say how its answers differ.

    Both run on the CPU, in batches of the same size. With `int8`, convolutions and matrix products compute in integers
    of 8 bits (static quantisation, weights by channel): ranges come from `CALIBRATION` of the transfer images, always
    the same ones, none of which is measured on.

    Args:
        folder: result folder of a finished transfer.
        onnx: the file to write.
        int8: whether it is quantised.
        student: the architecture, where the folder's own reference would run Python code or there is none: the student
            that the transfer was given; its weights are the folder's.
        data: images to measure on, in place of those that the result was measured on.
        limit: number of images at most, chosen by id; None for all.
        opset: version of ONNX's operators, in `OPSETS`.
        force: whether a file that is there is replaced.
        on_stage: called before images are run.

    Raises:
        SettingsError: a setting is out of range.
        RunFolderError: the folder holds no finished transfer, or the file is there, is one of the result's own, or
            cannot be written.
        DataError: the images are not there, or not those that the result was measured on, as far as their digests and
            the student's answers tell.
        ModelError: the student cannot be loaded or written as ONNX, or does not fit its predictions.
        MissingExtra: onnx or ONNX Runtime is not installed.
    """
    _check(opset, limit)
    target, result = Path(onnx), Path(folder)
    record = read_result(result)
    _refuse_own(target, result)
    if target.is_dir() or (target.exists() and not force):
        raise RunFolderError(
            f"{target}: exists already; give another name" + ("" if target.is_dir() else " or `force`")
        )
    check_writable(target, setting="onnx")
    classifier = _student(record, student)
    refuse_unexportable(classifier)  # before any data are read
    images = measured_images(record, classifier, data=data, limit=limit)
    before = predict_samples(
        classifier, images, device=CPU, on_images=_told(on_stage, "measuring in PyTorch", len(images))
    )
    if data is None:
        refuse_other_answers(record, before, ids=images.ids)
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as scratch:
        made = Path(scratch) / "student.onnx"
        write_onnx(classifier, made, opset=opset)
        calibrated_on = 0
        if int8:
            calibration = calibration_images(record)
            tell = _told(on_stage, "calibrating", len(calibration))
            calibrated_on = quantise(made, classifier.image_preprocessing, calibration, on_images=tell)
        there = load_model(f"onnx:{made}")
        tell = _told(on_stage, "measuring in ONNX Runtime", len(images))
        after = predict_samples(there, images, device=CPU, on_images=tell)
        _copy(made, target)
    return ExportedStudent(
        path=str(target),
        reference=f"onnx:{target}",
        bytes=target.stat().st_size,
        opset=opset,
        int8=int8,
        calibrated_on=calibrated_on,
        data=images.reference,
        images=len(before),
        **_compared(before, after),
    )


def _refuse_own(target: Path, folder: Path) -> None:
    """Refuse a file that a result consists of, or a name that it may give one; an ONNX file may lie beside them."""
    own = folder.resolve()
    places = (target.resolve(), target.parent.resolve() / target.name)  # also of a link, and where it leads
    if any(place.is_relative_to(own) and place.suffix.lower() != ".onnx" for place in places):
        raise RunFolderError(
            f"{target}: lies in the result folder {folder}, whose own files are not replaced: give a name that ends in "
            ".onnx, or one elsewhere"
        )


def _copy(made: Path, target: Path) -> None:
    def write(partial: Path) -> None:
        shutil.copyfile(made, partial)

    write_atomically(target, write)


def _check(opset: int, limit: int | None) -> None:
    low, high = OPSETS
    if not low <= opset <= high:
        raise SettingsError(f"`opset` is {opset}: expected {low} to {high}")
    if limit is not None and limit < 1:
        raise SettingsError(f"`limit` is {limit}: expected 1 or more")


def _told(on_stage: StageFunction | None, what: str, count: int) -> ImageCount | None:
    return None if on_stage is None else on_stage(what, count)


def _student(record: TransferRecord, given: ModelSource | None) -> Classifier:
    """The student with the weights in the folder, in its classes' names."""
    folder, reference = record.folder / "student", record.metrics.student_reference
    if given is not None:
        classifier = load_copy(given)
        load_into(classifier.module, load_weights(folder / "model.safetensors"), reference=classifier.reference)
    else:
        classifier = load_model(_own_reference(record, folder, reference))
    if classifier.num_classes != record.after.num_classes:
        raise ModelError(
            f"{folder}: its model has {classifier.num_classes} classes, its predictions have "
            f"{record.after.num_classes}: the folder has been changed since the transfer, or `student` is another one"
        )
    classifier.module.eval()
    return classifier if record.after.class_names is None else replace(classifier, class_names=record.after.class_names)


def _own_reference(record: TransferRecord, folder: Path, reference: str | None) -> str:
    """The reference in the result, to where the folder is now; none that would run somebody's Python code."""
    advice = "give the student that the transfer was given as `student`"
    if reference is None:
        raise ModelError(f"{folder}: no reference can load its student, a module of your own: {advice}, as a module")
    ref = parse_model_ref(reference)
    refuse_trust(reference, where=f"{record.folder / 'result.json'}")
    if ref.code:
        raise ModelError(
            f"{folder}: its student {reference!r} runs Python code: read it, and where you trust it {advice}"
        )
    if student_library(reference) == "timm":
        return str(replace(ref, name=f"local-dir:{folder}"))
    if ref.source == "hf":
        classes = dict(ref.query).get("classes", "")
        query = tuple(
            (key, f"@{folder / 'classes.txt'}" if key == "classes" and classes.startswith("@") else value)
            for key, value in ref.query
        )
        return str(replace(ref, name=str(folder), query=query))
    return str(replace(ref, weights=str(folder / "model.safetensors")))


def _compared(before: Predictions, after: Predictions) -> dict[str, Any]:
    if before.ids != after.ids:
        raise ModelError("the images changed between two passes: give them again once nothing writes to them")
    change = accuracy_change(before, after)
    return {
        "accuracy_torch": None if before.target is None else before.accuracy,
        "accuracy_onnx": None if after.target is None else after.accuracy,
        "delta_pp": change.delta_pp,
        "delta_ci_pp": change.ci_pp,
        "disagreements": int((before.predicted != after.predicted).sum()),
        "largest_difference": float((before.logits - after.logits).abs().max()),
    }
