"""Where in a TOML file a value stands, which Python's parser does not tell."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

_HEADER = re.compile(r"^\s*(?P<double>\[?)\[(?P<path>[^\[\]]+)\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*(?P<path>(?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[\w-]+|\"[^\"]*\"|'[^']*'")

Path = tuple[str | int, ...]
"""Keys of nested tables, and positions in lists."""


def line_of(text: str, path: Sequence[str | int], value: object = None) -> int | None:
    """The number of the line, from 1, that a value of a TOML file stands on.

    The line of its key; of an item in a list over several lines the first one from there on that holds its text.

    Args:
        text: the file.
        path: keys and, for tables in a list, positions that lead to the value.
        value: the value, where it is an item of a list; its text is looked for.

    Returns:
        The line; of a path that is not there that of its longest beginning; None where nothing of it is.

    Example:
        >>> line_of("[axes]\\nseed = [\\n  0,\\n  1,\\n]", ("axes", "seed"), 1)
        4
    """
    wanted, best, found = tuple(path), 0, None
    lines = text.splitlines()
    for number, key in _keys(lines):
        shared = 0
        while shared < min(len(key), len(wanted)) and key[shared] == wanted[shared]:
            shared += 1
        if shared == len(key) and shared > best:
            best, found = shared, number
    if found is None or value is None:
        return found
    for number, line in enumerate(lines[found - 1 :], start=found):
        after = line.split("=", 1)[-1] if number == found else line
        if re.search(rf"(?<![\w.-]){re.escape(str(value))}(?![\w.-])", after):
            return number
    return found


def _keys(lines: Sequence[str]) -> Iterator[tuple[int, Path]]:
    """Each line that begins a table or a value, with the path to it."""
    table: Path = ()
    seen: Counter[Path] = Counter()
    for number, line in enumerate(lines, start=1):
        if (header := _HEADER.match(line)) is not None:
            table = _parts(header["path"])
            if header["double"]:
                seen[table] += 1
                table = (*table, seen[table] - 1)
            yield number, table
        elif (key := _KEY.match(line)) is not None:
            yield number, (*table, *_parts(key["path"]))


def _parts(path: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(path))
