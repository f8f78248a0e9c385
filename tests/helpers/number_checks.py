"""What a command left behind, number by number: none is NaN or infinite, and measures are those of a naive loop."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import load_file


def wrong_numbers(out: Path) -> Iterator[str]:
    """Numbers in a folder that are NaN or infinite, or not those of a naive loop."""
    for path in sorted(out.rglob("*")):
        if path.suffix in {".json", ".jsonl"}:
            yield from (f"{path.name}: {one}" for one in _not_finite(path))
        elif path.suffix == ".parquet":
            yield from (f"{path.name}: {one}" for one in _not_finite_columns(path))
        elif path.suffix == ".safetensors":
            bad = [name for name, value in load_file(path).items() if not bool(value.double().isfinite().all())]
            yield from (f"{path.name}: {name} is not finite" for name in bad)
        elif path.suffix in {".html", ".csv"}:
            found = re.findall(r"(?<![\w.-])(?:nan|NaN|Infinity|-?inf)(?![\w-])", _text(path))
            yield from (f"{path.name} says {one}" for one in found[:1])
    for path in out.rglob("result.json"):
        yield from (f"{path.relative_to(out)}: {one}" for one in naively_other(path.parent))


def _not_finite(path: Path) -> list[str]:
    found: list[str] = []
    for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
        json.loads(line, parse_constant=found.append)
    return found


def _not_finite_columns(path: Path) -> Iterator[str]:
    table = pq.read_table(path)
    for name in table.column_names:
        column = table[name].combine_chunks()
        while hasattr(column, "flatten") and column.type.num_fields:
            column = column.flatten() if not isinstance(column.flatten(), list) else column.flatten()[0]
        if not str(column.type).startswith(("float", "double", "halffloat")):
            continue
        values = column.to_numpy(zero_copy_only=False)
        known = values[~np.asarray(column.is_null())]
        masks = name in {"logits", "log_probs"}
        if bool((np.isnan(known) | (known == np.inf) | ((known == -np.inf) & (not masks))).any()):
            yield f"column {name} is not finite"


def _text(path: Path) -> str:
    """Without scripts and styles."""
    return re.sub(r"<(script|style).*?</\1>", "", path.read_text(), flags=re.DOTALL)


def naively_other(folder: Path) -> Iterator[str]:
    """Measures in a result that a naive loop over its predictions finds otherwise."""
    told = json.loads((folder / "result.json").read_text())
    rows = {path.stem: read_rows(path) for path in (folder / "predictions").glob("*.parquet")}
    before, after = rows["before"], rows["after"]
    teachers = [rows[name] for name in sorted(rows) if re.fullmatch(r"teacher-\d+", name)]
    for name, value in naive(before, after, teachers).items():
        if name in told and not close(told[name], value):
            yield f"{name} is {told[name]}, naively {value}"


Rows = list[tuple[list[float], int | None]]


def read_rows(path: Path) -> Rows:
    """Logits and label of each image."""
    table = pq.read_table(path).to_pydict()
    return [*zip(table["logits"], table.get("label", [None] * len(table["logits"])), strict=True)]


def naive(before: Rows, after: Rows, teachers: list[Rows]) -> dict[str, float | None]:
    """The measures of a transfer, image by image."""
    count, total = len(before), defaultdict[str, float](float)
    for at in range(count):
        label = before[at][1]
        was, now = answer(before[at][0]), answer(after[at][0])
        total["confidence_before"] += sure(before[at][0])
        total["confidence_after"] += sure(after[at][0])
        total["agreement"] += was == now
        if label is None:
            continue
        theirs = [answer(rows[at][0]) == label for rows in teachers]
        total["accuracy_before"] += was == label
        total["accuracy_after"] += now == label
        total["knowledge_gain"] += was != label and now == label
        total["knowledge_loss"] += was == label and now != label
        total["positive_flips"] += was != label and any(theirs)
        total["negative_flips"] += was == label and not any(theirs)
        total["transferred"] += was != label and any(theirs) and now == label
        total["oracle_accuracy"] += was == label or any(theirs)
    shares: dict[str, float | None] = {name: value / count for name, value in total.items() if name != "transferred"}
    if before[0][1] is not None:
        shares["transfer_delta_pp"] = 100 * (total["accuracy_after"] - total["accuracy_before"]) / count
        flips = total["positive_flips"]
        shares["transfer_rate"] = total["transferred"] / flips if flips and teachers else None
    if not teachers:
        for name in ("positive_flips", "negative_flips", "oracle_accuracy"):
            shares.pop(name, None)
    return shares


def answer(logits: list[float]) -> int:
    """The first of the largest."""
    return max(range(len(logits)), key=lambda c: logits[c])


def sure(logits: list[float]) -> float:
    """The largest probability."""
    most = max(logits)
    return 1 / math.fsum(math.exp(one - most) for one in logits)


def close(told: float | None, value: float | None) -> bool:
    """Whether both are none, or as near as float32 sums are."""
    if told is None or value is None:
        return told is value
    return math.isclose(told, value, rel_tol=1e-4, abs_tol=1e-5)
