"""The paper's Figures 4 to 11 from a study's pairs, each with its caption, or why it is left out."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...predictions import IMAGE
from ...study import EpochRow, StudyRow
from ..charts import Figure
from . import charts, figure_rows
from .cells import Omitted, slug
from .figure_rows import Row
from .grouping import Arm, Results
from .overview import summarise

ANOTHER_DOMAIN = re.compile(r"infograph|domain|shift", re.IGNORECASE)
"""Names of images or teachers that Fig. 10 is of."""
FIGURE_6 = ("xe-kl", "kl-dp", "cd", "crd", "dist-dp", "dist-dp-u")
FIGURE_9 = ("kl", "xe-kl-mcl", "kl-dp")
MOST_PANELS = 24
"""Sequences that are drawn; the rows hold all."""
NO_PAIRS = "no finished pairs with a single teacher"


@dataclass(frozen=True, kw_only=True)
class StudyFigure:
    """A figure of the report.

    Attributes:
        label: what the paper calls it.
        caption: what it shows, how sure it is, and over how many.
        figure: the chart with its rows.
    """

    label: str
    caption: str
    figure: Figure


def data_set_figures(
    results: Results, epochs: Sequence[EpochRow], rows: Sequence[StudyRow], *, suffix: str = ""
) -> list[StudyFigure | Omitted]:
    """Figures 4 to 8 and 11 of one data set.

    Args:
        results: its pairs.
        epochs: epochs of all sequences of the study.
        rows: all rows of the study.
        suffix: end of the figures' names.
    """
    makers: tuple[Callable[[Results, str], StudyFigure | Omitted], ...] = (
        success_figure, bins_figure, top_classes_figure, size_figure, kinds_figure, knowledge_figure,
        student_knowledge_figure, alike_figure,
    )  # fmt: skip
    return [*(make(results, suffix) for make in makers), sequence_figure(results, epochs, rows, suffix)]


def across_figures(by_data: Mapping[str, Results]) -> list[StudyFigure | Omitted]:
    """Figures 9 and 10, of several data sets and of teachers of another domain."""
    return [other_data_figure(by_data), other_domain_figure(by_data)]


def success_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 4a: success rate by method."""
    summaries = [one for one in summarise(results) if one.student_success]
    if not summaries:
        return Omitted(label="Figure 4a", reason=NO_PAIRS)
    boxes, points = figure_rows.success_rows(summaries)
    return StudyFigure(
        label="Figure 4a",
        caption="Share of teachers with Δ_transf above 0. Dots: students; box: quartiles; line: median; "
        " diamond: mean over all pairs with its 95 % interval (bootstrap over students and teachers; of the "
        "authors' over students). Blue: distillation, orange: methods that retain, green: features. " + _pairs(results),
        figure=charts.success_chart(f"figure-4a{suffix}", "Success rate by method", boxes, points),
    )


def bins_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 4b: Δ_transf by Δ_acc."""
    rows = figure_rows.binned_rows(results, results.arms)
    if not rows:
        return Omitted(label="Figure 4b", reason="no finished pairs with teachers of different accuracy")
    return StudyFigure(
        label="Figure 4b",
        caption=BINNED + _pairs(results),
        figure=charts.bins_chart(f"figure-4b{suffix}", "Transfer delta by difference in accuracy", rows),
    )


BINNED = (
    f"Transfer delta by Δ_acc, teacher less student, {figure_rows.BINS} bins of equal width: mean of the best 25 % of "
    "each (blue, as the paper shows it) and of all its pairs (orange), with 95 % intervals (bootstrap over the bin's "
    "pairs). "
)


def top_classes_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 5a: transfer rate of the classes with most flips."""
    rows = figure_rows.top_class_rows(results)
    if not rows:
        return Omitted(label="Figure 5a", reason="no finished pairs with transfer rates by class")
    return StudyFigure(
        label="Figure 5a",
        caption="Transfer rate of the classes that hold the top share of positive flips (before transfer), by the "
        "student's family; dashed: over all classes and pairs. Intervals: 95 %, bootstrap over students and teachers. "
        + _pairs(results),
        figure=charts.top_classes_chart(f"figure-5a{suffix}", "Transfer rate of the top classes", rows),
    )


def size_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 5b: transfer rate against size."""
    rows = figure_rows.size_rows(results)
    if not rows:
        return Omitted(label="Figure 5b", reason="no finished pairs of students whose number of weights is known")
    return StudyFigure(
        label="Figure 5b",
        caption="Transfer rate against the student's size: mean over its teachers, 95 % interval by a bootstrap over "
        "them. " + _pairs(results),
        figure=charts.size_chart(f"figure-5b{suffix}", "Transfer rate against the student's size", rows),
    )


def kinds_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 6: success rate of contrastive distillation beside the others."""
    summaries = [one for one in summarise(results) if one.arm.method in FIGURE_6 and one.student_success]
    if not any(one.arm.method in ("cd", "crd", "dist-dp", "dist-dp-u") for one in summaries):
        return Omitted(label="Figure 6", reason="no finished pairs of method cd, crd or dist-dp")
    boxes, points = figure_rows.success_rows(summaries)
    return StudyFigure(
        label="Figure 6",
        caption="Success rate of CD, CRD (features) and DIST beside XE-KL and KL+DP. Marks as in Figure 4a. "
        + _pairs(results, [one.arm for one in summaries]),
        figure=charts.success_chart(f"figure-6{suffix}", "Success rate by kind of distillation", boxes, points),
    )


def knowledge_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 7: knowledge gain against loss."""
    rows = figure_rows.knowledge_rows(results, results.arms_of("kl", "kl-dp", "kl-dp-u"))
    if not rows:
        return Omitted(label="Figure 7", reason="no finished pairs of method kl, kl-dp or kl-dp-u")
    return StudyFigure(
        label="Figure 7",
        caption="Knowledge gain against loss, a mark a pair; above the diagonal more is gained than lost. Columns: the "
        f"student's family; rows: method. {len(rows)} pairs{_outside(rows)}.",
        figure=charts.knowledge_chart(f"figure-7{suffix}", "Knowledge gain against knowledge loss", rows),
    )


def student_knowledge_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 7 in the form that the authors' results allow."""
    rows = figure_rows.student_knowledge_rows(results, results.arms)
    if not rows:
        return Omitted(label="Figure 7 beside the authors'", reason="no finished pairs of a method that they have")
    return StudyFigure(
        label="Figure 7 beside the authors'",
        caption="Mean knowledge gain against mean loss over teachers, a mark a student: this study above, the authors' "
        f"20 students of ImageNet below{_outside(rows)}.",
        figure=charts.student_knowledge_chart(
            f"figure-7-authors{suffix}", "Knowledge gain against loss by student, beside the authors'", rows
        ),
    )


def alike_figure(results: Results, suffix: str) -> StudyFigure | Omitted:
    """Fig. 8: what a student's accuracy, size and family do by themselves."""
    arm = _main_arm(results)
    points, edges = ([], []) if arm is None else figure_rows.alike_rows(results, arm)
    if arm is None or not points:
        return Omitted(label="Figure 8", reason="no two students that differ in one of accuracy, size and family alone")
    return StudyFigure(
        label="Figure 8",
        caption="Mean Δ_transf of students that differ in one property alone, lines between them: alike in accuracy "
        f"within {figure_rows.ALIKE_ACCURACY_PP:g} pp, in size within a factor of {figure_rows.ALIKE_SIZE:g}. Method "
        f"{arm.name}; intervals: 95 %, bootstrap over teachers. {len({row['student'] for row in points})} students.",
        figure=charts.alike_chart(f"figure-8{suffix}", "Students that differ in one property", points, edges),
    )


def sequence_figure(
    results: Results, epochs: Sequence[EpochRow], rows: Sequence[StudyRow], suffix: str
) -> StudyFigure | Omitted:
    """Fig. 11: gain, loss and delta through a sequence of teachers."""
    arm_of = {cell.cell: pair.arm.name for pair in results.groups for cell in pair.known}
    cells = {row.cell: (arm_of[row.cell], row) for row in rows if row.cell in arm_of}
    found = figure_rows.sequence_rows(epochs, cells)
    if not found:
        return Omitted(label="Figure 11", reason="no finished sequence of several teachers")
    panels = list(dict.fromkeys(row["panel"] for row in found))
    shown = [row for row in found if row["panel"] in panels[:MOST_PANELS]]
    left = f" {MOST_PANELS} of {len(panels)} are shown." if len(panels) > MOST_PANELS else ""
    return StudyFigure(
        label="Figure 11",
        caption="Knowledge gain, loss and delta since before the first teacher, after each epoch; dashed: where a "
        f"teacher ends. A line a seed.{left}",
        figure=charts.sequence_chart(f"figure-11{suffix}", "Through a sequence of teachers", shown, noun=results.noun),
    )


def other_data_figure(by_data: Mapping[str, Results]) -> StudyFigure | Omitted:
    """Fig. 9: Fig. 4b on other data sets."""
    several = [one for name, one in by_data.items() if not ANOTHER_DOMAIN.search(name)]
    rows = [row for one in several for row in figure_rows.binned_rows(one, _preferred(one, FIGURE_9))]
    if len({row["data"] for row in rows}) < 2:
        return Omitted(label="Figure 9", reason="fewer than two data sets with finished pairs")
    return StudyFigure(
        label="Figure 9",
        caption=BINNED
        + "A column a data set. "
        + " ".join(f"{one.data}: {_pairs(one, _preferred(one, FIGURE_9))}" for one in several),
        figure=charts.bins_chart("figure-9", "Transfer delta by difference in accuracy, by data set", rows),
    )


def other_domain_figure(by_data: Mapping[str, Results]) -> StudyFigure | Omitted:
    """Fig. 10: teachers of another domain."""
    found = []
    for name, results in by_data.items():
        ours = ANOTHER_DOMAIN.search(name)
        pairs = tuple(one for one in results.pairs if ours or ANOTHER_DOMAIN.search(one.teacher))
        found.append(dataclasses.replace(results, pairs=pairs))
    rows = [row for one in found for row in figure_rows.binned_rows(one, _preferred(one, ("kl", "kl-dp")))]
    if not rows:
        noun = next((one.noun for one in by_data.values() if one.noun != IMAGE), IMAGE)
        reason = f"no finished pairs whose {noun}s or teachers are named infograph, domain or shift"
        return Omitted(label="Figure 10", reason=reason)
    return StudyFigure(
        label="Figure 10",
        caption=BINNED + "Teachers of another domain. " + " ".join(_pairs(one) for one in found if one.pairs),
        figure=charts.bins_chart("figure-10", "Teachers of another domain", rows),
    )


def named(results: Results, *, several: bool) -> str:
    """End of the names of a data set's figures and tables; empty where there is one alone."""
    return f"-{slug(results.data)}" if several else ""


def _main_arm(results: Results) -> Arm | None:
    """The arm of KL with data partitioning, with labels or else without."""
    return next(iter(results.arms_of("kl-dp") or results.arms_of("kl-dp-u") or results.arms), None)


def _preferred(results: Results, methods: Iterable[str]) -> Sequence[Arm]:
    return results.arms_of(*methods) or results.arms


def _pairs(results: Results, arms: Sequence[Arm] | None = None) -> str:
    """How many pairs there are, by method where some are missing."""
    counts = []
    for arm in results.arms if arms is None else arms:
        pairs = results.of(arm)
        if pairs:
            counts.append((arm.name, sum(one.delta is not None for one in pairs), len(pairs)))
    if len({(done, planned) for _, done, planned in counts}) == 1:
        _, done, planned = counts[0]
        return f"{done} pairs by each method." if done == planned else f"{done} of {planned} pairs by each method."
    return "Pairs: " + ", ".join(f"{name} {done} of {planned}" for name, done, planned in counts) + "."


def _outside(rows: Sequence[Row]) -> str:
    top = charts.frame(rows)[1]
    count = sum(max(row["gain"], row["loss"]) > top for row in rows)
    return f"; {count} with collapses lie outside of the frame" if count else ""
