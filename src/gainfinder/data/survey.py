"""What the headers of some images say of all: turned by EXIF, more than 8 bits, several frames. Nothing is decoded."""

import hashlib
from collections import Counter
from typing import Protocol, runtime_checkable

from .decoding import Source, bits_of, opened, orientation_of
from .samples import Samples

LOOKED_AT = 128
"""Most images looked at, chosen by id."""


@runtime_checkable
class EncodedReader(Protocol):
    """A reader of encoded images."""

    upright: bool

    def source(self, index: int) -> Source:
        """The file of image `index`, or its bytes."""
        ...


def survey(images: Samples) -> list[str]:
    """Notes on what is assumed of the images; none where the reader holds pixels.

    The headers of `LOOKED_AT` images at most are read; those that cannot be opened are counted as broken later.
    """
    reader = images.reader
    if not isinstance(reader, EncodedReader):
        return []
    found: Counter[str] = Counter()
    by_hash = sorted(range(len(images)), key=lambda i: hashlib.blake2b(images.ids[i].encode()).digest())[:LOOKED_AT]
    for index in by_hash:
        try:
            with opened(reader.source(int(images.positions[index]))) as image:
                found["turned"] += not reader.upright and orientation_of(image) != 1
                found["deep"] += bits_of(image) == 16
                found["clear"] += image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info
                found["frames"] += image.format != "MPO" and getattr(image, "n_frames", 1) > 1
        except Exception:  # broken, whatever Pillow raises
            continue
    of = f"of {'the ' if len(images) > len(by_hash) else ''}{len(by_hash)} images"
    of += " looked at" if len(images) > len(by_hash) else ""
    return [f"{images.reference}: {found[key]} {of} {text}" for key, text in _TEXTS.items() if found[key]]


_TEXTS = {
    "turned": "are turned by their EXIF orientation; they are read as stored, as timm and torchvision do, while "
    "transformers' pipelines and datasets turn them upright: for that add ?orient=exif to the reference",
    "deep": "have 16 bits a channel; the upper 8 are read: if they use fewer bits, scale them to 8 bits first",
    "clear": "may be transparent in parts; the colours below are read, as timm and torchvision do: if they are, lay "
    "them over a background first",
    "frames": "have several frames or pages; the first is read: to learn from others, save each as an image",
}
