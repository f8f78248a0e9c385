"""Models and images that a worker has loaded, kept for its next cells."""

from collections import OrderedDict
from pathlib import Path

from ..config import TransferSpec
from ..data import Samples, load_samples
from ..errors import DataError
from ..models import Classifier, PredictionTable, load_model, load_teacher
from ..runs import PreparedTransfer, prepare_transfer

MODEL_BYTES = 4 * 2**30
"""Weights of models that are kept, at most; the latest are in any case."""


class LoadedSources:
    """Loads each model and each source of images once, as long as there is room.

    Args:
        limit: bytes of models that are kept.
    """

    def __init__(self, limit: int = MODEL_BYTES) -> None:
        self.limit = limit
        self._models: OrderedDict[str, Classifier | PredictionTable] = OrderedDict()
        self._images: dict[str, Samples] = {}

    def prepare(self, spec: TransferSpec, *, command: str | None = None) -> PreparedTransfer:
        """As `prepare_spec`, with what is loaded already.

        Raises:
            GainfinderError: whatever is wrong with models, images or settings.
        """
        labels = spec.config.labels == "use"
        student = self.model(spec.student)
        assert isinstance(student, Classifier), "a table of predictions cannot be loaded as a model"
        return prepare_transfer(
            student,
            [self.teacher(reference) for reference in spec.teachers],
            self.images(spec.data, labels=labels),
            val=None if spec.val is None else self.images(spec.val, labels=True),
            guard_data=None if spec.guard_data is None else self.images(spec.guard_data, labels=labels),
            label_maps=[Path(path) for path in spec.label_maps],
            referees=[self.teacher(reference) for reference in spec.referees],
            settings=spec.config,
            command=command,
            spec=spec,
        )

    def model(self, reference: str) -> Classifier | PredictionTable:
        """The model of a reference, which can learn."""
        kept = self._kept(reference)
        return self._keep(reference, load_model(reference)) if kept is None else kept

    def teacher(self, reference: str) -> Classifier | PredictionTable:
        """The model, or table of predictions, of a reference."""
        kept = self._kept(reference)
        return self._keep(reference, load_teacher(reference)) if kept is None else kept

    def images(self, reference: str, *, labels: bool) -> Samples:
        """The images of a reference, labelled where they have labels.

        Args:
            reference: the data reference.
            labels: whether labels have to be readable; else images whose labels are not are taken without.
        """
        if reference not in self._images:
            try:
                self._images[reference] = load_samples(reference)
            except DataError:
                if labels:
                    raise
                self._images[reference] = load_samples(reference, labels=False)
        return self._images[reference]

    def _kept(self, reference: str) -> Classifier | PredictionTable | None:
        if reference in self._models:
            self._models.move_to_end(reference)
        return self._models.get(reference)

    def _keep(self, reference: str, model: Classifier | PredictionTable) -> Classifier | PredictionTable:
        self._models[reference] = model
        while len(self._models) > 1 and sum(map(_bytes, self._models.values())) > self.limit:
            self._models.popitem(last=False)
        return model


def _bytes(model: Classifier | PredictionTable) -> int:
    if isinstance(model, PredictionTable):
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in model.module.state_dict().values())
