"""A few labels, where they count: the samples to ask about, and what the answers do to a result folder."""

import shutil
from pathlib import Path

from ..data import Samples, SampleSource, load_samples
from ..errors import DataError, GainfinderError
from ..files import write_atomically, write_json
from ..metrics import Evidence, accuracy_change, assess, captured, evidence, measure_transfer
from ..predictions import Predictions
from ..results import (
    CARD_FILE,
    SEED,
    Certificate,
    Content,
    ControlMetrics,
    Questions,
    RunFolder,
    TransferMetrics,
    outcomes,
    read_answers,
    read_questions,
)
from .control import FIELDS, FOLDERS
from .thumbnails import shown

SIDE = 448
"""Pixels of the longer side of a picture; smaller images stay as they are."""


def contents_asked(questions: Questions, count: int, *, data: SampleSource | None = None) -> list[Content]:
    """What is shown of the samples of the first questions: images encoded as PNG or JPEG, texts whole.

    Args:
        questions: the questions of a result folder.
        count: number of questions.
        data: the samples; None for those that the transfer named.

    Raises:
        DataError: they cannot be read, or are not those of the transfer.
    """
    images = _loaded(questions, data)
    position_of = {sample_id: i for i, sample_id in enumerate(images.ids)}
    wanted = questions.ids[:count]
    if (missing := next((one for one in wanted if one not in position_of), None)) is not None:
        raise DataError(
            f"{images.reference} has no {images.noun} {missing!r}, which the transfer had: give the {images.noun}s "
            "that guarded or that it was measured on as `data`"
        )
    return [shown(images.read(position_of[one]), side=SIDE, characters=None) for one in wanted]


def certify_student(path: Path, answers: Path) -> Certificate:
    """Read answers, write what they say into the result folder, and keep the student that they prove better.

    A student that the guard did not keep, and that is better, becomes the one in `student/`; killed half-way, the same
    call completes it.

    Args:
        path: result folder of a finished transfer.
        answers: file of answers, CSV.

    Raises:
        RunFolderError: the folder holds no finished transfer, is in use, or cannot be written.
        DataError: there is nothing to ask, or the answers are not right; nothing was changed.
    """
    questions = read_questions(path)
    given = read_answers(answers, questions)
    if not given:
        raise DataError(f"{answers}: holds no answer yet; nothing was changed")
    found = assess(outcomes(given, questions), changed=len(questions.ids), images=questions.images)
    with RunFolder(path) as folder:
        metrics = folder.read_result()
        assert metrics is not None, "the questions were read from it"
        refused = metrics.guard is not None and metrics.guard.kept_initial
        keep = refused and found.verdict == "better" and folder.candidate.is_dir()
        certificate = _certificate(found, questions, kept=keep or not refused)
        if keep:
            metrics = _with_candidate(folder, metrics)
        write_json(folder.certificate, {**certificate.to_dict(), "given": given})
        folder.write_result(metrics.model_copy(update={"certificate": certificate}))
        if not refused or keep:
            shutil.rmtree(folder.candidate, ignore_errors=True)
    return certificate


def _loaded(questions: Questions, data: SampleSource | None) -> Samples:
    if data is not None:
        return load_samples(data, labels=False)
    try:
        return load_samples(questions.reference, labels=False)
    except GainfinderError as error:
        raise DataError(f"{error}; give the {questions.noun}s as `data`") from error


def _certificate(found: Evidence, questions: Questions, *, kept: bool) -> Certificate:
    assert found.delta_pp is not None, "there are answers"
    return Certificate(
        verdict=found.verdict,
        kept=kept,
        alpha=questions.candidate.alpha,
        bn_reestimated=questions.candidate.bn_reestimated,
        answers=found.answers,
        decided_after=found.decided_after,
        right_new=found.right_new,
        right_old=found.right_old,
        evidence_better=found.better,
        evidence_not_better=found.not_better,
        delta_pp=found.delta_pp,
        delta_ci_pp=found.delta_ci_pp,
        changed=len(questions.ids),
        images=questions.images,
        level=evidence.LEVEL,
        seed=SEED,
        reference=questions.reference,
    )


def _with_candidate(folder: RunFolder, metrics: TransferMetrics) -> TransferMetrics:
    """Put the candidate in the student's place, and measure it; the result itself is left to write."""
    assert metrics.guard is not None
    _copy(folder.candidate / "student", folder.student)
    _copy(folder.candidate / "after.parquet", folder.predictions / "after.parquet")
    _copy(folder.candidate / "thumbnails.parquet", folder.thumbnails)
    before, after, teachers = folder.read_predictions(len(metrics.teachers))
    guard = metrics.guard.model_copy(update={"alpha": metrics.guard.offered_alpha or 1.0, "offered_alpha": None})
    found = {"guard": guard, **_beyond_controls(folder, metrics, after)}
    measures = measure_transfer(before, after, teachers)
    metrics = metrics.model_copy(update={**dict(measures), **found})
    labels = metrics.control_labels
    if labels is not None:
        share = captured(metrics.transfer_delta_pp, labels.transfer_delta_pp)
        labels = labels.model_copy(update={"captured_of_labels": share})
    return metrics.model_copy(update={"control_labels": labels})


def _beyond_controls(folder: RunFolder, metrics: TransferMetrics, after: Predictions) -> dict[str, ControlMetrics]:
    """What the student that is kept now has beyond each control that there is."""
    found = {}
    for name, field in FIELDS.items():
        control: ControlMetrics | None = getattr(metrics, field)
        if control is not None:
            theirs = Predictions.load(RunFolder(folder.path / FOLDERS[name]).predictions / "after.parquet")
            beyond = accuracy_change(theirs, after)
            found[field] = control.model_copy(update={"beyond_pp": beyond.delta_pp, "beyond_ci_pp": beyond.ci_pp})
    return found


def _copy(source: Path, target: Path) -> None:
    def write(partial: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, partial)
            if (target / CARD_FILE).is_file():  # somebody may have changed it
                shutil.copyfile(target / CARD_FILE, partial / CARD_FILE)
        else:
            shutil.copyfile(source, partial)

    write_atomically(target, write)
