"""Features of images, computed in parts that are kept, so that a pass that was stopped goes on where it was."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from ..data import Samples
from ..files import parse_json, remove_partials, write_atomically
from ..inference import ImageFeatures

PART_IMAGES = 8192
"""Images of a part, rounded up to whole batches."""


def kept_features(
    images: Samples,
    folder: Path,
    *,
    compute: Callable[[Samples], ImageFeatures],
    batch_size: int,
    on_images: Callable[[int], None],
) -> ImageFeatures:
    """The features of some images, those in the folder read, the others computed and kept there.

    Args:
        images: the images.
        folder: folder of the parts; it is of these images and of one model.
        compute: computes the features of some of the images.
        batch_size: images a forward pass; others would give features that differ by rounding.
        on_images: called with the number of images that were read.
    """
    remove_partials(folder)
    size = -(-PART_IMAGES // batch_size) * batch_size
    parts: list[ImageFeatures] = []
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        path = folder / f"{rows.start:08d}-{rows.stop:08d}-by-{batch_size}.safetensors"
        part = _read(path)
        if part is None:
            part = compute(images.select(rows))
            write_atomically(path, partial(_write, part))
        else:
            on_images(len(rows))
        parts.append(ImageFeatures(positions=part.positions + start, features=part.features, broken=part.broken))
    whole = [part for part in parts if len(part.positions)]  # of an empty part the number of features is unknown
    return ImageFeatures(
        positions=torch.cat([part.positions for part in parts]),
        features=torch.cat([part.features for part in whole]) if whole else torch.zeros(0, 0),
        broken=tuple(reason for part in parts for reason in part.broken),
    )


def _write(part: ImageFeatures, path: Path) -> None:
    tensors = {"positions": part.positions, "features": part.features}
    safetensors.torch.save_file(tensors, path, metadata={"broken": json.dumps(part.broken)})


def _read(path: Path) -> ImageFeatures | None:
    """The part in a file; None where there is none, or a damaged one."""
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            return ImageFeatures(
                positions=file.get_tensor("positions"),
                features=file.get_tensor("features"),
                broken=tuple(map(str, parse_json(file.metadata()["broken"]))),
            )
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None
