"""A folder of images of smooth noise, in a folder a class: to have files of photographs' size where there are none.

    python -m benchmarks.speed.noise FOLDER --classes 1000 --per-class 20 --distinct 400 --size 500 375

A few hundred images are drawn, and copied under names of their own until there are enough files; by several processes.
"""

import argparse
import io
import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

OCTAVES = (2, 6, 20, 80, 250)
"""Cells along the longer edge of the grids of random colours that are laid over each other."""
WEIGHTS = (0.4, 0.2, 0.15, 0.1, 0.15)
"""Of these grids; the last two make files as large as those of photographs."""
QUALITY = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--per-class", type=int, required=True)
    parser.add_argument("--distinct", type=int, required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    drawn = asked.folder.with_name(f"{asked.folder.name}-drawn")
    drawn.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with multiprocessing.Pool(cores) as pool:
        draw = partial(write_image, drawn, size=tuple(asked.size), seed=asked.seed)
        pool.map(draw, range(asked.distinct))
        copy = partial(write_class, asked.folder, drawn, per_class=asked.per_class, distinct=asked.distinct)
        pool.map(copy, range(asked.classes))
    shutil.rmtree(drawn)


def write_image(folder: Path, number: int, *, size: tuple[int, int], seed: int) -> None:
    (folder / f"{number}.jpg").write_bytes(jpeg(size, np.random.default_rng((seed, number))))


def jpeg(size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """Noise of several scales as JPEG."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.float32)
    for cells, weight in zip(OCTAVES, WEIGHTS, strict=True):
        shape = (max(2, cells * height // width), cells, 3)
        grid = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        pixels += np.asarray(grid.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) * weight
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def write_class(folder: Path, drawn: Path, number: int, *, per_class: int, distinct: int) -> None:
    target = folder / f"c{number:04d}"
    target.mkdir(parents=True, exist_ok=True)
    for image in range(per_class):
        shutil.copyfile(drawn / f"{(number * per_class + image) % distinct}.jpg", target / f"{image:03d}.jpg")


if __name__ == "__main__":
    main()
