"""Label map files: a user's pairs of a teacher's class and a student's class."""

import csv
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import file_problem, parse_json, read_user_text, user_path


def read_label_map(path: Path) -> tuple[tuple[str, str], ...]:
    """The pairs (class of the teacher, class of the student) in a file, in its order.

    Args:
        path: `.json` with one object, {"teacher's class": "student's class"}; or `.csv` or `.tsv` of two columns, the
            teacher's and the student's class, with or without the header `teacher,student`. Classes are names or
            indices from 0.

    Raises:
        DataError: the file is missing or not in one of these forms, or a class is empty.
    """
    file = user_path(path, what="label map", error=DataError)
    if (problem := file_problem(file)) is not None:
        raise DataError(f"label map {str(path)!r} {problem}: expected a .json, .csv or .tsv file")
    if file.suffix.lower() not in {".json", ".csv", ".tsv"}:
        raise DataError(f"label map {str(path)!r}: expected a file that ends in .json, .csv or .tsv")
    try:
        text = read_user_text(file)
        pairs = _json_pairs(text, path) if file.suffix.lower() == ".json" else _column_pairs(text, path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"label map {str(path)!r} cannot be read: {error}") from error
    for teacher, student in pairs:
        if not teacher or not student:
            raise DataError(
                f"label map {str(path)!r}: a class is empty in {teacher!r} → {student!r}; to leave a class of the "
                "teacher out, leave its row out"
            )
    return pairs


def _json_pairs(text: str, path: Path) -> tuple[tuple[str, str], ...]:
    # a list of pairs, since an object would hide that a class is there twice
    found: Any = parse_json(text, object_pairs_hook=lambda pairs: ("object", pairs))
    if not isinstance(found, tuple):
        raise DataError(f'label map {str(path)!r}: expected one JSON object {{"teacher\'s class": "student\'s class"}}')
    for teacher, student in found[1]:
        if not isinstance(student, str | int) or isinstance(student, bool):
            raise DataError(f"label map {str(path)!r}: {teacher!r} maps to neither a class name nor an index")
    return tuple((teacher.strip(), str(student).strip()) for teacher, student in found[1])


def _column_pairs(text: str, path: Path) -> tuple[tuple[str, str], ...]:
    reader = csv.reader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    pairs: list[tuple[str, str]] = []
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != 2:
            raise DataError(
                f"label map {str(path)!r}: line {reader.line_num} has {len(cells)} column(s): expected two, the "
                "teacher's class and the student's (a name with a comma in quotes)"
            )
        if pairs or [cell.lower() for cell in cells] != ["teacher", "student"]:
            pairs.append((cells[0], cells[1]))
    return tuple(pairs)
