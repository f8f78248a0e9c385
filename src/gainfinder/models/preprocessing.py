"""Preprocessing of a classifier: from an image to its first layer, in the terms of timm's `pretrained_cfg`.

Two ways lead into a model. Evaluation takes the decoded image through exactly timm's evaluation transform. Training
takes a *view*: an uint8 image that all models of a transfer share, rendered at the size of each, which each of them
normalises for itself.

A model of segmentation answers by a map of logits. It is read at the centres of the cells of a grid that lies over the
whole image, of which each gets a class: so models whose maps are of different sizes answer for the same places.

Shapes: N images, C channels (of logits classes), H height, W width, G cells a side, P = G · G cells, row by row.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torchvision.transforms.functional as TF
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms import CenterCropOrPad, center_crop_or_pad, str_to_interp_mode
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import CenterCrop

from ..errors import BadReference, ModelError
from ..references import Query, check_keys, finite_number, number_within, suggest
from .outputs import logits_of

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border")
CROP_ROUNDINGS = ("even", "down")
LONGEST_EDGE_PX = 4096
"""The longest edge of an input."""
CROP_PCT = (0.05, 2.0)
"""The smallest and largest share that a crop keeps."""
LONGEST_RESIZED_PX = 16_384
"""The longest edge that images are resized to before the crop, the input's over the share that the crop keeps."""
MOST_CHANNELS = 3
MOST_CLASSES = 1_000_000
MOST_TOKENS = 131_072
WHOLE_IMAGE: dict[str, Any] = {"crop_pct": 1.0, "crop_mode": "squash"}
"""How a model sees all of an image, which models of segmentation do."""
CELLS_A_SIDE = 32
"""Cells a side of the grid that a model of segmentation is read on, where no other number is given."""
_COUNTS = {"num_classes": MOST_CLASSES, "max_length": MOST_TOKENS, "grid": LONGEST_EDGE_PX}
MEAN = (-10.0, 10.0)
STD = (1e-6, 10.0)
"""Ranges of mean and standard deviation of inputs scaled to [0, 1]; those of inputs up to 255 lie outside."""
OVERRIDES = ("size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "crop_rounding", "classes", "output")
CELL_OVERRIDES = (*(key for key in OVERRIDES if key != "output"), "grid")
"""Settings of a model of segmentation, whose outputs are always logits."""
_FORMS = {
    "size": f"an edge in pixels or HEIGHTxWIDTH, from 1 to {LONGEST_EDGE_PX}",
    "mean": f"one number a channel, separated by commas, from {MEAN[0]:g} to {MEAN[1]:g}, of inputs scaled to 0 to 1",
    "std": f"one number a channel, separated by commas, from {STD[0]:g} to {STD[1]:g}, of inputs scaled to 0 to 1",
    "crop_pct": f"a number from {CROP_PCT[0]:g} to {CROP_PCT[1]:g}, such as 0.875",
    "num_classes": f"a number of classes from 1 to {MOST_CLASSES:,}",
    "max_length": f"a number of tokens from 1 to {MOST_TOKENS:,}",
    "grid": f"a number of cells a side from 1 to {LONGEST_EDGE_PX}",
}
"""What is expected of a setting that is a number."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Input size and normalisation of a classifier.

    Attributes:
        input_size: channels (1 or 3), height and width in pixels.
        mean: mean per channel, of inputs scaled to [0, 1].
        std: standard deviation per channel, of inputs scaled to [0, 1].
        interpolation: name of the resampling filter, one of `INTERPOLATIONS`.
        crop_pct: share of the resized image's edge that the crop keeps, in `CROP_PCT`; at most 1 for timm's own models.
        crop_mode: `center` (resize the shorter edge, crop), `squash` (resize both edges) or `border` (pad).
        crop_rounding: the crop's corner where it falls between two pixels: `even`, on the even one of them, as timm and
            torchvision do, or `down`, on the one further left or up, as transformers does.
        grid: cells a side, where each cell gets a class, not the image; such a model sees the whole image (`squash`,
            and no crop), since cells would lie elsewhere than in a mask otherwise.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    crop_rounding: str = "even"
    grid: int | None = None

    def __post_init__(self) -> None:
        channels, height, width = self.input_size
        if channels not in (1, 3) or not (1 <= height <= LONGEST_EDGE_PX and 1 <= width <= LONGEST_EDGE_PX):
            raise ModelError(
                f"input size {self.input_size} cannot be used: expected 1 or 3 channels and edges from 1 to "
                f"{LONGEST_EDGE_PX} pixels"
            )
        if len(self.mean) != channels or len(self.std) != channels:
            raise ModelError(
                f"mean {self.mean} and std {self.std} do not fit {channels} input channel(s): give one value a channel"
            )
        for name, values, (low, high) in (("std", self.std, STD), ("mean", self.mean, MEAN)):
            if any(not low <= value <= high for value in values):
                raise ModelError(
                    f"{name} {values} cannot be used: expected values from {low:g} to {high:g}, of inputs scaled to "
                    "0 to 1"
                )
        if self.interpolation not in INTERPOLATIONS:
            raise ModelError(
                f"interpolation {self.interpolation!r} is unknown{suggest(self.interpolation, INTERPOLATIONS)}; "
                f"expected one of {', '.join(INTERPOLATIONS)}"
            )
        if self.crop_mode not in CROP_MODES:
            raise ModelError(f"crop mode {self.crop_mode!r} is unknown: expected one of {', '.join(CROP_MODES)}")
        if self.crop_rounding not in CROP_ROUNDINGS:
            raise ModelError(
                f"crop rounding {self.crop_rounding!r} is unknown: expected one of {', '.join(CROP_ROUNDINGS)}"
            )
        if not CROP_PCT[0] <= self.crop_pct <= CROP_PCT[1]:
            raise ModelError(
                f"crop_pct {self.crop_pct} cannot be used: expected a share from {CROP_PCT[0]:g} to {CROP_PCT[1]:g}, "
                "1 for no crop"
            )
        if max(height, width) / self.crop_pct > LONGEST_RESIZED_PX:
            raise ModelError(
                f"input size {self.input_size} and crop_pct {self.crop_pct:g} cannot be used: images would be resized "
                f"to {max(height, width) / self.crop_pct:,.0f} pixels, expected at most {LONGEST_RESIZED_PX:,}"
            )
        if self.grid is not None:
            self._check_grid(self.grid)

    def _check_grid(self, grid: int) -> None:
        smaller = min(self.view_size)
        if not 1 <= grid <= smaller:
            raise ModelError(
                f"a grid of {grid} cells a side cannot be used: expected 1 to {smaller}, the smaller edge of the input "
                "in pixels"
            )
        if {"crop_pct": self.crop_pct, "crop_mode": self.crop_mode} != WHOLE_IMAGE:
            raise ModelError(
                f"it sees a crop of an image (crop mode {self.crop_mode}, crop_pct {self.crop_pct:g}), so its cells "
                "are others than those of the mask: give ?crop_mode=squash&crop_pct=1, which shows it the whole image"
            )

    @property
    def reads(self) -> str:
        """What it reads (`Samples.noun`)."""
        return "image"

    @property
    def classifies(self) -> str:
        """What gets a class (`Samples.classified`): the image, or each `cell` of a grid over it."""
        return "image" if self.grid is None else "cell"

    @property
    def view_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.input_size[1:]

    @property
    def shares_views(self) -> bool:
        """Whether what a model sees in evaluation is a view; one of one channel sees images grey before resizing."""
        return self.input_size[0] == 3

    @classmethod
    def from_timm_config(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Read a `pretrained_cfg` in timm's form; what it leaves open gets timm's defaults.

        Raises:
            ModelError: a value cannot be used.
        """
        given = config.get("input_size") or (3, 224, 224)
        if not isinstance(given, Sequence) or len(given) != 3:
            raise ModelError(f"input_size {given} in pretrained_cfg cannot be used: expected (channels, height, width)")
        try:
            size = (int(given[0]), int(given[1]), int(given[2]))
            return cls(
                input_size=size,
                mean=_of_config(config.get("mean"), IMAGENET_DEFAULT_MEAN, size[0]),
                std=_of_config(config.get("std"), IMAGENET_DEFAULT_STD, size[0]),
                interpolation=config.get("interpolation") or "bicubic",
                crop_pct=float(config.get("crop_pct") or 0.875),
                crop_mode=config.get("crop_mode") or "center",
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"pretrained_cfg cannot be read: {error}") from error

    def with_overrides(self, query: Query, *, reference: str) -> "Preprocessing":
        """These values, replaced by the settings of a reference where it has them; `classes` and `output` are left to
        the caller.

        Raises:
            BadReference: a key is unknown or a value cannot be read.
        """
        check_keys(query, OVERRIDES if self.grid is None else CELL_OVERRIDES, reference=reference)
        check_numbers(query, reference=reference)
        values: dict[str, Any] = {}
        for key, text in query:
            if key == "size":
                edges = [int(edge.lstrip("0")) for edge in text.split("x")]
                values["input_size"] = (self.input_size[0], edges[0], edges[-1])
            elif key in ("mean", "std"):
                values[key] = _per_channel(map(float, text.split(",")), self.input_size[0])
            elif key == "crop_pct":
                values[key] = float(text)
            elif key == "grid":
                values[key] = int(text)
            elif key not in ("classes", "output"):
                values[key] = text
        if self.grid is not None and "grid" not in values and "input_size" in values:
            values["grid"] = min(self.grid, *values["input_size"][1:])
        try:
            return replace(self, **values)
        except ModelError as error:
            raise BadReference(f"{error} (in {reference!r})") from None

    def in_cells(self, query: Query, *, reference: str) -> "Preprocessing":
        """This preprocessing for a model of segmentation: with a grid of `CELLS_A_SIDE`, or as fine as its input.

        Args:
            query: settings of the reference, which may turn a crop into the whole image.
            reference: the model reference.

        Raises:
            BadReference: a setting cannot be used.
            ModelError: the model sees a crop.
        """
        kept = tuple((key, text) for key, text in query if key != "grid")
        seen = self.with_overrides(kept, reference=reference)
        try:
            return replace(seen, grid=min(CELLS_A_SIDE, *seen.view_size))
        except ModelError as error:
            raise ModelError(f"{reference}: {error}") from None

    def timm_config(self) -> dict[str, Any]:
        """The values that timm has, under its names, as `timm.data.create_transform` takes them."""
        return {
            "input_size": self.input_size,
            "mean": self.mean,
            "std": self.std,
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
        }

    def described(self) -> dict[str, Any]:
        """All values by name, for digests and files; `crop_rounding` only where it is not `even`, and `grid` where set.

        Earlier versions did not have them: what they wrote of other models stays the same.
        """
        values = asdict(self)
        if self.crop_rounding == "even":
            del values["crop_rounding"]
        if self.grid is None:
            del values["grid"]
        return values

    def evaluation_transform(self) -> Callable[[Image.Image], Tensor]:
        """Timm's evaluation transform, with this rounding: an RGB image to a normalised float32 tensor (C, H, W)."""
        transform = self._transform()
        return transform if self.input_size[0] == 3 else _Grey(transform)

    def collated(self, x: Tensor) -> Tensor:
        """A batch of what `evaluation_transform` gives, as the model takes it: itself."""
        return x

    def inputs(self, views_N3HW: Tensor) -> Tensor:
        """The model's input of views at its size; see `prepare`."""
        return prepare(views_N3HW, self)

    def call(self, module: nn.Module, x: Tensor) -> Any:
        """What a module gives for normalised inputs (N, C, H, W); of cells logits (N, P, C) at their centres.

        They are interpolated (bilinear) from the module's map, also where that is finer than the grid: a mask is read
        at the centre of a cell, too, and the mean of a cell's logits would tell of the pixels around it.
        """
        outputs = module(x)
        if self.grid is None:
            return outputs
        return cells_of(logits_of(outputs), self.grid)

    def usable_places(self, x: Tensor) -> Tensor | None:
        """Which places of a batch the model answers for, bool (N, P): all cells; None where an image gets a class."""
        if self.grid is None:
            return None
        return torch.ones(len(x), self.grid**2, dtype=torch.bool, device=x.device)

    def blank(self, count: int) -> Tensor:
        """So many inputs of zeros, float32 (N, C, H, W), to try a module with."""
        return torch.zeros(count, *self.input_size)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Four inputs of noise, each of twice the contrast of the one before, float32 (4, C, H, W)."""
        contrast = torch.tensor([0.25, 0.5, 1.0, 2.0]).view(-1, 1, 1, 1)
        return contrast * torch.randn(4, *self.input_size, generator=generator)

    def evaluation_crop(self) -> Callable[[Image.Image], Tensor]:
        """Its resizing and cropping alone: an image to uint8 (channels of the image, H, W)."""
        return self._transform(normalize=False)

    def _transform(self, **arguments: Any) -> Callable[[Image.Image], Tensor]:
        transform: Any = create_transform(**self.timm_config(), is_training=False, **arguments)
        if self.crop_rounding == "down":
            transform.transforms = [_rounded_down(step) for step in transform.transforms]
        made: Callable[[Image.Image], Tensor] = transform
        return made


def check_numbers(query: Query, *, reference: str) -> None:
    """Refuse settings of a reference whose numbers cannot be read or are out of range; other settings are passed over.

    Raises:
        BadReference: the setting, its value and the range are named.
    """
    for key, text in query:
        if key in _FORMS and not _is_in_range(key, text):
            raise BadReference(f"setting {key}={text} in {reference!r} cannot be used: expected {_FORMS[key]}")


def _is_in_range(key: str, text: str) -> bool:
    if key in _COUNTS:
        return number_within(text, low=1, high=_COUNTS[key]) is not None
    if key == "size":
        edges = text.split("x")
        sizes = [number_within(edge, low=1, high=LONGEST_EDGE_PX) for edge in edges]
        return len(edges) <= 2 and None not in sizes
    low, high = {"mean": MEAN, "std": STD, "crop_pct": CROP_PCT}[key]
    parts = [text] if key == "crop_pct" else text.split(",")
    values = [finite_number(part) for part in parts]
    return len(parts) <= MOST_CHANNELS and all(value is not None and low <= value <= high for value in values)


def cells_of(maps_NCHW: Tensor, grid: int) -> Tensor:
    """Maps of logits at the centres of a grid's cells, by bilinear interpolation.

    Args:
        maps_NCHW: floating point, of whatever height and width.
        grid: G, cells a side.

    Returns:
        (N, G · G, C), row by row.

    Example:
        >>> cells_of(torch.arange(16.0).reshape(1, 1, 4, 4), 2).flatten().tolist()  # the centres lie between pixels
        [2.5, 4.5, 10.5, 12.5]
    """
    found_NCGG = F.interpolate(maps_NCHW, size=(grid, grid), mode="bilinear", align_corners=False)
    return found_NCGG.flatten(2).transpose(1, 2).contiguous()


def prepare(views_N3HW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalise shared views for one model, on their device.

    Args:
        views_N3HW: RGB views at the model's input size, uint8 (N, 3, H, W).
        preprocessing: preprocessing of the model they are for.

    Returns:
        float32 (N, C, H, W).

    Raises:
        ValueError: the views are of another size.
    """
    if views_N3HW.shape[-2:] != preprocessing.view_size:
        raise ValueError(f"expected views of {preprocessing.view_size}, got {tuple(views_N3HW.shape)}")
    x = views_N3HW.to(torch.float32).div_(255)
    if preprocessing.input_size[0] == 1:
        x = TF.rgb_to_grayscale(x)
    return x.sub_(_constant(preprocessing.mean, x.device)).div_(_constant(preprocessing.std, x.device))


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A constant (1, C, 1, 1), cached on the device: created for each batch, it would wait for the device each time."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def resample_filter(name: str) -> Any:
    """torchvision's interpolation mode of that name."""
    return str_to_interp_mode(name)


class _CropDown:
    """A centre crop whose corner is rounded down, of an image that is padded as timm does where it is too small.

    Args:
        size: height and width in pixels.
        fill: value of padded pixels, one or one a channel.
    """

    def __init__(self, size: Sequence[int], *, fill: Any) -> None:
        self.size = size
        self.fill = fill

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        whole = [max(edge, own) for edge, own in zip((image.height, image.width), self.size, strict=True)]
        padded: Any = center_crop_or_pad(image, whole, fill=self.fill)
        top, left = (padded.height - height) // 2, (padded.width - width) // 2
        cropped: Image.Image = TF.crop(padded, top, left, height, width)
        return cropped


def _rounded_down(step: Any) -> Any:
    """A step of a transform; a centre crop as one whose corner is rounded down."""
    if isinstance(step, CenterCrop | CenterCropOrPad):
        return _CropDown(step.size, fill=getattr(step, "fill", 0))
    return step


class _Grey:
    """An evaluation transform for a one-channel model."""

    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(image.convert("L"))


def _of_config(values: Any, default: tuple[float, ...], channels: int) -> tuple[float, ...]:
    chosen = _per_channel([values] if isinstance(values, int | float) else (values or default), channels)
    # as timm does where a model of one channel keeps the statistics of three
    return (math.fsum(chosen) / 3,) if channels == 1 and len(chosen) == 3 else chosen


def _per_channel(values: Iterable[float], channels: int) -> tuple[float, ...]:
    chosen = tuple(float(value) for value in values)
    return chosen * channels if len(chosen) == 1 else chosen
