"""The tables of this folder's page on every method, from the rows of methods.csv.

    python -m benchmarks.evidence.summarise benchmarks/evidence/methods.csv

Prints, in Markdown, each pair's change by method without the guard; for each method the means with and without it,
over the pairs that every method ran on, how many changes are significantly negative (the 95 % interval lies below
zero) and how the guard chose; and the means without labels by how much better the teacher is.
"""

import csv
import json
import sys
from pathlib import Path

Row = dict[str, str]


def main() -> None:
    with Path(sys.argv[1]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    print_pairs(rows, methods)
    print()
    common = [row for row in rows if methods_of(rows, row) == set(methods)]
    print_methods(common, methods)
    print()
    print_groups([row for row in common if row["labels"] == "none"])


def methods_of(rows: list[Row], pair: Row) -> set[str]:
    """The methods that ran on the student and the teacher of `pair`."""
    return {row["method"] for row in rows if (row["student"], row["teacher"]) == (pair["student"], pair["teacher"])}


def print_groups(rows: list[Row]) -> None:
    """Without labels, by how much better the teacher is: the means over all methods, and over kl-dp-u."""
    groups = {"weaker": (-100.0, -2.0), "within 2 pp": (-2.0, 2.0), "stronger": (2.0, 100.0)}
    print("| teacher | transfers | mean Δ unguarded | guarded | of `kl-dp-u` unguarded | guarded |")
    print("|---|" + "---|" * 5)
    for name, (low, high) in groups.items():
        ours = [row for row in rows if low <= float(row["delta_acc_pp"]) < high]
        default = [row for row in ours if row["method"] == "kl-dp-u"]
        cells = [name, str(len(ours))]
        for part in (ours, default):
            cells += [f"{mean(column(part, key)):+.2f}" for key in ("unguarded_delta_pp", "transfer_delta_pp")]
        print(f"| {' | '.join(cells)} |")


def print_pairs(rows: list[Row], methods: list[str]) -> None:
    """Δ_transf without the guard, pp: methods down, pairs across, with Δ_acc in brackets; the mean over seeds."""
    pairs = {(row["student"], row["teacher"]): float(row["delta_acc_pp"]) for row in rows}
    names = [f"{student} ← {teacher} ({delta:+.1f})" for (student, teacher), delta in pairs.items()]
    print(f"| method | {' | '.join(names)} |")
    print("|---|" + "---|" * len(pairs))
    for method in methods:
        cells = [f"`{method}`"]
        for pair in pairs:
            ours = [row for row in rows if (row["student"], row["teacher"], row["method"]) == (*pair, method)]
            cells.append(f"{mean(column(ours, 'unguarded_delta_pp')):+.2f}" if ours else "")
        print(f"| {' | '.join(cells)} |")


def print_methods(rows: list[Row], methods: list[str]) -> None:
    """Per method: means with and without the guard, significant losses, and the guard's choices."""
    print(
        "| method | transfers | mean Δ unguarded | significantly below 0 | mean Δ guarded | significantly below 0 |",
        end="",
    )
    print(
        " initial student kept | adapted | on the guard images: gain of the choice | of the best choice | of no guard |"
    )
    print("|---|" + "---|" * 10)
    for method in methods:
        ours = [row for row in rows if row["method"] == method]
        cells = [
            f"`{method}`",
            str(len(ours)),
            f"{mean(column(ours, 'unguarded_delta_pp')):+.2f}",
            str(below_zero(ours, "unguarded_delta_ci_pp")),
            f"{mean(column(ours, 'transfer_delta_pp')):+.2f}",
            str(below_zero(ours, "transfer_delta_ci_pp")),
            str(sum(row["kept"] == "0" for row in ours)),
            str(sum(row["kept"] == "adapted" for row in ours)),
            f"{mean(column(ours, 'guard_gain_kept_pp')):+.2f}",
            f"{mean(column(ours, 'guard_gain_best_pp')):+.2f}",
            f"{mean(column(ours, 'guard_gain_whole_pp')):+.2f}",
        ]
        print(f"| {' | '.join(cells)} |")


def below_zero(rows: list[Row], interval: str) -> int:
    return sum(json.loads(row[interval])[1] < 0 for row in rows)


def column(rows: list[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
