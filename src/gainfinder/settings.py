"""What a transfer can be told, and the rules that fill in what it is not told.

The default learning rate. The paper tuned 1e-4 × batch/256 for 20 epochs of 128,117 images: whatever the batch size,
rate × steps comes to 1. A run with fewer steps would hardly move at that rate, so by default the rate is the one that
travels as far, 1 / steps, but never above 1e-3.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from .errors import SettingsError
from .methods import Method, default_method, find_method
from .references import near
from .views import AUGMENTS, Augment, default_augment

Labels = Literal["use", "none"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
MAX_DEFAULT_LR = 1e-3
PAPER_TRAVEL = 1e-4 / 256 * 20 * 128_117
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
            most this size that differ by at most one image.
        lr: learning rate, as it reaches the optimiser; the default rule stands at the top of this file.
        temperature: T of the distillation loss (1).
        momentum: of SGD (0.9).
        weight_decay: of SGD (1e-3).
        seed: fixes order, augmentation and dropout (0).
        augment: one of `views.AUGMENTS`; the default rule is `views.default_augment`.
        limit: use a stratified so-many of the transfer images.
        subset: use a stratified share of them.
        max_broken: largest share of images that may be undecodable (0.01).
        precision: of training; `auto` is mixed precision where the device has it. Measuring is always in float32
            (with torch's own setting for TF32 on GPUs).
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: processes that decode images (none on a CPU, else up to 8); they change no result.
        checkpoint_every: steps between checkpoints within an epoch; None for one after each epoch only. It changes
            no result.
    """

    method: str | None = None
    labels: Labels = "use"
    preset: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    temperature: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    seed: int = 0
    augment: Augment | None = None
    limit: int | None = None
    subset: float | None = None
    max_broken: float = 0.01
    precision: Precision = "auto"
    device: str = "auto"
    workers: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Settings of the training loop, every one decided. Fields as in `TransferSettings`."""

    method: Method
    epochs: int
    batch_size: int
    lr: float
    temperature: float
    momentum: float
    weight_decay: float
    seed: int
    augment: Augment
    max_broken: float


DEFAULTS: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 64,
    "temperature": 1.0,
    "momentum": 0.9,
    "weight_decay": 1e-3,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Section 5 and the published configuration, which leaves the batch size open: 256 leaves the rate unscaled.
    "paper": {"epochs": 20, "batch_size": 256, "temperature": 1.0, "augment": "paper"},
}
PAPER_LR = 1e-4
PAPER_LR_BATCH = 256


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
    if method.needs_labels and not labelled:
        why = "--labels none forbids reading them" if settings.labels == "none" else "the transfer images carry none"
        raise SettingsError(f"method {method.name!r} needs labels and {why}; a label-free method is kl-dp-u")
    chosen = {**DEFAULTS, **PRESETS.get(settings.preset or "", {})}
    asked = {field.name: getattr(settings, field.name) for field in fields(Resolved) if field.name != "method"}
    chosen.update({name: value for name, value in asked.items() if value is not None})
    chosen.setdefault("augment", default_augment(view_size, mirrorable=mirrorable))
    if "lr" not in chosen:
        steps = chosen["epochs"] * -(-images // chosen["batch_size"])
        chosen["lr"] = default_lr(steps=steps, batch_size=chosen["batch_size"], preset=settings.preset)
    return Resolved(method=method, **chosen)


def default_lr(*, steps: int, batch_size: int, preset: str | None) -> float:
    """The learning rate where none is given.

    The paper's preset scales its rate by batch/256, as the published code does; otherwise min(1e-3, 1 / steps).

    >>> default_lr(steps=100, batch_size=64, preset=None)
    0.001
    >>> default_lr(steps=100, batch_size=128, preset="paper")
    5e-05
    """
    if preset == "paper":
        return PAPER_LR * batch_size / PAPER_LR_BATCH
    return min(MAX_DEFAULT_LR, PAPER_TRAVEL / steps)


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


def _check_ranges(s: TransferSettings) -> None:
    rules: tuple[tuple[str, bool, str], ...] = (
        ("epochs", s.epochs is None or s.epochs >= 1, "1 or more"),
        ("batch_size", s.batch_size is None or s.batch_size >= 1, "1 or more"),
        ("lr", s.lr is None or s.lr >= 0, "0 or more"),
        ("temperature", s.temperature is None or s.temperature > 0, "more than 0"),
        ("momentum", s.momentum is None or 0 <= s.momentum < 1, "from 0 to below 1"),
        ("weight_decay", s.weight_decay is None or s.weight_decay >= 0, "0 or more"),
        ("augment", s.augment is None or s.augment in AUGMENTS, f"one of {', '.join(AUGMENTS)}"),
        ("limit", s.limit is None or s.limit >= 1, "1 or more"),
        ("subset", s.subset is None or 0 < s.subset <= 1, "a share above 0 and up to 1"),
        ("max_broken", 0 <= s.max_broken <= 1, "a share from 0 to 1"),
        ("labels", s.labels in ("use", "none"), "use or none"),
        ("precision", s.precision in ("auto", "fp32", "bf16", "fp16"), "auto, fp32, bf16 or fp16"),
        ("preset", s.preset is None or s.preset in PRESETS, ", ".join(PRESETS)),
        ("workers", s.workers is None or s.workers >= 0, "0 or more"),
        ("checkpoint_every", s.checkpoint_every is None or s.checkpoint_every >= 1, "1 or more"),
    )
    for name, holds, expected in rules:
        if not holds:
            raise SettingsError(f"{name.replace('_', '-')} is {getattr(s, name)!r}: expected {expected}")
    if s.limit is not None and s.subset is not None:
        raise SettingsError("limit and subset are both given: give one of them")
