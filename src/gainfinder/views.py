"""Views: the augmented image that all models of a transfer see, as a pure function of (seed, epoch, sample id).

Nothing here depends on worker count, batch size, process count or what was drawn before. A resumed run therefore
equals an uninterrupted one, and every method of a study sees the same images. Parameters come from a counter-based
hash (BLAKE2b); the pixels from PIL and torchvision's functional operations, which take explicit parameters.

A view is one crop, mirroring and colouring of an image, rendered from the image at the input size of each model, with
the student's crop and resampling filter. Rendered once and resized for the others, a small image would be enlarged for
one model and shrunk again for the next, and a student with batch-norm would adapt to the blur. Which augmentation is
the default: see `default_augment`.

Shapes: N samples, H and W height and width, L bytes of all renderings of a view.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
import torchvision.transforms.functional as TF
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from .models.preprocessing import Preprocessing, resample_filter

Augment = Literal["paper", "rrc", "crop-flip", "none"]
AUGMENTS: tuple[Augment, ...] = ("paper", "rrc", "crop-flip", "none")
Size: TypeAlias = tuple[int, int]
SMALL_EDGE_PX = 96
"""Views whose shorter edge is below this count as small images."""


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """How views are made.

    Attributes:
        preprocessing: the student's crop, crop mode and filter; size and normalisation are not used.
        sizes: heights and widths in pixels to render at, each once.
        augment: `paper`: centre crop, mirroring (p 0.5), colour distortion (p 0.8: brightness, contrast and saturation
            by factors in [0.2, 1.8], hue by up to ±0.2 of the circle), grey (p 0.2), as in the published code;
            `rrc`: a crop of 8 to 100 % of the area and aspect ratio 3/4 to 4/3, and mirroring; `crop-flip`: padded by
            an eighth of each edge with black, cropped at random, mirrored; `none`: the evaluation crop.
    """

    preprocessing: Preprocessing
    sizes: tuple[Size, ...]
    augment: Augment

    def crop_at(self, size: Size) -> Preprocessing:
        """The student's evaluation crop, at a size."""
        crop = self.preprocessing
        return Preprocessing(
            input_size=(3, *size),
            interpolation=crop.interpolation,
            crop_pct=crop.crop_pct,
            crop_mode=crop.crop_mode,
        )


def view_spec(models: Sequence[Preprocessing], augment: Augment) -> ViewSpec:
    """Views for these models, the student first: at the input size of each, with the student's crop."""
    sizes = tuple(dict.fromkeys(model.view_size for model in models))
    return ViewSpec(preprocessing=models[0], sizes=sizes, augment=augment)


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of a batch, each rendered at every size of its specification.

    Attributes:
        packed: uint8 (N, L): of each sample the renderings (3, H, W) one after the other, as `pack` lays them.
        sizes: their heights and widths, in that order.
    """

    packed: Tensor
    sizes: tuple[Size, ...]

    def __len__(self) -> int:
        return len(self.packed)

    def at(self, size: Size) -> Tensor:
        """The renderings at a size, uint8 (N, 3, H, W)."""
        start = 0
        for height, width in self.sizes:
            length = 3 * height * width
            if (height, width) == tuple(size):
                return self.packed[:, start : start + length].reshape(-1, 3, height, width)
            start += length
        raise ValueError(f"expected one of the sizes {self.sizes}, got {size}")

    def to(self, device: torch.device) -> "Views":
        """The same on a device."""
        return Views(packed=self.packed.to(device), sizes=self.sizes)


def pack(renderings: Sequence[Tensor]) -> Tensor:
    """One view's renderings, uint8 (3, H, W) each, as a row of `Views.packed`, uint8 (L,)."""
    return torch.cat([rendering.reshape(-1) for rendering in renderings])


def default_augment(size: tuple[int, int], *, mirrorable: bool) -> Augment:
    """The augmentation where none is asked for.

    `none` where a mirrored image means something else (the embedded digits); `crop-flip` for views with an edge below
    96 pixels, whose colours and area leave little room; otherwise `paper`.
    """
    if not mirrorable:
        return "none"
    return "crop-flip" if min(size) < SMALL_EDGE_PX else "paper"


def epoch_order(ids: Sequence[str], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the samples: positions sorted by a hash of (seed, epoch, sample id).

    Ties (two ids with one 64-bit hash) go by id, so that the order does not depend on how the source lists its files.
    """
    prefix = hashlib.blake2b(f"order/{seed}/{epoch}/".encode(), digest_size=8)
    keys = []
    for sample_id in ids:
        digest = prefix.copy()
        digest.update(sample_id.encode())
        keys.append((digest.digest(), sample_id))
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)


def make_view(image: Image.Image, spec: ViewSpec, *, size: Size, seed: int, epoch: int, sample_id: str) -> Tensor:
    """The view of one sample in one epoch, rendered at one size.

    Args:
        image: RGB.
        spec: how views are made.
        size: height and width in pixels.
        seed: of the run.
        epoch: counted from 0.
        sample_id: the sample's stable id.

    Returns:
        uint8 (3, H, W). At another size: the same part of the image, up to rounding, mirrored and coloured the same.
    """
    draw = _uniforms(seed, epoch, sample_id)
    crop = spec.crop_at(size)
    if spec.augment == "rrc":
        return _mirrored(TF.pil_to_tensor(_random_resized_crop(image, crop, draw)), draw)
    view = evaluation_crop(crop)(image)
    if spec.augment == "crop-flip":
        return _mirrored(_shifted(view, draw), draw)
    if spec.augment == "paper":
        return _recoloured(_mirrored(view, draw), draw)
    return view


@functools.lru_cache(maxsize=64)
def evaluation_crop(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """Resizing and cropping as for evaluation, to uint8 (3, H, W), without normalisation."""
    transform = create_transform(**preprocessing.timm_config(), is_training=False, normalize=False)
    return cast(Callable[[Image.Image], Tensor], transform)


def _uniforms(seed: int, epoch: int, sample_id: str) -> Iterator[float]:
    """An endless stream of numbers in [0, 1), fixed by its arguments."""
    key = f"view/{seed}/{epoch}/{sample_id}".encode()
    block = 0
    while True:
        digest = hashlib.blake2b(key, digest_size=64, salt=block.to_bytes(8, "little")).digest()
        for start in range(0, 64, 8):
            yield (int.from_bytes(digest[start : start + 8], "little") >> 11) * 2.0**-53
        block += 1


def _mirrored(view: Tensor, draw: Iterator[float]) -> Tensor:
    return view.flip(-1) if next(draw) < 0.5 else view


def _shifted(view: Tensor, draw: Iterator[float]) -> Tensor:
    height, width = view.shape[-2:]
    down, right = max(1, height // 8), max(1, width // 8)
    padded: Tensor = TF.pad(view, [right, down])
    top, left = int(next(draw) * (2 * down + 1)), int(next(draw) * (2 * right + 1))
    return padded[:, top : top + height, left : left + width]


def _recoloured(view: Tensor, draw: Iterator[float]) -> Tensor:
    distort, grey = next(draw) < 0.8, next(draw) < 0.2
    brightness, contrast, saturation = (0.2 + 1.6 * next(draw) for _ in range(3))
    hue = -0.2 + 0.4 * next(draw)
    if distort:
        view = TF.adjust_brightness(view, brightness)
        view = TF.adjust_contrast(view, contrast)
        view = TF.adjust_saturation(view, saturation)
        view = TF.adjust_hue(view, hue)
    return TF.rgb_to_grayscale(view, num_output_channels=3) if grey else view


def _random_resized_crop(image: Image.Image, crop: Preprocessing, draw: Iterator[float]) -> Image.Image:
    width, height = image.size
    size, interpolation = list(crop.view_size), resample_filter(crop.interpolation)
    for _ in range(10):
        area = width * height * (0.08 + 0.92 * next(draw))
        ratio = math.exp(math.log(3 / 4) + next(draw) * (math.log(4 / 3) - math.log(3 / 4)))
        at, down = next(draw), next(draw)
        crop_w, crop_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            left, top = int(at * (width - crop_w + 1)), int(down * (height - crop_h + 1))
            return cast(
                Image.Image,
                TF.resized_crop(image, top, left, crop_h, crop_w, size, interpolation=interpolation),
            )
    # No crop fitted (a very elongated image): the largest centre crop within the aspect ratios allowed.
    crop_w = min(width, round(height * 4 / 3))
    crop_h = min(height, round(width * 4 / 3))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    return cast(Image.Image, TF.resized_crop(image, top, left, crop_h, crop_w, size, interpolation=interpolation))


class TrainingViews:
    """Makes the view of a sample by its position; picklable, for worker processes.

    Args:
        spec: how views are made.
        ids: the samples' ids, by position.
        seed: of the run.
        epoch: counted from 0.
    """

    def __init__(self, spec: ViewSpec, ids: Sequence[str], *, seed: int, epoch: int) -> None:
        self.spec = spec
        self.ids = ids
        self.seed = seed
        self.epoch = epoch

    def __call__(self, index: int, image: Image.Image) -> Tensor:
        """The packed view, uint8 (L,)."""
        about = {"seed": self.seed, "epoch": self.epoch}
        sample_id = self.ids[index]
        return pack([make_view(image, self.spec, size=size, sample_id=sample_id, **about) for size in self.spec.sizes])


def blank_views(count: int, spec: ViewSpec) -> Views:
    """Black views."""
    length = sum(3 * height * width for height, width in spec.sizes)
    return Views(packed=torch.zeros(count, length, dtype=torch.uint8), sizes=spec.sizes)
