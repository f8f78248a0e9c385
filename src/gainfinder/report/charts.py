"""Charts from rows that were computed elsewhere; pages show them, and each is saved with its rows beside it.

Altair (Vega-Lite) draws them all: the vector file for a paper and the figure on the page are the same. A row's `about`
is what its mark says on hover. Colours are named below once; the page's style sheet has each of them again, for dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import altair as alt
import pyarrow as pa

from ..predictions import IMAGE

Rows = Sequence[Mapping[str, Any]]
INK, MUTED, GRID = "#1f2328", "#6e7781", "#d8dee4"
GAIN, LOSS, AVAILABLE, OTHER = "#0072b2", "#d55e00", "#a9cfe8", "#009e73"
"""Okabe and Ito's, that colour-blind readers can tell apart; `AVAILABLE`, a pale blue, is what there was to gain."""
METHOD_COLOURS = (GAIN, LOSS, OTHER, "#cc79a7")
WIDTH = 330
FEW_EPOCHS = 40
"""Epochs whose points are drawn large; of more they would run into each other."""
FIGURE_NAMES = (
    *("measures", "epochs", "classes", "partition"),
    *("matrix", "knowledge", "entropy", "entropy-by-flips", "class-flips", "areas"),
)
"""Names of the figures of a page."""
CHARACTER_PX = 7.4
"""Room for a character of a label: fonts differ from machine to machine, and a narrow guess would cut labels off."""
LONGEST = 30
"""Characters of a label, at most."""
LABEL_LIMIT = 240
LABEL = (
    f"length(datum.label) > {LONGEST} ? slice(datum.label, 0, 12) + '…' + slice(datum.label, {13 - LONGEST}) "
    ": datum.label"
)
"""Vega's expression that shortens a long label."""
MOST_CLASSES = 15
"""Classes that a chart shows; a table shows all."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with the rows that it draws.

    Attributes:
        name: name of its files, without the ending.
        title: description of the figure, for readers who do not see it.
        chart: the Altair chart.
        rows: each table under its own name.
    """

    name: str
    title: str
    chart: alt.TopLevelMixin
    rows: Mapping[str, Rows]


def measures(rows: Rows, *, noun: str = IMAGE) -> Figure:
    """Changes with their intervals, against a line at zero.

    Args:
        rows: rows with the keys `measure`, `value_pp`, `low_pp`, `high_pp`, `kind` (gain, loss or delta) and `about`.
        noun: what a sample is.
    """
    order = [str(row["measure"]) for row in rows]
    y = alt.Y("measure:N", title=None, sort=order, axis=name_axis(order))
    colour = kind_colour({"delta": INK, "gain": GAIN, "loss": LOSS})
    base = alt.Chart(row_table(rows))
    bars = base.mark_rule(strokeWidth=2).encode(
        y=y,
        x=alt.X("low_pp:Q", title=f"percentage points of all {noun}s", axis=alt.Axis(tickCount=6)),
        x2="high_pp:Q",
        color=colour,
        description="about:N",
    )
    dots = base.mark_circle(size=110, opacity=1).encode(y=y, x="value_pp:Q", color=colour, description="about:N")
    chart = (zero_line("x") + bars + dots).properties(width=WIDTH, height=36 * len(rows))
    return Figure(name="measures", title="Changes with 95 % intervals", chart=styled(chart), rows={"rows": rows})


def over_epochs(rows: Rows, *, steps: Rows = (), noun: str = IMAGE) -> Figure:
    """Gain and loss after each epoch (PAPER Fig. 11); of a sequence of teachers, one after the other.

    Args:
        rows: rows with the keys `epoch` (0 for before), `kind` (gained or lost), `share` of all images and `about`.
        steps: for a sequence, rows with the keys `epoch`, after which a teacher ends, `step`, its number, `teacher` and
            `about`.
        noun: what a sample is.
    """
    last = max((row["epoch"] for row in rows), default=0)
    lines = (
        alt.Chart(row_table(rows))
        .mark_line(point=alt.OverlayMarkDef(size=60 if last <= FEW_EPOCHS else 12, opacity=1))
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=_epochs(rows)),
            y=alt.Y("share:Q", title=f"of all {noun}s", axis=number_axis("~%")),
            color=kind_colour({"gained": GAIN, "lost": LOSS}, columns=2),
            description="about:N",
        )
    )
    layers: list[Any] = [lines]
    if steps:
        ends = alt.Chart(row_table(steps)).encode(x="epoch:Q", description="about:N")
        # Names of teachers would lie upon each other; their numbers do not, and say the names on hover.
        numbers = ends.mark_text(align="right", baseline="top", dx=-4, color=MUTED).encode(
            y=alt.value(2), text="step:N"
        )
        layers += [ends.mark_rule(color=MUTED, strokeDash=[3, 3], aria=False), numbers]
    chart = cast(alt.LayerChart, alt.layer(*layers)).properties(width=WIDTH, height=230)
    tables = {"rows": rows, **({"steps": steps} if steps else {})}
    return Figure(name="epochs", title="Gain and loss after each epoch", chart=styled(chart), rows=tables)


def over_classes(rows: Rows, *, noun: str = IMAGE) -> Figure:
    """What each class had to learn, what of it arrived and what was lost; the classes with most of it.

    Args:
        rows: one row a class, with the keys `name`, `positive_flips`, `transferred`, `gained`, `lost` and `about`.
        noun: what a sample is.
    """
    shown = sorted(rows, key=lambda row: (-int(row["positive_flips"]), -int(row["gained"])))[:MOST_CLASSES]
    data = row_table([{**row, "minus_lost": -int(row["lost"])} for row in shown])
    names = [str(row["name"]) for row in shown]
    y = alt.Y("name:N", title=None, sort=names, axis=name_axis(names))
    base = alt.Chart(data).encode(y=y, description="about:N")
    whole = alt.Axis(tickMinStep=1, format="d", tickCount=6)
    there = base.mark_bar(color=AVAILABLE).encode(x=alt.X("positive_flips:Q", title=f"{noun}s", axis=whole))
    arrived = base.mark_bar(color=GAIN, size=8).encode(x="transferred:Q")
    lost = base.mark_bar(color=LOSS, size=8).encode(x="minus_lost:Q")
    chart = (there + arrived + lost + zero_line("x")).properties(width=WIDTH - 60, height=24 * len(shown))
    return Figure(name="classes", title="Gains and losses by class", chart=styled(chart), rows={"rows": rows})


def over_partition(rows: Rows) -> Figure:
    """Whom the partition lets teach, by who is right.

    Args:
        rows: rows with the keys `group`, `taught_by`, `rank`, `share` and `about`.
    """
    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    chart = (
        alt.Chart(row_table(rows))
        .mark_bar()
        .encode(
            y=alt.Y("group:N", title=None, sort=groups, axis=name_axis(groups)),
            x=alt.X(
                "share:Q",
                title="taught by",
                axis=alt.Axis(format="~%", values=[0, 0.25, 0.5, 0.75, 1]),
                scale=alt.Scale(domain=[0, 1]),
            ),
            color=kind_colour({"teacher": GAIN, "initial student": OTHER}, field="taught_by", columns=2),
            order=alt.Order("rank:Q"),
            description="about:N",
        )
        .properties(width=WIDTH - 110, height=36 * len(groups))
    )
    return Figure(name="partition", title="Whom the partition lets teach", chart=styled(chart), rows={"rows": rows})


def complementary_knowledge(pairs: Rows) -> alt.Chart:
    """Positive flips against the difference in accuracy, a dot an ordered pair (PAPER Fig. 1a).

    Args:
        pairs: rows with the keys `delta_acc_pp`, `positive_flips` and `about`, as `rows.pair_rows` gives them.
    """
    chart = (
        alt.Chart(row_table(pairs))
        .mark_circle(size=90, color=GAIN, opacity=0.8)
        .encode(
            x=alt.X("delta_acc_pp:Q", title="accuracy of teacher − student (pp)"),
            y=alt.Y("positive_flips:Q", title="teacher right, student wrong", axis=number_axis("~%")),
            description="about:N",
        )
        .properties(width=WIDTH, height=240)
    )
    return cast(alt.Chart, chart)


def demo_figure(pairs: Rows, epochs: Rows, *, samples: int) -> Figure:
    """The demo's figure: complementary knowledge, and the transfer delta of each method beside it.

    Args:
        pairs: rows as in `complementary_knowledge`.
        epochs: rows as in `transfer_over_epochs`.
        samples: number of images measured on.
    """
    known = complementary_knowledge(pairs).properties(title=f"Complementary knowledge, {samples:,} images")
    chart = known | transfer_over_epochs(epochs, samples=samples)
    rows = {"pairs": pairs, "epochs": epochs}
    return Figure(name="figure", title="Complementary knowledge and its transfer", chart=styled(chart), rows=rows)


def transfer_over_epochs(rows: Rows, *, samples: int) -> alt.LayerChart:
    """Transfer delta after each epoch, a line a method, with a line at zero (PAPER Fig. 11, one teacher).

    Args:
        rows: rows with the keys `method`, `epoch` (0 for before) and `transfer_delta_pp`.
        samples: number of images measured on, for the title.
    """
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    lines = (
        alt.Chart(row_table(rows), title=f"Transfer delta over epochs, {samples:,} images")
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=_epochs(rows)),
            y=alt.Y("transfer_delta_pp:Q", title="transfer delta (pp)"),
            color=kind_colour(dict(zip(methods, METHOD_COLOURS, strict=False)), field="method", columns=2),
        )
    )
    return cast(alt.LayerChart, (zero_line("y") + lines).properties(width=WIDTH, height=240))


def kind_colour(colours: Mapping[str, str], *, field: str = "kind", columns: int = 0) -> alt.Color:
    """A colour for each kind, and a legend of so many columns on top; of 0 none."""
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    legend = alt.Legend(orient="top", columns=columns, columnPadding=14) if columns else None
    return alt.Color(f"{field}:N", title=None, scale=scale, legend=legend)


def name_axis(names: Sequence[str]) -> alt.Axis:
    """An axis of names with room for the longest; of long ones beginning and end, by which similar names differ."""
    longest = min(LONGEST, max(map(len, names), default=0))
    return alt.Axis(minExtent=8 + CHARACTER_PX * longest, labelLimit=LABEL_LIMIT, labelExpr=LABEL)


def _epochs(rows: Rows) -> alt.Axis:
    """Whole epochs, about ten of them."""
    last = max((int(row["epoch"]) for row in rows), default=0)
    return alt.Axis(values=list(range(0, last + 1, -(-last // 10) or 1)), format="d")


def number_axis(form: str) -> alt.Axis:
    """An axis of numbers with room for their labels, so that axes of figures above each other begin at one place."""
    return alt.Axis(format=form, minExtent=44)


def zero_line(axis: Literal["x", "y"]) -> alt.Chart:
    """A dashed line at zero."""
    rule = alt.Chart(row_table([{"zero": 0.0}])).mark_rule(color=MUTED, strokeDash=[4, 4], aria=False)
    return cast(alt.Chart, rule.encode(**{axis: alt.X("zero:Q") if axis == "x" else alt.Y("zero:Q")}))


def styled(chart: Any) -> alt.TopLevelMixin:
    """A chart in the fonts and colours of all figures."""
    font = "system-ui, -apple-system, 'Segoe UI', sans-serif"
    axis = {"labelColor": INK, "titleColor": MUTED, "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED}
    text = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    styled = (
        chart.configure(background="transparent", font=font, padding=6)
        .configure_axis(**axis, **text)
        .configure_view(stroke=None)
        .configure_legend(labelColor=INK, labelFontSize=12, titleColor=MUTED, titleFontWeight="normal")
        .configure_header(labelColor=INK, labelFontSize=12)
        .configure_title(color=INK, fontSize=13, anchor="start", fontWeight="normal")
    )
    return cast(alt.TopLevelMixin, styled)


def row_table(rows: Rows) -> pa.Table:
    """Rows as a table, as Altair takes it and files hold it."""
    return pa.Table.from_pylist([dict(row) for row in rows])
