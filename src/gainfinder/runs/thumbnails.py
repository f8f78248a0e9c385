"""Thumbnails of the images whose predicted class a transfer changed, made while the images are loaded."""

import hashlib
import io

from PIL import Image

from ..data import Samples
from ..errors import BrokenSample
from ..predictions import Predictions
from ..results import Thumbnail, changed_images

MOST = 24
"""Images of a kind, at most."""
SIDE = 96
"""Pixels of the longer side; smaller images stay as they are."""


def make_thumbnails(images: Samples, before: Predictions, after: Predictions) -> list[Thumbnail]:
    """Thumbnails of images that the student gained and lost, or, without labels, predicts differently.

    Of more than `MOST` of a kind those are taken whose hashed ids come first: a pseudo-random sample, the same one
    every time.

    Args:
        images: the images measured on.
        before: the student's predictions before the transfer.
        after: the student's predictions after the transfer, for the same images.
    """
    position_of = {sample_id: i for i, sample_id in enumerate(images.ids)}
    found = []
    for kind, ids in changed_images(before, after).items():
        kept = 0
        for sample_id in sorted(ids, key=_hashed):
            if kept == MOST:
                break
            try:
                image = shrunk(images.read(position_of[sample_id]))
            except BrokenSample:  # decoded a moment ago, but the disk may have changed
                continue
            found.append(Thumbnail(id=sample_id, kind=kind, image=image))
            kept += 1
    return found


def shrunk(image: Image.Image, *, side: int = SIDE) -> bytes:
    """An image at thumbnail size, encoded: PNG if it was as small as that, else JPEG."""
    small = max(image.size) <= side
    copy = image.convert("RGB")
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    copy.save(out, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 85}))
    return out.getvalue()


def _hashed(sample_id: str) -> bytes:
    return hashlib.blake2b(sample_id.encode(), digest_size=8).digest()
