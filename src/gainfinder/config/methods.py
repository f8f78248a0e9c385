"""The transfer methods, one literal table: method = partition × objective × weights × defaults × source.

`losses.TransferLoss` implements a row; `gainfinder methods` shows the table. What a method needs (labels,
features, whole batches, one process) and which settings it reads follows from its row: nothing outside this module
compares the name of an objective.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from ..errors import SettingsError
from ..references import suggest

Partition = Literal["label", "confidence"]
Pooling = Literal["mean", "product"]
Objective = Literal["kl", "soft-xe", "top-k", "dist", "dkd", "standardised", "cd", "crd"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveNeeds:
    """What an objective compares, and what it needs for that.

    Attributes:
        labels: whether it reads labels, whatever the partition.
        whole_batch: whether it compares the samples of a batch with each other: in parts, or over several processes, a
            batch gives another loss.
        features: whether it compares what enters the classifier layers instead of logits.
        memory: whether it keeps a memory of every transfer image, which each step changes: for one process, and a step
            that failed cannot be tried again.
        settings: names of the settings that it reads.
    """

    labels: bool = False
    whole_batch: bool = False
    features: bool = False
    memory: bool = False
    settings: frozenset[str] = frozenset({"temperature"})


OBJECTIVES: dict[Objective, ObjectiveNeeds] = {
    "kl": ObjectiveNeeds(),
    "soft-xe": ObjectiveNeeds(),
    "top-k": ObjectiveNeeds(settings=frozenset({"temperature", "top_k"})),
    "dist": ObjectiveNeeds(whole_batch=True),
    "dkd": ObjectiveNeeds(),
    "standardised": ObjectiveNeeds(),
    "cd": ObjectiveNeeds(whole_batch=True, features=True, settings=frozenset()),
    "crd": ObjectiveNeeds(labels=True, whole_batch=True, features=True, memory=True, settings=frozenset({"negatives"})),
}
"""The objectives that a row can name; `losses.named.FUNCTIONS` holds those on logits."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a student learns.

    Attributes:
        name: name on the command line.
        partition: who teaches a sample: None (always the teacher), `label` (Eq. 4, the model more confident in the
            label) or `confidence` (Eq. 4 without labels, the model more confident in its own prediction).
        soft: whether all models teach a sample, weighted by confidence, instead of the most confident alone.
        pooling: without a partition, how the initial student and the teachers teach every sample together: by the
            `mean` of their probabilities or by the root of their `product`, the geometric mean, normalised.
        calibrated: whether each model's logits are divided by temperatures of its own first: by one, before confidences
            are compared, or, for a pooling, by one for each class it answers.
        objective: the loss that draws the student to its target.
        distill_weight: weight of that loss (λ).
        label_weight: weight of the cross-entropy with the labels (1 − λ; beside features 1 whatever λ is).
        label_smoothing: ε of the cross-entropy's targets.
        temperature: T of the objective.
        interpolated: whether the student measured and returned is the slow one of Eq. 3.
        warmup_epochs: first epochs, which train the classifier layer alone.
        paper_lr: the paper's learning rate at batch 256; the default rule scales with it.
        max_lr: the default rule goes no higher at a batch of 64.
        summary: the method in one line.
        source: publication that defines it, and departures from it.
    """

    name: str
    partition: Partition | None = None
    soft: bool = False
    pooling: Pooling | None = None
    calibrated: bool = False
    objective: Objective = "kl"
    distill_weight: float = 1.0
    label_weight: float = 0.0
    label_smoothing: float = 0.0
    temperature: float = 1.0
    interpolated: bool = False
    warmup_epochs: int = 0
    paper_lr: float = 1e-4
    max_lr: float = 1e-3
    summary: str
    source: str

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise SettingsError(
                f"objective {self.objective!r} is unknown{suggest(self.objective, OBJECTIVES)}; "
                f"known: {', '.join(OBJECTIVES)}"
            )
        if (self.soft and self.partition is None) or (self.calibrated and not self.needs_initial_student):
            raise SettingsError(f"method {self.name!r}: soft and calibrated are of a partition, and it has none")
        if self.soft and self.objective != "kl":
            raise SettingsError(f"method {self.name!r}: soft mixes by objective 'kl' alone, got {self.objective!r}")
        if self.pooling is not None and (self.partition is not None or self.needs_features):
            raise SettingsError(f"method {self.name!r}: pooling is of logits without a partition")

    @property
    def needs_labels(self) -> bool:
        """Whether training reads labels."""
        return self.partition == "label" or self.label_weight > 0 or OBJECTIVES[self.objective].labels

    @property
    def needs_initial_student(self) -> bool:
        """Whether the frozen initial student is one of the models that teach, beside any number of teachers."""
        return self.partition is not None or self.pooling is not None

    @property
    def needs_teachers(self) -> bool:
        """Whether anything is learned from a teacher."""
        return self.distill_weight > 0

    @property
    def needs_features(self) -> bool:
        """Whether it compares what enters the classifier layers instead of logits."""
        return OBJECTIVES[self.objective].features

    @property
    def compares_batch(self) -> bool:
        """Whether it compares the samples of a batch with each other, so that parts of a batch give another loss."""
        return OBJECTIVES[self.objective].whole_batch

    @property
    def keeps_memory(self) -> bool:
        """Whether it trains a memory of all transfer images; a step that failed cannot be repeated then."""
        return OBJECTIVES[self.objective].memory

    @property
    def single_process(self) -> bool:
        """Whether it must train in one process: a memory is not shared."""
        return self.keeps_memory

    @property
    def settings(self) -> frozenset[str]:
        """The names in `READ_BY` that it reads; it reads all settings that are not in `READ_BY`."""
        found = set(OBJECTIVES[self.objective].settings)
        if self.soft:
            found.add("sharpness")
        elif self.partition is not None:
            found.add("decide_on")
        if self.interpolated:
            found |= {"slow_momentum", "slow_every"}
        return frozenset(found)

    def unread(self, schedule: str | None) -> frozenset[str]:
        """The names of settings that a run by it does not read.

        Args:
            schedule: that of the learning rate, which decides whether `patience` is read.
        """
        found = set(READ_BY) - self.settings
        if schedule != "plateau":
            found.add("patience")
        return frozenset(found)


READ_BY = {
    "top_k": "kl-top-k",
    "sharpness": "the -soft methods",
    "decide_on": "methods that give each image to one model",
    "slow_momentum": "xe-kl-mcl",
    "slow_every": "xe-kl-mcl",
    "negatives": "crd",
    "temperature": "methods that compare logits",
}
"""Settings that only some methods read, and what messages call these methods."""


METHODS = (
    Method(
        name="kl",
        summary="distil from the teacher everywhere",
        source="Eq. 1",
    ),
    Method(
        name="xe",
        distill_weight=0.0,
        label_weight=1.0,
        summary="fit the labels alone; no teacher is run",
        source="Eq. 2 with λ 0; the control by labels",
    ),
    Method(
        name="xe-kl",
        distill_weight=0.5,
        label_weight=0.5,
        summary="distil from the teacher and fit the labels",
        source="Eq. 2; λ 0.5 from the published configuration",
    ),
    Method(
        name="xe-kl-mcl",
        distill_weight=0.7,
        label_weight=0.3,
        interpolated=True,
        paper_lr=1e-2,
        max_lr=1e-2,
        summary="xe-kl, and the student returned is a slow average of the one that trains",
        source="Eq. 3; λ 0.7, lr 1e-2, τ 0.9999, N 2",
    ),
    Method(
        name="xe-kl-ls",
        distill_weight=0.5,
        label_weight=0.5,
        label_smoothing=0.1,
        summary="xe-kl with smoothed labels",
        source="section 5.1, after Yuan et al. 2020; ε 0.1",
    ),
    Method(
        name="kl-dp",
        partition="label",
        summary="distil from the teacher where it is surer of the label, from the initial student elsewhere",
        source="Eq. 4 and 5",
    ),
    Method(
        name="kl-dp-u",
        partition="confidence",
        summary="distil from whichever of teacher and initial student is more confident; needs no labels",
        source="Eq. 4 (unsupervised) and 5",
    ),
    Method(
        name="soft-xe",
        objective="soft-xe",
        summary="cross-entropy with the teacher's probabilities in place of the KL divergence",
        source="appendix B.1",
    ),
    Method(
        name="kl-top-k",
        objective="top-k",
        summary="distil from the teacher among its k most probable classes",
        source="appendix B.1; k 10",
    ),
    Method(
        name="kl-warmup",
        warmup_epochs=1,
        summary="kl after an epoch that trains the classifier layer alone",
        source="appendix B.1",
    ),
    Method(
        name="cd",
        objective="cd",
        label_weight=1.0,
        summary="match the similarities between the images of a batch, and fit the labels",
        source="appendix A.2 (contrastive distillation)",
    ),
    Method(
        name="crd",
        objective="crd",
        distill_weight=0.8,
        label_weight=1.0,
        summary="tell the teacher's features of an image from those of other classes, and fit the labels",
        source="appendix A.2, after Tian et al. 2020; 4,096 negatives as in the published code, there 16,384",
    ),
    Method(
        name="kl-dp-cal",
        partition="label",
        calibrated=True,
        summary="kl-dp with calibrated confidences",
        source="beyond the paper; calibration after Guo et al. 2017",
    ),
    Method(
        name="kl-dp-cal-u",
        partition="confidence",
        calibrated=True,
        summary="kl-dp-u with calibrated confidences",
        source="beyond the paper; calibration after Guo et al. 2017",
    ),
    Method(
        name="kl-dp-soft",
        partition="label",
        soft=True,
        summary="kl-dp in which every model teaches, by its confidence in the label",
        source="beyond the paper",
    ),
    Method(
        name="kl-dp-soft-u",
        partition="confidence",
        soft=True,
        summary="kl-dp-u in which every model teaches, by its confidence",
        source="beyond the paper",
    ),
    Method(
        name="kl-mean-u",
        pooling="mean",
        summary="distil from the mean of the probabilities of teacher and initial student; needs no labels",
        source="beyond the paper; a linear opinion pool, Stone 1961",
    ),
    Method(
        name="kl-prod-u",
        pooling="product",
        summary="distil from the geometric mean of the probabilities of teacher and initial student; needs no labels",
        source="beyond the paper; a logarithmic opinion pool, Genest and Zidek 1986",
    ),
    Method(
        name="kl-prod-cal-u",
        pooling="product",
        calibrated=True,
        summary="kl-prod-u in which a teacher counts less in classes where the other models contradict it",
        source="beyond the paper; `metrics.class_temperatures`, after Dawid and Skene 1979",
    ),
    Method(
        name="dist-dp",
        partition="label",
        objective="dist",
        max_lr=3e-3,
        summary="match relations between classes and between images, under the partition of kl-dp",
        source="beyond the paper; DIST, Huang et al. 2022",
    ),
    Method(
        name="dist-dp-u",
        partition="confidence",
        objective="dist",
        max_lr=3e-3,
        summary="match relations between classes and between images, under the partition of kl-dp-u",
        source="beyond the paper; DIST, Huang et al. 2022",
    ),
    Method(
        name="dkd-dp",
        partition="label",
        objective="dkd",
        summary="decoupled distillation under the partition of kl-dp",
        source="beyond the paper; DKD, Zhao et al. 2022",
    ),
    Method(
        name="dkd-dp-u",
        partition="confidence",
        objective="dkd",
        summary="decoupled distillation under the partition of kl-dp-u",
        source="beyond the paper; DKD, Zhao et al. 2022, its target class the teaching model's prediction",
    ),
    Method(
        name="std-dp",
        partition="label",
        objective="standardised",
        temperature=2.0,
        max_lr=3e-3,
        summary="distil standardised logits under the partition of kl-dp",
        source="beyond the paper; logit standardisation, Sun et al. 2024; T 2",
    ),
    Method(
        name="std-dp-u",
        partition="confidence",
        objective="standardised",
        temperature=2.0,
        max_lr=3e-3,
        summary="distil standardised logits under the partition of kl-dp-u",
        source="beyond the paper; logit standardisation, Sun et al. 2024; T 2",
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
    raise SettingsError(
        f"method {name!r} is unknown{suggest(name, names)}; known: {', '.join(names)} (`gainfinder methods` tells more)"
    )


def refuse_unread(method: Method, given: Collection[str], *, fits_labels: bool) -> None:
    """Refuse settings that a method would not read.

    Args:
        method: the row of the table.
        given: names of the settings that were given; others than those of `READ_BY` and `label_smoothing` pass.
        fits_labels: whether a cross-entropy with the labels has weight.

    Raises:
        SettingsError: a given setting has no effect.
    """
    for name, of in READ_BY.items():
        if name in given and name not in method.settings:
            raise SettingsError(
                f"{name.replace('_', '-')} is a setting of {of}: method {method.name!r} does not use it"
            )
    if "label_smoothing" in given and not fits_labels:
        raise SettingsError(
            f"label-smoothing needs a cross-entropy with labels: method {method.name!r} has none; give a "
            "distill-weight below 1, or a method such as xe-kl"
        )


def default_method(*, labelled: bool, preset: str | None = None) -> str:
    """`kl-dp` where training may read labels; else `kl-prod-cal-u`, and with preset `paper` the paper's `kl-dp-u`."""
    unlabelled = "kl-dp-u" if preset == "paper" else "kl-prod-cal-u"
    return "kl-dp" if labelled else unlabelled
