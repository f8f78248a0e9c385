"""Prepares a transfer: loads models and images, checks them and resolves every setting; writes nothing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..config import (
    ResolvedConfig,
    TransferConfig,
    TransferSpec,
    resolve_settings,
    size_in_bytes,
)
from ..data import MaskedImages, Samples, SampleSource
from ..devices import crops_in_memory, default_workers, make_accelerator, resolve_device
from ..errors import DataError, SettingsError
from ..inference import Bank, Teacher, align_model, align_samples, named_after, numbering_doubts
from ..models import Classifier, ModelSource, PredictionTable, TeacherSource, load_copy, load_teacher
from ..views import ViewSource, ViewSpec, view_spec
from .checks import (
    check_at_most,
    check_both,
    check_guard,
    check_places,
    check_referees,
    check_room_for_places,
    check_settings,
    check_student,
    check_teachers,
    check_way,
)
from .images import Roles, align_val, assign_roles, note_guard, note_overlap, subset, with_labels
from .tracking import require

_log = logging.getLogger("gainfinder")

MOST_ANSWERS_BYTES = 2**30
"""What frozen models answer for all transfer images is kept in memory up to this size, in float32."""


@dataclass(frozen=True, kw_only=True)
class PreparedTransfer:
    """A transfer with everything loaded and resolved, ready to run; running it changes none of it.

    Attributes:
        student: the initial student.
        teachers: classifiers or tables, their outputs in the student's class order.
        train_images: the transfer images, with labels only where training may read them.
        val_images: the images measured on.
        guard_images: the images that the guard judges by, labelled only where labels may be read; None without a guard.
        settings: the resolved settings of the training loop.
        requested: the settings as the user gave them.
        view_spec: specification of the views.
        views: source of the views of the transfer images.
        bank: cache of the frozen models' logits for these views, and of decoded images; None without one.
        accelerator: device, precision and processes.
        workers: number of processes that decode images.
        val_held_out: whether the images measured on were held out from the transfer images.
        guard_held_out: whether the guard images were held out from the transfer images.
        labelled_images: the transfer images with their labels, for a control that learns from these alone; None where
            none is requested.
        command: the command line that requested it; None from Python.
        spec: the transfer as it was asked for, by references; None where models or images were given as objects, and
            of a transfer that is a part of another.
        referees: models, or tables of predictions, that judge for the guard and never teach; in the student's classes.
        guard_decisions: number of times that a guard decides in the whole run: once for each teacher of a sequence or
            soup, and once for the soup.
        student_is_given: whether the initial student is the one that was given, not one that an earlier teacher of a
            sequence left.
        partner: with `both`, the same the other way round: the teacher's learning from the student; None for one way.
    """

    student: Classifier
    teachers: tuple[Teacher, ...]
    train_images: Samples
    val_images: Samples
    guard_images: Samples | None
    settings: ResolvedConfig
    requested: TransferConfig
    view_spec: ViewSpec
    views: ViewSource = field(repr=False)
    bank: Bank | None = field(repr=False)
    accelerator: Accelerator
    workers: int
    val_held_out: bool
    guard_held_out: bool
    labelled_images: Samples | None = None
    command: str | None = None
    spec: TransferSpec | None = None
    referees: tuple[Teacher, ...] = ()
    guard_decisions: int = 1
    student_is_given: bool = True
    partner: "PreparedTransfer | None" = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; all have the same size, within one."""
        return -(-len(self.train_images) // self.settings.batch_size)

    @property
    def one_by_one(self) -> bool:
        """Whether several teachers teach in transfers of their own: in a sequence, or for a soup."""
        return len(self.teachers) > 1 and self.requested.strategy != "parallel"

    @property
    def needs_probes(self) -> bool:
        """Whether models are compared before any training: to guard the student, or to calibrate confidences."""
        return self.guard_images is not None or self.settings.method.calibrated

    @property
    def asks_once(self) -> bool:
        """Whether frozen models are asked once for all epochs, and what they answer is kept in memory.

        So it is where each epoch shows the same view of a sample and no bank keeps answers on disk, but for methods
        that compare features, which ask for more than answers.
        """
        settings = self.settings
        fixed = settings.augment == "none" and not settings.mixup
        if self.bank is not None or not fixed or settings.method.needs_features:
            return False
        # each process asks for all samples then, not for its share of them
        pays = settings.epochs > 1 and settings.epochs >= self.accelerator.num_processes
        models = settings.method.needs_initial_student + len(self.teachers)
        return pays and models * self.answer_bytes <= MOST_ANSWERS_BYTES

    @property
    def places(self) -> int | None:
        """Of samples in places how many each transfer sample has at most; None of others."""
        return self.train_images.most_places if self.student.in_places else None

    @property
    def answer_rows(self) -> int:
        """Rows of what a frozen model answers for all transfer samples: one for each, or for each of their places."""
        return len(self.train_images) * (self.places or 1)

    @property
    def answer_bytes(self) -> int:
        """Bytes that this takes in float32."""
        return 4 * self.answer_rows * self.student.num_classes

    def is_given(self, model: Classifier) -> bool:
        """Whether a model was given by the user, so that other transfers may use its logits."""
        return model is not self.student or self.student_is_given


def prepare_spec(spec: TransferSpec, *, command: str | None = None) -> PreparedTransfer:
    """Load and check all that a specification names; write nothing.

    Args:
        spec: the transfer, by references and settings.
        command: the command that asks for it, kept with the result.

    Raises:
        GainfinderError: whatever is wrong with models, images or settings.
    """
    return prepare_transfer(
        spec.student,
        spec.teachers,
        spec.data,
        val=spec.val,
        guard_data=spec.guard_data,
        label_maps=[Path(path) for path in spec.label_maps],
        referees=spec.referees,
        settings=spec.config,
        command=command,
        spec=spec,
    )


def prepare_transfer(
    student: ModelSource,
    teachers: Sequence[TeacherSource],
    data: SampleSource,
    *,
    val: SampleSource | None = None,
    guard_data: SampleSource | None = None,
    label_maps: Sequence[Path] = (),
    referees: Sequence[TeacherSource] = (),
    settings: TransferConfig,
    command: str | None = None,
    spec: TransferSpec | None = None,
) -> PreparedTransfer:
    """Load and check everything, resolve every setting; write nothing.

    With `both` the transfer the other way round is prepared, too, as its `partner`. Of frozen teachers each way is a
    transfer of its own, and its settings do not name the other.

    Args:
        student: the model that is to learn.
        teachers: the models, or tables of predictions, that are to teach.
        data: the transfer images.
        val: images to measure on, or None to set some of the data apart.
        guard_data: images for the guard, or None likewise.
        label_maps: files that map a teacher's classes to the student's: none, one for all teachers,
            or one each.
        referees: models, or tables of predictions, that judge for the guard and never teach.
        settings: the settings as the user gave them.
        command: the command line that requested it, kept with the result.
        spec: the same by references, kept with the result; None where models or images are objects.

    Raises:
        GainfinderError: models, images or settings cannot be used.
    """
    sources: dict[str, Any] = {"data": data, "val": val, "guard_data": guard_data, "referees": referees}
    if settings.both is None:
        return _prepare(
            student, teachers, **sources, label_maps=label_maps, settings=settings, command=command, spec=spec
        )
    check_both(settings, teachers=teachers, label_maps=label_maps)
    own = settings if settings.both == "live" else settings.replace(both=None)
    ways = []
    for learner, other in ((student, teachers[0]), (teachers[0], student)):
        assert not isinstance(learner, PredictionTable), "`check_both` refuses tables"
        about = None
        if spec is not None:
            about = spec.model_copy(update={"student": learner, "teachers": (other,), "config": own})
        way = _prepare(
            learner, [other], **sources, label_maps=(), settings=own, command=command, spec=about, refuse_doubts=True
        )
        ways.append(way)
    for one in ways:
        check_way(one.settings, settings, accelerator=one.accelerator)
    return replace(ways[0], partner=ways[1])


def _prepare(
    student: ModelSource,
    teachers: Sequence[TeacherSource],
    *,
    data: SampleSource,
    val: SampleSource | None,
    guard_data: SampleSource | None,
    referees: Sequence[TeacherSource],
    label_maps: Sequence[Path],
    settings: TransferConfig,
    command: str | None,
    spec: TransferSpec | None,
    refuse_doubts: bool = False,
) -> PreparedTransfer:
    """One way: as `prepare_transfer`.

    Args:
        refuse_doubts: refuse labels that a teacher would read otherwise, instead of telling it.
    """
    device = resolve_device(settings.device)
    require(settings.trackers)
    check_guard(settings, images_given=guard_data is not None)
    if guard_data is not None:  # whoever gives images to guard by asks for a guard
        settings = settings.replace(guard=True)
    if not teachers:
        raise SettingsError("expected at least one teacher, got none")
    roles = assign_roles(data, val, guard_data, settings)
    named_student = _named_student(load_copy(student), (roles.val, roles.train))
    loaded = [load_teacher(teacher) for teacher in teachers]
    _tell_numbering(roles, named_student, loaded, refuse=refuse_doubts)
    aligned = _aligned_teachers(loaded, named_student, label_maps)
    train_images, val_images, guard_images = _aligned_samples(roles, named_student, settings, val_given=val is not None)
    bank = _bank(settings)
    # The bank renders views of its own for the models that it caches.
    live = [] if bank is not None else [teacher for teacher in aligned if isinstance(teacher, Classifier)]
    seen = view_spec([model.preprocessing for model in (named_student, *live)], "none")
    resolved = resolved_for(settings, train_images, teachers=aligned, view_size=pixels_of(seen))
    check_settings(resolved, settings, teachers=len(aligned), noun=train_images.noun)
    check_places(named_student, aligned, resolved, settings)
    accelerator = make_accelerator(settings.device, settings.precision, compiled=settings.compile)
    check_room_for_places(
        named_student, resolved, images=train_images, teachers=len(aligned), device=accelerator.device
    )
    check_student(named_student, resolved, images=len(train_images), accelerator=accelerator)
    check_teachers(aligned, resolved, images=train_images, accelerator=accelerator)
    check_at_most(settings, guard_images)
    judging = tuple(align_model(load_teacher(referee), named_student) for referee in referees)
    check_referees(judging, named_student, aligned, guard_images)
    note_guard(guard_images, held_out=guard_data is None)
    workers = default_workers(device) if settings.workers is None else settings.workers
    seen = replace(seen, augment=resolved.augment, seed=resolved.view_seed, count=resolved.views, mixup=resolved.mixup)
    return PreparedTransfer(
        student=named_student,
        teachers=aligned,
        train_images=train_images,
        val_images=val_images,
        guard_images=guard_images,
        settings=resolved,
        requested=settings,
        view_spec=seen,
        views=ViewSource(
            train_images,
            seen,
            workers=workers,
            device=accelerator.device,
            resident_bytes=crops_in_memory(accelerator.device),
            keeper=None if bank is None else bank.crops,
        ),
        bank=bank,
        accelerator=accelerator,
        workers=workers,
        val_held_out=val is None,
        guard_held_out=guard_data is None,
        labelled_images=with_labels(train_images, data, named_student) if "labels" in settings.controls else None,
        command=command,
        spec=spec,
        referees=judging,
        guard_decisions=_guard_decisions(len(aligned), settings.strategy),
    )


def _tell_numbering(roles: Roles, student: Classifier, teachers: Sequence[Teacher], *, refuse: bool) -> None:
    """Tell, or refuse, labels that are numbers and that a teacher would read as other classes."""
    doubt = numbering_doubts(roles.given, student, teachers)
    if doubt is None:
        return
    if refuse:
        raise DataError(f"{doubt}; the other way would read them so")
    _log.warning(doubt)


def _aligned_samples(
    roles: Roles, student: Classifier, settings: TransferConfig, *, val_given: bool
) -> tuple[Samples, Samples, Samples | None]:
    """The samples to learn from, to measure on and to guard with, their labels matched to the student's classes."""
    train_images = subset(_readable(align_samples(roles.train, student), settings), settings)
    val_images = align_val(roles.val, student, requested=val_given or settings.labels == "use")
    guard_images = None if roles.guard is None else _readable(align_samples(roles.guard, student), settings)
    note_overlap(train_images, val_images, "measured on", "learned from")
    if guard_images is not None:
        note_overlap(train_images, guard_images, "that guard", "learned from")
    return train_images, val_images, guard_images


def resolved_for(
    settings: TransferConfig, images: Samples, *, teachers: Sequence[Teacher], view_size: tuple[int, int] | None
) -> ResolvedConfig:
    """The settings, resolved for these transfer images and teachers.

    Args:
        settings: the settings as the user gave them.
        images: the transfer images, with labels only where training may read them.
        teachers: the teachers.
        view_size: input height and width of the student in pixels; None of texts.

    Raises:
        SettingsError: settings do not go together.
    """
    return resolve_settings(
        settings,
        labelled=images.labels is not None,
        images=len(images),
        view_size=view_size,
        mirrorable=images.mirrorable,
        mixable=all(isinstance(teacher, Classifier) for teacher in teachers),
        in_cells=isinstance(images, MaskedImages),
    )


def pixels_of(spec: ViewSpec) -> tuple[int, int] | None:
    """Height and width in pixels of the student's views; None of texts."""
    return spec.sizes[0] if isinstance(spec.sizes[0], tuple) else None


def _readable(images: Samples, settings: TransferConfig) -> Samples:
    """The samples without labels where none may be read; a text's own tokens are labels, too."""
    return images.without_labels() if settings.labels == "none" and images.labels is not None else images


def _guard_decisions(teachers: int, strategy: str) -> int:
    if teachers == 1 or strategy == "parallel":
        return 1
    return teachers + 1 if strategy == "soup" else teachers


def _bank(settings: TransferConfig) -> Bank | None:
    if settings.bank is None:
        return None
    limit = None if settings.bank_limit is None else size_in_bytes(settings.bank_limit)
    return Bank(Path(settings.bank), limit=limit)


def _named_student(student: Classifier, images: Sequence[Samples]) -> Classifier:
    """The student; one without class names takes those of the images."""
    for source in images:
        student = named_after(student, source)
    return student


def _aligned_teachers(
    teachers: Sequence[Teacher], student: Classifier, label_maps: Sequence[Path]
) -> tuple[Teacher, ...]:
    """The teachers with their logits in the student's classes."""
    if len(label_maps) not in (0, 1, len(teachers)):
        raise SettingsError(
            f"{len(label_maps)} label maps are given for {len(teachers)} teachers: expected one for all, or one each"
        )
    maps: list[Path | None] = [None] * len(teachers)
    if label_maps:
        maps = [*label_maps] if len(label_maps) == len(teachers) else [label_maps[0]] * len(teachers)
    return tuple(align_model(teacher, student, label_map) for teacher, label_map in zip(teachers, maps, strict=True))
