"""One pass of a classifier over samples: as many at once as memory holds; of samples in places, the one measured on."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ..classes import MappedLogits
from ..data import LoadedBatch, Samples, check_broken
from ..errors import DataError, OutOfMemory
from ..models import Classifier

_log = logging.getLogger("gainfinder")
Output = TypeVar("Output")
ImageCount = Callable[[int], None]
"""Called with the number of images done since the last call."""


class Pass:
    """One pass of a classifier over images: its logits batch by batch, and what is to be said of it in the end.

    Args:
        classifier: the classifier; its module is moved to `device` and put into evaluation mode.
        images: all images.
        device: device that the model runs on.
        max_broken: the largest share of images that may be undecodable; None where the caller counts them.
        on_images: called with the number of images done since the last call.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Samples,
        *,
        device: torch.device,
        max_broken: float | None,
        on_images: ImageCount | None,
    ) -> None:
        self.classifier = classifier
        self.images = images
        self.device = device
        self.max_broken = max_broken
        self.on_images = on_images
        self.broken: list[str] = []
        self.positions: list[Tensor] = []
        self.dropped = 0.0

    def outputs(self, loaded: Iterable[LoadedBatch], model: Callable[[Tensor], Output]) -> Iterator[Output]:
        """What a model gives for images that could be decoded, in parts of a batch at most.

        Args:
            loaded: the images.
            model: called in inference mode, the classifier in evaluation mode.

        Raises:
            DataError: more images are broken than `max_broken` allows.
        """
        self.classifier.to(self.device).eval()
        micro_batcher = MicroBatcher()
        for batch in loaded:
            self.broken.extend(batch.broken)
            if (largest := self.max_broken) is not None:
                check_broken(self.broken, of=self.images, max_share=largest)
            if batch.inputs is not None:
                inputs = self.classifier.preprocessing.collated(batch.inputs).to(self.device, non_blocking=True)
                with torch.inference_mode():
                    outputs = micro_batcher.run(model, inputs)
                self.positions.append(batch.positions)
                yield from outputs
            if self.on_images is not None:
                self.on_images(len(batch.positions) + len(batch.broken))

    def logits(self, loaded: Iterable[LoadedBatch]) -> Iterator[Tensor]:
        """The classifier's logits, float32 (n, C) on the CPU, in parts of a batch at most.

        Raises:
            DataError: more images are broken than `max_broken` allows.
        """
        if self.classifier.in_places:
            yield from self._logits_in_places(loaded)
            return
        for logits_nC, share_kept_n in self.outputs(loaded, self.classifier.logits_and_kept):
            self.dropped += float((1 - share_kept_n).sum())
            yield logits_nC.float().cpu()

    def _logits_in_places(self, loaded: Iterable[LoadedBatch]) -> Iterator[Tensor]:
        """Logits at the place that each sample is measured on.

        Raises:
            DataError: the model does not read as far as that place.
        """
        places = self.images.measured_places
        assert places is not None, "align_samples refuses others"
        done = 0
        for answers, usable_nP in self.outputs(loaded, self._answers_and_usable):
            positions_n = torch.cat(self.positions)[done : done + len(usable_nP)]
            done += len(usable_nP)
            wanted_n = torch.from_numpy(places)[positions_n]
            rows, at_n = torch.arange(len(wanted_n)), wanted_n.clamp_max(usable_nP.shape[1] - 1)
            unread_n = (at_n < wanted_n) | ~usable_nP[rows, at_n]
            if bool(unread_n.any()):
                self._refuse_unread(int(positions_n[unread_n][0]))
            self.dropped += float((1 - answers.kept[rows, at_n]).sum())
            yield answers.logits[rows, at_n].float()

    def _refuse_unread(self, position: int) -> NoReturn:
        places = self.images.measured_places
        assert places is not None
        raise DataError(
            f"{self.images.where(position)}: it is measured on {self.images.classified} {places[position] + 1}, and "
            f"{self.classifier.reference} does not read that far: raise ?max_length= of its reference, or cut the "
            f"{self.images.noun}"
        )

    def _answers_and_usable(self, inputs: Tensor) -> tuple[MappedLogits, Tensor]:
        answers, usable_nP = (
            self.classifier.logits_and_kept(inputs),
            self.classifier.preprocessing.usable_places(inputs),
        )
        assert usable_nP is not None, "of a model that gives places a class"
        return MappedLogits(answers.logits.cpu(), answers.kept.cpu()), usable_nP.cpu()

    @property
    def positions_N(self) -> Tensor:
        """Positions of the images so far that could be decoded, int64 (N,)."""
        return torch.cat([torch.zeros(0, dtype=torch.int64), *self.positions])

    def about(self) -> dict[str, Any]:
        """The fields of a pass that has ended, which whole and top predictions share."""
        kept = self.positions_N
        return {
            "model": self.classifier.reference,
            "ids": tuple(self.images.ids[i] for i in kept.tolist()),
            "target": None if self.images.labels is None else torch.from_numpy(self.images.labels)[kept],
            "class_names": self.classifier.class_names,
            "broken": tuple(self.broken),
            "dropped_mass": self.dropped / max(1, len(kept)),
            "noun": self.images.noun,
        }


class MicroBatcher:
    """Runs models on as many images at once as memory holds; the number is halved when it runs out of memory.

    Not `accelerate.utils.find_executable_batch_size`: it clears the device's cache at each call, so for each batch, and
    logs nothing when parts become smaller.

    Attributes:
        size: images at once; None for whole batches, until one does not fit.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def run(self, model: Callable[[Tensor], Output], inputs: Tensor) -> list[Output]:
        """The outputs for inputs (N, …), N ≥ 1, in parts.

        Raises:
            OutOfMemory: not even one image fits.
        """
        while True:
            at_once = min(self.size or len(inputs), len(inputs))
            try:
                return [model(part) for part in torch.split(inputs, at_once)]
            except OutOfMemory as error:
                if at_once == 1:
                    raise
                _log.warning("%s; going on with %d at once", str(error).split(": lower")[0], at_once // 2)
                self.size = at_once // 2
