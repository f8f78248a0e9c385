"""ONNX files, run by ONNX Runtime: classifiers that can predict and teach, but have no weights to train."""

import ast
import hashlib
import logging
import mmap
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import BadReference, MissingExtra, ModelError
from ..files import file_problem, user_path
from ..libraries import first_line
from ..references import Query, suggest
from .assembly import assemble, names_of_config, note_normalisation, without
from .classifier import Classifier
from .preprocessing import Preprocessing
from .reference import ModelRef
from .to_onnx import written_preprocessing

_log = logging.getLogger("gainfinder")

_DTYPES: dict[str, type[np.number[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_FLOATING = ("tensor(float)", "tensor(float16)", "tensor(double)")
_LARGEST_PIXEL = 255
_NAMES = ("names", "class_names", "classes", "labels")
"""Keys of class names in a file's metadata; the first is that of Ultralytics."""
_SILENT = 4  # ONNX Runtime's level for fatal errors; all others are raised as well
# a file's key "location" and its value, as protobuf writes the entry of a tensor that lies in another file
_LOCATION = b"\x0a\x08location\x12"


def load(ref: ModelRef) -> Classifier:
    """Open an ONNX file as a classifier.

    The input's size is the file's where that is fixed, else `?size=`. Mean and standard deviation are those of the
    file's metadata (`mean` and `std`, or `image_mean` and `image_std`), else ImageNet's, with a note; interpolation and
    crop are those that `to_onnx.write_onnx` put there; a file that takes uint8 gets pixels from 0 to 255 as they are.
    Class names are the metadata's (`names`, `class_names`, `classes` or `labels`), where it has any. The output is the
    one that `?output_name=` names, or the one named `logits`, else the first of floating point, with a note where there
    are several.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelError: the file is missing or not an ONNX file, or it is not an image classifier.
        BadReference: a setting cannot be used.
    """
    reference = str(ref)
    query = without(ref.query, "output_name")
    path = user_path(ref.name, what="ONNX file", error=ModelError)
    module = OnnxModule(path, reference=reference, output=ref.setting("output_name"))
    return assemble(
        module,
        reference=reference,
        preprocessing=_preprocessing(module, query, reference),
        class_names=_names_in(module.metadata, reference),
        query=query,
        save=partial(save, query=ref.query),
    )


def save(classifier: Classifier, folder: Path, *, query: Query) -> str:
    """Copy the file, and those beside it that hold its weights.

    Returns:
        `onnx:FOLDER/NAME.onnx` with the settings it was loaded with.
    """
    module: Any = classifier.module
    folder.mkdir(parents=True, exist_ok=True)
    for file in _files(module.path):
        target = folder / file.relative_to(module.path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return str(ModelRef(source="onnx", name=str(folder / module.path.name), query=query))


@dataclass(frozen=True, kw_only=True)
class _Input:
    """A file's input: its name and dtype, the number of images where that is fixed, and (channels, height, width)."""

    name: str
    dtype: type[np.number[Any]]
    images: int | None
    size: tuple[int | None, int | None, int | None]
    channels_last: bool


class OnnxModule(nn.Module):
    """Runs an ONNX file: float (N, C, H, W), normalised, to float32 (N, classes), on the device of its input.

    For a file that takes uint8, inputs are pixels between 0 and 1, and are given to it as 0 to 255.

    It has no parameters. The buffer `file_digest` stands for the weights: it is a digest of the file's content. Copies
    and pickles hold the path and open the file again when they are first called, with the number of threads that torch
    has then. On a GPU it runs there if the installed ONNX Runtime can, else on the CPU.

    Args:
        path: the ONNX file.
        reference: the model reference, for messages.
        output: name of the output to take, or None.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelError: the file is missing or no ONNX file, or its input or output is not that of a classifier.
    """

    file_digest: Tensor

    def __init__(self, path: Path, *, reference: str, output: str | None = None) -> None:
        super().__init__()
        self.path = path.absolute()
        self.reference = reference
        self._sessions: dict[str, Any] = {}
        if (problem := file_problem(self.path)) is not None:
            raise ModelError(f"{reference}: the file {str(path)!r} {problem}")
        self.register_buffer("file_digest", _digest(self.path))
        session = self._session(torch.device("cpu"))
        self.input = _input_of(session, reference)
        self.output = _output_of(session, output, reference)
        self.ends_in_sigmoid = _ends_in_sigmoid(self.path, self.output)
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (N, classes), of float (N, C, H, W)."""
        session = self._session(x.device)
        values = x.detach().cpu().numpy()
        if self.takes_pixels:
            values = np.rint(values * _LARGEST_PIXEL).clip(0, _LARGEST_PIXEL)
        values = values.astype(self.input.dtype)
        if self.input.channels_last:
            values = values.transpose(0, 2, 3, 1)
        rows = [session.run([self.output], {self.input.name: part})[0] for part in self._parts(values)]
        return torch.from_numpy(np.concatenate(rows)[: len(x)]).to(x.device, torch.float32)

    @property
    def takes_pixels(self) -> bool:
        """Whether the file takes pixels from 0 to 255, which it normalises itself."""
        return self.input.dtype is np.uint8

    def extra_repr(self) -> str:
        return f"output={self.output!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def _parts(self, values: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The images in batches of the size that the file requires, the last one filled up with blank images."""
        images = self.input.images or max(len(values), 1)
        for start in range(0, len(values), images):
            part = values[start : start + images]
            blank = np.zeros((images - len(part), *part.shape[1:]), part.dtype)
            yield np.ascontiguousarray(np.concatenate([part, blank]) if len(blank) else part)

    def _session(self, device: torch.device) -> Any:
        key = str(device) if device.type == "cuda" else "cpu"
        if key not in self._sessions:
            if not torch.equal(self.file_digest.cpu(), _digest(self.path)):
                raise ModelError(f"{self.reference}: the file has changed since it was loaded")
            self._sessions[key] = _open(self.path, device, self.reference)
        return self._sessions[key]


def _open(path: Path, device: torch.device, reference: str) -> Any:
    runtime = _runtime(reference)
    options = runtime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = torch.get_num_threads()
    # between two batches its threads would spin, and take the processor from the student that trains
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return runtime.InferenceSession(str(path), sess_options=options, providers=providers)
    except Exception as error:
        raise ModelError(
            f"{reference}: ONNX Runtime {runtime.__version__} cannot open {str(path)!r}: {first_line(error)}"
        ) from error


def _runtime(purpose: str) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx", purpose) from error
    onnxruntime.set_default_logger_severity(_SILENT)
    return onnxruntime


def _input_of(session: Any, reference: str) -> _Input:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs) or "none"
        raise ModelError(f"{reference}: expected a file with one input, the images, got {len(inputs)} ({names})")
    name, kind = inputs[0].name, inputs[0].type
    shape = [edge if isinstance(edge, int) and edge > 0 else None for edge in inputs[0].shape]
    shown = f"{kind}({', '.join(map(str, inputs[0].shape))})"
    if kind not in _DTYPES:
        raise ModelError(
            f"{reference}: its input {name!r} is {shown}: expected floating-point, of normalised images, or "
            "uint8, of pixels"
        )
    channels_last = len(shape) == 4 and shape[3] in {1, 3} and shape[1] not in {1, 3}
    if channels_last:
        shape = [shape[0], shape[3], shape[1], shape[2]]
    if len(shape) != 4 or shape[1] not in {1, 3, None}:
        raise ModelError(
            f"{reference}: its input {name!r} is {shown}: expected (images, channels, height, width) or (images, "
            "height, width, channels) with 1 or 3 channels"
        )
    size = (shape[1], shape[2], shape[3])
    return _Input(name=name, dtype=_DTYPES[kind], images=shape[0], size=size, channels_last=channels_last)


def _output_of(session: Any, wanted: str | None, reference: str) -> str:
    """The name of the output that gives the classes."""
    outputs = {str(output.name): str(output.type) for output in session.get_outputs()}
    fitting = [name for name, kind in outputs.items() if kind in _FLOATING]
    if wanted is not None and wanted not in outputs:
        raise BadReference(
            f"the file has no output {wanted!r} (output_name in {reference!r}){suggest(wanted, outputs)}; there are: "
            f"{', '.join(outputs)}"
        )
    usual = "logits" if "logits" in fitting else next(iter(fitting), next(iter(outputs)))
    chosen = usual if wanted is None else wanted
    if chosen not in fitting:
        raise ModelError(
            f"{reference}: its output {chosen!r} is {outputs[chosen]}: expected floating-point logits (images, "
            f"classes); its outputs: {', '.join(outputs)}"
        )
    if wanted is None and chosen != "logits" and len(fitting) > 1:
        _log.warning(
            "%s: its output %r is taken, the first of %s; ?output_name= takes another",
            reference,
            chosen,
            ", ".join(fitting),
        )
    return chosen


def _preprocessing(module: OnnxModule, query: Query, reference: str) -> Preprocessing:
    """Size and normalisation of the file, ready for the settings in `query`."""
    channels, *edges = module.input.size
    given = dict(query)
    if module.takes_pixels and (own := next((key for key in ("mean", "std") if key in given), None)) is not None:
        raise BadReference(
            f"{own}={given[own]} in {reference!r} cannot be used: the file takes pixels from 0 to 255 (uint8) and "
            "normalises them itself"
        )
    open_size = ", ".join("?" if edge is None else str(edge) for edge in edges)
    if None in edges and "size" not in given:
        raise ModelError(
            f"{reference}: the file leaves its input size open (height, width: {open_size}): add ?size=EDGE or "
            "?size=HEIGHTxWIDTH to the reference"
        )
    config = {
        **written_preprocessing(module.metadata),
        "input_size": (channels or 3, *(edge or 224 for edge in edges)),
        **_statistics(module, given, reference),
    }
    preprocessing = Preprocessing.from_timm_config(config)
    if "crop_rounding" in config:  # timm's configuration has no word for it
        preprocessing = replace(preprocessing, crop_rounding=config["crop_rounding"])
    size = preprocessing.with_overrides(query, reference=reference).view_size
    if any(edge not in {None, wanted} for edge, wanted in zip(edges, size, strict=True)):
        raise BadReference(
            f"size={given['size']} in {reference!r} does not fit the file, whose input has (height, width): {open_size}"
        )
    note_normalisation(preprocessing, config, query, reference=reference, what="file")
    return preprocessing


def _statistics(module: OnnxModule, given: Mapping[str, str], reference: str) -> dict[str, list[float]]:
    """Mean and standard deviation in the file's metadata, where it has any and the reference gives none."""
    if module.takes_pixels:
        return {"mean": [0.0], "std": [1.0]}
    found = {}
    for key in sorted({"mean", "std"} - given.keys()):
        text = module.metadata.get(key) or module.metadata.get(f"image_{key}")
        if text is None:
            continue
        try:
            found[key] = [float(value) for value in text.strip().strip("[]()").split(",")]
        except ValueError:
            raise ModelError(
                f"{reference}: {key} in the file's metadata is {text!r}: expected numbers separated by commas; "
                f"give ?{key}= in the reference"
            ) from None
    return found


def _names_in(metadata: Mapping[str, str], reference: str) -> tuple[str, ...] | None:
    """Class names in a file's metadata: a list or a dict by index, as Python and JSON write it, or separated by commas.

    Example:
        >>> _names_in({"names": "{0: 'cat', 1: 'dog'}"}, "x"), _names_in({"classes": "cat, dog"}, "x")
        (('cat', 'dog'), ('cat', 'dog'))
    """
    text = next((metadata[key] for key in _NAMES if metadata.get(key)), None)
    if text is None:
        return None
    if text.strip()[:1] not in "[{(":
        return tuple(name.strip() for name in text.split(","))
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, tuple):
        found = list(found)
    if not isinstance(found, list | Mapping):
        _log.warning(
            "%s: the class names in its metadata cannot be read, so it names no classes; ?classes= in its reference "
            "names its outputs",
            reference,
        )
        return None
    return names_of_config({"label_names": found}, reference=reference)


def _ends_in_sigmoid(path: Path, output: str) -> bool:
    """Whether the file's last operator for an output is a sigmoid, by the way protobuf writes such a node."""
    name = output.encode()
    if not 0 < len(name) < 128:
        return False
    node = re.compile(b"\x12" + re.escape(bytes([len(name)]) + name) + b"(?:\x1a.{1,130}?)?\x22\x07Sigmoid", re.DOTALL)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return node.search(content) is not None


def _digest(path: Path) -> Tensor:
    """Digest, uint8 (16,), of a file and of those that hold its weights."""
    digest = hashlib.blake2b(digest_size=16)
    for file in _files(path):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _files(path: Path) -> list[Path]:
    """The file, and those within its folder that it names as external data, which hold its weights."""
    # Not onnx.external_data_helper: it would be one more package, which ONNX Runtime does without, to find a few names.
    locations = set()
    if path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.find(_LOCATION)
            while start >= 0:
                start += len(_LOCATION)
                locations.add(_string_at(content[start : start + 4098]))
                start = content.find(_LOCATION, start)
    # ONNX Runtime refuses weights outside the folder
    inside = sorted(
        file
        for file in (Path(text.decode(errors="replace").replace("\0", "")) for text in locations)
        if ".." not in file.parts and not file.is_absolute()
    )
    return [path, *(path.parent / file for file in inside if file_problem(path.parent / file) is None)]


def _string_at(content: bytes) -> bytes:
    """The string that protobuf writes as its length, in one byte or two, and its bytes."""
    if len(content) < 2:
        return b""
    two = content[0] >= 128
    length = content[0] & 127 | (content[1] << 7 if two else 0)
    return content[1 + two : 1 + two + length]
