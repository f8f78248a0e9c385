"""All ordered pairs of a scan as matrices of measures, and as the columns of numbers that its page holds.

Shapes: M models, P = M · (M − 1) ordered pairs. In a matrix (M, M) the row is the student, the column the teacher.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import RunFolderError
from ..metrics import order_alike
from ..references import short_names

Floats = NDArray[np.float64]
Form = Literal["percent", "pp", "number"]
DIGITS: Mapping[Form, int] = {"percent": 2, "pp": 2, "number": 3}
"""Digits after the point that a page shows of a measure."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of pairs on a page.

    Attributes:
        key: its name in a scan (`ScannedPair`).
        head: head of its column.
        form: how it is written: a share as percent, percentage points with their sign, or a plain number.
    """

    key: str
    head: str
    form: Form

    def text(self, value: float) -> str:
        """A value as a page shows it; a dash for NaN."""
        if np.isnan(value):
            return "–"
        digits = DIGITS[self.form]
        return f"{value:{'+' if self.form == 'pp' else ''}.{digits}{'%' if self.form == 'percent' else 'f'}}"

    def shown(self, values: Floats) -> list[int | None]:
        """Values in units of the last digit shown, each rounded as `text` rounds it; None for NaN."""
        digits = DIGITS[self.form]
        scaled = (100 * values if self.form == "percent" else values) * 10.0**digits
        near = np.rint(np.nan_to_num(scaled)).astype(np.int64).tolist()
        # Halves are rounded by the decimal number that is written, which NumPy does not do.
        for place in np.flatnonzero(np.abs(scaled % 1 - 0.5) < 1e-6).tolist():
            near[place] = int(self.text(float(values[place])).strip("%").replace(".", ""))
        return [None if missing else one for one, missing in zip(near, np.isnan(values).tolist(), strict=True)]


MEASURES = (
    Measure(key="delta_acc_pp", head="Δ accuracy pp", form="pp"),
    Measure(key="positive_flips", head="positive flips", form="percent"),
    Measure(key="negative_flips", head="negative flips", form="percent"),
    Measure(key="flip_entropy", head="entropy, nats", form="number"),
    Measure(key="error_overlap", head="errors in common", form="percent"),
    Measure(key="error_consistency", head="κ of errors", form="number"),
    Measure(key="oracle_accuracy", head="either right", form="percent"),
    Measure(key="routed_accuracy", head="the surer", form="percent"),
    Measure(key="mean_accuracy", head="their mean", form="percent"),
    Measure(key="headroom_pp", head="headroom pp", form="pp"),
)
SORTED_BY = "positive_flips"
"""Measure that a page sorts the pairs by at first, the most first."""
TITLES = {
    "delta_acc_pp": "accuracy of teacher − student (pp)",
    "positive_flips": "teacher right, student wrong",
    "flip_entropy": "entropy of flips (nats)",
}
"""What measures are called along an axis."""


@dataclass(frozen=True, kw_only=True)
class ZooPairs:
    """What is measured of all ordered pairs of a zoo.

    Attributes:
        references: references of the M models, in the order of the scan.
        names: their short names.
        accuracy_M: share of all images that each has right.
        measures: the measures that there are.
        values: a matrix for each of them by its key, (M, M); NaN where there is none, as on the diagonal.
    """

    references: tuple[str, ...]
    names: tuple[str, ...]
    accuracy_M: Floats
    measures: tuple[Measure, ...]
    values: Mapping[str, Floats]

    def alike(self) -> tuple[int, ...]:
        """The models in an order in which those with alike errors stand side by side."""
        return order_alike(self.values["error_consistency"])

    def strongest_first(self) -> tuple[int, ...]:
        """The models by falling accuracy."""
        return tuple(int(place) for place in np.argsort(-self.accuracy_M, kind="stable"))

    def orders(self) -> dict[str, tuple[int, ...]]:
        """Orders of the models on a map of all pairs, by what they are called."""
        return {"similar errors": self.alike(), "accuracy": self.strongest_first()}

    def flat(self, key: str) -> Floats:
        """A measure of all pairs, (P,): the first student's, with each teacher, then the second's."""
        return self.values[key][~np.eye(len(self.names), dtype=bool)]


def zoo_pairs(document: Mapping[str, Any], table: pa.Table) -> ZooPairs:
    """The measures of a scan's pairs; errors in common are worked out where an earlier version did not write them.

    Args:
        document: the scan, as `read_scan` gives it.
        table: its pairs, as `read_pairs` gives them.

    Raises:
        RunFolderError: the pairs are not those of the scan's models.
    """
    references = tuple(str(model["model"]) for model in document["models"])
    name = short_names(references)
    accuracy_M = np.array([float(model["accuracy"]) for model in document["models"]])
    rows = _places(table, references)
    values = {
        measure.key: _matrix(rows, table[measure.key], models=len(references))
        for measure in MEASURES
        if measure.key in table.column_names
    }
    if "error_consistency" not in values:
        values |= _of_errors(accuracy_M, values["positive_flips"])
    return ZooPairs(
        references=references,
        names=tuple(name[reference] for reference in references),
        accuracy_M=accuracy_M,
        measures=tuple(one for one in MEASURES if one.key in values and not np.isnan(values[one.key]).all()),
        values=values,
    )


def first_pairs(zoo: ZooPairs, *, most: int) -> list[tuple[str, ...]]:
    """The pairs with the most positive flips as rows of text: student, teacher and the measures."""
    flips = next(measure for measure in MEASURES if measure.key == SORTED_BY)
    shown = flips.shown(zoo.flat(flips.key))
    first = sorted(range(len(shown)), key=lambda pair: -(shown[pair] or 0))[:most]
    places = [divmod(pair, len(zoo.names) - 1) for pair in first]
    return [
        (
            zoo.names[s],
            zoo.names[t],
            *(measure.text(float(zoo.values[measure.key][s, t])) for measure in zoo.measures),
        )
        for s, other in places
        for t in (other + (other >= s),)
    ]


def page_data(zoo: ZooPairs) -> str:
    """The zoo as JSON for the script of its page, which it may stand in.

    Measures are columns of whole numbers in units of the last digit shown, null where there is none; their place tells
    the pair, see `ZooPairs.flat`. So 301 models with 90,300 pairs take some 5 MB, and are read at once.
    """
    document = {
        "models": [
            {"name": name, "reference": reference} for name, reference in zip(zoo.names, zoo.references, strict=True)
        ],
        "orders": zoo.orders(),
        "titles": TITLES,
        "sorted_by": SORTED_BY,
        "measures": [
            {
                "key": measure.key,
                "head": measure.head,
                "form": measure.form,
                "digits": DIGITS[measure.form],
                "values": measure.shown(zoo.flat(measure.key)),
            }
            for measure in zoo.measures
        ],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _places(table: pa.Table, references: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place of each row in a matrix."""
    place = {reference: number for number, reference in enumerate(references)}
    found = []
    for side in ("student", "teacher"):
        column = table[side].combine_chunks()
        in_pairs = column.dictionary.to_pylist()
        if strange := [name for name in in_pairs if name not in place]:
            raise RunFolderError(f"the scan has pairs of {strange[0]!r}, which is none of its models")
        place_of = np.array([place[name] for name in in_pairs], dtype=np.int64)
        found.append(place_of[column.indices.to_numpy()])
    return found[0], found[1]


def _matrix(rows: tuple[NDArray[np.int64], NDArray[np.int64]], column: pa.ChunkedArray, *, models: int) -> Floats:
    matrix_MM = np.full((models, models), np.nan)
    matrix_MM[rows] = column.to_numpy()
    return matrix_MM


def _of_errors(accuracy_M: Floats, positive_flips_MM: Floats) -> dict[str, Floats]:
    """Overlap and consistency of errors, as `ZooFlips` has them, from shares."""
    either_right_MM = accuracy_M[:, None] + positive_flips_MM
    both_right_MM = accuracy_M - positive_flips_MM
    agreed_MM = 1 - positive_flips_MM - positive_flips_MM.T
    expected_MM = np.outer(accuracy_M, accuracy_M) + np.outer(1 - accuracy_M, 1 - accuracy_M)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "error_overlap": np.where(both_right_MM < 1, (1 - either_right_MM) / (1 - both_right_MM), np.nan),
            "error_consistency": np.where(expected_MM < 1, (agreed_MM - expected_MM) / (1 - expected_MM), np.nan),
        }
