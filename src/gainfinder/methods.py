"""The transfer methods, one literal table: method = partition × objective × weights × source."""

from dataclasses import dataclass
from typing import Literal

from .errors import SettingsError
from .references import near

Partition = Literal["label", "confidence"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a student learns.

    Attributes:
        name: as on the command line.
        partition: who teaches a sample: None (always the teacher), `label` (Eq. 4, the model surer of the label) or
            `confidence` (Eq. 4 without labels, the model surer of its own prediction).
        distill_weight: λ, weight of the distillation loss; the cross-entropy with the labels has 1 - λ.
        summary: in one line.
        source: where it is defined.
    """

    name: str
    partition: Partition | None
    distill_weight: float
    summary: str
    source: str

    @property
    def needs_labels(self) -> bool:
        """Whether training reads labels."""
        return self.partition == "label" or self.distill_weight < 1

    @property
    def needs_initial_student(self) -> bool:
        """Whether the frozen initial student must answer for every view."""
        return self.partition is not None


METHODS = (
    Method(
        name="kl",
        partition=None,
        distill_weight=1.0,
        summary="distil from the teacher everywhere",
        source="Eq. 1",
    ),
    Method(
        name="xe-kl",
        partition=None,
        distill_weight=0.5,
        summary="distil from the teacher and fit the labels",
        source="Eq. 2; λ 0.5 from the published configuration",
    ),
    Method(
        name="kl-dp",
        partition="label",
        distill_weight=1.0,
        summary="distil from the teacher where it is surer of the label, from the initial student elsewhere",
        source="Eq. 4 and 5",
    ),
    Method(
        name="kl-dp-u",
        partition="confidence",
        distill_weight=1.0,
        summary="distil from whichever of teacher and initial student is more confident; needs no labels",
        source="Eq. 4 (unsupervised) and 5",
    ),
)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        SettingsError: there is none.
    """
    for method in METHODS:
        if method.name == name:
            return method
    names = [method.name for method in METHODS]
    raise SettingsError(f"method {name!r} is unknown{near(name, names)}; known: {', '.join(names)}")


def default_method(*, labelled: bool) -> str:
    """`kl-dp` where training may read labels, `kl-dp-u` where it may not."""
    return "kl-dp" if labelled else "kl-dp-u"
