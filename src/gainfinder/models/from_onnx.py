"""ONNX files, run by ONNX Runtime: classifiers that can predict and teach, but have no weights to train."""

import hashlib
import logging
import mmap
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import BadReference, MissingExtra, ModelError
from ..files import near_siblings
from ..libraries import first_line
from ..references import Query, suggest
from .assembly import assemble
from .classifier import Classifier
from .preprocessing import Preprocessing
from .reference import ModelRef

OUTPUTS = ("logits", "probs")

_log = logging.getLogger("gainfinder")

_DTYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_SMALLEST = 1e-12  # probability: its logarithm stays finite
_SILENT = 4  # ONNX Runtime's level for fatal errors; all others are raised as well
# a file's key "location" and its value, as protobuf writes the entry of a tensor that lies in another file
_LOCATION = b"\x0a\x08location\x12"


def load(ref: ModelRef) -> Classifier:
    """Open an ONNX file as a classifier.

    The input's size is the file's where that is fixed, else `?size=`. Mean and standard deviation are those of the
    file's metadata (`mean` and `std`, or `image_mean` and `image_std`), else ImageNet's, with a note. The output is
    the one named `logits`, else the first. Rows that are probabilities on a few probe images become log-probabilities
    in every forward pass; `?output=probs` or `?output=logits` decides it without a probe.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelError: the file is missing or not an ONNX file, or it is not an image classifier.
        BadReference: a setting cannot be used.
    """
    reference = str(ref)
    kind = ref.setting("output")
    if kind is not None and kind not in OUTPUTS:
        raise BadReference(
            f"output={kind} in {reference!r} cannot be used{suggest(kind, OUTPUTS)}; expected {' or '.join(OUTPUTS)}"
        )
    query = tuple(pair for pair in ref.query if pair[0] != "output")
    module = OnnxModule(Path(ref.name), reference=reference, gives_probs=kind == "probs")
    classifier = assemble(
        module,
        reference=reference,
        preprocessing=_preprocessing(module, query, reference),
        class_names=None,
        query=query,
        save=partial(save, query=ref.query),
    )
    if kind is None and _gives_probabilities(classifier):
        module.gives_probs = True
        _log.warning(
            "%s: its outputs are probabilities, so their logarithms are taken as logits; ?output=logits takes them as "
            "they are, ?output=probs says so",
            reference,
        )
    return classifier


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
    dtype: type[np.floating[Any]]
    images: int | None
    size: tuple[int | None, int | None, int | None]
    channels_last: bool


class OnnxModule(nn.Module):
    """Runs an ONNX file: float (N, C, H, W), normalised, to float32 (N, classes), on the device of its input.

    It has no parameters. The buffer `file_digest` stands for the weights: it is a digest of the file's content. Copies
    and pickles hold the path and open the file again when they are first called, with the number of threads that torch
    has then. On a GPU it runs there if the installed ONNX Runtime can, else on the CPU.

    Args:
        path: the ONNX file.
        reference: the model reference, for messages.
        gives_probs: whether the outputs are probabilities, of which logarithms are returned.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelError: the file is missing or no ONNX file, or its input or output is not that of a classifier.
    """

    file_digest: Tensor

    def __init__(self, path: Path, *, reference: str, gives_probs: bool = False) -> None:
        super().__init__()
        self.path = path.expanduser().absolute()
        self.reference = reference
        self.gives_probs = gives_probs
        self._sessions: dict[str, Any] = {}
        if not self.path.is_file():
            problem = "is a folder" if self.path.is_dir() else f"does not exist{near_siblings(self.path)}"
            raise ModelError(f"{reference}: the file {str(path)!r} {problem}")
        self.register_buffer("file_digest", _digest(self.path))
        session = self._session(torch.device("cpu"))
        self.input = _input_of(session, reference)
        self.output = _output_of(session, reference)
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (N, classes), of float (N, C, H, W)."""
        session = self._session(x.device)
        values = x.detach().cpu().numpy().astype(self.input.dtype)
        if self.input.channels_last:
            values = values.transpose(0, 2, 3, 1)
        rows = [session.run([self.output], {self.input.name: part})[0] for part in self._parts(values)]
        outputs = torch.from_numpy(np.concatenate(rows)[: len(x)]).to(x.device, torch.float32)
        return outputs.clamp(min=_SMALLEST).log() if self.gives_probs else outputs

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
        raise ModelError(f"{reference}: its input {name!r} is {shown}: expected float or float16, of normalised images")
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


def _output_of(session: Any, reference: str) -> str:
    outputs = session.get_outputs()
    chosen = next((output for output in outputs if output.name == "logits"), outputs[0])
    if chosen.type not in {*_DTYPES, "tensor(double)"}:
        raise ModelError(
            f"{reference}: its output {chosen.name!r} is {chosen.type}: expected floating-point logits (images, "
            "classes), as the first output or as one named 'logits'"
        )
    return str(chosen.name)


def _preprocessing(module: OnnxModule, query: Query, reference: str) -> Preprocessing:
    """Size and normalisation of the file, ready for the settings in `query`."""
    channels, *edges = module.input.size
    given = dict(query)
    open_size = ", ".join("?" if edge is None else str(edge) for edge in edges)
    if None in edges and "size" not in given:
        raise ModelError(
            f"{reference}: the file leaves its input size open (height, width: {open_size}): add ?size=EDGE or "
            "?size=HEIGHTxWIDTH to the reference"
        )
    config = {"input_size": (channels or 3, *(edge or 224 for edge in edges)), **_statistics(module, given, reference)}
    preprocessing = Preprocessing.from_timm_config(config)
    size = preprocessing.with_overrides(query, reference=reference).view_size
    if any(edge not in {None, wanted} for edge, wanted in zip(edges, size, strict=True)):
        raise BadReference(
            f"size={given['size']} in {reference!r} does not fit the file, whose input has (height, width): {open_size}"
        )
    unknown = [key for key in ("mean", "std") if key not in config and key not in given]
    if unknown:
        values = " and ".join(f"{key} {','.join(f'{v:g}' for v in getattr(preprocessing, key))}" for key in unknown)
        remedy = "&".join(f"{key}=…" for key in unknown)
        _log.warning(
            "%s: the file does not say how its input is normalised; ImageNet's %s are used: give ?%s if it was "
            "trained otherwise",
            reference,
            values,
            remedy,
        )
    return preprocessing


def _statistics(module: OnnxModule, given: Mapping[str, str], reference: str) -> dict[str, list[float]]:
    """Mean and standard deviation in the file's metadata, where it has any and the reference gives none."""
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


def _gives_probabilities(classifier: Classifier) -> bool:
    """Whether rows are at least 0 and sum to 1, on blank images and on noise."""
    shape = classifier.preprocessing.input_size
    noise = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    outputs = classifier.logits(torch.cat([torch.zeros(1, *shape), torch.ones(1, *shape), noise]))
    return bool((outputs >= 0).all() and ((outputs.sum(dim=1) - 1).abs() < 1e-3).all())


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
        file for file in (Path(text.decode(errors="replace")) for text in locations) if ".." not in file.parts
    )
    return [path, *(path.parent / file for file in inside if (path.parent / file).is_file())]


def _string_at(content: bytes) -> bytes:
    """The string that protobuf writes as its length, in one byte or two, and its bytes."""
    if len(content) < 2:
        return b""
    two = content[0] >= 128
    length = content[0] & 127 | (content[1] << 7 if two else 0)
    return content[1 + two : 1 + two + length]
