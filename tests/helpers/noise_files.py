"""Noise as JPEG files: images with encoded content, each with other pixels, in no class."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int) -> bytes:
    """A JPEG file of 30 × 20 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG")
    return file.getvalue()


def write_jpegs(folder: Path, count: int) -> Path:
    """The folder, which is there, with so many of them in it."""
    for seed in range(count):
        (folder / f"{seed:02}.jpg").write_bytes(jpeg(seed))
    return folder
