"""A classifier as an ONNX file that `onnx:PATH` loads again: preprocessing and class names are in its metadata."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtra, ModelError
from ..libraries import first_line, printed_to_stderr
from .classifier import Classifier
from .modules import copy_module
from .outputs import as_logits, logits_of
from .preprocessing import Preprocessing

INPUT, OUTPUT = "images", "logits"
OPSET = 17
OPSETS = (14, 20)
"""The first that has the operators of attention, and the last that torch writes in this way."""
PREPROCESSING = "gainfinder.preprocessing"
"""Metadata key of all of the preprocessing, as JSON; `mean`, `std` and `names` stand in keys of their own, too."""
_TRACED = 2


def refuse_unexportable(classifier: Classifier) -> None:
    """Refuse a classifier of anything but whole images.

    Raises:
        ModelError: it is one.
    """
    if classifier.reads != "image":
        raise ModelError(
            f"{classifier.reference}: classifiers of texts are not exported: `optimum-cli export onnx` writes what "
            "transformers saved as an ONNX file"
        )
    if classifier.in_places:
        raise ModelError(
            f"{classifier.reference}: classifiers of {classifier.classifies}s are not exported, since `onnx:` reads "
            "classifiers of whole images alone: export what transformers saved with `optimum-cli export onnx`"
        )


def write_onnx(classifier: Classifier, path: Path, *, opset: int = OPSET) -> None:
    """Write a classifier as an ONNX file: from normalised images, float32 (N, C, H, W), to logits (N, classes).

    N is free, height and width are fixed. The classifier is not changed.

    Args:
        classifier: the classifier, in evaluation mode, on the CPU.
        path: the file.
        opset: version of ONNX's operators, in `OPSETS`.

    Raises:
        MissingExtra: the package onnx is not installed.
        ModelError: the model does something that cannot be traced, or is larger than a file of this format can be, or
            classifies texts.
    """
    refuse_unexportable(classifier)
    onnx = _onnx(classifier.reference)
    module = _Logits(classifier).eval()
    blank = classifier.preprocessing.blank(_TRACED)
    with tempfile.TemporaryDirectory(prefix="gainfinder-") as scratch:
        traced = Path(scratch) / "model.onnx"
        try:
            with warnings.catch_warnings(), printed_to_stderr(), torch.no_grad():
                warnings.simplefilter("ignore")  # of branches that depend on shapes, which are fixed
                torch.onnx.export(
                    module,
                    (blank,),
                    str(traced),
                    dynamo=False,  # the other way needs a package more, and gives the same operators
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
                    opset_version=opset,
                )
            document = onnx.load(str(traced))
            onnx.helper.set_model_props(document, metadata_of(classifier))
            onnx.save_model(document, str(path))
        except Exception as error:
            raise ModelError(
                f"{classifier.reference}: it cannot be written as ONNX of opset {opset}: {first_line(error)}"
            ) from error


def metadata_of(classifier: Classifier) -> dict[str, str]:
    """What an ONNX file says of its inputs and classes."""
    preprocessing = classifier.image_preprocessing
    found = {
        "mean": ",".join(map(repr, preprocessing.mean)),
        "std": ",".join(map(repr, preprocessing.std)),
        PREPROCESSING: json.dumps(preprocessing.described()),
    }
    if classifier.class_names is not None:
        found["names"] = repr(list(classifier.class_names))
    return found


def written_preprocessing(metadata: Any) -> dict[str, Any]:
    """The preprocessing that `write_onnx` put into a file's metadata; empty where it did not, or it cannot be read."""
    try:
        found = json.loads(metadata.get(PREPROCESSING) or "{}")
        return Preprocessing(**{key: _tuple(value) for key, value in found.items()}).described() if found else {}
    except (ValueError, TypeError, AttributeError, ModelError, RecursionError):
        return {}


class _Logits(nn.Module):
    """A classifier's logits as a module: its own outputs made logits, and mapped to its classes."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.module = copy_module(classifier.module, reference=classifier.reference).cpu()
        self.output = classifier.output
        self.label_map = classifier.label_map

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logits = as_logits(logits_of(self.module(images)), self.output)
        return logits if self.label_map is None else self.label_map.apply(logits).logits


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _onnx(purpose: str) -> Any:
    try:
        import onnx  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise MissingExtra("onnx", "onnx", f"{purpose} as an ONNX file") from error
    return onnx
