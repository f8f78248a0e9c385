"""The rules for settings that are not given.

By default AdamW's rate is chosen by the run itself (`recipe.py`, `runs/trials.py`), and its length by the loss on guard
images (schedule `plateau`).

SGD's default learning rate. The paper tuned 1e-4 × batch/256 for 20 epochs of 128,117 images: whatever the batch size,
rate × steps comes to 1. A run with fewer steps would hardly move at that rate, so by default the rate is the one that
travels as far, 1 / steps, but never above the method's highest (1e-3, a few methods' more) at a batch of 64 and in
proportion at others (`default_lr`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import SettingsError
from .choices import Augment, DecideOn, Optimizer, Schedule, StudentMode, default_augment
from .methods import Method, default_method, find_method, refuse_unread
from .recipe import WEIGHT_DECAY, Recipe, rate_for, recipes
from .settings import SETTINGS, TransferConfig

PAPER_LR = 1e-4
PAPER_TRAVEL = PAPER_LR / 256 * 20 * 128_117
"""Learning rate × steps of the paper's runs: about 1."""


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig:
    """Resolved settings of the training loop; fields as in `TransferConfig`.

    Attributes:
        label_weight: weight of the cross-entropy with the labels.
        recipes: recipes that the run tries, to choose `lr` itself; none where it is as given.
    """

    method: Method
    epochs: int
    batch_size: int
    micro_batch: int | None
    recipes: tuple[Recipe, ...]
    optimizer: Optimizer
    lr: float
    lr_warmup: float
    ema_decay: float
    layer_decay: float
    schedule: Schedule
    patience: int
    temperature: float
    distill_weight: float
    label_weight: float
    label_smoothing: float
    top_k: int
    sharpness: float
    decide_on: DecideOn
    slow_momentum: float
    slow_every: int
    negatives: int
    warmup_epochs: int
    student_mode: StudentMode
    momentum: float
    weight_decay: float
    seed: int
    augment: Augment
    adapt_start: bool
    mixup: float
    views: int | None
    view_seed: int
    max_broken: float

    @property
    def needs_teachers(self) -> bool:
        """Whether training reads logits or features of frozen models."""
        return self.distill_weight > 0 or self.method.needs_initial_student or self.method.needs_features

    @property
    def decides_once(self) -> bool:
        """Whether who teaches an image is decided before training; never where a method asks all models anyway."""
        return self.decide_on == "image" and "decide_on" in self.method.settings

    @property
    def needs_labels(self) -> bool:
        """Whether training reads labels: the method's choice, or a requested cross-entropy."""
        return self.method.needs_labels or self.label_weight > 0


DEFAULTS: dict[str, Any] = {one.name: one.about.fallback for one in SETTINGS if one.about.fallback is not None}
"""Values of settings that neither the user nor the preset gives."""
PLAIN_SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "trials": False,
    "lr_warmup": 0.0,
    "ema_decay": 0.0,
    "adapt_start": False,
    "mixup": 0.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Section 5 and the published configuration, which leaves the batch size open: 256 leaves the rate unscaled.
    "paper": {
        **PLAIN_SGD,
        "epochs": 20,
        "batch_size": 256,
        "augment": "paper",
        "schedule": "constant",
        "student_mode": "train",
    },
    "gentle": {**PLAIN_SGD, "epochs": 5, "batch_size": 64, "schedule": "linear"},
}
IMAGES_SEEN = 1_000_000
"""Images that a run sees at most where neither epochs nor a preset are given, within the bounds of `EPOCHS`. The
paper's runs see 2,562,340; gains here still grew at 800,000 (benchmarks/moving/README.md)."""
EPOCHS = (5, 100)
PATIENCE = 5
"""Fewest epochs without a lower loss that end a run, where patience is not given …"""
PATIENCE_SHARE = 0.15
"""… and their share of the most epochs: at a rate that goes far the loss rises at first, for some epochs."""
MIXUP = 0.7
"""Share of mixed views where none is given, and all models can answer for them …"""
MIXUP_EPOCHS = 40
"""… in runs of so many epochs at least: in shorter ones mixing slows the student down, in longer ones it fits its views
else and not new images (benchmarks/moving/README.md)."""
ADAMW_LR = 3e-4
"""AdamW's rate at a batch of 128 where none is given and none can be tried."""
METHOD_SETTINGS = ("temperature", "distill_weight", "label_weight", "label_smoothing", "warmup_epochs")
"""Settings for which each method has a default of its own."""
PAPER_LR_BATCH = 256
MAX_LR_BATCH = 64
"""Batch size that the methods' highest rates are for; the rate is in proportion to the batch …"""
LARGEST_LR_BATCH = 256
"""… up to this one, the largest measured."""
PAPER_SLOW_MOMENTUM = 0.9999
PAPER_SLOW_TRAVEL = (1 - PAPER_SLOW_MOMENTUM) * 20 * 128_117 / 256 / 2
"""(1 − τ) × interpolations of the paper's runs with momentum weight interpolation: about 0.5."""


def resolve_settings(
    settings: TransferConfig,
    *,
    labelled: bool,
    images: int,
    view_size: tuple[int, int] | None,
    mirrorable: bool,
    mixable: bool = True,
    in_cells: bool = False,
) -> ResolvedConfig:
    """Resolve every setting.

    Args:
        settings: the settings as the user gave them; they override the preset, which overrides the defaults.
        labelled: whether the images carry labels that training may read.
        images: number of transfer images.
        view_size: input height and width of the student in pixels; None of texts.
        mirrorable: whether images may be mirrored.
        mixable: whether all teachers can answer for mixed views, as tables cannot.
        in_cells: whether cells of images get a class, which augmentations move and the labels of a mask do not.

    Raises:
        SettingsError: the method needs labels and there are none to read.
    """
    method = find_method(settings.method or default_method(labelled=labelled, preset=settings.preset))
    _check_fits(settings, method)
    chosen = _given(settings, method)
    if view_size is None:
        _check_texts(settings)
        mixable = False
        chosen["augment"] = "none"
    if in_cells:
        reads_labels = method.needs_labels or chosen["label_weight"] > 0
        _check_cells(settings, reads_labels=reads_labels)
        mixable = False
        if reads_labels:
            chosen["augment"] = "none"
    chosen.setdefault("augment", default_augment(view_size, mirrorable=mirrorable))
    chosen.setdefault("epochs", default_epochs(images))
    chosen.setdefault("patience", default_patience(chosen["epochs"]))
    chosen.setdefault("mixup", MIXUP if mixable and chosen["epochs"] >= MIXUP_EPOCHS else 0.0)
    chosen.setdefault("schedule", "plateau" if settings.guarded else "cosine")
    _check_unread(settings, method, chosen)
    if method.interpolated:
        chosen["ema_decay"] = 0.0
    steps = chosen["epochs"] * -(-images // chosen["batch_size"])
    _choose_recipe(chosen, settings, method, steps=steps)
    slow = default_slow_momentum(steps=steps, every=chosen["slow_every"])
    chosen.setdefault("slow_momentum", PAPER_SLOW_MOMENTUM if settings.preset == "paper" else slow)
    resolved = ResolvedConfig(method=method, **chosen)
    _check_labels(resolved, settings, labelled=labelled, noun="text" if view_size is None else "image")
    return resolved


def _given(settings: TransferConfig, method: Method) -> dict[str, Any]:
    """What the user, the preset, the method or a fixed default gives, in this order."""
    chosen = {**DEFAULTS, **{name: getattr(method, name) for name in METHOD_SETTINGS}}
    chosen |= {"micro_batch": None, "views": None, "view_seed": settings.seed, "adapt_start": True}
    chosen |= {"optimizer": "adamw", "trials": True}
    # What compares features is as it was measured, by SGD; it has no loss that trials or a plateau could go by.
    chosen |= PRESETS.get(settings.preset or ("gentle" if method.needs_features else ""), {})
    if settings.distill_weight is not None and not method.needs_features:
        chosen["label_weight"] = 1 - settings.distill_weight
    names = (_RESOLVED | {"trials"}) - {"method"}
    return chosen | {
        name: value for name, value in vars(settings).items() if name in names and value not in (None, "auto")
    }


def _choose_recipe(chosen: dict[str, Any], settings: TransferConfig, method: Method, *, steps: int) -> None:
    """Optimiser, rate and decay, and the recipes to try, added to what is chosen, where `trials` has no place."""
    optimizer, batch_size = chosen["optimizer"], chosen["batch_size"]
    chosen.setdefault("weight_decay", WEIGHT_DECAY[optimizer])
    tries = chosen.pop("trials") and _may_try(settings, method)
    chosen["recipes"] = recipes(optimizer, batch_size=batch_size) if tries else ()
    if optimizer == "adamw":
        chosen.setdefault("lr", rate_for("adamw", ADAMW_LR, batch_size=batch_size))
    else:
        chosen.setdefault("lr", default_lr(method, steps=steps, batch_size=batch_size, preset=settings.preset))


def default_epochs(images: int) -> int:
    """Epochs of a run at most, where none are given: few images are seen often, many are not.

    >>> [default_epochs(images) for images in (1_000, 20_000, 1_281_167)]
    [100, 50, 5]
    """
    lowest, highest = EPOCHS
    return min(highest, max(lowest, round(IMAGES_SEEN / images)))


def default_patience(epochs: int) -> int:
    """Epochs without a lower loss after which a run of at most so many epochs ends, where none are given.

    >>> default_patience(100), default_patience(20)
    (15, 5)
    """
    return max(PATIENCE, round(PATIENCE_SHARE * epochs))


def default_lr(method: Method, *, steps: int, batch_size: int, preset: str | None) -> float:
    """SGD's learning rate where none is given.

    The paper's preset scales its rate by batch/256, as the published code does. Otherwise it is the rate that travels
    as far as the paper's in so many steps, rate × steps = 1, but no more than the method's highest: for most 1e-3 at a
    batch of 64, and in proportion to the batch, so that one pass over the images travels as far whatever the batch
    (benchmarks/procedure/README.md has the measurements), up to a batch of 256.

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


def with_recipe(settings: ResolvedConfig, recipe: Recipe) -> ResolvedConfig:
    """These settings with another recipe; a weight decay that was by rule is that of the recipe's optimiser."""
    decay = settings.weight_decay
    if decay == WEIGHT_DECAY[settings.optimizer]:
        decay = WEIGHT_DECAY[recipe.optimizer]
    return replace(settings, optimizer=recipe.optimizer, lr=recipe.lr, weight_decay=decay, recipes=())


def _may_try(settings: TransferConfig, method: Method) -> bool:
    """Whether a recipe can be chosen by trials: it is open, and there is a loss on guard images to choose by."""
    if settings.trials and settings.lr is not None:
        raise SettingsError(f"lr is {settings.lr:g}, and trials would choose it: give one of them")
    if settings.trials and method.needs_features:
        raise SettingsError(f"trials go by the loss on logits, and method {method.name!r} compares features")
    if settings.trials and not settings.guarded:
        raise SettingsError(
            "trials go by the loss that the guard measures, and the guard is off: give `lr`, or leave it on"
        )
    return settings.lr is None and not method.needs_features and settings.guarded


def default_slow_momentum(*, steps: int, every: int) -> float:
    """τ of the momentum weight interpolation where none is given.

    In a whole run the slow student comes as far as in the paper's: 1 − τ = 0.5 / interpolations, at most 0.1.

    >>> default_slow_momentum(steps=10009, every=2)
    0.9999
    >>> default_slow_momentum(steps=40, every=2)
    0.974977
    """
    return round(1 - min(0.1, PAPER_SLOW_TRAVEL / max(1, steps // every)), 6)


_RESOLVED = {field.name for field in fields(ResolvedConfig)}


def _check_fits(settings: TransferConfig, method: Method) -> None:
    """Refuse settings that the method would not read."""
    given = [name for name, value in vars(settings).items() if value is not None]
    fits_labels = method.label_weight > 0 or (settings.distill_weight is not None and settings.distill_weight < 1)
    refuse_unread(method, given, fits_labels=fits_labels)


def _check_texts(settings: TransferConfig) -> None:
    """Refuse settings that are for images alone."""
    if settings.augment not in (None, "auto", "none"):
        raise SettingsError(f"augment is {settings.augment!r}, and texts are not augmented: leave it out")
    if settings.mixup:
        raise SettingsError(f"mixup is {settings.mixup:g}, and texts cannot be laid over each other: leave it out")


def _check_cells(settings: TransferConfig, *, reads_labels: bool) -> None:
    """Refuse settings under which the class of a cell is not known."""
    if reads_labels and settings.augment not in (None, "auto", "none"):
        raise SettingsError(
            f"augment is {settings.augment!r}, and labels of cells are read, which would not move along: leave it out, "
            "or learn without labels (`labels='none'`)"
        )
    if settings.mixup:
        raise SettingsError(
            f"mixup is {settings.mixup:g}, and cells of images laid over each other have two classes: leave it out"
        )


def _check_unread(settings: TransferConfig, method: Method, chosen: Mapping[str, Any]) -> None:
    """Refuse settings that the schedule, the method or the optimiser would not read."""
    if settings.patience is not None and chosen["schedule"] != "plateau":
        raise SettingsError(f"patience is a setting of schedule 'plateau': {chosen['schedule']!r} does not use it")
    if settings.ema_decay and method.interpolated:
        raise SettingsError(f"ema-decay is {settings.ema_decay:g}: method {method.name!r} has an average of its own")
    if settings.momentum is not None and chosen["optimizer"] != "sgd":
        raise SettingsError(f"momentum is a setting of optimizer 'sgd': {chosen['optimizer']!r} does not use it")


def _check_labels(resolved: ResolvedConfig, settings: TransferConfig, *, labelled: bool, noun: str) -> None:
    if labelled or not resolved.needs_labels:
        return
    why = "`labels='none'` forbids reading them" if settings.labels == "none" else f"the transfer {noun}s carry none"
    what = f"method {resolved.method.name!r}"
    if not resolved.method.needs_labels:
        what = f"distill-weight {resolved.distill_weight:g}"
    raise SettingsError(f"{what} needs labels and {why}; a label-free method is kl-prod-cal-u")
