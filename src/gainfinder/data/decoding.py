"""Decoding one image file: bounded in pixels and time, and what Pillow would read wrongly without a word put right."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from ..files import file_problem
from .libtiff import libtiff_silent

Source = Path | BinaryIO
"""Where an encoded image is: a file, or its bytes."""

MOST_PIXELS = 100_000_000
"""Pixels of the largest image that is decoded, 10,000 × 10,000: 0.3 GB as RGB, a second or two."""
MOST_SCANNED = 1_000_000_000
"""Most pixels times scans of a progressive JPEG: each scan passes over all pixels, a small file may hold thousands."""
_DRAWN = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
"""Formats of Pillow that other programs draw."""
_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_SIXTEEN_BITS_AS_32 = frozenset({"PNG", "PPM"})
"""Formats in which the 32-bit integers of Pillow's mode I are at most 65,535."""
_SCALED = ("L;2", "L;4")
"""Grey of 2 and 4 bits, which Pillow scales to 8."""
_LIBTIFF_FAILED = "decoder error"
_SCAN = b"\xff\xda"


def decode(source: Source, *, upright: bool = False) -> Image.Image:
    """Decode one image fully, as RGB: the first frame; 16 bits a channel become 8, the upper ones.

    Args:
        source: the file, or its bytes.
        upright: whether to turn the image as its EXIF orientation says; otherwise pixels stay as they are stored, as
            timm and torchvision read them (a TIFF is turned by Pillow itself, for them as well).

    Raises:
        Exception: whatever Pillow raises for a file that is cut off, damaged or not an image.
        ValueError: more than `MOST_PIXELS` pixels, or scans without end; or pixels of 32 bits, whose range is unknown.
        OSError: the path is no regular file.
    """
    with opened(source) as image:
        _refuse_expensive(image, source)
        bits = bits_of(image)
        if bits > 16:
            raise ValueError(f"pixels of {bits} bits have no agreed range: save it with 8 or 16 bits a channel")
        _load(image)
        if upright:  # a TIFF is turned by now, and has lost the orientation
            ImageOps.exif_transpose(image, in_place=True)
        return (_upper_bits(image) if bits == 16 else image).convert("RGB")


def decode_mask(source: Source) -> NDArray[np.uint8]:
    """Decode a mask: the class of each pixel, uint8 (H, W); of a picture with a palette the index in it.

    Args:
        source: the file, or its bytes.

    Raises:
        Exception: whatever Pillow raises for a file that is cut off, damaged or not an image.
        ValueError: it has several channels, or other than 8 bits; or it was compressed with loss.
    """
    with opened(source) as image:
        _refuse_expensive(image, source)
        if image.format in {"JPEG", "MPO"}:
            raise ValueError("a JPEG does not keep numbers as they are: save masks as .png")
        scaled = any(str(tile[-1]).startswith(_SCALED) for tile in getattr(image, "tile", ()))
        if image.mode not in {"1", "L", "P"} or scaled:
            kind = "grey of less than 8 bits" if scaled else image.mode
            raise ValueError(f"its pixels are {kind}, expected one channel of 8 bits, or a palette: a class a pixel")
        _load(image)
        return np.asarray(image).astype(np.uint8)


def size_of(source: Source) -> tuple[int, int]:
    """Width and height of an image, by its header.

    Raises:
        Exception: whatever Pillow raises for a file that is not an image.
    """
    with opened(source) as image:
        return image.size


@contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """An image of which nothing but the header is read yet.

    Raises:
        OSError: the path is no regular file, or Pillow does not know the format.
        ValueError: another program would have to draw it.
    """
    if isinstance(source, Path) and (problem := file_problem(source)) is not None:
        raise OSError(f"it {problem}")
    with warnings.catch_warnings():
        # Pillow warns of many images that it decodes well: large ones, palettes with transparency, odd metadata.
        warnings.simplefilter("ignore")
        with Image.open(source) as image:
            if image.format in _DRAWN:
                raise ValueError(f"a drawing ({image.format}), not pixels: save it as .png")
            yield image


def bits_of(image: Image.Image) -> int:
    """Bits a channel of an opened image that Pillow keeps: 8, 16 or 32; colours of 16 bits it reads as 8 by itself."""
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in _SIXTEEN_BITS_AS_32):
        return 16
    return 32 if image.mode in {"I", "F"} else 8


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image as it is decoded, 1 (upright) where it has none; without decoding it."""
    if image.format == "TIFF":
        return 1  # Pillow turns these upright by itself
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole image in search of it
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _load(image: Image.Image) -> None:
    """Decode the pixels of an opened image."""
    if image.format != "TIFF":
        image.load()
        return
    try:
        with libtiff_silent():
            image.load()
    except OSError as error:
        if str(error).startswith(_LIBTIFF_FAILED):
            raise OSError(
                f"libtiff cannot decode it ({error}): damaged, or compressed in a way unknown to it"
            ) from error
        raise


def _refuse_expensive(image: Image.Image, source: Source) -> None:
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise ValueError(
            f"{image.width:,} × {image.height:,} pixels are too many, at most {MOST_PIXELS:,} are decoded: scale "
            "it down"
        )
    if image.format in {"JPEG", "MPO"} and image.info.get("progressive"):
        scans = (source.read_bytes() if isinstance(source, Path) else _all_bytes(source)).count(_SCAN)
        if pixels * scans > MOST_SCANNED:
            raise ValueError(f"a progressive JPEG of {scans} scans would take minutes to decode: save it anew")


def _all_bytes(source: BinaryIO) -> bytes:
    place = source.tell()
    source.seek(0)
    content = source.read()
    source.seek(place)
    return content


def _upper_bits(image: Image.Image) -> Image.Image:
    """Pillow itself would clip 16 bits at 255, which makes nearly all of an image white."""
    return Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
