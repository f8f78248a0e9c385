"""A trained classifier of images, their cells, texts or words, with all that its predictions need.

That is the module, its preprocessing and its class names.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..classes import LabelMap, MappedLogits
from ..errors import ModelError, OutOfMemory
from ..libraries import first_line, printed_to_stderr
from .modules import copy_module, unwrapped
from .outputs import OutputKind, as_logits, logits_of
from .preprocessing import Preprocessing
from .tokenization import Tokenization

_SHOWN = 4

SaveFunction = Callable[["Classifier", Path], str | None]
InputForm: TypeAlias = Preprocessing | Tokenization
"""How a sample becomes a model's input: an image's preprocessing, or a text's tokenization."""
ReheadFunction = Callable[["Classifier", tuple[str, ...]], "Classifier"]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A module with the preprocessing it was trained with.

    Attributes:
        reference: the model reference it was loaded from, as given; for a module that was passed in, its class's name.
        module: maps float (N, C, H, W), or a model of transformers its rows of tokens, to logits (N, num_classes), or
            to an object with `.logits`.
        preprocessing: input size, normalisation, interpolation and crop; of a classifier of texts its tokenization.
        num_classes: number of logits that `logits` returns.
        class_names: class names in the order of the logits, or None where the model has none.
        label_map: map from the module's own outputs to the classes that `logits` returns; None for the module's own.
        channels_last: whether its weights may be in the channels-last memory format, in which convolutions run fastest.
        save: function that writes weights (and, where the source has one, a configuration) into a folder and returns a
            reference that loads them again, or None where no reference can.
        rehead: function that gives a copy for classes of these names, in which the layers that have an output a class
            are zero and all else is as it was (see `new_head`); None where the source's weights cannot be trained.
        output: what the module's outputs are; of probabilities `logits` makes logits.
        training_output: what they are in training mode, where some modules leave out a last softmax.
    """

    reference: str
    module: nn.Module
    preprocessing: InputForm
    num_classes: int
    class_names: tuple[str, ...] | None
    save: SaveFunction
    label_map: LabelMap | None = None
    channels_last: bool = False
    rehead: ReheadFunction | None = None
    output: OutputKind = "logits"
    training_output: OutputKind = "logits"

    @property
    def reads(self) -> str:
        """What a sample of it is: `image` or `text`."""
        return self.preprocessing.reads

    @property
    def classifies(self) -> str:
        """What gets a class: `image` or `text`, or each `cell` of an image, or each `word` of a text."""
        return self.preprocessing.classifies

    @property
    def in_places(self) -> bool:
        """Whether each place of a sample gets a class, such as each word of a text; then there are logits for each."""
        return self.classifies != self.reads

    @property
    def image_preprocessing(self) -> Preprocessing:
        """Its preprocessing, where it has to be one of whole images.

        Raises:
            ModelError: it classifies something else.
        """
        if not isinstance(self.preprocessing, Preprocessing) or self.in_places:
            whole = "whole " if self.reads == "image" else ""
            raise ModelError(
                f"{self.reference}: it classifies {self.classifies}s, expected a classifier of {whole}images"
            )
        return self.preprocessing

    def to(self, device: torch.device, *, learns: bool = False) -> nn.Module:
        """Move the module to a device, in place, in the memory format that is fastest there, and return it.

        Args:
            device: the device to run on.
            learns: whether it is trained there, not only evaluated.
        """
        # On a CPU not for training: torch 2.15 crashes in the backward pass of a ResNet of 8 or 12 channels on images
        # of 224 pixels in that format.
        if self.channels_last and (device.type == "cuda" or (device.type == "cpu" and not learns)):
            layout = torch.channels_last
        else:  # a copy of a module that ran before has that one's memory format
            layout = torch.contiguous_format
        self.module.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        return self.module

    def offload(self) -> nn.Module:
        """Move the module back to the CPU, in place, in the memory format of weight files, and return it."""
        self.module.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return self.module

    def logits(self, x: Tensor, *, module: nn.Module | None = None) -> Tensor:
        """Logits (N, num_classes) of inputs as `preprocessing` makes them; in P places (N, P, num_classes).

        Args:
            x: normalised inputs, float (N, C, H, W), or rows of tokens, int32 (N, R, L).
            module: module to call in place of `self.module`, such as the same weights wrapped for several processes.

        Raises:
            ModelError: the module fails, or does not return a row of logits an image.
            OutOfMemory: the device's memory does not suffice.
        """
        outputs = self._outputs(x, module)
        return outputs if self.label_map is None else self._mapped(outputs, self.label_map).logits

    def logits_and_kept(self, x: Tensor) -> MappedLogits:
        """Logits as `logits` gives them, and the share (N,) of each sample's probability that falls on their classes.

        The rest falls on outputs that `label_map` leaves out; without a map nothing does.

        Raises:
            ModelError, OutOfMemory: as `logits`.
        """
        outputs = self._outputs(x, None)
        if self.label_map is None:
            return MappedLogits(outputs, torch.ones(outputs.shape[:-1], device=outputs.device))
        return self._mapped(outputs, self.label_map)

    @staticmethod
    def _mapped(outputs: Tensor, label_map: LabelMap) -> MappedLogits:
        """Logits of mapped classes, of whatever leading dimensions."""
        mapped = label_map.apply(outputs.flatten(0, -2))
        lead = outputs.shape[:-1]
        return MappedLogits(mapped.logits.reshape(*lead, -1), mapped.kept.reshape(lead))

    def with_class_order(self, order: tuple[int, ...], names: tuple[str, ...] | None) -> "Classifier":
        """The same model, its logits reordered: logit k is what logit `order[k]` was."""
        if order == tuple(range(self.num_classes)):
            return replace(self, class_names=names)
        return self.with_label_map(LabelMap.from_order(order, outputs=self.num_classes), names)

    def with_label_map(self, label_map: LabelMap, names: tuple[str, ...] | None) -> "Classifier":
        """The same model with logits of other classes, computed from its present logits; see `LabelMap.apply`."""
        combined = label_map if self.label_map is None else self.label_map.then(label_map)
        return replace(self, label_map=combined, num_classes=combined.num_classes, class_names=names)

    def copied(self) -> "Classifier":
        """The same model with a copy of its module, so that training it leaves this one as it is.

        Raises:
            ModelError: the module cannot be copied.
        """
        own = unwrapped(self.module, reference=self.reference)
        return replace(self, module=copy_module(own, reference=self.reference))

    def weights_digest(self) -> str:
        """Hex digest of all parameters and buffers: names, dtypes, shapes and bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.module.state_dict().items()):
            if not isinstance(tensor, Tensor):
                continue
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return digest.hexdigest()

    def fingerprint(self, *, precision: str) -> str:
        """Hex digest of what its logits depend on: weights, structure, preprocessing, label map and precision.

        Of the code only the source of the module's own class enters, where Python can read it.
        """
        label_map = None if self.label_map is None else list(self.label_map.targets)
        kind: type = type(self.module)
        about: list[Any] = [str(self.module), _source(kind), self.preprocessing.described()]
        about += [label_map, self.num_classes, precision]
        if self.output != "logits":
            about.append(self.output)
        text = json.dumps([self.weights_digest(), *about])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _outputs(self, x: Tensor, module: nn.Module | None) -> Tensor:
        """The module's own logits (N, K), or (N, P, K)."""
        called = self.module if module is None else module
        try:
            with printed_to_stderr():
                output: Any = self.preprocessing.call(called, x)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(len(x), self.reads, error) from error
        except ModelError:
            raise
        except Exception as error:
            mode = "training" if called.training else "evaluation"
            raise ModelError(
                f"{self.reference}: the model fails on {len(x)} {self.reads}(s) of size {tuple(x.shape[1:])} in {mode} "
                f"mode: "
                f"{first_line(error)}"
            ) from error
        logits = logits_of(output)
        if not is_rows(logits, len(x), in_places=self.in_places):
            mode = "training" if called.training else "evaluation"
            raise ModelError(
                f"{self.reference}: expected logits of shape ({len(x)}, classes) for {len(x)} {self.reads}s in {mode} "
                f"mode, got {shown(logits)}"
            )
        return as_logits(logits, self.training_output if called.training else self.output)


@functools.lru_cache(maxsize=64)  # Python parses a class's whole file for it
def _source(kind: type) -> str:
    """The source of a class; empty where Python cannot read it, as of one that was made at run time."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def out_of_memory(samples: int, noun: str, error: torch.OutOfMemoryError) -> OutOfMemory:
    """The error for a batch that does not fit on the device."""
    return OutOfMemory(
        f"the device's memory does not suffice for {samples} {noun}(s) at once: lower `batch_size` "
        f"({first_line(error)})"
    )


def probe(module: nn.Module, preprocessing: InputForm, *, reference: str) -> Tensor:
    """Outputs (1, classes), or (1, P, classes), of a module for a blank image or a short text, in evaluation mode.

    Raises:
        ModelError: the module refuses its input, or does not return logits (N, classes).
    """
    was_training = module.training
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    try:
        module.eval()
        blank = preprocessing.blank(1).to(device)
        # not inference_mode: what a module caches or makes in its first pass has to serve training later
        with torch.no_grad(), printed_to_stderr():
            output: Any = preprocessing.call(module, blank)
        module.train(was_training)
    except (Exception, SystemExit) as error:
        if isinstance(preprocessing, Tokenization):
            raise ModelError(f"{reference}: the model fails on a short text: {first_line(error)}") from error
        raise ModelError(
            f"{reference}: the model fails on one blank image of size {preprocessing.input_size}: {first_line(error)}; "
            f"is its input size right? It can be given as ?size=, in Python as size="
        ) from error
    logits = logits_of(output)
    if not is_rows(logits, 1, in_places=preprocessing.classifies != preprocessing.reads) or logits.shape[-1] == 0:
        raise ModelError(
            f"{reference}: expected logits of shape (1, classes) for one {preprocessing.reads}, got {shown(logits)}; a "
            "module returns them, or an object that has them as `.logits`, a dict as `logits`: wrap one that returns "
            "something else"
        )
    return logits  # type: ignore[no-any-return]  # a tensor, as `is_rows` says


def is_rows(logits: Any, count: int, *, in_places: bool = False) -> bool:
    """Whether outputs are floating-point rows, one a sample, or in places some for each."""
    shaped = isinstance(logits, Tensor) and logits.ndim == (3 if in_places else 2) and len(logits) == count
    return shaped and bool(logits.is_floating_point())


def shown(logits: Any) -> str:
    """Shape and dtype of outputs, or their type, for messages."""
    if isinstance(logits, Mapping) and all(isinstance(key, str) for key in logits):
        return f"{type(logits).__name__} of {', '.join(list(logits)[:_SHOWN])}"
    if isinstance(logits, list | tuple):
        return f"{type(logits).__name__} of {len(logits)}: {', '.join(shown(one) for one in logits[:_SHOWN])}"
    if not isinstance(logits, Tensor):
        return type(logits).__name__
    dtype = "" if logits.is_floating_point() else f" of {str(logits.dtype).removeprefix('torch.')}"
    return f"{tuple(logits.shape)}{dtype}"
