"""Predictions in a file in place of the model that made them: a teacher whose logits were computed before.

Shapes: N samples, n of them looked up, K values of each in the file, C classes.
"""

import functools
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..classes import LabelMap, MappedLogits
from ..errors import BadReference, DataError
from ..files import file_problem, user_path
from ..predictions import Columns, read_columns
from ..references import suggest, whole_number
from .assembly import read_classes
from .configs import MOST
from .reference import ModelRef

_log = logging.getLogger("gainfinder")

LOWEST_LOG_PROB = math.log(1e-8)
"""Smallest logit that a probability becomes: finite, so that divergences stay finite."""
TOLERANCE = 1e-3
"""How far above 1 the probabilities of a row may sum."""
LEAST_SUM = 0.9
"""Least sum of the probabilities of all classes: rounding loses less; below it, columns are missing."""

_SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionTable:
    """A model's logits for the images of a file, by sample id.

    Attributes:
        reference: the model reference it was loaded from.
        ids: N sample ids.
        values: float32 (N, K): in a full table the logits, in a top-k one the log-probabilities of the classes listed.
        classes: int32 (N, K), the classes listed; None in a full table.
        rest: float32 (N,), the log-probability of each class that is not listed; None in a full table.
        outputs: number of classes in the file.
        num_classes: C, number of logits that `lookup` returns.
        class_names: class names in the order of the logits, or None where there are none.
        digest: hex digest of the file.
        label_map: map from the file's classes to those that `lookup` returns; None for the file's own.
    """

    reference: str
    ids: tuple[str, ...]
    values: Tensor
    classes: Tensor | None
    rest: Tensor | None
    outputs: int
    num_classes: int
    class_names: tuple[str, ...] | None
    digest: str
    label_map: LabelMap | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_top_k(self) -> bool:
        """Whether the file lists only the first classes of each image."""
        return self.classes is not None

    def missing(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Those of the ids that the table has no row for, in their order."""
        return tuple(name for name in ids if name not in self._rows)

    def lookup(self, ids: Sequence[str]) -> Tensor:
        """Logits, float32 (n, C), finite, of the images of these ids.

        Raises:
            DataError: the table has no row for some of them.
        """
        return self.lookup_and_kept(ids).logits

    def lookup_and_kept(self, ids: Sequence[str]) -> MappedLogits:
        """Logits as `lookup` gives them, and the share (n,) of each image's probability that falls on their classes.

        Raises:
            DataError: the table has no row for some of them.
        """
        self.require(ids)
        logits = self._dense(torch.tensor([self._rows[name] for name in ids], dtype=torch.int64))
        return MappedLogits(logits, torch.ones(len(ids))) if self.label_map is None else self.label_map.apply(logits)

    def require(self, ids: Sequence[str]) -> None:
        """Check that the table has predictions for all of the ids.

        Raises:
            DataError: it has no row for some of them.
        """
        missing = self.missing(ids)
        if missing:
            shown = ", ".join(map(repr, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
            raise DataError(
                f"{self.reference} has no predictions for {len(missing)} of {len(ids)} images: {shown}; its own ids "
                f"are like {self.ids[0]!r}: predict the very images that are learned from and measured on"
            )

    def with_class_order(self, order: tuple[int, ...], names: tuple[str, ...] | None) -> "PredictionTable":
        """The same table, its logits reordered: logit k is what logit `order[k]` was."""
        if order == tuple(range(self.num_classes)):
            return replace(self, class_names=names)
        return self.with_label_map(LabelMap.from_order(order, outputs=self.num_classes), names)

    def with_label_map(self, label_map: LabelMap, names: tuple[str, ...] | None) -> "PredictionTable":
        """The same table with logits of other classes, computed from its present logits; see `LabelMap.apply`."""
        combined = label_map if self.label_map is None else self.label_map.then(label_map)
        return replace(self, label_map=combined, num_classes=combined.num_classes, class_names=names)

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def _dense(self, rows: Tensor) -> Tensor:
        if self.classes is None or self.rest is None:
            return self.values[rows]
        logits = self.rest[rows, None].repeat(1, self.outputs)
        return logits.scatter_(1, self.classes[rows].long(), self.values[rows])


def load_table(ref: ModelRef) -> PredictionTable:
    """Read a file of predictions, as `gainfinder predict` writes it or by hand.

    Parquet: `id` and a list a row, `logits`, `probs` or `log_probs`, of all classes in order; or, beside it, `classes`,
    the indices of those that are listed. CSV: `id`, then `logit:NAME` or `prob:NAME` for each class, or `class_1`,
    `prob_1`, `class_2`, …; numbers from 0 stand for classes without names. A column `label` is not read.

    A full table's logits are taken as they are, its probabilities as their logarithms. Of a top-k table, what the
    listed probabilities leave of 1 is spread evenly over the other classes; with `logits` the other classes
    get no probability. No log-probability falls below that of 1e-8.

    Raises:
        BadReference: a setting cannot be used.
        DataError: the file is missing, or no such file, or its numbers cannot be right.
    """
    reference = str(ref)
    path = user_path(ref.name, what="table", error=DataError)
    if (problem := file_problem(path)) is not None:
        raise DataError(
            f"{reference}: the file {str(path)!r} {problem}: expected a .parquet or .csv file of predictions"
        )
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    columns = read_columns(path)
    names = _names(columns, read_classes(ref.query, reference=reference), reference)
    outputs = _count(columns, names, ref.setting("num_classes"), reference)
    classes = None if columns.classes is None else _listed(columns, columns.classes, names, outputs)
    _check_values(columns)
    if columns.kind == "logits" and classes is None and _are_probabilities(columns.values):
        _log.warning(
            "%s: its logits are probabilities in all rows (0 to 1, sum 1), and are taken as logits as the columns say; "
            "call the columns prob:NAME, of Parquet probs, if they are those of a softmax",
            reference,
        )
    values, rest = _log_probs(columns, outputs)
    return PredictionTable(
        reference=reference,
        ids=columns.ids,
        values=torch.from_numpy(values),
        classes=None if classes is None else torch.from_numpy(classes),
        rest=None if rest is None else torch.from_numpy(rest),
        outputs=outputs,
        num_classes=outputs,
        class_names=names,
        digest=digest,
    )


def _are_probabilities(values: NDArray[Any]) -> bool:
    if values.ndim != 2 or values.shape[1] < 2:
        return False
    return bool(((values >= 0) & (values <= 1)).all() and (abs(values.sum(axis=1) - 1) < 1e-3).all())


def _names(columns: Columns, given: tuple[str, ...] | None, reference: str) -> tuple[str, ...] | None:
    own = columns.class_names
    if given is None:
        return own
    if columns.names_in_header and own is not None and own != given and set(own) == set(given):
        raise BadReference(
            f"classes= in {reference!r} has another order than the file, whose columns say their classes: leave it out"
        )
    return given


def _count(columns: Columns, names: tuple[str, ...] | None, requested: str | None, reference: str) -> int:
    """The number of classes, on which file and reference must agree."""
    wanted = (
        None if requested is None else whole_number(requested, what=f"num_classes in {reference!r}", least=1, most=MOST)
    )
    found = {
        "the file": columns.values.shape[1] if columns.classes is None else columns.num_classes,
        "the class names": None if names is None else len(names),
        "num_classes=": wanted,
    }
    known = {source: count for source, count in found.items() if count is not None}
    if not known:
        raise BadReference(
            f"{reference}: the file lists some classes of each image and does not say how many there are: add "
            "?classes= or ?num_classes= to the reference"
        )
    if len(set(known.values())) > 1:
        said = ", ".join(f"{count} by {source}" for source, count in known.items())
        raise BadReference(f"{reference}: the number of classes is {said}: expected one number")
    return next(iter(known.values()))


def _listed(columns: Columns, classes: NDArray[Any], names: tuple[str, ...] | None, outputs: int) -> NDArray[np.int32]:
    """The classes listed, as indices (N, K)."""
    if classes.shape[1] > outputs:
        raise DataError(
            f"{columns.where}: {classes.shape[1]} classes a row: expected at most {outputs}, the number there are"
        )
    if classes.dtype.kind == "O":
        classes = _indices(columns, classes, names, outputs)
    wrong = (classes < 0) | (classes >= outputs)
    if wrong.any():
        row, rank = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(f"{columns.row(row)}: class {classes[row, rank]} is out of range: expected 0 to {outputs - 1}")
    ordered = np.sort(classes, axis=1)
    twice = ordered[:, 1:] == ordered[:, :-1]
    if twice.any():
        row, rank = (int(i) for i in np.argwhere(twice)[0])
        shown = ordered[row, rank] if names is None else repr(names[ordered[row, rank]])
        raise DataError(f"{columns.row(row)}: class {shown} is listed twice: expected each class once")
    return classes.astype(np.int32)


def _indices(columns: Columns, texts: NDArray[Any], names: tuple[str, ...] | None, outputs: int) -> NDArray[np.int64]:
    """Texts as class indices: a name where there is such a name, else a number."""
    unique, inverse = np.unique(texts.astype(str), return_inverse=True)
    index_of = {name: index for index, name in enumerate(names or ())}
    found = [index_of.get(text.strip(), _index(text.strip())) for text in unique.tolist()]
    indices = np.array(found, dtype=np.int64)[inverse].reshape(texts.shape)
    if -1 in found:
        row, column = (int(i) for i in np.argwhere(indices == -1)[0])
        text = str(texts[row, column])
        problem = (
            f"class {text!r} is none of the {outputs} classes{suggest(text, names or ())}"
            if text
            else "a class is empty"
        )
        remedy = "an index from 0, or a name of ?classes=" if names is None else "one of the class names, or an index"
        raise DataError(f"{columns.row(row)}: {problem}; expected {remedy}")
    return indices


def _index(text: str) -> int:
    """The number that a class's text spells; -1 where it spells none that could be one."""
    return int(text) if text.isdecimal() and len(text) <= len(str(MOST)) else -1


def _check_values(columns: Columns) -> None:
    """Refuse values that are out of range for their kind."""
    values, kind = columns.values, columns.kind
    # a probability of 0, or a class that a model masks, has the logarithm −inf
    wrong = ~np.isfinite(values) if kind == "probs" else np.isnan(values) | (values == np.inf)
    _refuse(columns, wrong, lambda value: f"a value is {value:g} or missing: expected finite {kind}")
    nothing = (values == -np.inf).all(axis=1)
    _refuse(columns, nothing, lambda _: f"all its {kind} are -inf: expected a finite one, of the class that it answers")
    if kind == "probs":
        _refuse(columns, values < 0, lambda value: f"a probability is {value:g}: expected 0 to 1; are these logits?")
    if kind == "logits":
        return
    sums = (np.exp(values) if kind == "log_probs" else values).sum(axis=1, dtype=np.float64)
    expected = "expected at most 1" if columns.classes is not None else "expected 1"
    _refuse(columns, sums > 1 + TOLERANCE, lambda row: f"its probabilities sum to {sums[row]:.4g}: {expected}")
    if columns.classes is None:
        remedy = "list classes and probabilities where some are left out"
        _refuse(
            columns, sums < LEAST_SUM, lambda row: f"its probabilities sum to {sums[row]:.4g}: {expected}; {remedy}"
        )


def _refuse(columns: Columns, wrong: NDArray[np.bool_], say: Callable[[Any], str]) -> None:
    """Name the first of the values, or rows, that are wrong, and how many rows are."""
    if not wrong.any():
        return
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    rows = int((wrong if wrong.ndim == 1 else wrong.any(axis=1)).sum())
    more = f" (and {rows - 1} more rows)" if rows > 1 else ""
    raise DataError(f"{columns.row(first[0])}: {say(first[0] if wrong.ndim == 1 else columns.values[first])}{more}")


def _log_probs(columns: Columns, outputs: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The logits (N, K) of the values, and of a top-k table the logit (N,) of every other class."""
    values = columns.values
    if columns.classes is None and columns.kind == "logits":
        return values, None
    if columns.kind == "logits":
        logits = np.maximum(torch.from_numpy(values).log_softmax(dim=1).numpy(), LOWEST_LOG_PROB)
        return logits, np.full(len(values), LOWEST_LOG_PROB, dtype=np.float32)
    probs = values if columns.kind == "probs" else np.exp(values)
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(probs) if columns.kind == "probs" else values, np.float32(LOWEST_LOG_PROB))
    if columns.classes is None:
        return logits, None
    left = 1 - probs.sum(axis=1, dtype=np.float64)
    each = left / max(outputs - values.shape[1], 1)
    return logits, np.log(np.maximum(each, math.exp(LOWEST_LOG_PROB))).astype(np.float32)
