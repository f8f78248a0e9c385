"""Static quantisation of an ONNX file by ONNX Runtime: its large layers compute in integers of 8 bits."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..data import Samples
from ..errors import BrokenSample, DataError, MissingExtra, ModelError
from ..inference import ImageCount
from ..libraries import first_line, printed_to_stderr, quiet
from ..models import ONNX_INPUT, Preprocessing, prepare

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators that become integers: the rest takes little time, and loses more by it."""
_AT_ONCE = 16


def quantise(path: Path, preprocessing: Preprocessing, images: Samples, *, on_images: ImageCount | None = None) -> int:
    """Quantise a file in place: QDQ, weights by channel, ranges as large as the images make them.

    Args:
        path: an ONNX file that `write_onnx` wrote.
        preprocessing: of its inputs.
        images: images that the ranges are set by; those that cannot be decoded are passed over.
        on_images: called with the number of images done since the last call.

    Returns:
        Number of images that the ranges were set by.

    Raises:
        MissingExtra: onnx or ONNX Runtime is not installed.
        DataError: none of the images can be decoded.
        ModelError: ONNX Runtime cannot quantise the file.
    """
    try:
        from onnxruntime import quantization  # noqa: PLC0415 (an extra)
        from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx", "a file of 8-bit integers") from error

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives the images in batches."""

        def __init__(self) -> None:
            self.batches, self.done = _batches(images, preprocessing, on_images), 0

        def get_next(self) -> dict[str, Any] | None:
            """The next batch by the input's name, or None."""
            batch = next(self.batches, None)
            if batch is None:
                return None
            self.done += len(batch)
            return {ONNX_INPUT: batch.numpy()}

    reader = Reader()
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as scratch, quiet("root"), printed_to_stderr():
        ready, quantised = Path(scratch) / "ready.onnx", Path(scratch) / "quantised.onnx"
        try:
            quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(ready),
                str(quantised),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # the products of two 8-bit integers overflow on processors without instructions for them
                reduce_range=True,
            )
            quantised.replace(path)
        except DataError:
            raise
        except Exception as error:
            raise ModelError(f"{path.name}: ONNX Runtime cannot quantise it: {first_line(error)}") from error
    return reader.done


def _batches(images: Samples, preprocessing: Preprocessing, on_images: ImageCount | None) -> Iterator[torch.Tensor]:
    """Inputs (N, C, H, W) of the images that can be decoded, a few at a time."""
    crop, pixels, found = preprocessing.evaluation_crop(), [], 0
    for index in range(len(images)):
        with suppress(BrokenSample):
            pixels.append(crop(images.read(index)))
        if on_images is not None:
            on_images(1)
        if pixels and (len(pixels) == _AT_ONCE or index == len(images) - 1):
            found += len(pixels)
            yield prepare(torch.stack(pixels), preprocessing)
            pixels = []
    if not found:
        raise DataError(f"{images.reference}: none of {len(images)} images to calibrate on can be decoded")
