"""A transfer as a training task of timm: its train script calls the task and steps the optimiser.

timm's tasks are modules of `timm.task` that take a batch and give its loss.
Shapes: N images, C channels, H and W height and width, K classes, T teachers.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from ..errors import ModelError, SettingsError
from ..inference import align_model
from ..losses import TransferLoss
from ..models import Classifier, ModelSource, Preprocessing, TeacherSource, load_copy, load_into, load_teacher
from .frozen import FrozenModel

STATE = "initial_student"
"""The entry of a checkpoint's `task_state` that holds the initial student's weights."""
_OTHERWISE = {
    "warm-up": "begins with an epoch that trains the classifier layer alone, and the loop is timm's: use 'kl'",
    "slow": "returns an average of the student's weights, and the loop is timm's: use 'xe-kl' with `task.setup_ema()`",
    "labels": "learns from labels alone: use timm's ClassificationTask",
}

_log = logging.getLogger("gainfinder")


class TransferTask(TrainingTask):  # type: ignore[misc]  # timm's modules count as untyped
    """KL distillation with data partitioning for timm's training loop: each image is taught by whoever knows it best.

    The loss is `TransferLoss`: of the student's logits and those of the teachers and of the frozen initial student, a
    copy of the student as it is given, which keeps what it knows better (Eq. 4 and 5 of "Fantastic Gains and Where to
    Find Them", Roth et al., ICLR 2024). Frozen models run in evaluation mode and without gradients.

    Args:
        student_model: the module that is trained, which has a `pretrained_cfg` as timm's have.
        teacher_models: a teacher, or several: references such as a timm name, classifiers or modules, which are copied.
            Their classes are matched to the student's by name where both have names, else by position. Each sees the
            student's inputs in its own normalisation and size.
        method: a method's name, as `gainfinder methods` shows them, or a `TransferLoss` with settings of its own.
        initial_student: the student as it was before it learned anything, where `student_model` has trained already:
            a reference, a classifier or a module. By default `student_model` as it is now.
        size: edge of the loader's images in pixels, or height and width (the student's `pretrained_cfg`'s).
        mean: mean a channel of the loader's normalisation, of inputs in [0, 1], likewise.
        std: standard deviation, likewise.
        device: device of the frozen models (the student's).
        dtype: floating point type of their weights (the student's).
        verbose: whether to log what teaches.

    Raises:
        SettingsError: a method that compares features, steers the loop or needs no teacher, several teachers for a
            method that takes one, or temperatures of another number of models.
        GainfinderError: a model cannot be loaded, copied or matched to the student's classes.

    Note:
        Build it before a checkpoint is loaded: the student is then as it was. timm's checkpoints keep the initial
        student beside the one under training, and `--resume` brings it back.
    """

    def __init__(
        self,
        student_model: nn.Module,
        teacher_models: TeacherSource | Sequence[TeacherSource],
        method: str | TransferLoss = "kl-dp",
        *,
        initial_student: ModelSource | None = None,
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        first = next(_checked(student_model).parameters(), torch.empty(0))
        super().__init__(device=torch.device(device or first.device), dtype=dtype or first.dtype, verbose=verbose)
        self.criterion = (TransferLoss(method) if isinstance(method, str) else method).to(self.device)
        sources = [*teacher_models] if isinstance(teacher_models, list | tuple) else [teacher_models]
        _check_method(self.criterion, teachers=len(sources), initial_given=initial_student is not None)
        as_given = load_copy(student_model, size=size, mean=mean, std=std)
        teachers = [_load(cast(TeacherSource, source), student=as_given) for source in sources]
        self.initial: FrozenModel | None = None
        self._initial_given = initial_student is not None
        if self.criterion.needs_initial_student:
            initial = as_given if initial_student is None else _load_initial(initial_student, student=as_given)
            self.initial = self._frozen(initial, inputs=None)
        inputs = as_given.image_preprocessing
        self.teachers = nn.ModuleList(self._frozen(teacher, inputs=inputs) for teacher in teachers)
        self.trainable_module: Any = student_model
        self._student = replace(as_given, module=student_model)  # what its outputs are, without another copy
        if verbose:
            names = ", ".join(teacher.reference for teacher in teachers)
            _log.info("TransferTask: %s, learns from %s", self.criterion.extra_repr(), names)

    def _frozen(self, classifier: Classifier, *, inputs: Preprocessing | None) -> FrozenModel:
        return FrozenModel(classifier, inputs=inputs, device=self.device, dtype=self.dtype)

    def forward(self, input: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            input: the student's inputs, floating point (N, C, H, W), normalised by the loader.
            target: labels, integers (N,), for methods that read them; else not read, so that mixed images' (N, K) will
                do, or None.

        Returns:
            `loss`, at least float32, with a gradient of the student alone; `output`, the student's logits (N, K); and
            for methods that partition or pool, without gradient, `teacher_share`, the share of the batch that teachers
            taught, and `teacher_shares` (T,), that of each.

        Raises:
            SettingsError: the method reads labels and gets those of mixed images, or, on the CPU, of other classes.
            ValueError: labels are missing, or of another shape.
        """
        if not isinstance(input, Tensor):
            raise SettingsError(
                f"TransferTask takes images as a tensor (N, C, H, W), got {type(input).__name__}: train without "
                "--naflex-loader"
            )
        labels = self._labels(target)
        initial_logits = None if self.initial is None else self.initial(input)
        teacher_logits = [teacher(input) for teacher in self.teachers]
        output = self._student.logits(input, module=self.trainable_module)
        # As in gainfinder's own loop: only the models run in lower precision, the loss does not.
        with torch.autocast(output.device.type, enabled=False):
            stacked = self.criterion.stack(initial_logits, teacher_logits, shape=output.shape)
            losses = self.criterion.losses(output, stacked, labels)
            result = {"loss": losses.values.mean(), "output": output}
            if self.criterion.needs_initial_student:
                shares = losses.weights[:, 1:].float().mean(dim=0)
                result |= {"teacher_share": shares.sum(), "teacher_shares": shares}
        return result

    def _labels(self, target: Tensor | None) -> Tensor | None:
        if not self.criterion.needs_labels or target is None:
            return None  # `losses` says that labels are missing
        if target.is_floating_point():
            name = self.criterion.method.name
            raise SettingsError(
                f"target: method {name!r} reads labels, and got {target.dtype} {tuple(target.shape)}, as mixup, cutmix "
                "and multi-label data give: train without these, or by a method without labels such as 'kl-dp-u'"
            )
        classes = self._student.num_classes
        if target.device.type == "cpu" and not _within(target, classes):  # a GPU would be waited for
            raise SettingsError(
                f"target: expected labels from 0 to {classes - 1}, the classes of {self._student.reference}, got "
                f"{int(target.min())} to {int(target.max())}"
            )
        return target.long()

    def train(self, mode: bool = True) -> "TransferTask":
        """Set the student's mode; frozen models stay in evaluation mode."""
        super().train(mode)
        return self

    def prepare_distributed(self, device_ids: list[Any] | None = None, **ddp_kwargs: Any) -> "TransferTask":
        """Wrap the student in DistributedDataParallel; each process has frozen models of its own.

        Args:
            device_ids: devices of this process, as `[local_rank]`.
            **ddp_kwargs: further arguments of `DistributedDataParallel`.
        """
        wrap = nn.parallel.DistributedDataParallel
        self.trainable_module = wrap(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compile the student and the frozen models; before `prepare_distributed`, as for timm's own tasks.

        Args:
            backend: as `torch.compile` takes it.
            mode: likewise.
            **compile_kwargs: further arguments of `torch.compile`.

        Returns:
            The compiled student, for evaluation.
        """
        arguments = {"backend": backend, "mode": mode, **compile_kwargs}
        self.trainable_module = torch.compile(self.trainable_module, **arguments)
        self.eval_model = self.trainable_module
        for frozen in (self.initial, *self.teachers):
            if isinstance(frozen, FrozenModel):
                frozen.run_compiled(**arguments)
        compiled: nn.Module = self.trainable_module
        return compiled

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """The initial student's weights, for timm's checkpoints: nothing else tells what the student was.

        Args:
            module: not read.
            ema: whether the checkpoint's average asks; it keeps nothing of its own.
        """
        return {} if ema or self.initial is None else {STATE: self.initial.classifier.module.state_dict()}

    def load_task_state(
        self, state: Mapping[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Put the initial student back as a checkpoint has it.

        Args:
            state: what `get_task_state` gave, or None where the checkpoint has none.
            strict: not read: another initial student is another loss.
            module: not read.
            ema: whether the checkpoint's average is loaded.

        Raises:
            ModelError: the checkpoint holds no initial student and none was given, or another than was given.
        """
        if ema or self.initial is None:
            return
        found = (state or {}).get(STATE)
        if found is None and not self._initial_given:
            raise ModelError(
                "the checkpoint holds no initial student (no TransferTask wrote it), and what it has for the student "
                "may have trained already: to learn from it as it is, load it before the task is built "
                "(--initial-checkpoint); to go on, give `initial_student`"
            )
        if found is None:
            return
        module = self.initial.classifier.module
        if self._initial_given and not _same(found, module.state_dict()):
            raise ModelError(
                "the checkpoint's initial student has other weights than the `initial_student` that was given: leave "
                "that out to go on from the checkpoint, or start anew"
            )
        load_into(module, found, reference="the checkpoint's initial student")


def _within(target: Tensor, classes: int) -> bool:
    return not len(target) or bool(target.min() >= 0 and target.max() < classes)


def _checked(student_model: nn.Module) -> nn.Module:
    if not isinstance(student_model, nn.Module):
        raise ModelError(
            f"student_model: expected the module that is trained, such as timm.create_model gives it, got "
            f"{type(student_model).__name__}"
        )
    return student_model


def _check_method(criterion: TransferLoss, *, teachers: int, initial_given: bool) -> None:
    """Refuse what a loss alone cannot do, before any model is loaded."""
    method = criterion.method
    refused = [
        ("labels", not criterion.distill_weight > 0),
        ("slow", method.interpolated),
        ("warm-up", method.warmup_epochs > 0),
    ]
    for why, applies in refused:
        if applies:
            raise SettingsError(f"method {method.name!r} {_OTHERWISE[why]}, or gainfinder.transfer")
    if initial_given and not criterion.needs_initial_student:
        raise SettingsError(f"initial_student: method {method.name!r} learns from the teacher alone; use 'kl-dp'")
    if teachers < 1 or (teachers > 1 and not criterion.needs_initial_student):
        wanted = "at least one teacher" if criterion.needs_initial_student else "one teacher"
        raise SettingsError(
            f"teacher_models: method {method.name!r} learns from {wanted}, got {teachers}; 'kl-dp' and 'kl-dp-u' share "
            "the images out between several"
        )
    if criterion.temperatures_M is not None and len(criterion.temperatures_M) != teachers + 1:
        raise SettingsError(
            f"temperatures: expected those of the initial student and of {teachers} teacher(s), got "
            f"{len(criterion.temperatures_M)}"
        )


def _load(source: TeacherSource, *, student: Classifier) -> Classifier:
    teacher = load_teacher(source)
    if not isinstance(teacher, Classifier):
        raise ModelError(
            f"{teacher.reference} is a table of predictions, and a batch of timm's loop does not say which images are "
            "in it: give a model, or use gainfinder.transfer"
        )
    return cast(Classifier, align_model(teacher, student))


def _load_initial(source: ModelSource, *, student: Classifier) -> Classifier:
    initial = load_copy(source)
    if initial.num_classes != student.num_classes:
        raise ModelError(
            f"initial_student: expected {student.num_classes} classes as the student's, got {initial.num_classes} of "
            f"{initial.reference}"
        )
    return initial


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name].to(other[name]), other[name]) for name in one)
