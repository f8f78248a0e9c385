"""Images: samples that are decoded to RGB."""

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from .samples import Samples


@dataclass(frozen=True, kw_only=True)
class Images(Samples):
    """A selection of the images of one source; the reader gives PIL images, fully decoded.

    Attributes:
        mirrorable: False where a mirrored image means something else (digits, text).
    """

    noun: ClassVar[str] = "image"
    unread: ClassVar[str] = "decoded"
    reading: ClassVar[str] = "decoding"
    classified: ClassVar[str] = "image"

    mirrorable: bool = True

    def _usable(self, sample: Image.Image) -> Image.Image:
        return sample if sample.mode == "RGB" else sample.convert("RGB")

    def _content(self, sample: Image.Image) -> bytes:
        return f"{sample.size}".encode() + sample.tobytes()
