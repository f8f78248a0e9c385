"""How well rules choose teachers before training, held against transfers that were made.

    python -m benchmarks.ranking.evaluate --predictions SCAN/predictions --transfers ROWS --where variant=default \\
        --out benchmarks/ranking --table src/gainfinder/metrics/rule_table.py

SCAN is what `gainfinder scan --out` left of the same models on images that the transfers were not measured on, guard
images say. ROWS is the folder of a `gainfinder study`, or a CSV, Parquet or JSON-lines file with the columns `student`,
`teacher` (names, or references), `transfer_delta_pp` (`--delta` for another), and `parameters` if it has them. Rows of
one kind of transfer are wanted: --where keeps those in which a column has a value, as often as needed; several rows of
a student and a teacher, of other seeds say, count as one by their mean. Students or teachers without predictions are
left out and named.

Written into --out: `transfers.csv`, the transfers with what was known before, by labels and without; `scores.csv`, the
rules and how well they chose, each time fitted without the student's transfers; rows of the same `source` (--name) are
replaced, others stay. With --table, the rules as the package has them.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.lab.zoo import name_in
from gainfinder import study_rows
from gainfinder.metrics import (
    FEATURES,
    Answers,
    MeasuredTransfer,
    RuleTable,
    measure_pair,
    measure_rules,
    pooled_probs,
)
from gainfinder.predictions import Predictions, read_predictions

Pair = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=Path, required=True, help="folder of predictions of all models")
    parser.add_argument(
        "--transfers", type=Path, required=True, help="measured transfers: CSV, Parquet, JSON lines, or a study"
    )
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="rows to keep")
    parser.add_argument("--delta", default="transfer_delta_pp", help="column of the transfer delta")
    parser.add_argument("--name", help="what the transfers are called; their file and --where")
    parser.add_argument("--out", type=Path, required=True, help="folder of transfers.csv and scores.csv")
    parser.add_argument("--table", type=Path, help="module to write the fitted rules to")
    asked = parser.parse_args()
    source = asked.name or " ".join([asked.transfers.name, *asked.where])
    deltas, parameters = measured(asked.transfers, where=asked.where, delta=asked.delta)
    labelled, unlabelled = features(asked.predictions, deltas, parameters)
    try:
        tables = [
            measure_rules(transfers, source=source, labelled=by_labels)
            for by_labels, transfers in ((True, labelled), (False, unlabelled))
        ]
    except ValueError as error:
        raise SystemExit(str(error)) from None
    asked.out.mkdir(parents=True, exist_ok=True)
    replace_rows(asked.out / "transfers.csv", source, transfer_rows(labelled, unlabelled))
    replace_rows(asked.out / "scores.csv", source, score_rows(tables))
    if asked.table is not None:
        asked.table.write_text(module(tables), encoding="utf-8")
    for table in tables:
        show(table)


def rows_of(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a file, by its ending, or of a study's folder."""
    if path.is_dir():
        return [row.model_dump() for row in study_rows(path)]
    if path.suffix == ".parquet":
        found: list[Mapping[str, Any]] = pq.read_table(path).to_pylist()
        return found
    with path.open(newline="", encoding="utf-8") as file:
        return [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))


def measured(path: Path, *, where: Sequence[str], delta: str) -> tuple[dict[Pair, float], dict[str, int]]:
    """The mean delta of each student and teacher, and the numbers of the students' weights that are known."""
    wanted = dict(one.split("=", maxsplit=1) for one in where)
    found: dict[Pair, list[float]] = defaultdict(list)
    parameters = {}
    for row in rows_of(path):
        if any(str(row.get(column, "")) != value for column, value in wanted.items()) or row.get(delta) in (None, ""):
            continue
        student = str(row["student"])
        found[student, str(row["teacher"])].append(float(row[delta]))
        if row.get("parameters"):
            parameters[student] = int(float(row["parameters"]))
    if not found:
        raise SystemExit(f"{path}: no row with {delta}" + "".join(f", {one}" for one in where))
    return {pair: sum(values) / len(values) for pair, values in found.items()}, parameters


def features(
    folder: Path, deltas: Mapping[Pair, float], parameters: Mapping[str, int]
) -> tuple[list[MeasuredTransfer], list[MeasuredTransfer]]:
    """The transfers with what was known before, by labels and without."""
    predictions = [read_predictions(path) for path in sorted(folder.glob("*.parquet"))]
    target_N = predictions[0].target
    if target_N is None or any(one.ids != predictions[0].ids for one in predictions):
        raise SystemExit(f"{folder}: expected predictions of the same labelled images")
    blind = [Predictions(model=one.model, ids=one.ids, logits=one.logits, target=None) for one in predictions]
    names = named([one.model for one in predictions])
    pooled_NC = pooled_probs([Answers.of(one) for one in blind], predictions[0].logits.shape[1])
    if lost := [f"{s} from {t}" for s, t in deltas if s not in names or t not in names]:
        print(f"left out {len(lost)} of {len(deltas)}, of whose models there are no predictions: {', '.join(lost)}")
    found: tuple[list[MeasuredTransfer], list[MeasuredTransfer]] = ([], [])
    for transfers, models, truth in ((found[0], predictions, target_N), (found[1], blind, pooled_NC)):
        answers = {one.model: Answers.of(one) for one in models}
        for (student, teacher), delta_pp in deltas.items():
            if student not in names or teacher not in names:
                continue
            known = measure_pair(
                answers[names[student]], answers[names[teacher]], truth, parameters=parameters.get(student)
            )
            transfers.append(
                MeasuredTransfer(student=student, teacher=teacher, features=known.values(), delta_pp=delta_pp)
            )
    return found


def named(references: Sequence[str]) -> dict[str, str]:
    """References by themselves and by their short names."""
    return {**{name_in(one): one for one in references}, **{one: one for one in references}}


def transfer_rows(
    labelled: Sequence[MeasuredTransfer], unlabelled: Sequence[MeasuredTransfer]
) -> Iterator[dict[str, str]]:
    """The transfers with what was known before; a feature that is not known is empty."""
    for labels, transfers in (("yes", labelled), ("no", unlabelled)):
        for one in transfers:
            about = {"student": one.student, "teacher": one.teacher, "labels": labels}
            features = {name: cell(one.features.get(name), digits=6) for name in FEATURES}
            yield {**about, "transfer_delta_pp": cell(one.delta_pp, digits=6), **features}


def score_rows(tables: Sequence[RuleTable]) -> Iterator[dict[str, str]]:
    """How well each rule chose."""
    for table in tables:
        errors = {rule.name: rule.error_pp for rule in table.rules}
        for score in table.scores:
            yield {
                "labels": "yes" if table.labelled else "no",
                "rule": score.name,
                "transfers": str(table.transfers),
                "students": str(score.students),
                "regret_pp": cell(score.regret_pp),
                "regret_ci_pp": cell(score.regret_ci_pp),
                "correlation": cell(score.correlation),
                "correlation_ci": cell(score.correlation_ci),
                "over_all": cell(score.over_all),
                "error_pp": cell(errors.get(score.name)),
                "beats_baseline": "yes" if score.beats_baseline else "no",
            }


def replace_rows(path: Path, source: str, rows: Iterator[dict[str, str]]) -> None:
    """Write the rows of a source into a file in place of its former ones; other sources' rows stay."""
    kept = [dict(row) for row in rows_of(path) if row["source"] != source] if path.exists() else []
    found = [*kept, *({"source": source, **row} for row in rows)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)


def cell(value: Any, *, digits: int = 4) -> str:
    """A number, an interval, or nothing."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"[{cell(value[0], digits=digits)}, {cell(value[1], digits=digits)}]"
    return f"{value:.{digits}g}"


def module(tables: Sequence[RuleTable]) -> str:
    """The rules as a module of the package."""
    lines = [
        '"""The rules of `rules.py`, fitted. Written by `python -m benchmarks.ranking.evaluate`, never by hand."""',
        "",
        "from .rules import FittedRule, RuleScore, RuleTable",
        "",
        "# fmt: off",
        "TABLES = (",
        *(line for table in tables for line in literal(table, depth=1)),
        ")",
        '"""Of features by labels, and without labels."""',
        "# fmt: on",
        "",
    ]
    return "\n".join(lines)


def literal(value: Any, *, depth: int) -> Iterator[str]:
    """A record as Python reads it, a field a line."""
    pad = "    " * depth
    yield f"{pad}{type(value).__name__}("
    for field in fields(value):
        own = getattr(value, field.name)
        if isinstance(own, tuple) and own and hasattr(own[0], "__dataclass_fields__"):
            yield f"{pad}    {field.name}=("
            for one in own:
                yield from literal(one, depth=depth + 2)
            yield f"{pad}    ),"
        elif isinstance(own, tuple) and own and isinstance(own[0], tuple):
            yield f"{pad}    {field.name}=("
            yield from (f"{pad}        {rounded(one)!r}," for one in own)
            yield f"{pad}    ),"
        else:
            yield f"{pad}    {field.name}={json.dumps(own) if isinstance(own, str) else repr(rounded(own))},"
    yield f"{pad}),"


def rounded(value: Any) -> Any:
    """Numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return tuple(map(rounded, value)) if isinstance(value, tuple) else value


def show(table: RuleTable) -> None:
    by = "by labels" if table.labelled else "without labels"
    print(f"\n{table.source}: {table.transfers} transfers, {table.students} students, {table.teachers} teachers, {by}")
    errors = {rule.name: rule.error_pp for rule in table.rules}
    for one in table.scores:
        better = "  better than the baseline" if one.beats_baseline else ""
        print(
            f"  {one.name:11} regret {cell(one.regret_pp):6} {cell(one.regret_ci_pp):16} within students "
            f"{cell(one.correlation):7} {cell(one.correlation_ci):18} over all {cell(one.over_all):7} error "
            f"{cell(errors.get(one.name))}{better}"
        )


if __name__ == "__main__":
    main()
