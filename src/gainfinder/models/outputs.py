"""What a module's outputs are: logits, or probabilities, of which logits are made.

Nothing tells but the outputs themselves. Rows that are at least 0 and sum to 1, on blank images and on noise of any
contrast, are those of a softmax: their logarithms are logits that have it. Rows that lie between 0 and 1 whatever the
weights are those of a sigmoid: their log-odds are what it was given.
Shapes: N images, C classes.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import BadReference, ModelError
from ..libraries import printed_to_stderr
from ..predictions import unusable
from ..references import suggest
from .modules import copy_module

OutputKind = Literal["logits", "probs", "sigmoid"]
OUTPUTS: tuple[OutputKind, ...] = ("logits", "probs", "sigmoid")

_SMALLEST = 1e-12  # probability: its logarithm stays finite
_CLOSEST = 1e-7  # to 0 or 1, of a sigmoid's output in float32
_CONTRASTS = (0.25, 1.0, 1.0, 4.0, 16.0)
_TOLERANCE = 1e-3
_UNSTEADY = 1e-2  # of the largest output: quantised modules round by the range of a batch
_TRIES = 3
_BATCH = 4
_LIBRARIES = ("torch.nn.", "timm.", "torchvision.", "transformers.")
"""Packages whose layers answer by image and weights alone in evaluation mode, but for the exceptions below."""

_log = logging.getLogger("gainfinder")


def logits_of(output: Any) -> Any:
    """What of a module's output are its logits: `.logits`, the entry `"logits"`, the only one of a list, or all of it.

    >>> logits_of({"logits": 1, "features": 2}), logits_of([1]), logits_of((1, 2))
    (1, 1, (1, 2))
    """
    if isinstance(output, Mapping):  # of transformers' outputs, too
        return output.get("logits", output)
    if type(output) in (list, tuple) and len(output) == 1:
        return output[0]
    return getattr(output, "logits", output)


def as_logits(outputs_NC: Tensor, kind: OutputKind) -> Tensor:
    """Logits of outputs of this kind.

    Args:
        outputs_NC: floating point (N, C).
        kind: what they are.

    Returns:
        (N, C), finite where the outputs are.

    >>> as_logits(torch.tensor([[0.5, 0.5]]), "sigmoid").tolist()
    [[0.0, 0.0]]
    """
    if kind == "probs":
        return outputs_NC.clamp(min=_SMALLEST).log()
    return outputs_NC.float().logit(eps=_CLOSEST) if kind == "sigmoid" else outputs_NC


@dataclass(frozen=True, kw_only=True)
class OutputProbe:
    """A module, and its outputs for a blank image, which tell what its outputs are.

    Attributes:
        module: the module, in evaluation mode.
        row: floating point (1, C), its outputs for a blank image.
        shape: channels, height and width of its input.
        reference: the model reference, for messages.
        remedy: how a user says what the outputs are, with `{}` in the kind's place.
    """

    module: nn.Module
    row: Tensor
    shape: tuple[int, int, int]
    reference: str
    remedy: str = "?output={}"

    def kinds(self, said: str | None) -> tuple[OutputKind, OutputKind]:
        """What the outputs are, in evaluation mode and in training mode; a note tells where they are not plain logits.

        Args:
            said: what the user says that they are, or None.

        Raises:
            BadReference: the user says what is no kind.
            ModelError: they are not finite, on noise either; −inf masks a class.
        """
        self._check_finite()
        if said is not None:
            kind = self._said(said)
        else:
            kind = self._observed()
            self._note(kind)
        return kind, kind if kind == "logits" else self._in_training(kind)

    def note_unsteady(self) -> None:
        """Tell where the answer for an image is not a function of that image and the weights alone.

        What is built of the layers of torch, timm, torchvision and transformers alone is known to be one, and not run.
        """
        if _is_of_libraries(self.module):
            return
        image, other = _noise(2, self.shape).to(self.row.device).split(1)
        batch = torch.cat([*[image] * (_BATCH - 1), other])
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)  # the same is told at every load
                # copies, since some modules change their input
                alone, among = _run(self.module, image.clone()), _run(self.module, batch)[:-1]
                if not _differ(among, alone.expand_as(among)):
                    return
                again = _run(self.module, image.clone())
        except Exception:  # a module of one image at a time, say: told where it is used
            return
        if _differ(alone, again) or _differ(among, among[:1].expand_as(among)):
            _log.warning(
                "%s: it answers the same image differently from call to call, so its figures are not repeatable; does "
                "it call dropout without training=self.training, or keep a state?",
                self.reference,
            )
        else:
            _log.warning(
                "%s: its answer for an image depends on the other images of the batch, so its figures change with the "
                "batch size; does it have batch-norm without running statistics (track_running_stats=False)?",
                self.reference,
            )

    def _said(self, said: str) -> OutputKind:
        for kind in OUTPUTS:
            if said == kind:
                return kind
        raise BadReference(
            f"output={said} in {self.reference!r} cannot be used{suggest(said, OUTPUTS)}; expected one of "
            f"{', '.join(OUTPUTS)}"
        )

    def _check_finite(self) -> None:
        # a module that scales each image by its own contrast divides a blank one by 0
        if any(not bool(unusable(row).any()) for row in itertools.chain([self.row], self._rows())):
            return
        raise ModelError(
            f"{self.reference}: its outputs are not finite, neither for a blank image nor for noise: are its weights "
            "damaged, or too large for its precision?"
        )

    def _observed(self) -> OutputKind:
        if self.row.shape[1] < 2 or not _within(self.row):
            return "logits"
        rows = torch.cat([self.row, *self._rows()])
        # outputs that do not depend on the image tell nothing
        if not _within(rows) or bool((rows == rows[0]).all()):
            return "logits"
        if _sums_to_one(rows):
            return "probs"
        bounded = self._bounded_by_form()
        if bounded is None:
            _log.warning(
                "%s: its outputs lie between 0 and 1, each for itself, on blank images and noise; they are taken as "
                "logits: give %s if they are those of a sigmoid",
                self.reference,
                self.remedy.format("sigmoid"),
            )
        return "sigmoid" if bounded else "logits"

    def _note(self, kind: OutputKind) -> None:
        otherwise = f"{self.remedy.format('logits')} takes them as they are, {self.remedy.format(kind)} says so"
        if kind == "probs":
            _log.warning(
                "%s: its outputs are probabilities, so their logarithms are taken as logits; %s",
                self.reference,
                otherwise,
            )
        elif kind == "sigmoid":
            _log.warning(
                "%s: its outputs lie between 0 and 1, each for itself, as those of a sigmoid do, so their log-odds are "
                "taken as logits; %s",
                self.reference,
                otherwise,
            )
        elif self.row.shape[1] == 1:
            _log.warning(
                "%s: it has one output, so it is sure of its one class on every image; a model that tells two classes "
                "by one logit z has to return two, (0, z)",
                self.reference,
            )

    def _bounded_by_form(self) -> bool | None:
        """Whether outputs stay between 0 and 1 under other weights, which logits do not, however small they are now.

        None where that cannot be tried, since the weights cannot be reached.
        """
        told: Any = getattr(self.module, "ends_in_sigmoid", None)
        if told is True:
            return True
        if not any(True for _ in self.module.parameters()):
            return None
        generator = torch.Generator().manual_seed(0)
        for _ in range(_TRIES):
            trial = copy_module(self.module, reference=self.reference)
            with torch.no_grad():
                for parameter in trial.parameters():
                    parameter.add_(3 * torch.randn(parameter.shape, generator=generator).to(parameter))
            if not all(_within(row) for row in self._rows(trial)):
                return False
        return True

    def _in_training(self, kind: OutputKind) -> OutputKind:
        """The kind in training mode: some modules have their softmax in evaluation mode alone."""
        trial = copy_module(self.module, reference=self.reference).train()
        try:
            with torch.random.fork_rng(devices=[]):
                rows = _run(trial, _noise(_BATCH, self.shape).to(self.row.device))
        except Exception:  # whatever a module does in training mode alone is told there
            return kind
        holds = rows.ndim == 2 and _within(rows) and (kind == "sigmoid" or _sums_to_one(rows))
        return kind if holds else "logits"

    def _rows(self, module: nn.Module | None = None) -> Iterator[Tensor]:
        """Outputs (1, C) for a white image and for noise of several contrasts."""
        noise = _noise(len(_CONTRASTS), self.shape)
        images = [torch.ones(1, *self.shape), *(c * image[None] for c, image in zip(_CONTRASTS, noise, strict=True))]
        for image in images:
            yield _run(self.module if module is None else module, image.to(self.row.device))


def _is_of_libraries(module: nn.Module) -> bool:
    """Whether all its code is that of `_LIBRARIES`, and no layer takes its statistics from the batch."""
    return all(
        type(part).__module__.startswith(_LIBRARIES)
        and not (isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None)
        and not ({"forward", "train"} & vars(part).keys() or part._forward_hooks or part._forward_pre_hooks)
        for part in module.modules()
    )


def _noise(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def _run(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), printed_to_stderr():
        outputs: Any = module(images)
    rows: Tensor = logits_of(outputs)
    return rows


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two answers differ by more than rounding does; what is not finite is told elsewhere."""
    finite = one.isfinite() & other.isfinite()
    if not bool(finite.any()):
        return False
    return bool((one - other)[finite].abs().max() > _UNSTEADY * (1 + one[finite].abs().max()))


def _within(rows: Tensor) -> bool:
    return bool(((rows >= 0) & (rows <= 1)).all())


def _sums_to_one(rows: Tensor) -> bool:
    return bool(((rows.float().sum(dim=1) - 1).abs() < _TOLERANCE).all())
