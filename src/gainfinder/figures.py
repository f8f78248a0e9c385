"""Figures from rows that were computed elsewhere; each is saved with its rows beside it.

Altair (Vega-Lite) draws them: one library for vector files here and for pages with hover.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import altair as alt
import pyarrow as pa
import pyarrow.parquet as pq

from .files import write_atomically

Rows = Sequence[Mapping[str, Any]]
METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's, which colour-blind readers can tell apart."""


def complementary_knowledge(pairs: Rows, *, samples: int) -> alt.Chart:
    """Positive flips against the difference in accuracy, a dot an ordered pair (PAPER Fig. 1a).

    Args:
        pairs: as `Scan.to_dict()["pairs"]`.
        samples: images measured on, for the title.
    """
    return cast(
        alt.Chart,
        alt.Chart(_table(pairs), title=f"Complementary knowledge, {samples:,} images")
        .mark_circle(size=90, color=METHOD_COLOURS[0], opacity=0.8)
        .encode(
            x=alt.X("delta_acc_pp:Q", title="accuracy of teacher − student (pp)"),
            y=alt.Y("positive_flips:Q", title="teacher right, student wrong", axis=alt.Axis(format="%")),
            tooltip=["student:N", "teacher:N", "delta_acc_pp:Q", "positive_flips:Q", "flip_entropy:Q"],
        )
        .properties(width=300, height=240),
    )


def transfer_over_epochs(rows: Rows, *, samples: int) -> alt.LayerChart:
    """Transfer delta after each epoch, a line a method, with a line at zero (PAPER Fig. 11, one teacher).

    Args:
        rows: of `method`, `epoch` (0 for before) and `transfer_delta_pp`.
        samples: images measured on, for the title.
    """
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    zero = alt.Chart(_table([{"zero": 0.0}])).mark_rule(color="#888888", strokeDash=[4, 4]).encode(y="zero:Q")
    lines = (
        alt.Chart(_table(rows), title=f"Transfer delta over epochs, {samples:,} images")
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("transfer_delta_pp:Q", title="transfer delta (pp)"),
            color=alt.Color(
                "method:N",
                title=None,
                scale=alt.Scale(domain=methods, range=list(METHOD_COLOURS[: len(methods)])),
            ),
            tooltip=["method:N", "epoch:Q", "transfer_delta_pp:Q"],
        )
    )
    return cast(alt.LayerChart, (zero + lines).properties(width=300, height=240))


def save_figure(chart: alt.TopLevelMixin, path: Path, rows: Mapping[str, Rows]) -> None:
    """Write a chart (`.svg`, `.pdf` or `.png` by the ending) and its rows beside it as `NAME-KEY.parquet`."""
    write_atomically(path, lambda partial: chart.save(str(partial), format=_format(path), ppi=144))
    for key, table in rows.items():
        beside = path.with_name(f"{path.stem}-{key}.parquet")
        write_atomically(beside, lambda partial, table=table: pq.write_table(_table(table), partial))  # type: ignore[misc]


def _format(path: Path) -> Literal["svg", "pdf", "png"]:
    kinds: dict[str, Literal["svg", "pdf", "png"]] = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
    return kinds[path.suffix]


def _table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])
