"""The vector files of a scan: Figures 1a, 1b, 2a and 2b of the paper, and the matrix of positive flips.

Pairs are dots up to `MOST_DOTS` of them. Of more, cells tell how many pairs lie in each, none left out: 90,300 dots
would be 14 MB of SVG, 60 MB of PDF, and one blot. Likewise the matrix of many models is a picture of a pixel a pair.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..predictions import IMAGE
from ..references import short_names
from .charts import (
    GAIN,
    INK,
    LABEL,
    LABEL_LIMIT,
    LOSS,
    OTHER,
    WIDTH,
    Figure,
    Rows,
    kind_colour,
    name_axis,
    number_axis,
    row_table,
    styled,
    zero_line,
)
from .rows import Row, counted
from .zoo_pairs import TITLES, Floats, ZooPairs

MOST_DOTS = 2500
"""Pairs that are drawn as a dot each: those of 50 models."""
CELLS = (96, 64)
"""Cells across and up, in which more pairs are counted."""
MOST_NAMED = 40
"""Models of a matrix whose names and numbers are written out."""
FEW_CLASSES = 40
"""Classes that a curve marks with a dot each."""
HEIGHT = 240
FORMS = {"delta_acc_pp": "~s", "positive_flips": "~%", "flip_entropy": ".2f"}
BLUES = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
"""Of a picture of pairs, from 0 to the most: as Vega's scheme of this name."""
ALL_PAIRS = "mean of all pairs"
TEACHERS = {"weak": LOSS, "equal": OTHER, "strong": GAIN}
"""Kinds of teacher of Fig. 2a, and their colours."""


def scatter(zoo: ZooPairs, rows: Callable[[], Rows], *, x: str, y: str, name: str, title: str) -> Figure:
    """Two measures of all pairs (PAPER Figs. 1a, 1b).

    Args:
        zoo: the pairs.
        rows: gives the pairs as `rows.pair_rows` does; of few pairs alone it is called.
        x: key of the measure across, of `TITLES`.
        y: key of the measure up, likewise.
        name: name of the figure's files.
        title: description of the figure.
    """
    if len(zoo.flat(x)) > MOST_DOTS:
        return _density(zoo, x=x, y=y, name=name, title=title)
    drawn = [row for row in rows() if row[x] is not None and row[y] is not None]
    chart = (
        alt.Chart(row_table(drawn))
        .mark_circle(size=90 if len(drawn) <= 400 else 24, color=GAIN, opacity=0.8 if len(drawn) <= 400 else 0.5)
        .encode(x=_across(x), y=_up(y), description="about:N")
        .properties(width=WIDTH, height=HEIGHT)
    )
    return Figure(name=name, title=title, chart=styled(chart), rows={"rows": drawn})


def _density(zoo: ZooPairs, *, x: str, y: str, name: str, title: str) -> Figure:
    """How many pairs lie in each cell of a grid over all of them."""
    across_P, up_P = zoo.flat(x), zoo.flat(y)
    known_P = ~np.isnan(across_P) & ~np.isnan(up_P)
    counts, xs, ys = np.histogram2d(across_P[known_P], up_P[known_P], bins=CELLS)
    rows = [
        {
            "pairs": int(counts[i, j]),
            **{f"{x}_from": float(xs[i]), f"{x}_to": float(xs[i + 1])},
            **{f"{y}_from": float(ys[j]), f"{y}_to": float(ys[j + 1])},
            "about": counted(int(counts[i, j]), "pair"),
        }
        for i, j in zip(*counts.nonzero(), strict=True)
    ]
    chart = (
        alt.Chart(row_table(rows))
        .mark_rect()
        .encode(
            x=_across(x, field=f"{x}_from", ends=(xs[0], xs[-1])),
            x2=f"{x}_to:Q",
            y=_up(y, field=f"{y}_from", ends=(ys[0], ys[-1])),
            y2=f"{y}_to:Q",
            color=alt.Color(
                "pairs:Q",
                scale=alt.Scale(type="log", range=["#cfe3f1", "#0072b2", "#03263b"]),
                legend=alt.Legend(title="pairs", orient="right", tickCount=4),
            ),
            description="about:N",
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return Figure(name=name, title=f"{title}; pairs in each cell", chart=styled(chart), rows={"rows": rows})


def flips_matrix(zoo: ZooPairs, rows: Callable[[], Rows]) -> Figure:
    """Positive flips of every ordered pair; models with alike errors side by side.

    Args:
        zoo: the pairs.
        rows: gives the pairs as `rows.pair_rows` does.
    """
    order, title = zoo.alike(), "Positive flips of every ordered pair"
    if len(order) > MOST_NAMED:
        return Figure(name="matrix", title=title, chart=styled(_pixels(zoo, order)), rows={})
    drawn = rows()
    chart = _named_matrix(drawn, [zoo.names[place] for place in order])
    return Figure(name="matrix", title=title, chart=styled(chart), rows={"rows": drawn})


def _named_matrix(pairs: Rows, names: Sequence[str]) -> alt.LayerChart:
    side = max(38, min(64, 520 // len(names)))
    most = max((float(row["positive_flips"]) for row in pairs), default=0.0)
    across = alt.Axis(labelAngle=-40, orient="top", labelExpr=LABEL, labelLimit=LABEL_LIMIT)
    base = alt.Chart(row_table(pairs)).encode(
        x=alt.X("teacher_name:N", title="teacher", sort=list(names), axis=across),
        y=alt.Y("student_name:N", title="student", sort=list(names), axis=name_axis(names)),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("positive_flips:Q", legend=None, scale=alt.Scale(scheme="blues", domain=[0, most or 1])),
        description="about:N",
    )
    dark, light = alt.value("#ffffff"), alt.value("#0b2239")
    text = base.mark_text(fontSize=11, aria=False).encode(
        text=alt.Text("positive_flips:Q", format=".1%"),
        color=alt.condition(alt.datum.positive_flips > 0.55 * most, dark, light),
    )
    chart: alt.LayerChart = (cells + text).properties(width=side * len(names), height=side * len(names))
    return chart


def _pixels(zoo: ZooPairs, order: Sequence[int]) -> alt.Chart:
    """A picture of a pixel a pair, the student's row and the teacher's column."""
    flips_MM = zoo.values["positive_flips"][np.ix_(order, order)]
    shares_MM = np.nan_to_num(flips_MM / (np.nanmax(flips_MM) or 1.0))
    picture = Image.fromarray(_blues(shares_MM))
    out = io.BytesIO()
    # Three pixels a pair: what shows a picture may blur where one pixel meets the next.
    picture.resize((3 * len(order), 3 * len(order)), Image.Resampling.NEAREST).save(out, "png", optimize=True)
    url = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    side = max(520, 2 * len(order))
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(ticks=False, labels=False, grid=False)
    models = f"teacher, {len(order)} models; models with alike errors are neighbours"
    chart: alt.Chart = (
        alt.Chart(row_table([{"place": 0.5, "picture": url}]))
        .mark_image(width=side, height=side, smooth=False, aria=False)
        .encode(
            x=alt.X("place:Q", title=models, scale=scale, axis=axis),
            y=alt.Y("place:Q", title="student", scale=scale, axis=axis),
            url="picture:N",
        )
        .properties(width=side, height=side)
    )
    return chart


def _blues(shares_MM: Floats) -> NDArray[np.uint8]:
    """From white over blue to a dark blue, RGB (M, M, 3)."""
    steps = np.linspace(0, 1, len(BLUES))
    channels = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in BLUES], dtype=float)
    return np.stack([np.interp(shares_MM, steps, channel) for channel in channels.T], axis=-1).astype(np.uint8)


def class_flips(document: Mapping[str, Any], *, noun: str = IMAGE) -> Figure | None:
    """Positive flips of each class as a share of its images, the classes sorted (PAPER Fig. 2a).

    Three pairs: of a weak, an equally strong and a strong teacher; None in a scan of an earlier version.
    """
    rows = class_flip_rows(document, noun=noun)
    if not rows:
        return None
    few = max(row["rank"] for row in rows) <= FEW_CLASSES
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    chart = (
        alt.Chart(row_table(rows))
        .mark_line(point=alt.OverlayMarkDef(size=40, opacity=1) if few else False)
        .encode(
            x=alt.X("rank:Q", title="classes, each pair's own order", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("share:Q", title=f"of the class's {noun}s", axis=number_axis("~%")),
            color=kind_colour({f"{kind} teacher": TEACHERS[kind] for kind in kinds}, field="teacher_kind", columns=3),
            description="about:N",
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    title = "Positive flips of each class, of a weak, an equal and a strong teacher"
    return Figure(name="class-flips", title=title, chart=styled(chart), rows={"rows": rows})


def class_flip_rows(document: Mapping[str, Any], *, noun: str = IMAGE) -> list[Row]:
    """A row a class of each of the three pairs, in falling order of its share of flips."""
    expertise = document.get("expertise") or {"pairs": []}
    name = short_names([model["model"] for model in document["models"]])
    rows: list[Row] = []
    for pair in expertise["pairs"]:
        if pair["kind"] not in TEACHERS:
            continue
        by_share = sorted(pair["classes"], key=lambda one: -one["flips"] / one["samples"])
        rows += [
            {
                "kind": pair["kind"],
                "teacher_kind": f"{pair['kind']} teacher",
                "student": pair["student"],
                "teacher": pair["teacher"],
                "rank": rank,
                "class": one["name"],
                "flips": one["flips"],
                "samples": one["samples"],
                "share": one["flips"] / one["samples"],
                "about": f"{one['name']}: {one['flips']:,} of {counted(one['samples'], noun)} that "
                f"{name[pair['teacher']]} has right and {name[pair['student']]} wrong",
            }
            for rank, one in enumerate(by_share, start=1)
        ]
    return rows


def areas(document: Mapping[str, Any]) -> Figure | None:
    """How much more alike the classes of areas of expertise are than all classes, by their share of flips (Fig. 2b).

    The mean over all pairs and its standard deviation, and the pairs of Fig. 2a; None where nothing is similar: without
    embeddings of class names.
    """
    rows = area_rows(document)
    if not any(row["line"] == ALL_PAIRS for row in rows):
        return None
    lines = list(dict.fromkeys(str(row["line"]) for row in rows))
    colours = {ALL_PAIRS: INK, **{f"{kind} teacher": colour for kind, colour in TEACHERS.items()}}
    shares = list(dict.fromkeys(str(row["share"]) for row in rows))
    base = alt.Chart(row_table(rows)).encode(
        x=alt.X("share:O", title="of a pair's positive flips, at least", sort=shares, axis=alt.Axis(labelAngle=0)),
        color=kind_colour({line: colours[line] for line in lines}, field="line", columns=2),
    )
    spread = (
        base.transform_filter("datum.low !== null")
        .mark_rule(strokeWidth=2, aria=False)
        .encode(y=alt.Y("low:Q", title="more alike than all classes", axis=number_axis("+~%")), y2="high:Q")
    )
    means = base.mark_line(point=alt.OverlayMarkDef(size=60, opacity=1)).encode(y="similarity:Q", description="about:N")
    chart = (zero_line("y") + spread + means).properties(width=WIDTH, height=HEIGHT)
    title = "Similarity of the classes in areas of expertise"
    return Figure(name="areas", title=title, chart=styled(chart), rows={"rows": rows})


def area_rows(document: Mapping[str, Any]) -> list[Row]:
    """A row an area that has a similarity: over all pairs, and of the pairs of Fig. 2a."""
    expertise = document.get("expertise") or {"areas": [], "pairs": []}
    name = short_names([model["model"] for model in document["models"]])
    rows: list[Row] = []
    for area in expertise["areas"]:
        mean, spread = area["mean_similarity"], area["std_similarity"]
        if mean is None:
            continue
        about = f"{area['percent']} % of the flips, {counted(area['similar_pairs'], 'pair')}: {mean:+.1%}"
        rows.append(
            {
                "line": ALL_PAIRS,
                "share": f"{area['percent']} %",
                "similarity": mean,
                "low": None if spread is None else mean - spread,
                "high": None if spread is None else mean + spread,
                "about": about + ("" if spread is None else f" ± {spread:.1%} (standard deviation)"),
            }
        )
    for pair in expertise["pairs"]:
        whose = f"{name[pair['teacher']]} for {name[pair['student']]}"
        rows += [
            {
                "line": f"{pair['kind']} teacher",
                "share": f"{area['percent']} %",
                "similarity": area["similarity"],
                "low": None,
                "high": None,
                "about": f"{whose}: {counted(area['size'], 'class')} with {area['percent']} % of the flips, "
                f"{area['similarity']:+.1%}",
            }
            for area in pair["areas"]
            if pair["kind"] in TEACHERS and area["similarity"] is not None
        ]
    return rows


def _across(key: str, *, field: str | None = None, ends: tuple[float, float] | None = None) -> alt.X:
    return alt.X(
        f"{field or key}:Q",
        title=TITLES[key],
        scale=_scale(key, ends),
        axis=alt.Axis(format=FORMS[key], tickCount=6, labelFlush=False),
    )


def _up(key: str, *, field: str | None = None, ends: tuple[float, float] | None = None) -> alt.Y:
    return alt.Y(f"{field or key}:Q", title=TITLES[key], scale=_scale(key, ends), axis=number_axis(FORMS[key]))


def _scale(key: str, ends: tuple[float, float] | None) -> alt.Scale:
    """From 0 for shares, but of entropies and differences, whose zero is far off or within."""
    if ends is None:
        return alt.Scale(zero=key == "positive_flips")
    return alt.Scale(domain=[0.0 if key == "positive_flips" else float(ends[0]), float(ends[1])], nice=True)
