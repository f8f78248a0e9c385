"""Views: the augmented image that all models of a transfer see, as a pure function of (seed, number, sample id).

Nothing here depends on worker count, batch size, process count or what was drawn before. A resumed run therefore
equals an uninterrupted one, every method of a study sees the same images, and predictions for a view can be cached
(see `inference/bank.py`). Parameters come from a counter-based hash (BLAKE2b); the pixels from PIL, from torchvision's
functional operations, which take explicit parameters, and from whole-batch forms of these that give each image the same
bits in whatever batch it is.

A view is made in two stages, and may then be mixed with another (`mixup.py`). The *crop* is rendered from the decoded
image at the input size of each model, with the student's crop and resampling filter, image by image. Rendered once and
resized for the others, a small image would be enlarged for one model and shrunk again for the next, and a student with
batch-norm would adapt to the blur. Then the crops of a batch are *augmented* together, on their device: mirrored,
shifted, coloured. Only `rrc` draws at the first stage already. Which augmentation is the default: see
`default_augment`.

Shapes: N samples, H and W height and width, L bytes of all renderings of a view, K numbers drawn for a view.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
import torchvision.transforms.functional as TF
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..config import Augment
from ..models import InputForm, Preprocessing, Tokenization, resample_filter
from .augment import DRAWN, MIRRORED, augmented

Size: TypeAlias = tuple[int, int] | Tokenization
"""What the views for a model are rendered at: height and width in pixels, or of texts the model's tokenization."""


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Specification of views.

    Attributes:
        preprocessing: the student's crop, crop mode and filter; size and normalisation are not used. Of texts its
            tokenization, which is not used.
        sizes: what to render at, each once.
        seed: seed of all random draws.
        count: number of views of an image, used in turn; None for a new one each epoch.
        augment: `paper`: centre crop, mirroring (p 0.5), colour distortion (p 0.8: brightness, contrast and saturation
            by factors in [0.2, 1.8], hue by up to ±0.2 of the circle), grey (p 0.2), as in the published code;
            `rrc`: a crop of 8 to 100 % of the area and aspect ratio 3/4 to 4/3, and mirroring; `crop-flip`: padded by
            an eighth of each edge with black, cropped at random, mirrored; `none`: the evaluation crop.
        mixup: share of the views over which another image's view is laid (`mixup.py`).
    """

    preprocessing: InputForm
    sizes: tuple[Size, ...]
    augment: Augment
    seed: int = 0
    count: int | None = None
    mixup: float = 0.0

    @property
    def crop_bytes(self) -> int:
        """Bytes of the crops of one image, at all sizes; of a text, of its rows of tokens."""
        return sum(map(_bytes, self.sizes))

    @property
    def described_sizes(self) -> list[Any]:
        """The sizes as plain values: height and width, or all of a tokenization."""
        return [list(size) if isinstance(size, tuple) else size.described() for size in self.sizes]

    def number(self, epoch: int) -> int:
        """Which view an epoch, counted from 0, shows of each image."""
        return epoch if self.count is None else epoch % self.count

    def crop_at(self, size: Size) -> InputForm:
        """The student's evaluation crop, at a size; a tokenization crops nothing."""
        if isinstance(size, Tokenization):
            return size
        crop = self.preprocessing
        assert isinstance(crop, Preprocessing), "views of texts are rendered at tokenizations alone"
        return Preprocessing(
            input_size=(3, *size),
            interpolation=crop.interpolation,
            crop_pct=crop.crop_pct,
            crop_mode=crop.crop_mode,
            crop_rounding=crop.crop_rounding,
        )


def layout(size: Size) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of one sample's rendering: (3, H, W) of uint8, or (R, L) of int32 of a text."""
    if isinstance(size, Tokenization):
        return (size.height, size.max_length), torch.int32
    return (3, *size), torch.uint8


def _bytes(size: Size) -> int:
    shape, dtype = layout(size)
    return math.prod(shape) * dtype.itemsize


def view_spec(models: Sequence[InputForm], augment: Augment) -> ViewSpec:
    """Views for these models, the student first: at the input size of each, with the student's crop."""
    sizes: tuple[Size, ...] = tuple(dict.fromkeys(model.view_size for model in models))
    return ViewSpec(preprocessing=models[0], sizes=sizes, augment=augment)


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of a batch, each rendered at every size of its specification.

    Attributes:
        renderings: uint8 (N, 3, H, W) for each size, in the order of the specification; at least one. Of texts int32
            (N, R, L) for each tokenization.
        tokenizations: of texts the tokenization of each rendering; of images none.
    """

    renderings: tuple[Tensor, ...]
    tokenizations: tuple[Tokenization, ...] = ()

    def __len__(self) -> int:
        return len(self.renderings[0])

    @classmethod
    def unpack(cls, packed_NL: Tensor, sizes: Sequence[Size]) -> "Views":
        """Views from rows as `pack` makes them."""
        parts = torch.split(packed_NL, [_bytes(size) for size in sizes], dim=1)
        return cls.of([_unpacked(part, size) for part, size in zip(parts, sizes, strict=True)], sizes)

    @classmethod
    def of(cls, renderings: Sequence[Tensor], sizes: Sequence[Size]) -> "Views":
        """Views of these renderings, at these sizes."""
        tokenizations = tuple(size for size in sizes if isinstance(size, Tokenization))
        return cls(renderings=tuple(renderings), tokenizations=tokenizations)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Views":
        """The views with each rendering changed, such as a selection of its rows."""
        return replace(self, renderings=tuple(map(change, self.renderings)))

    def without_padding(self) -> "Views":
        """Views of texts without the padding that none of them needs; of images the same. On the CPU."""
        if not self.tokenizations:
            return self
        pairs = zip(self.tokenizations, self.renderings, strict=True)
        return replace(self, renderings=tuple(one.collated(tokens) for one, tokens in pairs))

    @property
    def most_places(self) -> int | None:
        """Places that a text of these has at most, no more than tokens; None of images."""
        return max(rendering.shape[-1] for rendering in self.renderings) if self.tokenizations else None

    def at(self, size: Size) -> Tensor:
        """The renderings at a size, uint8 (N, 3, H, W), or of a tokenization, int32 (N, R, L)."""
        if isinstance(size, Tokenization):
            return self.renderings[self.tokenizations.index(size)]
        for rendering in self.renderings:
            if rendering.shape[-2:] == tuple(size):
                return rendering
        sizes = [tuple(rendering.shape[-2:]) for rendering in self.renderings]
        raise ValueError(f"expected one of the sizes {sizes}, got {size}")

    def inputs(self, preprocessing: InputForm) -> Tensor:
        """A model's input: the renderings at its size, normalised for it, float32 (N, C, H, W); or its tokens."""
        return preprocessing.inputs(self.at(preprocessing.view_size))

    def augmented(self, draws_NK: Tensor, augment: Augment) -> "Views":
        """The second stage of these crops' views, at each size with the same draws."""
        return self if self.tokenizations else self.map(lambda crops: augmented(crops, draws_NK, augment))


def pack(renderings: Sequence[Tensor]) -> Tensor:
    """One sample's renderings, uint8 (3, H, W) or int32 (R, L) each, as one row of bytes, uint8 (L,)."""
    return torch.cat([rendering.reshape(-1).view(torch.uint8) for rendering in renderings])


def _unpacked(packed_NL: Tensor, size: Size) -> Tensor:
    shape, dtype = layout(size)
    if dtype is torch.uint8:
        return packed_NL.reshape(-1, *shape)
    return packed_NL.contiguous().view(dtype).reshape(-1, *shape)


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


def make_view(image: Image.Image, spec: ViewSpec, *, size: Size, number: int, sample_id: str) -> Tensor:
    """One view of one sample, rendered at one size.

    Args:
        image: RGB.
        spec: specification of the views.
        size: height and width in pixels.
        number: number of the view, from 0; see `ViewSpec.number`.
        sample_id: the sample's stable id.

    Returns:
        uint8 (3, H, W), before it is mixed. At another size: the same part of the image, up to rounding, mirrored and
        coloured the same.
    """
    crop = make_crop(image, spec, size=size, number=number, sample_id=sample_id)
    return augmented(crop[None], draws(spec, [sample_id], number=number), spec.augment)[0]


def make_crop(image: Image.Image, spec: ViewSpec, *, size: Size, number: int, sample_id: str) -> Tensor:
    """The first stage of a view: uint8 (3, H, W); see `make_view`. Only for `rrc` is it another for each number."""
    crop = spec.crop_at(size)
    assert isinstance(crop, Preprocessing), "texts are not cropped"
    if spec.augment == "rrc":
        draw = uniforms(spec.seed, number, sample_id)
        view: Tensor = TF.pil_to_tensor(_random_resized_crop(image, crop, draw))
        return view.flip(-1) if next(draw) < MIRRORED else view
    return evaluation_crop(crop)(image)


def draws(spec: ViewSpec, ids: Sequence[str], *, number: int) -> Tensor:
    """Random numbers for the second stage of each sample's view: float64 (N, K), in [0, 1)."""
    count = DRAWN[spec.augment]
    if not count:
        return torch.zeros(len(ids), 0, dtype=torch.float64)
    rows = [list(itertools.islice(uniforms(spec.seed, number, sample_id), count)) for sample_id in ids]
    return torch.tensor(rows, dtype=torch.float64)


@functools.lru_cache(maxsize=64)
def evaluation_crop(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """Resizing and cropping as for evaluation, to uint8 (3, H, W), without normalisation."""
    return preprocessing.evaluation_crop()


def uniforms(seed: int, number: int, sample_id: str, *, kind: str = "view") -> Iterator[float]:
    """An endless stream of numbers in [0, 1), fixed by its arguments."""
    # Not NumPy's Philox: an id would need a hash for its key all the same, and all views would be others.
    key = f"{kind}/{seed}/{number}/{sample_id}".encode()
    block = 0
    while True:
        digest = hashlib.blake2b(key, digest_size=64, salt=block.to_bytes(8, "little")).digest()
        for start in range(0, 64, 8):
            yield (int.from_bytes(digest[start : start + 8], "little") >> 11) * 2.0**-53
        block += 1


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


class Crops:
    """Renders the crops of a sample, or its rows of tokens, by its position; picklable, for worker processes.

    Args:
        spec: specification of the views.
        ids: the samples' ids, by position.
        number: number of the view.
    """

    def __init__(self, spec: ViewSpec, ids: Sequence[str], *, number: int) -> None:
        self.spec = spec
        self.ids = ids
        self.number = number

    def __call__(self, index: int, sample: Any) -> Tensor:
        """The packed crops, uint8 (L,)."""
        sample_id, number = self.ids[index], self.number
        return pack(
            [
                size.encoded(sample)
                if isinstance(size, Tokenization)
                else make_crop(sample, self.spec, size=size, number=number, sample_id=sample_id)
                for size in self.spec.sizes
            ]
        )


def blank_views(count: int, spec: ViewSpec, *, device: torch.device) -> Views:
    """Black views; of texts the longest."""
    renderings = [
        size.largest(count) if isinstance(size, Tokenization) else torch.zeros(count, 3, *size, dtype=torch.uint8)
        for size in spec.sizes
    ]
    return Views.of(renderings, spec.sizes).map(lambda rendering: rendering.to(device))
