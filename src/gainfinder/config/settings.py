"""What a transfer can be told, and the rules that fill in what it is not told.

The default learning rate. The paper tuned 1e-4 × batch/256 for 20 epochs of 128,117 images: whatever the batch size,
rate × steps comes to 1. A run with fewer steps would hardly move at that rate, so by default the rate is the one that
travels as far, 1 / steps, but never above the method's highest (1e-3, a few methods' more) at a batch of 64 and in
proportion at others (`default_lr`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingsError
from ..references import near
from .choices import (
    AUGMENTS,
    ORDERS,
    SCHEDULES,
    STRATEGIES,
    STUDENT_MODES,
    Augment,
    Labels,
    Order,
    Precision,
    Schedule,
    Strategy,
    StudentMode,
    check_names,
    default_augment,
    top_k_of,
)
from .methods import Method, default_method, find_method, refuse_unread

PAPER_LR = 1e-4
PAPER_TRAVEL = PAPER_LR / 256 * 20 * 128_117
"""Learning rate × steps of the paper's runs: about 1."""


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """The settings of a transfer; None means "by the default rule".

    Attributes:
        method: a name of `methods.METHODS`; by default `kl-dp` with labels, `kl-dp-u` without.
        labels: `none` keeps training from reading any label.
        preset: None or `paper`.
        epochs: passes over the transfer images (5; paper: 20).
        batch_size: images a step, over all processes (64; paper preset: 256). An epoch is cut into batches of at
            most this size that differ by at most one image. `auto`: the default, with `micro_batch` `auto`.
        micro_batch: images that a process takes through the models at once; gradients add up to those of the batch.
            `auto` finds before training how many fit in memory. None takes all, until memory does not suffice.
        lr: learning rate, as it reaches the optimiser; the default rule stands at the top of this file.
        schedule: of the rate: `linear` (down to 0 with the last step; the default) or `constant` (as in the paper).
        temperature: T of the distillation loss (the method's, mostly 1).
        distill_weight: λ, weight of the distillation loss; the cross-entropy with the labels gets 1 − λ (the method's).
        label_smoothing: ε of the cross-entropy's targets (the method's).
        top_k: classes that `kl-top-k` compares (10).
        sharpness: of the `soft` methods: a model's weight is its confidence to this power (4).
        slow_momentum: τ of `xe-kl-mcl`; the default rule is `default_slow_momentum`.
        slow_every: N of `xe-kl-mcl`: steps between interpolations (2).
        negatives: of `crd`: negatives drawn for a sample (4096).
        warmup_epochs: first epochs, which train the classifier layer alone (the method's, mostly 0).
        student_mode: how the student's batch-norm and dropout behave while it learns: `train` as published (batch
            statistics, dropout), `frozen` (as in evaluation), `reestimate` (batch-norm statistics re-estimated on the
            views first, then as in evaluation).
        momentum: of SGD (0.9).
        weight_decay: of SGD (1e-3).
        strategy: with several teachers: `sequential` (one after the other, each result the next one's initial student),
            `parallel` (each sample to the surest of all) or `soup` (one transfer a teacher, their weights averaged).
        order: of teachers in a sequence: `ascending` accuracy, `descending`, or as `given`.
        guard: keep the point between the initial and the transferred student that guard images find best.
        control: transfer from the student's own copy as well, in `control/` of the result folder: what that changes
            is adaptation to the images, and what the teacher's transfer changes beyond it is not. It changes no result.
        seed: fixes order, augmentation and dropout (0).
        augment: one of `augmentation.AUGMENTS`; the default rule is `views.default_augment`.
        views: how many views of an image there are, used in turn; None for a fresh one an epoch.
        view_seed: of the views (the seed); runs of several seeds that share a bank give it.
        bank: folder that keeps what frozen models answer for the views, for this run and others; None for none.
        bank_storage: `full`, or `top-K` for the K most probable classes of each image.
        bank_limit: size that the bank may have, such as `20GB`; None for as much as the disk has.
        bank_check: views of each entry for which the models are asked again, to report the largest difference (0).
        limit: use a stratified so-many of the transfer images.
        subset: use a stratified share of them.
        max_broken: largest share of images that may be undecodable (0.01).
        precision: of training; `auto` is mixed precision where the device has it. Measuring is always in float32
            (with torch's own setting for TF32 on GPUs).
        compile: whether student and frozen models are compiled (torch.compile), which takes a minute or more at first.
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: processes that decode images (none on a CPU, else up to 8); they change no result.
        checkpoint_every: steps between checkpoints within an epoch; None for one after each epoch only. It changes
            no result.
        track: trackers that are told the measures (`tensorboard`, or what else Accelerate's trackers are called). They
            change no result.
    """

    method: str | None = None
    labels: Labels = "use"
    preset: str | None = None
    epochs: int | None = None
    batch_size: int | Literal["auto"] | None = None
    micro_batch: int | Literal["auto"] | None = None
    lr: float | None = None
    schedule: Schedule | None = None
    temperature: float | None = None
    distill_weight: float | None = None
    label_smoothing: float | None = None
    top_k: int | None = None
    sharpness: float | None = None
    slow_momentum: float | None = None
    slow_every: int | None = None
    negatives: int | None = None
    warmup_epochs: int | None = None
    student_mode: StudentMode | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    strategy: Strategy = "sequential"
    order: Order = "ascending"
    guard: bool = True
    control: bool = False
    seed: int = 0
    augment: Augment | None = None
    views: int | None = None
    view_seed: int | None = None
    bank: str | Path | None = None
    bank_storage: str = "full"
    bank_limit: str | None = None
    bank_check: int = 0
    limit: int | None = None
    subset: float | None = None
    max_broken: float = 0.01
    precision: Precision = "auto"
    compile: bool = False
    device: str = "auto"
    workers: int | None = None
    checkpoint_every: int | None = None
    track: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_ranges(self)

    @property
    def fits_itself(self) -> bool:
        """Whether the images at once are to be found by trying."""
        return "auto" in (self.batch_size, self.micro_batch)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of `track`, each once."""
        return tuple(dict.fromkeys([self.track] if isinstance(self.track, str) else self.track))


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Settings of the training loop, every one decided. Fields as in `TransferSettings`.

    Attributes:
        label_weight: weight of the cross-entropy with the labels.
    """

    method: Method
    epochs: int
    batch_size: int
    micro_batch: int | None
    lr: float
    schedule: Schedule
    temperature: float
    distill_weight: float
    label_weight: float
    label_smoothing: float
    top_k: int
    sharpness: float
    slow_momentum: float
    slow_every: int
    negatives: int
    warmup_epochs: int
    student_mode: StudentMode
    momentum: float
    weight_decay: float
    seed: int
    augment: Augment
    views: int | None
    view_seed: int
    max_broken: float

    @property
    def needs_labels(self) -> bool:
        """Whether training reads labels: the method's choice, or a cross-entropy that was asked for."""
        return self.method.needs_labels or self.label_weight > 0


DEFAULTS: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "schedule": "linear",
    "top_k": 10,
    "sharpness": 4.0,
    "slow_every": 2,
    "negatives": 4096,
    "student_mode": "train",
    "momentum": 0.9,
    "weight_decay": 1e-3,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Section 5 and the published configuration, which leaves the batch size open: 256 leaves the rate unscaled.
    "paper": {"epochs": 20, "batch_size": 256, "augment": "paper", "schedule": "constant", "student_mode": "train"},
}
OF_METHODS = ("temperature", "distill_weight", "label_weight", "label_smoothing", "warmup_epochs")
"""Settings that each method has a default of its own for."""
PAPER_LR_BATCH = 256
MAX_LR_BATCH = 64
"""Batch size that the methods' highest rates are for; the rate is in proportion to the batch …"""
LARGEST_LR_BATCH = 256
"""… up to this one, the largest measured."""
PAPER_SLOW_MOMENTUM = 0.9999
PAPER_SLOW_TRAVEL = (1 - PAPER_SLOW_MOMENTUM) * 20 * 128_117 / 256 / 2
"""(1 − τ) × interpolations of the paper's runs with momentum weight interpolation: about 0.5."""


def resolve_settings(
    settings: TransferSettings, *, labelled: bool, images: int, view_size: tuple[int, int], mirrorable: bool
) -> Resolved:
    """Decide every setting.

    Args:
        settings: what was asked for; it goes over the preset, the preset over the defaults.
        labelled: whether training may read labels and there are some.
        images: number of transfer images.
        view_size: input height and width of the student in pixels.
        mirrorable: whether images may be mirrored.

    Raises:
        SettingsError: the method needs labels and there are none to read.
    """
    method = find_method(settings.method or default_method(labelled=labelled))
    _check_fits(settings, method)
    chosen = {**DEFAULTS, **{name: getattr(method, name) for name in OF_METHODS}}
    chosen.update(PRESETS.get(settings.preset or "", {}))
    asked = {name: value for name, value in vars(settings).items() if name in _RESOLVED and value not in (None, "auto")}
    if settings.distill_weight is not None:
        chosen["label_weight"] = 1 - settings.distill_weight
    chosen.update({name: value for name, value in asked.items() if name != "method"})
    chosen.setdefault("micro_batch", None)
    chosen.setdefault("views", None)
    chosen.setdefault("view_seed", settings.seed)
    chosen.setdefault("augment", default_augment(view_size, mirrorable=mirrorable))
    steps = chosen["epochs"] * -(-images // chosen["batch_size"])
    if "lr" not in chosen:
        chosen["lr"] = default_lr(method, steps=steps, batch_size=chosen["batch_size"], preset=settings.preset)
    if "slow_momentum" not in chosen and settings.preset == "paper":
        chosen["slow_momentum"] = PAPER_SLOW_MOMENTUM
    if "slow_momentum" not in chosen:
        chosen["slow_momentum"] = default_slow_momentum(steps=steps, every=chosen["slow_every"])
    resolved = Resolved(method=method, **chosen)
    _check_labels(resolved, settings, labelled=labelled)
    return resolved


def default_lr(method: Method, *, steps: int, batch_size: int, preset: str | None) -> float:
    """The learning rate where none is given.

    The paper's preset scales its rate by batch/256, as the published code does. Otherwise it is the rate that travels
    as far as the paper's in so many steps, rate × steps = 1, but no more than the method's highest: for most 1e-3 at a
    batch of 64, and in proportion to the batch, so that one pass over the images travels as far whatever the batch
    (benchmarks/README.md has the measurements), up to a batch of 256.

    >>> default_lr(find_method("kl-dp"), steps=100, batch_size=64, preset=None)
    0.001
    >>> default_lr(find_method("kl-dp"), steps=25, batch_size=256, preset=None)
    0.004
    >>> round(default_lr(find_method("kl-dp"), steps=10009, batch_size=256, preset=None), 6)
    0.0001
    >>> default_lr(find_method("kl-dp"), steps=100, batch_size=128, preset="paper")
    5e-05
    """
    if preset == "paper":
        return method.paper_lr * batch_size / PAPER_LR_BATCH
    highest = method.max_lr * min(batch_size, LARGEST_LR_BATCH) / MAX_LR_BATCH
    return min(highest, PAPER_TRAVEL / steps * (method.paper_lr / PAPER_LR))


def default_slow_momentum(*, steps: int, every: int) -> float:
    """τ of the momentum weight interpolation where none is given.

    In a whole run the slow student comes as far as in the paper's: 1 − τ = 0.5 / interpolations, at most 0.1.

    >>> default_slow_momentum(steps=10009, every=2)
    0.9999
    >>> default_slow_momentum(steps=40, every=2)
    0.974977
    """
    return round(1 - min(0.1, PAPER_SLOW_TRAVEL / max(1, steps // every)), 6)


def settings_from(values: dict[str, Any]) -> TransferSettings:
    """Settings from keyword arguments.

    Raises:
        SettingsError: a name is unknown, or a value is out of range.
    """
    known = [field.name for field in fields(TransferSettings)]
    for name in values:
        if name not in known:
            raise SettingsError(f"unknown setting {name!r}{near(name, known)}; known: {', '.join(known)}")
    return replace(TransferSettings(), **values)


def _is_count_or_auto(value: int | str | None) -> bool:
    return value >= 1 if isinstance(value, int) else value in (None, "auto")


def _check_ranges(s: TransferSettings) -> None:
    rules: tuple[tuple[str, bool, str], ...] = (
        ("epochs", s.epochs is None or s.epochs >= 1, "1 or more"),
        ("batch_size", _is_count_or_auto(s.batch_size), "1 or more, or auto"),
        ("micro_batch", _is_count_or_auto(s.micro_batch), "1 or more, or auto"),
        ("lr", s.lr is None or s.lr >= 0, "0 or more"),
        ("schedule", s.schedule in (None, *SCHEDULES), f"one of {', '.join(SCHEDULES)}"),
        ("distill_weight", s.distill_weight is None or 0 <= s.distill_weight <= 1, "from 0 to 1"),
        ("label_smoothing", s.label_smoothing is None or 0 <= s.label_smoothing < 1, "from 0 to below 1"),
        ("top_k", s.top_k is None or s.top_k >= 1, "1 or more"),
        ("sharpness", s.sharpness is None or s.sharpness > 0, "more than 0"),
        ("slow_momentum", s.slow_momentum is None or 0 <= s.slow_momentum <= 1, "from 0 to 1"),
        ("slow_every", s.slow_every is None or s.slow_every >= 1, "1 or more"),
        ("negatives", s.negatives is None or s.negatives >= 1, "1 or more"),
        ("warmup_epochs", s.warmup_epochs is None or s.warmup_epochs >= 0, "0 or more"),
        (
            "student_mode",
            s.student_mode is None or s.student_mode in STUDENT_MODES,
            f"one of {', '.join(STUDENT_MODES)}",
        ),
        ("temperature", s.temperature is None or s.temperature > 0, "more than 0"),
        ("momentum", s.momentum is None or 0 <= s.momentum < 1, "from 0 to below 1"),
        ("weight_decay", s.weight_decay is None or s.weight_decay >= 0, "0 or more"),
        ("augment", s.augment is None or s.augment in AUGMENTS, f"one of {', '.join(AUGMENTS)}"),
        ("views", s.views is None or s.views >= 1, "1 or more"),
        ("bank_check", s.bank_check >= 0, "0 or more"),
        ("limit", s.limit is None or s.limit >= 1, "1 or more"),
        ("subset", s.subset is None or 0 < s.subset <= 1, "a share above 0 and up to 1"),
        ("max_broken", 0 <= s.max_broken <= 1, "a share from 0 to 1"),
        ("labels", s.labels in ("use", "none"), "use or none"),
        ("precision", s.precision in ("auto", "fp32", "bf16", "fp16"), "auto, fp32, bf16 or fp16"),
        ("strategy", s.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}"),
        ("order", s.order in ORDERS, f"one of {', '.join(ORDERS)}"),
        ("preset", s.preset is None or s.preset in PRESETS, ", ".join(PRESETS)),
        ("workers", s.workers is None or s.workers >= 0, "0 or more"),
        ("checkpoint_every", s.checkpoint_every is None or s.checkpoint_every >= 1, "1 or more"),
    )
    for name, holds, expected in rules:
        if not holds:
            raise SettingsError(f"{name.replace('_', '-')} is {getattr(s, name)!r}: expected {expected}")
    check_names(s.trackers)
    top_k_of(s.bank_storage)
    if s.bank is None and (s.bank_storage != "full" or s.bank_limit is not None or s.bank_check):
        raise SettingsError("bank-storage, bank-limit and bank-check are settings of the bank: give its folder as bank")
    if s.limit is not None and s.subset is not None:
        raise SettingsError("limit and subset are both given: give one of them")


_RESOLVED = {field.name for field in fields(Resolved)}


def _check_fits(settings: TransferSettings, method: Method) -> None:
    """Refuse settings that the method would not read."""
    given = [name for name, value in vars(settings).items() if value is not None]
    fits_labels = method.label_weight > 0 or (settings.distill_weight is not None and settings.distill_weight < 1)
    refuse_unread(method, given, fits_labels=fits_labels)


def _check_labels(resolved: Resolved, settings: TransferSettings, *, labelled: bool) -> None:
    if labelled or not resolved.needs_labels:
        return
    why = "`labels='none'` forbids reading them" if settings.labels == "none" else "the transfer images carry none"
    what = f"method {resolved.method.name!r}"
    if not resolved.method.needs_labels:
        what = f"distill-weight {resolved.distill_weight:g}"
    raise SettingsError(f"{what} needs labels and {why}; a label-free method is kl-dp-u")
