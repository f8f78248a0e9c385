"""Handwritten digits as image files: images with encoded content, which the embedded digits lack."""

from pathlib import Path

import gainfinder


def digit_folder(folder: Path, count: int, *, broken: int) -> Path:
    """Class folders of so many digits as PNG files, the first ones cut short."""
    images = gainfinder.load_images("digits").select(range(count))
    assert images.labels is not None
    for i in range(len(images)):
        path = folder / str(images.labels[i]) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.read(i).save(path)
        if i < broken:
            path.write_bytes(path.read_bytes()[:60])
    return folder
