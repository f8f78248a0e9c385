"""scikit-learn's handwritten digits: 1,797 images of 8×8 pixels, in the package, so no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(the test part).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from .images import Images


@dataclass(frozen=True, kw_only=True)
class DigitsReader:
    """Images in memory.

    Attributes:
        pixels: uint8 (N, 8, 8).
    """

    pixels: NDArray[np.uint8]

    def read(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def where(self, index: int) -> str:
        """The sample's id."""
        return f"digits/{index:04d}"


def open_digits(*, reference: str, labels: bool) -> Images:
    """The digits, in scikit-learn's order. Values 0 … 16 become 0 … 255. A mirrored digit is no digit."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return Images.build(
        reference=reference,
        reader=DigitsReader(pixels=pixels),
        ids=[f"digits/{i:04d}" for i in range(len(pixels))],
        labels=digits.target if labels else None,
        class_names=[str(name) for name in digits.target_names] if labels else None,
        mirrorable=False,
    )
