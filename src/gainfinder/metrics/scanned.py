"""What a scan finds, as values: of models, of ordered pairs, of areas of expertise, and of stand-ins for labels."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..predictions import IMAGE

PairKind = Literal["weak", "equal", "strong", "chosen"]


@dataclass(frozen=True, kw_only=True)
class ScannedModel:
    """A model, and what it could win from all the others together.

    Attributes:
        model: reference of the model.
        accuracy: share of all samples that it has right; None without labels, as the four that follow.
        oracle_accuracy: share of all samples that any of the models has right.
        routed_accuracy: accuracy of the routed ensemble of all models.
        mean_accuracy: accuracy of the ensemble of mean probabilities of all models; None where logits were not kept.
        headroom_pp: accuracy of the better of the two less this model's, percentage points.
        agreement: share of all samples on which another model predicts the same class, on average over the others.
        strength: this × the mutual information of image and predicted class, nats; None where logits were not kept.
        estimated_accuracy: accuracy as all models' predictions together estimate it, without labels (`stand_ins.py`).
    """

    model: str
    accuracy: float | None
    oracle_accuracy: float | None
    routed_accuracy: float | None
    mean_accuracy: float | None
    headroom_pp: float | None
    agreement: float
    strength: float | None
    estimated_accuracy: float


@dataclass(frozen=True, kw_only=True)
class ScannedPair:
    """An ordered pair of models.

    Attributes:
        student: reference of the model that could learn.
        teacher: reference of the model that could teach.
        delta_acc_pp: accuracy of the teacher minus that of the student, percentage points; None without labels, as all
            that follow up to `area_similarity`.
        positive_flips: share of all samples that the teacher has right and the student wrong.
        negative_flips: share of all samples that the teacher has wrong and the student right.
        flip_entropy: entropy of the normalised counts of positive flips by class, nats; None without flips.
        error_overlap: of the samples that either has wrong, the share that both have wrong; None without an error.
        error_consistency: Cohen's κ of who is right, 0 as by chance, 1 the same errors; None where chance alone lets
            them agree on everything.
        oracle_accuracy: share of all samples that either has right.
        routed_accuracy: accuracy of the routed ensemble of both.
        mean_accuracy: accuracy of the ensemble of their mean probabilities; None where logits were not kept.
        headroom_pp: accuracy of the better of the two less the student's, percentage points.
        area_sizes: for each of `expertise.PERCENTS` the number of classes of the smallest set that holds so many per
            cent of the positive flips; None without flips.
        area_similarity: how much more alike the classes of each set are than all classes, by the embeddings of their
            names; None in it for sets of one class, and None without embeddings or flips.
        disagreement: share of all samples on which the two predict different classes.
        surer_disagreement: share on which they do and the teacher is the more confident.
        kappa: Cohen's κ of the predicted classes; None where chance alone lets them agree on everything.
        estimated_positive_flips: positive flips as all models' predictions together estimate them, without labels.
        estimated_delta_acc_pp: the difference of the estimated accuracies, percentage points.
    """

    student: str
    teacher: str
    delta_acc_pp: float | None
    positive_flips: float | None
    negative_flips: float | None
    flip_entropy: float | None
    error_overlap: float | None
    error_consistency: float | None
    oracle_accuracy: float | None
    routed_accuracy: float | None
    mean_accuracy: float | None
    headroom_pp: float | None
    area_sizes: tuple[int, ...] | None
    area_similarity: tuple[float | None, ...] | None
    disagreement: float
    surer_disagreement: float
    kappa: float | None
    estimated_positive_flips: float
    estimated_delta_acc_pp: float


@dataclass(frozen=True, kw_only=True)
class ScanFailure:
    """A model that was left out.

    Attributes:
        model: reference of the model.
        reason: why it could not be loaded or run, in one line.
    """

    model: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TeacherChoice:
    """A teacher of a greedy choice for one student, and what an ensemble with all chosen so far has (`ensembles.py`).

    Attributes:
        teacher: reference of the teacher.
        routed_accuracy: accuracy of the routed ensemble of the student and all chosen so far; None without labels, as
            the three that follow.
        mean_accuracy: accuracy of the ensemble of their mean probabilities; None where logits were not kept.
        headroom_pp: accuracy of the better of the two less the student's, percentage points.
        added_pp: what this teacher has added to the headroom, percentage points.
        estimated_headroom_pp: the headroom as all models' predictions together estimate it; None with labels.
        estimated_added_pp: what this teacher has added to that; None with labels.
    """

    teacher: str
    routed_accuracy: float | None
    mean_accuracy: float | None
    headroom_pp: float | None
    added_pp: float | None
    estimated_headroom_pp: float | None
    estimated_added_pp: float | None


@dataclass(frozen=True, kw_only=True)
class ClassFlips:
    """A class and what a teacher knows of it that a student does not.

    Attributes:
        index: the class's index.
        name: its name.
        flips: positive flips of this class.
        samples: images of this class, 1 or more.
    """

    index: int
    name: str
    flips: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Area:
    """A pair's area of expertise: the first `size` of its classes.

    Attributes:
        percent: of the positive flips, what the area holds at least.
        size: number of classes.
        flips: positive flips in them.
        similarity: how much more alike their names are than those of all classes, (area − all) / all; None of one
            class, or without embeddings.
    """

    percent: int
    size: int
    flips: int
    similarity: float | None


@dataclass(frozen=True, kw_only=True)
class PairExpertise:
    """What a teacher knows that a student does not, by class.

    Attributes:
        student: reference of the student.
        teacher: reference of the teacher.
        kind: why this pair is shown: a `weak`, `equal` or `strong` teacher (Fig. 2a), or one `chosen` for a student.
        delta_acc_pp: accuracy of the teacher minus that of the student, percentage points.
        positive_flips: share of all samples.
        classes: all classes with images, by falling number of flips; ties by class index.
        areas: the areas of expertise, the smallest first; the size is that of a beginning of `classes`.
    """

    student: str
    teacher: str
    kind: PairKind
    delta_acc_pp: float
    positive_flips: float
    classes: tuple[ClassFlips, ...]
    areas: tuple[Area, ...]


@dataclass(frozen=True, kw_only=True)
class AreaOverPairs:
    """The areas of a percentage over all pairs with positive flips (Fig. 2b).

    Attributes:
        percent: of a pair's positive flips, what its area holds at least.
        pairs: number of pairs.
        mean_size: mean number of classes.
        similar_pairs: number of pairs whose area has two classes or more, of which the similarity is; 0 without
            embeddings.
        mean_similarity: mean of (area − all) / all over these pairs; None without any.
        std_similarity: their standard deviation; None of fewer than two.
    """

    percent: int
    pairs: int
    mean_size: float
    similar_pairs: int
    mean_similarity: float | None
    std_similarity: float | None


@dataclass(frozen=True, kw_only=True)
class Expertise:
    """Areas of expertise: over all pairs, and of a few pairs class by class.

    Attributes:
        percents: the percentages of `area_sizes` and `area_similarity` of the pairs.
        embeddings: what gave the embeddings of the class names; None without.
        similarity_of_all: mean cosine similarity of all pairs of classes with images; None without embeddings.
        areas: the areas over all pairs.
        pairs: of a weak, an equal and a strong teacher, as far as there are any, of the student if one is asked for;
            then of the teachers chosen for it.
    """

    percents: tuple[int, ...]
    embeddings: str | None
    similarity_of_all: float | None
    areas: tuple[AreaOverPairs, ...]
    pairs: tuple[PairExpertise, ...]


@dataclass(frozen=True, kw_only=True)
class StudentTracking:
    """How well a stand-in orders one student's teachers.

    Attributes:
        student: reference of the student.
        spearman: rank correlation over its teachers; None of fewer than three, or where either does not vary.
        slope: slope of the least-squares line; None likewise.
    """

    student: str
    spearman: float | None
    slope: float | None


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How well a measure that needs no labels follows one that does.

    Attributes:
        stand_in: key of the measure without labels, of a pair or a model.
        measure: key of what it stands in for.
        count: number of pairs or models compared.
        spearman: rank correlation over all of them; None of fewer than three, or where either does not vary.
        slope: slope of the least-squares line of the measure over the stand-in; None likewise.
        students: the same for each student's pairs; empty for measures of models.
    """

    stand_in: str
    measure: str
    count: int
    spearman: float | None
    slope: float | None
    students: tuple[StudentTracking, ...]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Every model's accuracy and every ordered pair's complementary knowledge, and their ceilings (`ceilings.py`).

    Attributes:
        models: the models.
        pairs: all ordered pairs of them.
        samples: number of images.
        noun: what a sample is: `image` or `text`.
        broken: `where: reason` of each image that could not be decoded.
        labelled: whether the images carry labels; without, what needs them is None.
        failed: models that were left out.
        student: reference of the student that teachers were chosen for; None without.
        teachers: these teachers, the first choice first.
        expertise: areas of expertise; None without labels.
        tracking: how well what stands in for labels follows what needs them; empty without labels.
    """

    models: tuple[ScannedModel, ...]
    pairs: tuple[ScannedPair, ...]
    samples: int
    broken: tuple[str, ...]
    noun: str = IMAGE
    labelled: bool = True
    failed: tuple[ScanFailure, ...] = ()
    student: str | None = None
    teachers: tuple[TeacherChoice, ...] = ()
    expertise: Expertise | None = None
    tracking: tuple[Tracking, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The scan as plain values, as `--json` prints it."""
        return {
            "models": [dict(vars(model)) for model in self.models],
            "pairs": [dict(vars(pair)) for pair in self.pairs],
            "samples": self.samples,
            **({} if self.noun == IMAGE else {"noun": self.noun}),
            "labelled": self.labelled,
            "broken_images": list(self.broken),
            "failed_models": [asdict(one) for one in self.failed],
            "student": self.student,
            "teachers": [asdict(one) for one in self.teachers],
            "expertise": None if self.expertise is None else asdict(self.expertise),
            "tracking": [asdict(one) for one in self.tracking],
        }
