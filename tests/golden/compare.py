"""Tell what differs between two recordings: `python tests/golden/compare.py OLD NEW [--renamed FILE]`.

OLD and NEW are folders that `record.py` wrote. What was changed on purpose stands in `renamed.json`:

    keys     old → new, in documents: result.json, config.json, epochs.jsonl, what --json prints; also names of files
    values   old → new, a whole string in documents; neither a key nor a value need be renamed everywhere
    words    old → new, a part of a line in messages: stdout, stderr, reports, figures
    options  old → new, a part of a command
    added    keys of documents that NEW may have and OLD not
    removed  keys of documents that OLD may have and NEW not

Neither the order of keys matters nor how wide a table's columns are. Exit code 0 if nothing differs, else 1.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCUMENTS = ("weights", "predictions", "accounts")
SHOWN = 12
"""Differences of one command and group that are shown one by one."""

Renamed = Mapping[str, Any]
Place = tuple[str, ...]


def compare(old: Mapping[str, Any], new: Mapping[str, Any], renamed: Renamed) -> dict[str, list[str]]:
    """What differs, by group, a line each."""
    found: dict[str, list[str]] = {group: [] for group in ("inputs", *DOCUMENTS, "messages")}
    found["inputs"] = [
        *in_documents(old["models"], new["models"], ("models",), renamed),
        *in_documents(_lines(old, renamed), _lines(new, renamed), (), renamed),
    ]
    for name in (name for name in old["commands"] if name in new["commands"]):
        one, other = old["commands"][name], new["commands"][name]
        for group in DOCUMENTS:
            found[group] += shortened(in_documents(one[group], other[group], (name,), renamed))
        found["messages"] += shortened(in_messages(one["messages"], other["messages"], name, renamed["words"]))
    return found


def in_documents(old: Any, new: Any, place: Place, renamed: Renamed) -> list[str]:
    """`PLACE: OLD → NEW` for each value that differs."""
    other = dict(leaves(new, place))
    one = carried_over(old, other, place, renamed)
    added = {at for at in other.keys() - one.keys() if set(at) & set(renamed["added"])}
    removed = {at for at in one.keys() - other.keys() if set(at) & set(renamed["removed"])}
    return [
        f"{' · '.join(at)}: {one.get(at, 'nothing')} → {other.get(at, 'nothing')}"
        for at in {**one, **other}
        if at not in added | removed and one.get(at) != other.get(at)
    ]


def in_messages(old: Mapping[str, Any], new: Mapping[str, Any], name: str, words: Mapping[str, str]) -> list[str]:
    """`NAME · WHERE: -OLD LINE` and `+NEW LINE` for the lines that differ."""
    found = []
    for where in {**old, **new}:
        one = [_replaced(line, words) for line in _as_lines(old.get(where))]
        changes = difflib.unified_diff(_narrow(one), _narrow(_as_lines(new.get(where))), lineterm="", n=0)
        found += [f"{name} · {where}: {line}" for line in changes if not line.startswith(("---", "+++", "@@"))]
    return found


def carried_over(old: Any, new: Mapping[Place, str], place: Place, renamed: Renamed) -> dict[Place, str]:
    """The plain values of a document of OLD, by where they are in NEW; what NEW has by its old name keeps it."""
    values = {
        json.dumps(one, ensure_ascii=False): json.dumps(other, ensure_ascii=False)
        for one, other in renamed["values"].items()
    }
    found = {}
    for was_at, value in leaves(old, place):
        at = was_at if was_at in new else tuple(renamed["keys"].get(key, key) for key in was_at)
        found[at] = values[value] if value in values and values[value] == new.get(at) else value
    return found


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every plain value in a document, as JSON, with the keys and indices that lead there."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from leaves(inner, (*place, str(number)))
    else:
        yield place, json.dumps(value, ensure_ascii=False)


def shortened(lines: Sequence[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines] if more <= 0 else [*lines[:SHOWN], f"… and {more} more there"]


def _lines(recording: Mapping[str, Any], renamed: Renamed) -> dict[str, str]:
    """The commands, in the spelling of before: options of then, without the preset that was the rule."""
    found = {}
    for name, one in recording["commands"].items():
        line = one["line"]
        for old, new in renamed["options"].items():
            line = line.replace(new, old)
        found[name] = line
    return found


def _as_lines(said: Any) -> list[str]:
    return said if isinstance(said, list) else [str(said)]


def _narrow(lines: Sequence[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def _replaced(line: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        line = line.replace(old, new)
    return line


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
    return found


def main() -> int:
    """Compare, and print the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--renamed", type=Path, default=HERE / "renamed.json")
    asked = parser.parse_args()
    old, new = _read(asked.old), _read(asked.new)
    found = compare(old, new, json.loads(asked.renamed.read_text(encoding="utf-8")))
    if old["versions"] != new["versions"]:
        print("note: made with other versions of the libraries, which may give other weights")
    for group, lines in found.items():
        print(f"{group}: {'the same' if not lines else f'{len(lines)} difference(s)'}")
        print(*(f"  {line}\n" for line in lines), sep="", end="")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
