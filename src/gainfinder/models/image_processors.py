"""Image processors of transformers in timm's terms, compared with what they do."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import GainfinderError, ModelError
from ..libraries import first_line
from ..references import Query
from .assembly import note_normalisation
from .from_torchvision import crop_share
from .preprocessing import CROP_ROUNDINGS, WHOLE_IMAGE, Preprocessing

_EDGES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# mean difference between our transform and the processor's, in inputs scaled to [0, 1]; they differ by rounding, as
# processors resize tensors and timm resizes images
_AGREEMENT = 0.02
_ADVICE = "add ?size=EDGE&mean=R,G,B&std=R,G,B&interpolation=NAME&crop_pct=SHARE to the reference"


def preprocessing_of_processor(processor: Any, *, channels: int, reference: str) -> Preprocessing:
    """An image processor's preprocessing in timm's terms, compared with its output for an image.

    Single values differ by rounding, positions do not.

    Raises:
        ModelError: it does something that timm's evaluation transform does not.
    """
    timm_config = getattr(processor, "data_config", None)
    if isinstance(timm_config, Mapping):
        return Preprocessing.from_timm_config(timm_config)
    try:
        translated = _translate(processor, channels)
        # both are tried, timm's first, which stays where they are the same: versions of transformers differ
        candidates = [replace(translated, crop_rounding=rounding) for rounding in CROP_ROUNDINGS]
        differences = [_difference(processor, candidate) for candidate in candidates]
        difference = min(differences)
        preprocessing = candidates[differences.index(difference)]
    except Exception as error:
        reason = str(error) if isinstance(error, GainfinderError) else first_line(error)
        raise ModelError(
            f"{reference}: the image processor {type(processor).__name__} cannot be expressed: {reason}; {_ADVICE}"
        ) from error
    if not difference < _AGREEMENT:
        raise ModelError(
            f"{reference}: the image processor {type(processor).__name__} does something of its own (its output "
            f"differs by {difference:.3f} of the value range from the same size, crop and normalisation); {_ADVICE}"
        )
    return preprocessing


def image_preprocessing(
    processor: Any, module: Any, query: Query, reference: str, *, in_cells: bool = False
) -> Preprocessing:
    """The preprocessing of a model of images: its processor's, or what the settings of its reference say.

    Args:
        processor: the image processor, or None.
        module: the model.
        query: settings of the reference.
        reference: the model reference.
        in_cells: whether the model gives each cell of an image a class; it has a grid then.

    Raises:
        ModelError: the processor does something that cannot be expressed, or there is none, and no size is given; or
            it crops, where cells get classes.
    """
    channels = getattr(module.config, "num_channels", 3)
    try:
        if processor is None:
            raise ModelError(f"{reference}: there is no image processor (preprocessor_config.json): {_ADVICE}")
        found = preprocessing_of_processor(processor, channels=channels, reference=reference)
    except ModelError:
        if dict(query).get("size") is None:
            raise
        found = Preprocessing.from_timm_config({"input_size": (channels, 224, 224)})
        found = replace(found, **WHOLE_IMAGE) if in_cells else found
        note_normalisation(found, None, query, reference=reference)
    return found.in_cells(query, reference=reference) if in_cells else found


def _translate(processor: Any, channels: int) -> Preprocessing:
    factor = float(getattr(processor, "rescale_factor", None) or 1 / 255)
    if getattr(processor, "do_rescale", True) is False or abs(factor * 255 - 1) > 1e-4:
        raise ModelError(f"it does not scale pixels by 1/255 (do_rescale, rescale_factor {factor:g})")
    normalize = getattr(processor, "do_normalize", True) is not False
    size, share, mode = _geometry(processor)
    return Preprocessing.from_timm_config(
        {
            "input_size": (channels, *size),
            "mean": processor.image_mean if normalize else [0.0] * channels,
            "std": processor.image_std if normalize else [1.0] * channels,
            "interpolation": _FILTERS[int(getattr(processor, "resample", None) or 0)],
            "crop_pct": share,
            "crop_mode": mode,
        }
    )


def _geometry(processor: Any) -> tuple[tuple[int, int], float, str]:
    """Input height and width, crop share and crop mode."""
    size = _sizes(getattr(processor, "size", None))
    crop = _sizes(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", None) else {}
    if getattr(processor, "do_resize", True) is False:
        raise ModelError("it does not resize (do_resize is false)")
    if "height" in size and "width" in size:
        edges = (size["height"], size["width"])
        if not crop:
            return edges, 1.0, "squash"
        return (crop["height"], crop["width"]), _shared_share((crop["height"], crop["width"]), edges), "squash"
    edge = size["shortest_edge"]
    own_share = getattr(processor, "crop_pct", None)
    if own_share:  # ConvNeXt's: a crop below 384 pixels, both edges resized from there on
        return (edge, edge), *((crop_share(edge, int(edge / own_share)), "center") if edge < 384 else (1.0, "squash"))
    if not crop:
        raise ModelError("it resizes the shortest edge and does not crop, so images keep different sizes")
    return (crop["height"], crop["width"]), _shared_share((crop["height"], crop["width"]), (edge, edge)), "center"


def _shared_share(crop: tuple[int, int], resized: tuple[int, int]) -> float:
    shares = {crop_share(small, large) for small, large in zip(crop, resized, strict=True)}
    if len(shares) > 1:
        raise ModelError(f"it crops {resized} to {crop}: the shares of height and width differ")
    return shares.pop()


def _sizes(size: Any) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size}
    items = dict(size or {}) if isinstance(size, Mapping) else {k: getattr(size, k, None) for k in _EDGES}
    return {key: int(value) for key, value in items.items() if value is not None}


def _difference(processor: Any, preprocessing: Preprocessing) -> float:
    """Mean absolute difference on a smooth image, in inputs scaled to [0, 1]."""
    channels, height, width = preprocessing.input_size
    # twice the edges after resizing, of which the longer has a margin of 3 pixels more than a multiple of 4: half of it
    # is rounded to even and down to different pixels
    resized = math.floor(height / preprocessing.crop_pct), math.floor(width / preprocessing.crop_pct) + height // 3
    longer = resized[1] + (width + 3 - resized[1]) % 4
    rows, columns = np.mgrid[0 : 2 * resized[0], 0 : 2 * longer] / 17.0
    pattern = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    image = Image.fromarray(((pattern + 1) * 127.5).astype(np.uint8), "RGB")
    theirs = processor(image if channels == 3 else image.convert("L"), return_tensors="pt")["pixel_values"][0]
    ours = preprocessing.evaluation_transform()(image)
    if theirs.shape != ours.shape:
        raise ModelError(f"it gives inputs of shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}")
    std = torch.tensor(preprocessing.std).view(-1, 1, 1)
    return float(((theirs - ours) * std).abs().mean())
