"""The values that settings can take, and their parsers; nothing here needs torch."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

from ..errors import SettingsError
from ..references import number_within, suggest

Augment = Literal["paper", "rrc", "crop-flip", "none"]
AUGMENTS: tuple[Augment, ...] = get_args(Augment)
Labels = Literal["use", "none"]
Strategy = Literal["sequential", "parallel", "soup"]
Both = Literal["frozen", "live"]
Order = Literal["ascending", "descending", "given"]
Schedule = Literal["linear", "cosine", "constant", "plateau"]
Optimizer = Literal["adamw", "sgd"]
StudentMode = Literal["train", "frozen", "reestimate"]
DecideOn = Literal["view", "image"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Preset = Literal["paper", "gentle"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Rule = Literal["accuracy", "headroom", "flips", "target", "partition", "balance", "calibrated", "capacity"]
"""What teachers can be ranked by; `metrics.rules.FORMS` says what each is."""
RULES: tuple[Rule, ...] = get_args(Rule)
CONTROLS = ("copy", "labels")
"""What a control can learn from in place of the teachers."""
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
"""The names of Accelerate's trackers; a test compares them."""
MOST_KEPT = 1_000_000
LONGEST_NUMBER = 18
"""Digits of a size."""
SMALL_EDGE_PX = 96
"""Views whose shorter edge is below this count as small images."""


def default_augment(size: tuple[int, int] | None, *, mirrorable: bool) -> Augment:
    """The default augmentation of images of a size; `none` of texts, which have none.

    `none` where a mirrored image means something else (the embedded digits); `crop-flip` for views with an edge below
    96 pixels, whose colours and area leave little room; otherwise `paper`.
    """
    if size is None or not mirrorable:
        return "none"
    return "crop-flip" if min(size) < SMALL_EDGE_PX else "paper"


def top_k_of(storage: str) -> int | None:
    """K of the storage `top-K`; None for `full` and `exact`.

    Raises:
        SettingsError: `storage` is none of these.

    >>> top_k_of("top-20"), top_k_of("full")
    (20, None)
    """
    if storage in ("full", "exact"):
        return None
    head, _, count = storage.partition("-")
    kept = number_within(count, low=1, high=MOST_KEPT) if head == "top" else None
    if kept is None:
        raise SettingsError(f"bank storage {storage!r}: expected full, or top-K with the number of classes to keep")
    return kept


def share_of(given: object) -> object:
    """A share that may be written as a percentage; whatever is not a text with a number is returned as it is.

    >>> share_of("1%"), share_of("0.02"), share_of(0.5), share_of("much")
    (0.01, 0.02, 0.5, 'much')
    """
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", given) if isinstance(given, str) else None
    return given if found is None else float(found[1]) / (100 if found[2] else 1)


# Not pydantic.ByteSize: it takes a bare number for bytes, where a forgotten unit is the likelier mistake.
def size_in_bytes(text: str) -> int:
    """Bytes of a size such as `500MB`, `20GB` or `2GiB`.

    Raises:
        SettingsError: the text is not a size.

    >>> size_in_bytes("1.5GB"), size_in_bytes("2 MiB")
    (1500000000, 2097152)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B\s*", text, flags=re.IGNORECASE)
    if found is None or len(found[1]) > LONGEST_NUMBER:
        raise SettingsError(f"{text!r} is no size: expected a number with a unit, such as 500MB or 20GB")
    number, unit, binary = found.groups()
    thousand = 1024 if binary else 1000
    return int(float(number) * thousand ** ("KMGT".index(unit.upper()) + 1))


def check_device(name: str) -> str:
    """The name of a device, or of the rule that finds one.

    Raises:
        SettingsError: the name is unknown.
    """
    known = get_args(Device)
    if name not in known:
        raise SettingsError(
            f"device {name!r} is unknown{suggest(str(name), known)}; expected one of {', '.join(known)}"
        )
    return name


def control_names(names: bool | str | Sequence[str]) -> tuple[str, ...]:
    """The names of controls, each once, in the order in which they run; True is `copy`.

    Raises:
        SettingsError: one of them is unknown.

    >>> control_names(True), control_names(["labels", "copy"]), control_names(False)
    (('copy',), ('copy', 'labels'), ())
    """
    given = (["copy"] if names else []) if isinstance(names, bool) else [names] if isinstance(names, str) else [*names]
    for name in given:
        if name not in CONTROLS:
            raise SettingsError(f"control is {name!r}{suggest(name, CONTROLS)}; expected {' or '.join(CONTROLS)}")
    return tuple(name for name in CONTROLS if name in given)


def tracker_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names of trackers, each once.

    Raises:
        SettingsError: Accelerate does not know one of them.
    """
    given = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in given:
        if name not in TRACKERS:
            raise SettingsError(f"track is {name!r}{suggest(name, TRACKERS)}; expected some of {', '.join(TRACKERS)}")
    return given
