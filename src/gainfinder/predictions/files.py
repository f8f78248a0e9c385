"""Files of predictions, the only reader and writer of them: Parquet and CSV, of all classes or the most probable.

`write_predictions` and `read_predictions` keep a run's predictions as they are. `read_columns` takes what other
programs write as well, checked for form; `models.from_table` makes a teacher of it.

Shapes: N samples, C classes, K values of each sample, which are one a class, or those of the K classes listed for it.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..files import parse_json, write_atomically
from .soundness import unusable
from .value import IMAGE, NOUNS, Predictions, TopPredictions

Kind = Literal["logits", "probs", "log_probs"]

_KINDS: tuple[Kind, ...] = ("logits", "probs", "log_probs")
_FULL = re.compile(r"(?P<kind>logit|prob):(?P<name>.+)", re.DOTALL)
_RANKED = re.compile(r"(?P<kind>class|prob)_(?P<rank>[1-9]\d*)")
_METADATA = "gainfinder"
_BLOCK_BYTES = 1 << 25  # a block has to hold a whole line
_FORMS = "logit:NAME or prob:NAME for each class, or class_1,prob_1,class_2,prob_2,…"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a file of predictions.

    Attributes:
        where: the file, for messages.
        ids: N sample ids, no two alike.
        kind: kind of the values.
        values: values of that kind, float32 (N, K); NaN where one is missing.
        classes: int (N, K), the class of each value; strings where the file has strings; None where K is all classes.
        class_names: class names in class order, or None where the file names none.
        num_classes: number of classes, or None where the file does not state it.
        names_in_header: whether `class_names` come from the column names.
        target: int64 (N,), the labels in a file of gainfinder's own; None of other files.
        about: metadata on the model and the samples, in a file of gainfinder's own; empty for other files.
    """

    where: str
    ids: tuple[str, ...]
    kind: Kind
    values: NDArray[np.float32]
    classes: NDArray[Any] | None = None
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    names_in_header: bool = False
    target: NDArray[np.int64] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What a sample is, as far as the file says it."""
        found = self.about.get("noun")
        return found if found in NOUNS else IMAGE

    def row(self, row: int) -> str:
        """A row, for messages."""
        return f"{self.where}: row {row} (id {self.ids[row]!r})"


def write_predictions(predictions: Predictions | TopPredictions, path: Path) -> None:
    """Write predictions atomically, as CSV where `path` ends in .csv, else as Parquet; `table:PATH` reads both.

    Parquet has `id`, `logits` (list of float32) and, where there are labels, `label`; class names and their number
    are in its metadata. CSV has `id`, `label` and a column `logit:NAME` a class.

    Of the most probable classes Parquet has `classes` and `log_probs` in place of `logits`; CSV `class_1`, `prob_1`,
    `class_2`, `prob_2` and so on. Classes go by name in CSV, by index where they have no names or two of one name.

    Args:
        predictions: the predictions to write, of all classes or the most probable.
        path: name of the file.

    Raises:
        RunFolderError: it cannot be written.
    """
    names, count = predictions.class_names, predictions.num_classes
    if path.suffix.lower() == ".csv":
        texts = names if names is not None and len(set(names)) == len(names) else range(count)
        columns = _csv_columns(predictions, [str(text) for text in texts])
        table = pa.table({**_sample_columns(predictions), **columns})
        write_atomically(path, lambda partial: pyarrow.csv.write_csv(table, partial))
        return
    about = {
        "model": predictions.model,
        "class_names": names,
        "num_classes": count,
        "broken": predictions.broken,
        "dropped_mass": predictions.dropped_mass,
        **({} if predictions.noun == IMAGE else {"noun": predictions.noun}),
    }
    samples = _sample_columns(predictions)
    columns = {"id": samples.pop("id"), **_list_columns(predictions), **samples}
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(about)})
    write_atomically(path, lambda partial: pq.write_table(table, partial))


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote as Parquet, all classes.

    Raises:
        DataError: the file is not such a file, or lists the first classes only.
    """
    try:
        found = _read_parquet(path)
    except DataError as error:
        raise DataError(f"{path}: not a file of predictions as gainfinder writes it: {error}") from error
    if found.classes is not None:
        raise DataError(
            f"{path}: lists the first classes of each {found.noun} only, expected the logits of all: write it without "
            "`top_k`, or use it as the teacher table:PATH"
        )
    logits = torch.from_numpy(found.values)
    if wrong := int(unusable(logits).sum()):
        raise DataError(
            f"{path}: the logits of {wrong} of {len(logits)} {found.noun}s are NaN or infinite: expected finite ones; "
            "is the file damaged?"
        )
    about = found.about
    if found.kind != "logits" or not isinstance(about.get("model"), str) or not isinstance(about.get("broken"), list):
        raise DataError(f"{path}: not a file of predictions as gainfinder writes it: it does not say of which model")
    return Predictions(
        model=about["model"],
        ids=found.ids,
        logits=logits,
        target=None if found.target is None else torch.from_numpy(found.target),
        class_names=found.class_names,
        broken=tuple(about["broken"]),
        dropped_mass=about.get("dropped_mass", 0.0),
        noun=found.noun,
    )


def read_columns(path: Path) -> Columns:
    """Read a file of predictions: `.csv`, or else Parquet.

    Raises:
        DataError: it is neither, or its columns are not those of predictions.
    """
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)


def _read_parquet(path: Path) -> Columns:
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.names
            kinds = [kind for kind in _KINDS if kind in found]
            if "id" not in found or len(kinds) != 1:
                raise DataError(
                    f"{path}: its columns are {', '.join(found) or 'none'}: expected `id`, one of {', '.join(_KINDS)}, "
                    "and `classes` where only the first classes are listed"
                )
            twice = next((name for name in ("id", "classes", "label", *kinds) if found.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}: the column {twice!r} is there twice: expected it once")
            names, count, about = _about(file.schema_arrow.metadata)
            own = ["label"] if about else []
            table = file.read(columns=[name for name in ("id", "classes", kinds[0], *own) if name in found])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a Parquet file, or damaged ({str(error).splitlines()[0]}); a file of predictions is .parquet "
            "or .csv"
        ) from error
    ids = _ids(table["id"], str(path))
    classes = _matrix(table["classes"], "classes", ids, str(path)) if "classes" in found else None
    values = _matrix(table[kinds[0]], kinds[0], ids, str(path)).astype(np.float32, copy=False)
    if classes is not None and classes.shape != values.shape:
        raise DataError(
            f"{path}: {classes.shape[1]} classes a row, but {values.shape[1]} {kinds[0]}: expected one each"
        )
    if classes is not None and classes.dtype.kind not in "iu":
        raise DataError(f"{path}: column `classes` holds {classes.dtype}: expected class indices, integers from 0")
    if classes is None and names is not None and len(names) != values.shape[1]:
        raise DataError(f"{path}: {values.shape[1]} {kinds[0]} a row, but {len(names)} class names in its metadata")
    return Columns(
        where=str(path),
        ids=ids,
        kind=kinds[0],
        values=values,
        classes=classes,
        class_names=names,
        num_classes=count,
        target=np.array(table["label"].to_numpy(), dtype=np.int64) if "label" in table.column_names else None,
        about=about,
    )


def _about(metadata: dict[bytes, bytes] | None) -> tuple[tuple[str, ...] | None, int | None, dict[str, Any]]:
    """Class names, their number and all metadata that `write_predictions` wrote; nothing for other programs' files."""
    try:
        about = parse_json((metadata or {}).get(_METADATA.encode(), b"{}"))
        names = about.get("class_names")
        count = about.get("num_classes")
        names = None if names is None else tuple(map(str, names))
    except (ValueError, AttributeError, TypeError):
        return None, None, {}
    return names, count if isinstance(count, int) else None, about


def _matrix(column: Any, name: str, ids: Sequence[str], where: str) -> NDArray[Any]:
    """A column of lists, all of one length, as (N, K)."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise DataError(f"{where}: column `{name}` is of type {kind}: expected lists of numbers")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    ragged = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
    if len(ragged):
        row = int(ragged[0])
        raise DataError(
            f"{where}: row {row} (id {ids[row]!r}) has {lengths[row]} {name}: expected "
            f"{lengths[0] or 'some'} as in row 0; write as many in each row"
        )
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(parts).reshape(len(lengths), -1)


def _read_csv(path: Path) -> Columns:
    header = _header(path)
    if "id" not in header:
        raise DataError(
            f"{path}: no column `id`, its columns are {_shown(header)}; expected id, then {_FORMS}, separated by commas"
        )
    full = {name: match for name in header if (match := _FULL.fullmatch(name))}
    ranked = {name: match for name in header if (match := _RANKED.fullmatch(name))}
    unknown = [name for name in header if name not in {"id", "label", *full, *ranked}]
    kinds = sorted({match["kind"] for match in full.values()})
    if unknown or bool(full) == bool(ranked) or len(kinds) > 1:
        mixed = "both forms" if full and ranked else " and ".join(kinds) if len(kinds) > 1 else "no predictions"
        got = f"does not know the column {unknown[0]!r}" if unknown else f"has {mixed}"
        raise DataError(f"{path}: a file of predictions {got}: expected id, then {_FORMS}, and nothing else but label")
    if ranked:
        return _ranked_csv(path, header, ranked)
    table = _csv_table(path, header, {name: pa.float32() for name in full})
    names, columns = _header_order({name: match["name"].strip() for name, match in full.items()}, path)
    return Columns(
        where=str(path),
        ids=_ids(table["id"], str(path)),
        kind="logits" if kinds == ["logit"] else "probs",
        values=_stacked(table, columns),
        class_names=names,
        names_in_header=True,
    )


def _ranked_csv(path: Path, header: Sequence[str], ranked: dict[str, re.Match[str]]) -> Columns:
    ranks = range(1, len(ranked) // 2 + 1)
    classes, probs = ([f"{kind}_{rank}" for rank in ranks] for kind in ("class", "prob"))
    if set(ranked) != {*classes, *probs}:
        raise DataError(
            f"{path}: the columns {_shown(list(ranked))} are not whole: expected class_1,prob_1 to class_K,prob_K, "
            "each once"
        )
    table = _csv_table(path, header, {**dict.fromkeys(classes, pa.string()), **dict.fromkeys(probs, pa.float32())})
    texts = [table[name].to_numpy() for name in classes]
    return Columns(
        where=str(path),
        ids=_ids(table["id"], str(path)),
        kind="probs",
        values=_stacked(table, probs),
        classes=np.stack(texts, axis=1),
    )


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    if len(set(header)) < len(header):
        twice = next(name for position, name in enumerate(header) if name in header[:position])
        raise DataError(f"{path}: the column {twice!r} is there twice: expected it once")
    return header


def _csv_table(path: Path, header: Sequence[str], types: dict[str, Any]) -> Any:
    options = {
        "parse_options": pyarrow.csv.ParseOptions(),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={**types, "id": pa.string()}, include_columns=["id", *types], strings_can_be_null=False
        ),
    }

    def read(use_threads: bool) -> Any:
        how = pyarrow.csv.ReadOptions(
            column_names=list(header), skip_rows=1, block_size=_BLOCK_BYTES, use_threads=use_threads
        )
        return pyarrow.csv.read_csv(path, read_options=how, **options)

    try:
        return read(use_threads=True)
    except pa.ArrowException:
        pass
    try:
        return read(use_threads=False)  # only then are rows counted in the message
    except pa.ArrowException as error:
        if "Empty CSV" in str(error):
            raise DataError(f"{path}: it holds no row: expected a row for each image") from error
        raise DataError(f"{path}: cannot be read as CSV: {str(error).splitlines()[0]}") from error


def _header_order(names: dict[str, str], path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Class names in class order, and their columns; numbers that count the classes from 0 are put in that order."""
    if len(set(names.values())) < len(names):
        raise DataError(f"{path}: two columns are of one class: expected one a class")
    columns = list(names)
    if sorted(names.values()) == sorted(map(str, range(len(names)))):
        columns.sort(key=lambda column: int(names[column]))
    return tuple(names[column] for column in columns), columns


def _stacked(table: Any, columns: Sequence[str]) -> NDArray[np.float32]:
    values = np.empty((table.num_rows, len(columns)), dtype=np.float32)
    for position, column in enumerate(columns):
        values[:, position] = table[column].to_numpy()
    return values


def _ids(column: Any, where: str) -> tuple[str, ...]:
    if len(column) == 0:
        raise DataError(f"{where}: it holds no row: expected a row for each image")
    if column.null_count:
        raise DataError(f"{where}: {column.null_count} of {len(column)} ids are missing (null): expected one a row")
    ids = tuple(map(str, column.to_pylist()))
    rows: dict[str, int] = {}
    if len(set(ids)) < len(ids):
        for row, name in enumerate(ids):
            if name in rows:
                raise DataError(f"{where}: the id {name!r} is in row {rows[name]} and in row {row}: expected it once")
            rows[name] = row
    return ids


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def _sample_columns(predictions: Predictions | TopPredictions) -> dict[str, pa.Array]:
    labels = {} if predictions.target is None else {"label": pa.array(predictions.target.numpy(), pa.int64())}
    return {"id": pa.array(predictions.ids, pa.string()), **labels}


def _list_columns(predictions: Predictions | TopPredictions) -> dict[str, pa.Array]:
    if isinstance(predictions, Predictions):
        return {"logits": _lists(predictions.logits, pa.float32())}
    return {
        "classes": _lists(predictions.classes, pa.int32()),
        "log_probs": _lists(predictions.log_probs, pa.float32()),
    }


def _csv_columns(predictions: Predictions | TopPredictions, texts: Sequence[str]) -> dict[str, pa.Array]:
    if isinstance(predictions, Predictions):
        return {f"logit:{text}": pa.array(predictions.logits[:, c].numpy()) for c, text in enumerate(texts)}
    names = np.array(texts, dtype=object)
    columns = {}
    for rank in range(predictions.classes.shape[1]):
        columns[f"class_{rank + 1}"] = pa.array(names[predictions.classes[:, rank].numpy()], pa.string())
        columns[f"prob_{rank + 1}"] = pa.array(predictions.log_probs[:, rank].exp().numpy())
    return columns


def _lists(rows: Tensor, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1).numpy(), kind), rows.shape[1])
