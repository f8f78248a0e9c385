"""What a report shows of the samples whose predicted class a transfer changed: small images, excerpts of texts."""

import hashlib
import io
import unicodedata
from typing import Any

from PIL import Image

from ..data import Samples
from ..errors import BrokenSample
from ..predictions import Predictions
from ..results import Content, Thumbnail, changed_samples

MOST = 24
"""Samples of a kind, at most."""
SIDE = 96
"""Pixels of the longer side; smaller images stay as they are."""
EXCERPT = 280
"""Characters of a text, at most."""
_JOINER = "\u200d"
"""Joins emoji to one."""


def make_thumbnails(images: Samples, before: Predictions, after: Predictions) -> list[Thumbnail]:
    """Thumbnails of samples that the student gained and lost, or, without labels, predicts differently.

    Of more than `MOST` of a kind those are taken whose hashed ids come first: a pseudo-random sample, the same one
    every time.

    Args:
        images: the samples measured on.
        before: the student's predictions before the transfer.
        after: the student's predictions after the transfer, for the same samples.
    """
    position_of = {sample_id: i for i, sample_id in enumerate(images.ids)}
    found = []
    for kind, ids in changed_samples(before, after).items():
        kept = 0
        for sample_id in sorted(ids, key=_hashed):
            if kept == MOST:
                break
            try:
                content = shown(images.read(position_of[sample_id]))
            except BrokenSample:  # decoded a moment ago, but the disk may have changed
                continue
            found.append(Thumbnail(id=sample_id, kind=kind, content=content))
            kept += 1
    return found


def shown(sample: Any, *, side: int = SIDE, characters: int | None = EXCERPT) -> Content:
    """What is shown of a sample.

    Args:
        sample: an image, a text, or two of a pair.
        side: pixels of an image's longer side, at most.
        characters: characters of a text, at most; None for the whole, in the lines that it has.
    """
    if isinstance(sample, Image.Image):
        return shrunk(sample, side=side)
    parts = sample if isinstance(sample, tuple) else (sample,)
    return tuple(_encodable(part if characters is None else excerpt(part, characters)) for part in parts)


def shrunk(image: Image.Image, *, side: int = SIDE) -> bytes:
    """An image at thumbnail size, encoded: PNG if it was as small as that, else JPEG."""
    small = max(image.size) <= side
    copy = image.convert("RGB")
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    copy.save(out, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 85}))
    return out.getvalue()


def excerpt(text: str, characters: int) -> str:
    """The beginning of a text on one line: of a long one up to a space, and else to the end of a letter with its marks.

    >>> excerpt("a text\\nof  two lines", 40), excerpt("a rather long text", 12)
    ('a text of two lines', 'a rather…')
    """
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    head, space, _ = line[:characters].rpartition(" ")
    if not space or len(head) < characters // 2:
        end = characters - 1
        while end > 1 and _goes_on(line[end - 1], line[end]):
            end -= 1
        head = line[:end]
    return f"{head}…"


def _goes_on(last: str, following: str) -> bool:
    """Whether a character belongs to the one before: an accent, a variation, a part of an emoji."""
    joined = _JOINER in (last, following) or 0x1F3FB <= ord(following) <= 0x1F3FF
    return joined or unicodedata.category(following) in ("Mn", "Me", "Mc")


def _encodable(text: str) -> str:
    """The text with halves of characters, which no file can hold, replaced."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _hashed(sample_id: str) -> bytes:
    return hashlib.blake2b(sample_id.encode(), digest_size=8).digest()
