"""What frozen models answer for one view of every transfer image.

They are asked in a fixed order, so that a run that was killed and goes on has the same bits: sums depend on what else
is in a batch.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import check_broken
from ..inference import Block, MicroBatcher, place_rows
from ..models import Classifier
from ..predictions import refuse_unusable, unusable
from ..views import ViewSource
from .callbacks import Callback
from .prepare import PreparedTransfer


class ViewAnswers:
    """Asks frozen models for views of the transfer images.

    Args:
        prepared: the transfer.
        callback: notified of progress.
    """

    def __init__(self, prepared: PreparedTransfer, callback: Callback) -> None:
        self.prepared = prepared
        self.callback = callback
        self._micro_batcher = MicroBatcher()

    def of_all(self, model: Classifier, number: int, source: ViewSource, *, stage: str) -> Iterator[Block]:
        """Positions and logits of a view of all images, batch by batch.

        Args:
            model: the model, which is moved to the device.
            number: number of the view.
            source: renders it at the model's size.
            stage: name of this stage, for people.

        Raises:
            NotFinite: at the end, where the logits of some cannot be used.
            DataError: at the end, where too many images are broken.
        """
        images, settings = self.prepared.train_images, self.prepared.settings
        batches = np.array_split(np.arange(len(images)), -(-len(images) // settings.batch_size))
        broken: set[str] = set()
        self.callback.stage(stage, len(images))
        seen = wrong = 0
        for positions, logits in self.of_some(model, batches, number, source, broken=broken):
            seen, wrong = seen + len(logits), wrong + int(unusable(logits).sum())
            yield positions, logits
        mixed = self.prepared.accelerator.mixed_precision
        remedy = "" if mixed == "no" else f" It runs in {mixed}: `precision='fp32'` may help."
        where = f"{images.noun}s in view {number + 1}"
        refuse_unusable(wrong, of=seen, model=model.reference, where=where, remedy=remedy)
        check_broken(sorted(broken), of=images, max_share=settings.max_broken)

    def of_some(
        self,
        model: Classifier,
        batches: Sequence[NDArray[np.int64]],
        number: int,
        source: ViewSource,
        *,
        broken: set[str],
    ) -> Iterable[Block]:
        """Likewise of images by their positions; what could not be decoded is added to `broken`."""
        model.to(self.prepared.accelerator.device).eval()
        source.load()
        for batch in source.batches(batches, epoch=number):
            broken.update(batch.broken)
            if batch.views is not None:
                inputs = batch.views.inputs(model.preprocessing)
                with torch.inference_mode(), self.prepared.accelerator.autocast():
                    logits = torch.cat(self._micro_batcher.run(model.logits, inputs)).float()
                usable_NP = model.preprocessing.usable_places(inputs)
                if usable_NP is None:
                    yield batch.positions_N.numpy(), logits
                else:
                    most = self.prepared.train_images.most_places
                    yield _rows_of_places(batch.positions_N, logits, usable_NP.cpu(), most=most)
            self.callback.advance(len(batch.positions_N) + len(batch.broken))


def _rows_of_places(positions_N: Tensor, logits_NPC: Tensor, usable_NP: Tensor, *, most: int) -> Block:
    """Rows of an entry and their logits, of the places that the model has read."""
    P = min(most, usable_NP.shape[1])
    kept = usable_NP[:, :P]
    rows = place_rows(positions_N, most=most)[:, :P][kept]
    return rows.numpy(), logits_NPC[:, :P][kept.to(logits_NPC.device)]
