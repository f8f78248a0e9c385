"""Rows of a measurement, added to a CSV file as they come, and which of them are there."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to the file, with a header of its keys where it is new, and print it."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(dict(row), flush=True)


def key_of(row: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """What tells a row from the others: the values of these columns, as the file writes them."""
    return tuple(str(row[name]) for name in names)


def done(path: Path, names: Iterable[str]) -> set[tuple[str, ...]]:
    """The keys of the rows in the file; none where there is no file yet."""
    if not path.exists():
        return set()
    columns = tuple(names)
    with path.open(newline="") as file:
        return {key_of(row, columns) for row in csv.DictReader(file)}
