"""Checks of a requested transfer, before any work is done."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from ..config import ResolvedConfig, TransferConfig
from ..data import Samples
from ..devices import check_batch_norm, free_memory
from ..errors import ModelError, SettingsError
from ..inference import Teacher
from ..metrics import harm
from ..models import Classifier, PredictionTable, TeacherSource, has_batch_norm, has_scripted_batch_norm

LOGITS_OF_STUDENT = 4
"""Tensors of logits beside the teachers': the initial student's, the student's own, their gradient and the loss's."""
_log = logging.getLogger("gainfinder")


def check_settings(resolved: ResolvedConfig, requested: TransferConfig, *, teachers: int, noun: str) -> None:
    """Refuse settings that do not go together.

    Args:
        resolved: the resolved settings.
        requested: the settings as the user gave them.
        teachers: number of teachers.
        noun: what a sample is.

    Raises:
        SettingsError: two settings exclude each other.
    """
    _check_strategy(resolved, requested, teachers)
    _check_control(requested, teachers)
    _check_bank(resolved, requested)
    _check_compiled(resolved, requested)
    _check_plateau(resolved, requested, noun=noun)


def check_both(requested: TransferConfig, *, teachers: Sequence[TeacherSource], label_maps: Sequence[Path]) -> None:
    """Refuse what two models cannot learn from each other by.

    Args:
        requested: the settings as the user gave them.
        teachers: the teachers as the user gave them.
        label_maps: files that map a teacher's classes to the student's.

    Raises:
        SettingsError: there is another number of teachers than one, it is no model, or a setting does not go with it.
    """
    word = f"`both` is {requested.both!r}"
    if len(teachers) != 1:
        raise SettingsError(f"{word}, with {len(teachers)} teachers: two models learn from each other, give one")
    teacher = teachers[0]
    if isinstance(teacher, PredictionTable) or str(teacher).startswith("table:"):
        name = teacher.reference if isinstance(teacher, PredictionTable) else teacher
        raise SettingsError(f"{word}, and {name} has predictions alone, which cannot learn: give a model")
    if label_maps:
        raise SettingsError(
            f"{word}, and a label map leads one way, from the teacher's classes to the student's: give models whose "
            "classes are named alike, or leave `both` out"
        )
    if requested.both != "live":
        return
    given = {
        "control": (bool(requested.controls), "a control is of one student alone"),
        "bank": (requested.bank is not None, "what a teacher that learns answers cannot be kept for other runs"),
        "track": (bool(requested.trackers), "a tracker follows one run at a time"),
        "compile": (requested.compile, "a compiled teacher does not learn"),
    }
    for name, (is_given, why) in given.items():
        if is_given:
            raise SettingsError(f"{word}, together with `{name}`: {why}; leave it out, or give `both='frozen'`")


def check_way(resolved: ResolvedConfig, requested: TransferConfig, *, accelerator: Accelerator) -> None:
    """Refuse a method and a machine by which two models cannot learn from each other live.

    Args:
        resolved: the resolved settings of one of them.
        requested: the settings as the user gave them.
        accelerator: device, precision and processes.

    Raises:
        SettingsError: the method compares features or needs no teacher, or there are several processes, or fp16.
    """
    if requested.both != "live":
        return
    word, remedy = "`both` is 'live'", "give `both='frozen'`"
    if resolved.method.needs_features:
        raise SettingsError(
            f"{word}, and method {resolved.method.name!r} compares features, which is not done of a teacher that "
            f"learns: give a method such as kl-dp, or {remedy}"
        )
    if not resolved.needs_teachers:
        raise SettingsError(f"{word}, and method {resolved.method.name!r} learns from no teacher: give one that does")
    if accelerator.num_processes > 1:
        raise SettingsError(f"{word}, with {accelerator.num_processes} processes: run it in one, or {remedy}")
    if accelerator.mixed_precision == "fp16":
        raise SettingsError(f"{word}, in fp16, whose gradient scaler is one model's: give `precision='fp32'` or bf16")


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
        raise SettingsError("`at_most` is given together with `guard=False`: changed answers are counted by the guard")
    share = float(requested.at_most)
    if len(guard_images) < (fewest := harm.fewest_images(share)):
        raise SettingsError(
            f"`at_most` is {share:.4g}, and {len(guard_images)} guard {guard_images.noun}s cannot show so little even "
            f"where none changes: expected {fewest} or more, give them as `guard_data`, or raise `at_most`"
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
        SettingsError: a method that compares features or the samples of a batch, or one decision for a sample; or a
            control by the labels of cells on views that are augmented.
        ModelError: a table of predictions as a teacher.
    """
    if not student.in_places:
        return
    name, each = resolved.method.name, student.classifies
    whole = f"{'an' if student.reads == 'image' else 'a'} {student.reads}"
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


def check_room_for_places(
    student: Classifier, settings: ResolvedConfig, *, images: Samples, teachers: int, device: torch.device
) -> None:
    """Refuse batches whose logits in all places do not fit into memory, on a CPU, where the system would end the run.

    On a GPU, batches that do not fit are learned from in parts.

    Args:
        student: the student.
        settings: the resolved settings.
        images: the transfer samples.
        teachers: number of teachers.
        device: device that it trains on.

    Raises:
        SettingsError: they do not fit.
    """
    if not student.in_places or device.type != "cpu":
        return
    at_once = min(settings.micro_batch or settings.batch_size, len(images))
    each = images.most_places * student.num_classes * 4 * (teachers + LOGITS_OF_STUDENT)
    free = free_memory()
    if at_once * each > free:
        raise SettingsError(
            f"{at_once} {images.noun}s of up to {images.most_places} {images.classified}s with {student.num_classes:,} "
            f"classes each have logits of {at_once * each / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free: give "
            f"`micro_batch={max(1, int(0.5 * free / each))}`, or shorter {images.noun}s"
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
            f"batch-size {settings.batch_size} and {images} {student.reads}s cannot be shared out among {processes} "
            f"processes: expected at least one {student.reads} a process"
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
            f"{student.reference} has batch-norm layers, which need two {student.reads}s or more at once: got "
            "`micro_batch=1`"
        )
    if has_batch_norm(student.module) and settings.student_mode == "train" and smallest < 2 * processes:
        raise SettingsError(
            f"{student.reference} has batch-norm layers, which need two {student.reads}s or more a batch and process: "
            f"got batches of {smallest} {student.reads}(s) from {images} {student.reads}s, "
            f"`batch_size={settings.batch_size}`; raise it"
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
                f"mixup is {settings.mixup:g}, and {teacher.reference} has predictions for {images.noun}s as they are, "
                "for no mixed ones: give mixup 0, or the model itself"
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


def _check_plateau(resolved: ResolvedConfig, requested: TransferConfig, *, noun: str) -> None:
    if resolved.schedule == "plateau" and not requested.guarded:
        raise SettingsError(
            f"schedule plateau goes by the loss on guard {noun}s, and the guard is off: leave the guard on, or give a "
            "schedule such as cosine"
        )
