"""Charts of a study: each draws rows of `figure_rows`, and looks the same on the page, as SVG and as PDF."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import altair as alt

from ..charts import (
    GAIN,
    INK,
    LOSS,
    METHOD_COLOURS,
    MUTED,
    OTHER,
    Figure,
    Rows,
    name_axis,
    row_table,
    styled,
)
from .figure_rows import AUTHORS, PLAIN_MEAN, TOP_CLASSES, TOP_MEAN

KINDS = {"distillation": GAIN, "retention": LOSS, "features": OTHER}
FAMILY_COLOURS = (*METHOD_COLOURS, "#e69f00", "#56b4e9", MUTED)
PANEL, PANEL_HEIGHT = 250, 150
COLUMNS = 3
PAGE_WIDTH = 940
DELTA = "transfer delta (pp)"
NO_GRID = alt.Axis(grid=False)
COLLAPSE = 4
"""A gain or loss of more than so many times the median one is outside of the frame."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")


def success_chart(name: str, title: str, boxes: Rows, points: Rows) -> Figure:
    """Success rates: a box over students, its median, and the mean over all pairs as a diamond with its interval."""
    labels = [str(row["label"]) for row in boxes]
    y = alt.Y("label:N", title=None, sort=labels, axis=name_axis(labels))
    base = alt.Chart(row_table(boxes)).encode(y=y, color=_colours(KINDS, "kind"))
    faint = cast(Any, alt.condition(alt.datum.source == AUTHORS, alt.value(0.18), alt.value(0.45)))
    share = alt.X("lowest:Q", title="share of teachers with Δ above 0", axis=alt.Axis(format="~%", tickCount=5),
                  scale=alt.Scale(domain=[0, 1]))  # fmt: skip
    layers = [
        base.mark_rule(aria=False).encode(x=share, x2="highest:Q"),
        base.mark_bar(size=14).encode(x="q1:Q", x2="q3:Q", opacity=faint, description="about:N"),
        alt.Chart(row_table(points)).mark_circle(size=22, opacity=0.55).encode(
            y=y, x="success:Q", color=_colours(KINDS, "kind"), description="about:N"
        ),
        base.mark_tick(size=16, thickness=2.5, aria=False).encode(x="median:Q", color=alt.value(INK)),
        base.mark_rule(strokeWidth=1.5, aria=False).encode(x="mean_low:Q", x2="mean_high:Q", color=alt.value(INK)),
        base.mark_point(shape="diamond", size=70, filled=True, opacity=1).encode(
            x="mean:Q", color=alt.value(INK), description="about_mean:N"
        ),
    ]  # fmt: skip
    chart = cast(alt.LayerChart, alt.layer(*layers)).properties(width=430, height=24 * len(labels))
    return Figure(name=name, title=title, chart=styled(chart), rows={"rows": boxes, "students": points})


def bins_chart(name: str, title: str, rows: Rows) -> Figure:
    """Transfer delta by difference in accuracy, a panel a method; several data sets in rows of panels."""
    several = len({row["data"] for row in rows}) > 1
    measures = {TOP_MEAN: GAIN, PLAIN_MEAN: LOSS}
    base = alt.Chart().encode(
        x=alt.X(
            "centre_pp:Q",
            title="accuracy of teacher − student (pp)",
            axis=NO_GRID,
            scale=alt.Scale(padding=10, zero=False),
        ),
        color=_colours(measures, "measure", legend=True),
    )
    value = alt.Y("value_pp:Q", title=DELTA, axis=alt.Axis(grid=True, tickCount=5, minExtent=40))
    layers = [
        _level(0),
        base.mark_rule(opacity=0.6, aria=False).encode(y=alt.Y("low:Q", title=DELTA), y2="high:Q"),
        base.mark_line(strokeWidth=1.5, aria=False).encode(y=value),
        base.mark_circle(size=45, opacity=1).encode(y=value, description="about:N"),
    ]
    panels = alt.layer(*layers, data=row_table(rows)).properties(width=PANEL, height=PANEL_HEIGHT)
    methods = _order(rows, "method")
    if several:
        chart = panels.facet(
            row=alt.Row("method:N", sort=methods, title=None), column=alt.Column("data:N", title=None, sort=None)
        )
    else:
        chart = _wrapped(panels, "method", methods)
    return Figure(name=name, title=title, chart=styled(chart), rows={"rows": rows})


def top_classes_chart(name: str, title: str, rows: Rows) -> Figure:
    """Transfer rate of the classes with the top share of positive flips, a panel a method, a line a family."""
    colours = dict(zip(_order(rows, "family"), FAMILY_COLOURS, strict=False))
    tops = [f"{top} %" for top in TOP_CLASSES]
    base = alt.Chart().encode(
        x=alt.X(
            "top:O",
            sort=tops,
            title="classes with the top … of positive flips",
            axis=alt.Axis(labelAngle=0, grid=False),
        ),
        xOffset=alt.XOffset("family:N", sort=list(colours)),
        color=_colours(colours, "family", legend=True),
    )
    rate = alt.Y("rate:Q", title="transfer rate", axis=alt.Axis(format="~%"))
    layers = [
        alt.Chart().mark_rule(color=MUTED, strokeDash=[4, 4], aria=False).encode(y="overall:Q"),
        base.mark_rule(opacity=0.6, aria=False).encode(y=alt.Y("low:Q", title="transfer rate"), y2="high:Q"),
        base.mark_circle(size=55, opacity=1).encode(y=rate, description="about:N"),
    ]
    panels = alt.layer(*layers, data=row_table(rows)).properties(width=PANEL, height=PANEL_HEIGHT)
    return Figure(
        name=name, title=title, chart=styled(_wrapped(panels, "method", _order(rows, "method"))), rows={"rows": rows}
    )


def size_chart(name: str, title: str, rows: Rows) -> Figure:
    """Transfer rate against the student's size, a panel a method, colour the family."""
    colours = dict(zip(_order(rows, "family"), FAMILY_COLOURS, strict=False))
    base = alt.Chart().encode(
        x=alt.X("parameters_m:Q", title="student's weights, M", scale=alt.Scale(type="log", padding=12, nice=False),
                axis=alt.Axis(format="~g", tickCount=4, grid=False)),
        color=_colours(colours, "family", legend=True),
    )  # fmt: skip
    layers = [
        base.mark_rule(opacity=0.6, aria=False).encode(y=alt.Y("low:Q", title="transfer rate"), y2="high:Q"),
        base.mark_circle(size=55, opacity=1).encode(
            y=alt.Y("rate:Q", title="transfer rate", axis=alt.Axis(format="~%")), description="about:N"
        ),
    ]
    panels = alt.layer(*layers, data=row_table(rows)).properties(width=PANEL, height=PANEL_HEIGHT)
    return Figure(
        name=name, title=title, chart=styled(_wrapped(panels, "method", _order(rows, "method"))), rows={"rows": rows}
    )


def knowledge_chart(name: str, title: str, rows: Rows) -> Figure:
    """Knowledge gain against loss, a mark a pair: a row of panels a method, a column a student family."""
    low, top = frame(rows)
    marks: dict[str, Any] = {
        "x": _share("loss", "knowledge loss", (low, top)),
        "y": _share("gain", "knowledge gain", (low, top)),
        "shape": alt.Shape(
            "teacher_family:N",
            scale=alt.Scale(domain=_order(rows, "teacher_family"), range=list(SHAPES)),
            legend=alt.Legend(title="teacher", orient="top"),
        ),
        "description": "about:N",
    }
    if all(row["teacher_accuracy"] is not None for row in rows):
        marks["size"] = alt.Size(
            "teacher_accuracy:Q",
            scale=alt.Scale(zero=False, range=[15, 110]),
            legend=alt.Legend(title="its accuracy", format="~%", orient="top", tickCount=3),
        )
    if all(row["parameters_m"] is not None for row in rows):
        marks["color"] = alt.Color(
            "parameters_m:Q",
            scale=alt.Scale(type="log", scheme="viridis"),
            legend=alt.Legend(title="student, M weights", orient="top", gradientLength=120, format="~g", tickCount=3),
        )
    points = alt.Chart().mark_point(filled=True, opacity=0.75, clip=True).encode(**marks)
    panels = alt.layer(_diagonal(low, top), points, data=row_table(rows)).properties(
        width=PANEL - 20, height=PANEL - 20
    )
    chart = panels.facet(
        row=alt.Row("method:N", sort=_order(rows, "method"), title=None),
        column=alt.Column("family:N", sort=_order(rows, "family"), title=None),
    )
    return Figure(name=name, title=title, chart=styled(chart), rows={"rows": rows})


def student_knowledge_chart(name: str, title: str, rows: Rows) -> Figure:
    """Mean knowledge gain against loss, a mark a student: this study above, the authors' results below."""
    low, top = frame(rows)
    colours = dict(zip(_order(rows, "family"), FAMILY_COLOURS, strict=False))
    points = (
        alt.Chart()
        .mark_point(filled=True, size=55, opacity=0.85, clip=True)
        .encode(
            x=_share("loss", "mean knowledge loss", (low, top)),
            y=_share("gain", "mean knowledge gain", (low, top)),
            color=_colours(colours, "family", legend=True),
            description="about:N",
        )
    )
    side = min(PANEL - 40, PAGE_WIDTH // len(_order(rows, "method")) - 24)
    panels = alt.layer(_diagonal(low, top), points, data=row_table(rows)).properties(width=side, height=side)
    chart = panels.facet(
        row=alt.Row("source:N", sort=_order(rows, "source"), title=None),
        column=alt.Column("method:N", sort=_order(rows, "method"), title=None),
    )
    return Figure(name=name, title=title, chart=styled(chart), rows={"rows": rows})


def alike_chart(name: str, title: str, points: Rows, edges: Rows) -> Figure:
    """Transfer delta of students that differ in one property alone, lines between them: a panel a property."""
    colours = dict(zip(_order(points, "family"), FAMILY_COLOURS, strict=False))
    axes = {
        "accuracy": alt.X("accuracy:Q", title="accuracy", axis=alt.Axis(format="~%", tickCount=5, grid=False),
                          scale=alt.Scale(zero=False, padding=12)),
        "size": alt.X("parameters_m:Q", title="weights, M", axis=alt.Axis(format="~g", tickCount=4, grid=False),
                      scale=alt.Scale(type="log", padding=12, nice=False)),
        "family": alt.X("family:N", title="family", axis=alt.Axis(labelAngle=0)),
    }  # fmt: skip
    panels = []
    for kind in [one for one in axes if any(row["property"] == one for row in points)]:
        here = row_table([row for row in points if row["property"] == kind])
        lines = row_table([row for row in edges if row["property"] == kind])
        base = alt.Chart(here).encode(x=axes[kind], color=_colours(colours, "family", legend=True))
        panel = alt.layer(
            _level(0),
            alt.Chart(lines).mark_line(color=MUTED, strokeWidth=1, opacity=0.7, aria=False).encode(
                x=axes[kind], y="delta_pp:Q", detail="edge:N"
            ),
            base.mark_rule(opacity=0.5, aria=False).encode(y="low:Q", y2="high:Q"),
            base.mark_circle(size=60, opacity=1).encode(
                y=alt.Y("delta_pp:Q", title="mean transfer delta (pp)", axis=alt.Axis(grid=True)), description="about:N"
            ),
        ).properties(width=PANEL - 20, height=PANEL - 50, title=f"differ in {kind}")  # fmt: skip
        panels.append(panel)
    chart = alt.hconcat(*panels).resolve_scale(y="shared")
    return Figure(name=name, title=title, chart=styled(chart), rows={"rows": points, "edges": edges})


def sequence_chart(name: str, title: str, rows: Rows, *, noun: str) -> Figure:
    """Gain, loss and delta over the epochs of sequences of teachers, a panel a student and method."""
    base = alt.Chart()
    lines = base.transform_filter(alt.datum.kind != "end").encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(format="d", tickMinStep=1, tickCount=6, grid=False)),
        y=alt.Y("value_pp:Q", title=f"pp of all {noun}s", axis=alt.Axis(grid=True, minExtent=36)),
        color=_colours({"gained": GAIN, "lost": LOSS, "delta": INK}, "kind", legend=True),
        detail="cell:N",
    )
    ends = base.transform_filter(alt.datum.kind == "end").encode(x="epoch:Q")
    layers = [
        _level(0),
        ends.mark_rule(color=MUTED, strokeDash=[3, 3], aria=False),
        ends.mark_text(align="right", baseline="bottom", angle=270, dy=-2, dx=-2, fontSize=10, color=MUTED, aria=False)
        .encode(y=alt.value(0), text="teacher:N"),
        lines.mark_line(strokeWidth=1.5, aria=False),
        lines.mark_circle(size=25, opacity=1).encode(description="about:N"),
    ]  # fmt: skip
    panels = alt.layer(*layers, data=row_table(rows)).properties(width=PANEL, height=PANEL_HEIGHT + 10)
    return Figure(
        name=name, title=title, chart=styled(_wrapped(panels, "panel", _order(rows, "panel"))), rows={"rows": rows}
    )


def _wrapped(panels: Any, field: str, order: Sequence[str]) -> Any:
    """Panels in rows of three."""
    facet = alt.Facet(f"{field}:N", sort=list(order), title=None)
    return panels.facet(facet=facet, columns=min(COLUMNS, len(order)))


def _order(rows: Rows, field: str) -> list[str]:
    return list(dict.fromkeys(str(row[field]) for row in rows))


def _colours(colours: Mapping[str, str], field: str, *, legend: bool = False) -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(
        f"{field}:N",
        title=None,
        scale=scale,
        legend=alt.Legend(orient="top", symbolOpacity=1, columnPadding=26) if legend else None,
    )


def _share(field: str, title: str, ends: tuple[float, float]) -> Any:
    kind = alt.X if field == "loss" else alt.Y
    axis = alt.Axis(format="~%", tickCount=4)
    return kind(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(domain=list(ends), nice=False, zero=False))


def _diagonal(low: float, top: float) -> alt.Chart:
    """Where as much is gained as lost."""
    rule = alt.Chart().mark_rule(color=LOSS, strokeDash=[4, 4], aria=False)
    ends = {"x": alt.datum(low), "y": alt.datum(low), "x2": alt.datum(top), "y2": alt.datum(top)}
    return cast(alt.Chart, rule.encode(**ends))


def _level(value: float) -> alt.Chart:
    return cast(alt.Chart, alt.Chart().mark_rule(color=MUTED, strokeDash=[4, 4], aria=False).encode(y=alt.datum(value)))


def frame(rows: Rows) -> tuple[float, float]:
    """The ends of both axes of gain and loss: a few collapses, far above the others, stay outside."""
    values = sorted(float(row[field]) for row in rows for field in ("gain", "loss"))
    inside = [one for one in values if one <= COLLAPSE * values[len(values) // 2]] or values
    room = 0.05 * (inside[-1] - inside[0]) or 0.005
    return max(0.0, inside[0] - room), inside[-1] + room
