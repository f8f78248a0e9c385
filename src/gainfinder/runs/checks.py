"""Checks of a requested transfer, before any work is done."""

import logging
from collections.abc import Sequence

from accelerate import Accelerator

from ..config import ResolvedConfig, TransferConfig
from ..data import Samples
from ..devices import check_batch_norm
from ..errors import ModelError, SettingsError
from ..inference import Teacher
from ..metrics import harm
from ..models import Classifier, PredictionTable, has_batch_norm, has_scripted_batch_norm

_log = logging.getLogger("gainfinder")


def check_settings(resolved: ResolvedConfig, requested: TransferConfig, *, teachers: int) -> None:
    """Refuse settings that do not go together.

    Args:
        resolved: the resolved settings.
        requested: the settings as the user gave them.
        teachers: number of teachers.

    Raises:
        SettingsError: two settings exclude each other.
    """
    _check_strategy(resolved, requested, teachers)
    _check_control(requested, teachers)
    _check_bank(resolved, requested)
    _check_compiled(resolved, requested)
    _check_plateau(resolved, requested)


def check_guard(requested: TransferConfig, *, images_given: bool) -> None:
    """Refuse guard images where the guard is switched off.

    Raises:
        SettingsError: images for the guard are given with `guard=False`.
    """
    if images_given and requested.guard is False:
        raise SettingsError("`guard_data` is given together with `guard=False`: give one of them")


def check_at_most(requested: TransferConfig, guard_images: Samples | None) -> None:
    """Refuse a limit on changed answers that the guard cannot show to be kept.

    Raises:
        SettingsError: there is no guard, or its images are too few.
    """
    if requested.at_most is None:
        return
    if guard_images is None:
        raise SettingsError("`at_most` is given together with `guard=False`: changed answers are counted on its images")
    share = float(requested.at_most)
    if len(guard_images) < (fewest := harm.fewest_images(share)):
        raise SettingsError(
            f"`at_most` is {share:.4g}, and {len(guard_images)} guard images cannot show so little even where none "
            f"changes: expected {fewest} or more, give them as `guard_data`, or raise `at_most`"
        )


def check_referees(
    referees: Sequence[Teacher], student: Classifier, teachers: Sequence[Teacher], guard_images: Samples | None
) -> None:
    """Refuse referees that cannot judge: nobody is a witness in his own cause.

    Raises:
        SettingsError: there is no guard, or it judges by labels; or a referee is the student, a teacher or another one.
    """
    if not referees:
        return
    if guard_images is None:
        raise SettingsError("`referee` is given together with `guard=False`: a referee judges for the guard")
    if guard_images.labels is not None:
        raise SettingsError(
            "`referee` is given, and the guard judges by labels: leave it out, or read no labels (`labels='none'`)"
        )
    taken = {_digest(student): "the student itself", **{_digest(teacher): "a teacher itself" for teacher in teachers}}
    for referee in referees:
        if (found := taken.get(_digest(referee))) is not None:
            raise SettingsError(
                f"referee {referee.reference} is {found} (the same weights): expected a model that does not teach"
            )
        taken[_digest(referee)] = "a referee already"


def _digest(model: Teacher) -> str:
    return model.weights_digest() if isinstance(model, Classifier) else model.digest


def check_places(
    student: Classifier, teachers: Sequence[Teacher], resolved: ResolvedConfig, requested: TransferConfig
) -> None:
    """Refuse what is for whole samples alone, where each place of a sample has a class, such as each word of a text.

    Raises:
        SettingsError: a bank, a method that compares features or the samples of a batch, or one decision for a sample;
            or a control by the labels of cells on views that are augmented.
        ModelError: a table of predictions as a teacher.
    """
    if not student.in_places:
        return
    name, each = resolved.method.name, student.classifies
    whole = f"{'an' if student.reads == 'image' else 'a'} {student.reads}"
    if requested.bank is not None:
        raise SettingsError(f"the bank keeps one answer {whole}, and each {each} has one: leave `bank` out")
    if resolved.method.needs_features or resolved.method.compares_batch:
        what = "features" if resolved.method.needs_features else "the samples of a batch"
        raise SettingsError(
            f"method {name!r} compares {what}, and each {each} has a class: use a method such as kl-dp-u"
        )
    if resolved.decides_once:
        raise SettingsError(f"decide-on is 'image', and each {each} of {whole} has a teacher of its own: leave it out")
    if each == "cell" and "labels" in requested.controls and resolved.augment != "none":
        raise SettingsError(
            "control is 'labels', and the labels of cells would not move along with augmented views: give "
            "`augment='none'`, or leave the control out"
        )
    for teacher in teachers:
        if not isinstance(teacher, Classifier):
            raise ModelError(
                f"{teacher.reference} has one prediction {whole}, and each {each} needs one: give the model"
            )


def check_student(student: Classifier, settings: ResolvedConfig, *, images: int, accelerator: Accelerator) -> None:
    """Refuse a student that cannot be trained in batches of this size.

    Raises:
        SettingsError: too few images for each process, or for batch-norm.
        ModelError: it has no weight that can be trained.
    """
    processes = accelerator.num_processes
    if settings.batch_size < processes or images < processes:
        raise SettingsError(
            f"batch-size {settings.batch_size} and {images} images cannot be shared out among {processes} processes: "
            "expected at least one image a process"
        )
    if not any(parameter.requires_grad for parameter in student.module.parameters()):
        raise ModelError(
            f"{student.reference}: the student has no weight that can be trained: all are frozen (requires_grad is "
            "False), or it has none"
        )
    check_batch_norm(student.module, accelerator)
    if has_scripted_batch_norm(student.module) and settings.student_mode != "frozen":
        _log.warning(
            "%s: its batch-norm layers are TorchScript, whose statistics are not re-estimated for the guard or at the "
            "start: give the module that it was made from where they should be",
            student.reference,
        )
    smallest = images // -(-images // settings.batch_size)
    if has_batch_norm(student.module) and settings.student_mode == "train" and settings.micro_batch == 1:
        raise SettingsError(
            f"{student.reference} has batch-norm layers, which need two images or more at once: got `micro_batch=1`"
        )
    if has_batch_norm(student.module) and settings.student_mode == "train" and smallest < 2 * processes:
        raise SettingsError(
            f"{student.reference} has batch-norm layers, which need two images or more a batch and process: got "
            f"batches of {smallest} image(s) from {images} images, `batch_size={settings.batch_size}`; raise it"
        )


def check_teachers(
    teachers: Sequence[Teacher], settings: ResolvedConfig, *, images: Samples, accelerator: Accelerator
) -> None:
    """Refuse teachers that cannot give what the method needs.

    Raises:
        SettingsError: a table for a method on features, or several processes for one that keeps a memory.
        DataError: a table lacks some of the images.
    """
    for teacher in teachers:
        if not isinstance(teacher, PredictionTable):
            continue
        if settings.method.needs_features:
            raise SettingsError(
                f"method {settings.method.name!r} compares features, and {teacher.reference} has predictions alone: "
                "use a method such as kl-dp"
            )
        if settings.mixup:
            raise SettingsError(
                f"mixup is {settings.mixup:g}, and {teacher.reference} has predictions for images as they are, for no "
                "mixed ones: give mixup 0, or the model itself"
            )
        teacher.require(images.ids)
        if settings.augment != "none":
            _log.warning(
                "%s has predictions for unaugmented images, while the student sees them augmented (%s)",
                teacher.reference,
                settings.augment,
            )
    if settings.method.single_process and accelerator.num_processes > 1:
        raise SettingsError(
            f"method {settings.method.name!r} keeps a memory that {accelerator.num_processes} processes cannot share: "
            "run it in one"
        )


def _check_strategy(resolved: ResolvedConfig, requested: TransferConfig, teachers: int) -> None:
    if teachers > 1 and requested.strategy == "parallel" and not resolved.method.needs_initial_student:
        raise SettingsError(
            f"strategy parallel shares the samples out among the teachers, and method {resolved.method.name!r} has no "
            "partition for that: use a method such as kl-dp-u, or strategy sequential"
        )


def _check_control(requested: TransferConfig, teachers: int) -> None:
    if requested.controls and teachers > 1 and requested.strategy != "parallel":
        raise SettingsError(
            f"control is requested, with {teachers} teachers and strategy {requested.strategy}: it controls "
            "a single transfer; give one teacher, or strategy parallel"
        )


def _check_bank(resolved: ResolvedConfig, requested: TransferConfig) -> None:
    if requested.bank is not None and resolved.method.needs_features:
        raise SettingsError(
            f"method {resolved.method.name!r} compares features, and the bank keeps predictions alone: leave `bank` out"
        )


def _check_compiled(resolved: ResolvedConfig, requested: TransferConfig) -> None:
    if requested.compile and resolved.method.needs_features:
        raise SettingsError(
            f"method {resolved.method.name!r} looks into the models, which cannot be done once they are compiled: "
            "leave `compile` out"
        )


def _check_plateau(resolved: ResolvedConfig, requested: TransferConfig) -> None:
    if resolved.schedule == "plateau" and not requested.guarded:
        raise SettingsError(
            "schedule plateau goes by the loss on guard images, and the guard is off: leave the guard on, or give a "
            "schedule such as cosine"
        )
