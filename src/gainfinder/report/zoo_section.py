"""What a page shows of a scan, ready to be laid out: tables, figures, and the numbers for its script."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from . import rows, zoo_charts
from .charts import Figure
from .records import ScanRecord
from .zoo_pairs import ZooPairs, first_pairs, page_data, zoo_pairs

PAGE_ROWS = 100
"""Pairs that the table on a page shows at a time, and those that stand in the page for readers without scripts."""
DRAWN_BY_SCRIPT = ("matrix", "knowledge", "entropy", "entropy-by-flips")
"""Figures that the page's script draws from the numbers of all pairs."""

ON_THE_MAP = {
    "positive_flips": "positive flips",
    "error_consistency": "consistency of errors (κ)",
    "error_overlap": "errors in common",
    "delta_acc_pp": "difference in accuracy",
    "flip_entropy": "entropy of flips",
    "headroom_pp": "headroom",
}
"""Measures that colour the map, and what they are called there."""


@dataclass(frozen=True, kw_only=True)
class ScanSection:
    """A scan.

    Attributes:
        title: title of the page.
        noun: what a sample is: `image` or `text`.
        document: the scan, as `scan.json` holds it.
        model_rows: name, reference and accuracy of each model, the strongest first, what it could learn and from
            whom, and what it could win from all the others together.
        heads: heads of the table of pairs.
        pair_rows: its first rows, as text, those with the most positive flips.
        pair_count: number of ordered pairs.
        page_rows: rows of that table at a time.
        has_entropy: whether any pair has positive flips.
        map_measures: key and name of the measures that the map can show.
        orders: names of the orders that models on the map can have.
        data: all pairs, as JSON for the page's script.
        figures: all figures, as they are written into files.
    """

    title: str
    noun: str
    document: Mapping[str, Any]
    model_rows: tuple[dict[str, Any], ...]
    heads: tuple[str, ...]
    pair_rows: tuple[tuple[str, ...], ...]
    pair_count: int
    page_rows: int
    has_entropy: bool
    map_measures: tuple[tuple[str, str], ...]
    orders: tuple[str, ...]
    data: str
    figures: tuple[Figure, ...]

    @property
    def drawn(self) -> list[Figure]:
        """The figures that stand in the page as they are."""
        return [figure for figure in self.figures if figure.name not in DRAWN_BY_SCRIPT]


def scan_section(record: ScanRecord) -> ScanSection:
    """The section of a scan of labelled images.

    Raises:
        RunFolderError: the pairs are not those of the scan's models.
    """
    document, zoo = record.document, zoo_pairs(record.document, record.pairs)
    models = [_about_model(document["models"][place], zoo, place) for place in zoo.strongest_first()]
    keys = [measure.key for measure in zoo.measures]
    return ScanSection(
        title=f"What {len(models)} models know that each other does not",
        noun=record.noun,
        document=document,
        model_rows=tuple(models),
        heads=("student", "teacher", *(measure.head for measure in zoo.measures)),
        pair_rows=tuple(first_pairs(zoo, most=PAGE_ROWS)),
        pair_count=len(zoo.names) * (len(zoo.names) - 1),
        page_rows=PAGE_ROWS,
        has_entropy="flip_entropy" in keys,
        map_measures=tuple((key, name) for key, name in ON_THE_MAP.items() if key in keys),
        orders=tuple(zoo.orders()),
        data=page_data(zoo),
        figures=tuple(_figures(record, zoo)),
    )


def _figures(record: ScanRecord, zoo: ZooPairs) -> list[Figure]:
    @cache
    def pairs() -> rows.Rows:
        return rows.pair_rows({**record.document, "pairs": record.pairs.to_pylist()})

    across, flips, entropy = "delta_acc_pp", "positive_flips", "flip_entropy"
    found = [
        zoo_charts.flips_matrix(zoo, pairs),
        zoo_charts.scatter(
            zoo, pairs, x=across, y=flips, name="knowledge", title="Positive flips against the difference in accuracy"
        ),
    ]
    if not np.isnan(zoo.values[entropy]).all():
        title = "Entropy of positive flips over classes against"
        found += [
            zoo_charts.scatter(
                zoo, pairs, x=across, y=entropy, name="entropy", title=f"{title} the difference in accuracy"
            ),
            zoo_charts.scatter(
                zoo, pairs, x=flips, y=entropy, name="entropy-by-flips", title=f"{title} positive flips"
            ),
        ]
    by_class = (zoo_charts.class_flips(record.document, noun=record.noun), zoo_charts.areas(record.document))
    return [*found, *(figure for figure in by_class if figure is not None)]


def _about_model(model: Mapping[str, Any], zoo: ZooPairs, place: int) -> dict[str, Any]:
    flips_M = zoo.values["positive_flips"][place]
    teacher = int(np.nanargmax(flips_M))
    return {
        "name": zoo.names[place],
        "reference": zoo.references[place],
        "accuracy": model["accuracy"],
        **{key: model.get(key) for key in rows.CEILINGS},
        "teacher": zoo.names[teacher],
        "positive_flips": float(flips_M[teacher]),
    }
