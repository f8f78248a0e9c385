"""Tables of texts: CSV, JSON lines and Parquet, a row each; the columns are chosen, and what was chosen is told."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ..classes import natural_key
from ..errors import DataError
from ..files import file_problem, parse_json
from ..libraries import first_line
from .columns import (
    ID,
    LABEL,
    choose_label,
    class_names_of,
    classes_among,
    is_string,
    listed,
    may_label,
    require_column,
)
from .layout import refuse_split_files
from .tables import LabelledRows, check_memory, labels_of_all, parquet_file, row_ids
from .tagged import TaggedTexts, WordsReader, tagged_texts
from .texts import TableReader, Texts

TEXT, TOKENS = "text", "tokens"
TAGS = ("tags", "ner_tags", "pos_tags", "labels", "label")
"""Names of the columns of labels of words, in the order in which they are looked for."""
_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class _File(LabelledRows):
    texts: tuple[Any, ...]
    ids: list[str]

    @property
    def in_words(self) -> bool:
        """Whether its texts are lists of words."""
        return _is_list(self.texts[0].type)


def open_texts(
    files: Sequence[Path],
    *,
    root: Path,
    reference: str,
    labels: bool,
    text: str | None = None,
    label: str | None = None,
) -> Texts:
    """Read tables of texts.

    A text is a string; two columns make pairs. The texts are those of `text`, else the column `text`, else the only
    column of strings that is not taken for labels. `label` is an integer or a string, as for tables of images. Without
    a column `id` the ids are row numbers, `row-0000012`, with the file's name before them where there are several.

    A column of lists of strings, such as `tokens`, holds texts in words; its labels are lists as long (`tagged.py`).

    Args:
        files: the files, at least one; all their rows together are one source.
        root: the file or the folder of files, for messages.
        reference: the data reference.
        labels: whether to read labels.
        text: name of the column of texts, or of two, separated by a comma, where the user gives it.
        label: name of the column of labels, where the user gives one.

    Raises:
        DataError: a file cannot be read, has no texts, or other labels than the rest, or is too much for the memory.
    """
    files = sorted(files, key=lambda path: natural_key(path.name))
    refuse_split_files((_stem(file) for file in files), where=str(root), instead=f"give one file, such as {files[0]}")
    read = [
        _read(file, labels=labels, text=text, label=label, prefix=f"{_stem(file)}/" if len(files) > 1 else "")
        for file in files
    ]
    for note in dict.fromkeys(note for _, notes in read for note in notes):
        _log.warning("%s: %s", root, note)
    parts = [file for file, _ in read]
    if any(file.in_words for file in parts):
        return _tagged(parts, root, reference)
    widths = {len(file.texts) for file in parts}
    if len(widths) > 1:
        raise DataError(f"{root}: some of its files hold pairs of texts and others single ones: give one kind")
    found, class_names = labels_of_all(parts, root)
    lengths = [len(file.texts[0]) for file in parts]
    return Texts.build(
        reference=reference,
        reader=TableReader(
            files=tuple(file.path for file in parts),
            columns=tuple(file.texts for file in parts),
            starts=np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        ),
        ids=[name for file in parts for name in file.ids],
        labels=found,
        class_names=class_names,
        paired=widths == {2},
    )


def choose_texts(
    names: Sequence[str], strings: Sequence[str], *, asked: str | None, where: str, setting: str = "text"
) -> tuple[tuple[str, ...], str | None]:
    """The columns of texts, one or two, and a note on what was chosen.

    Args:
        names: names of all columns.
        strings: names of those that hold strings, but for labels that metadata name.
        asked: what the user asks for: a name, or two separated by a comma.
        where: the source, for messages.
        setting: the setting by which a user asks.

    Raises:
        DataError: there is no such column, or no single one that could be meant.

    Example:
        >>> choose_texts(["review", "label"], ["review"], asked=None, where="x.csv")[0]
        ('review',)
    """
    if asked is not None:
        wanted = tuple(asked.split(",")) if asked not in names else (asked,)
        for name in wanted:
            require_column(name, names, setting, where)
            if name not in strings:
                raise DataError(f"{where}: column {name!r} holds no texts; name another by ?{setting}=COLUMN")
        if len(wanted) > 2:
            raise DataError(f"{where}: ?{setting}={asked} names {len(wanted)} columns: expected one, or two of a pair")
        return wanted, None
    if TEXT in strings:
        return (TEXT,), None
    others = [name for name in strings if name not in (ID, LABEL)]
    if len(others) == 1:
        return (others[0],), f"texts are read from the column {others[0]!r}, since none is called `text`"
    raise DataError(
        f"{where}: no column `text`, its columns are {listed(names)}; name the one that holds texts by "
        f"?{setting}=COLUMN, of pairs two by ?{setting}=FIRST,SECOND"
    )


def string_columns(schema: Any) -> list[str]:
    """Names of the columns of an Arrow schema that hold strings."""
    return [name for name in schema.names if is_string(schema.field(name).type)]


def _read(
    path: Path, *, labels: bool, text: str | None, label: str | None, prefix: str
) -> tuple[_File, tuple[str, ...]]:
    """A file's rows, and what the user is told of the choice of columns."""
    if _ending(path) == ".parquet":
        with parquet_file(path) as file:
            columns, notes = _choose(file.schema_arrow, path, labels=labels, text=text, label=label)
            check_memory(file.metadata, columns.all(file.schema_arrow.names), path)
            table = file.read(columns=columns.all(file.schema_arrow.names))
            class_names = None
            if columns.label is not None:
                class_names, note = class_names_of(file.schema_arrow, columns.label)
                notes = (*notes, *([note] if note else ()))
    else:
        table = _table(path)
        columns, notes = _choose(table.schema, path, labels=labels, text=text, label=label)
        class_names = None
    try:
        labels_of_rows = None if columns.label is None else table.column(columns.label).to_pylist()
        ids = row_ids(table, path, prefix=prefix)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a label or an id is no UTF-8 ({error}): write the file as UTF-8") from error
    return _File(
        path=path,
        texts=tuple(table.column(name) for name in columns.texts),
        labels=labels_of_rows,
        ids=ids,
        class_names=class_names,
    ), notes


@dataclass(frozen=True, kw_only=True)
class _Columns:
    texts: tuple[str, ...]
    label: str | None

    def all(self, names: Sequence[str]) -> list[str]:
        """The names of all that are read."""
        ids, labels = [ID] if ID in names else [], [] if self.label is None else [self.label]
        return list(dict.fromkeys([*self.texts, *ids, *labels]))


def _choose(
    schema: Any, path: Path, *, labels: bool, text: str | None, label: str | None
) -> tuple[_Columns, tuple[str, ...]]:
    names: Sequence[str] = schema.names
    if (twice := next((name for i, name in enumerate(names) if name in names[:i]), None)) is not None:
        raise DataError(f"{path}: the column {twice!r} is there twice; give each a name of its own")
    classes = classes_among(schema)
    if label is not None and labels:
        require_column(label, names, "label", str(path))
    strings = [name for name in string_columns(schema) if name not in (*classes, label)]
    kinds = {name: schema.field(name).type for name in names}
    lists = [name for name, kind in kinds.items() if _is_list(kind) and is_string(kind.value_type)]
    if text in lists or (text is None and TOKENS in lists and TEXT not in names):
        return _choose_tagged(schema, text or TOKENS, path, label=label if labels else None, labels=labels)
    texts, text_note = choose_texts(names, strings, asked=text, where=str(path))
    label_note = None
    if not labels:
        label = None
    elif label is None:
        others = [name for name in names if name not in (*texts, ID) and may_label(schema.field(name).type)]
        label, label_note = choose_label(names, classes=classes, others=others, setting="label", what="texts")
    return _Columns(texts=texts, label=label), tuple(note for note in (text_note, label_note) if note is not None)


def _choose_tagged(
    schema: Any, tokens: str, path: Path, *, label: str | None, labels: bool
) -> tuple[_Columns, tuple[str, ...]]:
    if not labels:
        return _Columns(texts=(tokens,), label=None), ()
    lists = [name for name in schema.names if name != tokens and _is_list(schema.field(name).type)]
    if label is not None and label not in lists:
        raise DataError(f"{path}: column {label!r} holds no lists, and each word of {tokens!r} needs a label")
    if label is None:
        label = next((name for name in TAGS if name in lists), lists[0] if len(lists) == 1 else None)
    notes: tuple[str, ...] = ()
    if label is None and lists:
        notes = (f"its texts are read as unlabelled; not read: {listed(lists)}; ?label=COLUMN names the labels",)
    return _Columns(texts=(tokens,), label=label), notes


def _tagged(parts: Sequence[_File], root: Path, reference: str) -> TaggedTexts:
    if not all(file.in_words for file in parts):
        raise DataError(f"{root}: some of its files hold texts in words and others whole ones: give one kind")
    with_labels = [file for file in parts if file.labels is not None]
    if 0 < len(with_labels) < len(parts):
        raise DataError(f"{root}: some of its files have labels and others none; read without labels")
    if len({file.class_names for file in parts}) > 1:
        raise DataError(f"{root}: its files name other classes; write them alike")
    rows = [tuple(row or ()) for file in parts for row in _words(file)]
    lengths = [len(file.texts[0]) for file in parts]
    return tagged_texts(
        rows,
        reader=WordsReader(
            files=tuple(file.path for file in parts),
            rows=tuple(rows),
            starts=np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        ),
        reference=reference,
        ids=[name for file in parts for name in file.ids],
        tags=[tags for file in parts for tags in file.labels or ()] if with_labels else None,
        class_names=parts[0].class_names,
    )


def _words(file: _File) -> list[Any]:
    try:
        found: list[Any] = file.texts[0].to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{file.path}: a word is no UTF-8 ({error}): write the file as UTF-8") from error
    return found


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _table(path: Path) -> Any:
    """The table of a CSV or JSON file, its numbers and strings as they are written."""
    if (problem := file_problem(path)) is not None:
        raise DataError(f"{path} {problem}; expected a table of texts")
    try:
        if _ending(path) in (".csv", ".tsv"):
            return _csv(path, delimiter="\t" if _ending(path) == ".tsv" else ",")
        return _json(path)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        kind = "CSV" if _ending(path) in (".csv", ".tsv") else "JSON lines (an object a line)"
        reason = str(error) if type(error) is ValueError else first_line(error)
        remedy = "UTF-8 is expected" if "utf" in reason.lower() else "mend the file, or leave it out"
        raise DataError(f"{path}: cannot be read as {kind}: {reason}; {remedy}") from error


def _csv(path: Path, *, delimiter: str) -> Any:
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    # read as strings first: a text that is a number, or empty, is still a text
    with pa.input_stream(str(path), compression="detect") as stream:
        header = pa_csv.open_csv(stream, parse_options=parsing).schema.names
    kinds = {name: pa.string() for name in header}
    converting = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=False, check_utf8=True)
    with pa.input_stream(str(path), compression="detect") as stream:
        table = pa_csv.read_csv(stream, parse_options=parsing, convert_options=converting)
    return _with_numbers(table)


def _with_numbers(table: Any) -> Any:
    """The table with its columns of whole numbers as such, but for one that is called `text` or `id`."""
    for position, name in enumerate(table.column_names):
        if name in (TEXT, ID):
            continue
        strings = table.column(position)
        found = pc.if_else(pc.equal(strings, ""), pa.scalar(None, pa.string()), strings)  # an empty cell is no label
        with contextlib.suppress(pa.ArrowInvalid):
            found = found.cast(pa.int64())
        table = table.set_column(position, name, found)
    return table


def _json(path: Path) -> Any:
    """The table of a list of objects, or of an object a line. Not by pyarrow's reader, which damaged files crash."""
    with pa.input_stream(str(path), compression="detect") as stream:
        content = stream.read().decode("utf-8-sig")
    if content.lstrip()[:1] == "[":
        rows = [(f"row {number}", row) for number, row in enumerate(parse_json(content))]
    else:
        lines = [(f"line {number}", line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
        rows = [(where, _parsed(line, where)) for where, line in lines]
    if not rows:
        raise ValueError("it is empty")
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: expected an object, got {type(row).__name__}")
    names = dict.fromkeys(name for _, row in rows for name in row)
    return pa.table({name: _column(name, [row.get(name) for _, row in rows]) for name in names})


def _parsed(line: str, where: str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _column(name: str, values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise ValueError(f"the values of {name!r} are of several kinds ({first_line(error)})") from error


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _stem(path: Path) -> str:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem
