"""The authors' own results, by student and method, to stand beside a study's.

`published/students_leaderboard.csv` is their file: 20 students, each from 20 teachers, on a tenth of ImageNet. Their
measures, in percent: the success rate (`pos_dist_delta`), and the means of Δ_transf, with its standard deviation over
teachers, of knowledge gain and of knowledge loss.
"""

import csv
import functools
import io
from dataclasses import dataclass
from importlib.resources import files

METHODS = {
    "KL_Dist": "kl",
    "XEKL_Dist": "xe-kl",
    "XEKL+MCL_Dist": "xe-kl-mcl",
    "KL+MT_Dist": "kl-dp",
    "KL+MT_u_Dist": "kl-dp-u",
    "CD_Dist": "cd",
    "CRD_Dist": "crd",
}
"""Our name for each of their approaches; data partitioning is MT there."""
FAMILIES = {"transformer": "Transformer", "cnn": "CNN", "mlp": "MLP"}
TEACHERS = 20
"""Teachers of each of their students."""
SOURCE = (
    "The authors' results: plots/students_leaderboard.csv of github.com/ExplainableML/FantasticGains (MIT, 2024 Lukas "
    "Thede): 20 students × 20 teachers, a tenth of ImageNet, other models and images than this study's unless it names "
    "the same."
)


@dataclass(frozen=True, kw_only=True)
class PublishedStudent:
    """What the authors measured of a student by a method, over its 20 teachers.

    Attributes:
        method: our name of the method.
        student: timm's name of the student.
        family: its family.
        parameters_m: number of its weights, millions.
        success: share of teachers with Δ_transf above 0.
        delta_pp: mean of Δ_transf.
        delta_spread_pp: its standard deviation over teachers.
        gain_pp: mean knowledge gain, percent of all images.
        loss_pp: mean knowledge loss, likewise.
    """

    method: str
    student: str
    family: str
    parameters_m: float
    success: float
    delta_pp: float
    delta_spread_pp: float
    gain_pp: float
    loss_pp: float


@functools.cache
def published_students() -> tuple[PublishedStudent, ...]:
    """The authors' results for the 20 students that every method has (of `kl-dp` they have ten more)."""
    text = (files(__package__) / "published" / "students_leaderboard.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    common = {row["student_name"] for row in rows if row["approach"] == "KL_Dist"}
    return tuple(_student(row) for row in rows if row["student_name"] in common)


def published_of(method: str) -> list[PublishedStudent]:
    """The authors' students by a method; none where they did not run it."""
    return [one for one in published_students() if one.method == method]


def same_student(name: str) -> str | None:
    """The authors' student that a model of a study is, by its name: timm's, its tag aside.

    Example:
        >>> same_student("pit_b_224.in1k"), same_student("timm/pit_b_224"), same_student("resnet18")
        ('pit_b_224', 'pit_b_224', None)
    """
    known = {one.student for one in published_students()}
    stem = name.rsplit("/", 1)[-1].rsplit(":", 1)[-1].split(".", 1)[0]
    return stem if stem in known else None


def _student(row: dict[str, str]) -> PublishedStudent:
    return PublishedStudent(
        method=METHODS[row["approach"]],
        student=row["student_name"],
        family=FAMILIES[row["student_type"]],
        parameters_m=float(row["student_params"]),
        success=float(row["pos_dist_delta"]) / 100,
        delta_pp=float(row["mean_dist_delta"]),
        delta_spread_pp=float(row["std_dist_delta"]),
        gain_pp=float(row["mean_k_gain"]),
        loss_pp=float(row["mean_k_loss"]),
    )
