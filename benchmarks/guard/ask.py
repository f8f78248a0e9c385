"""How many labels of changed images tell whether a student is better, and how often they tell wrongly.

    python -m benchmarks.guard.ask simulate --out benchmarks/guard/ask.csv
    python -m benchmarks.guard.ask transfers FOLDER … --data LABELLED --out benchmarks/guard/ask_transfers.csv
    python -m benchmarks.guard.ask table benchmarks/guard/ask.csv benchmarks/guard/ask_transfers.csv
    python -m benchmarks.guard.ask after benchmarks/guard/certificates.csv benchmarks/guard/long.csv

`simulate` draws the changed images of made-up students. `transfers` takes the result folders of real transfers, and
answers by the true labels of the images that guarded, in 1,000 random orders for each point that the guard tried.
`after` takes the rows of transfers that the guard judged (`certificates.py`), and asks 100 labels about the student
that it offers where it keeps none. One thread.
"""

import argparse
import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.guard import certificates
from benchmarks.guard.small import GUARD_IMAGES
from benchmarks.lab.rows import append, done
from gainfinder import Predictions, load_images
from gainfinder.metrics import evidence, selection

IMAGES = 5000
RUNS = 10_000
ORDERS = 1000
MOST = 400
"""Answers, at most …"""
FEW = 100
"""… and those that `after` asks for."""
LATER = 1000
"""Seed of the first of those transfers that were run when the guard's rule was chosen."""
GAINS_PP = (-2.0, -0.7, 0.0, 0.7, 1.0, 2.0, 4.0)
CHANGED = (0.02, 0.03, 0.05, 0.1, 0.2)
"""Share of the images whose predicted class changed."""
NEITHER = (0.0, 0.3, 0.6)
"""Share of these on which neither student is right."""
KEY = ("gain_pp", "changed", "neither")

Outcomes = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    simulated = actions.add_parser("simulate")
    simulated.add_argument("--out", type=Path, required=True)
    real = actions.add_parser("transfers")
    real.add_argument("folders", type=Path, nargs="+")
    real.add_argument("--data", required=True, help="the labelled images that guarded")
    real.add_argument("--out", type=Path, required=True)
    after = actions.add_parser("after")
    after.add_argument("rows", type=Path, nargs="+")
    table = actions.add_parser("table")
    table.add_argument("rows", type=Path, nargs=2)
    args = parser.parse_args()
    if args.action == "simulate":
        simulate(args.out)
    elif args.action == "transfers":
        transfers(args.folders, args.data, args.out)
    elif args.action == "after":
        print_after(args.rows)
    else:
        print_tables(*args.rows)


def simulate(out: Path) -> None:
    """A row for each kind of student that there can be."""
    there = done(out, KEY)
    for gain_pp in GAINS_PP:
        for changed in CHANGED:
            for neither in NEITHER:
                count, total = round(changed * IMAGES), round(gain_pp / 100 * IMAGES)
                told = count - round(neither * count)
                if abs(total) > told or (str(gain_pp), str(changed), str(neither)) in there:
                    continue
                right_new = (told + total) // 2
                right_old = right_new - total
                population = np.repeat([1, -1, 0], [right_new, right_old, count - right_new - right_old])
                draw = np.random.default_rng([count, right_new, right_old])
                row = {"gain_pp": gain_pp, "changed": changed, "neither": neither}
                append(out, {**row, **measured(population, draw, runs=RUNS)})


def transfers(folders: Iterable[Path], data: str, out: Path) -> None:
    """A row for each point that the guard of a real transfer tried: its true change, and what answers say of it."""
    images = load_images(data)
    assert images.labels is not None, "the labels are the answers"
    label = dict(zip(images.ids, images.labels.tolist(), strict=True))
    for folder in folders:
        before = Predictions.load(folder / "predictions" / "probe-before.parquet")
        target_N = torch.tensor([label[one] for one in before.ids])
        for path in sorted((folder / "predictions").glob("guard-*.parquet")):
            after = Predictions.load(path).predicted
            changed_N = after != before.predicted
            outcomes_N = (after == target_N).long() - (before.predicted == target_N).long()
            population = outcomes_N[changed_N].numpy()
            row = {
                "transfer": folder.name,
                "candidate": path.stem.removeprefix("guard-"),
                "images": len(before),
                "changed": round(float(changed_N.double().mean()), 4),
                "neither": round(float((population == 0).mean()), 4),
                "gain_pp": round(100 * int(population.sum()) / len(before), 2),
            }
            append(out, {**row, **measured(population, np.random.default_rng(0), runs=ORDERS)})


def print_after(paths: Iterable[Path]) -> None:
    """How many gains are kept by the guard, and how many with 100 labels for those that it keeps none of."""
    columns = ("rows", "transfers", "number", "kept", "told, trained", "told, offered", "together, trained", "offered")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for path in paths:
        transfers = certificates.transfers_in(path)
        for gained in (True, False):
            for later in (False, True):
                chosen = [
                    rows
                    for rows in transfers.values()
                    if (certificates.best(rows) >= 1 if gained else certificates.best(rows) <= 0)
                    and (not later or int(rows[0]["seed"]) >= LATER)
                ]
                if not chosen:
                    continue
                rest = [rows for rows in chosen if not any(row["posterior"] == "1" for row in rows)]
                kept = len(chosen) - len(rest)
                told = [sum(_told_better(rule(_line(rows))) for rows in rest) for rule in (_trained, _offered)]
                name = "gain ≥ 1 pp" if gained else "no gain"
                cells = [path.stem, f"{name}{', later ones' if later else ''}", len(chosen), kept]
                cells += [f"{one:.1f} of {len(rest)}" for one in told]
                cells += [f"{(kept + one) / len(chosen):.0%}" for one in told]
                print(f"| {' | '.join(map(str, cells))} |")


def _line(rows: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Points of the line whose answers differ."""
    return [row for row in rows if row["candidate"] != "adapted" and float(row["changed"]) > 0]


def _trained(line: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    return max(line, key=lambda row: float(row["candidate"]))


def _offered(line: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    """As `runs.guard` offers: the largest gain by the posterior, less its noise."""
    margin = selection.POSTERIOR_MARGIN
    return max(line, key=lambda row: (float(row["gain"]) - margin * float(row["error"]), float(row["candidate"])))


def _told_better(row: Mapping[str, str]) -> float:
    """The share of random orders in which 100 labels say that the student is better."""
    gained, lost = int(row["gained"]), int(row["lost"])
    count = round(float(row["changed"]) * GUARD_IMAGES)
    population = np.repeat([1, -1, 0], [gained, lost, count - gained - lost])
    found = measured(population, np.random.default_rng([count, gained, lost]), runs=ORDERS, most=FEW)
    return float(found["better"])


def measured(population: Outcomes, draw: np.random.Generator, *, runs: int, most: int = MOST) -> dict[str, Any]:
    """What random orders of these outcomes lead to, within so many answers."""
    most = min(most, len(population))
    found_RT = np.stack([draw.permutation(population)[:most] for _ in range(runs)])
    better_R, not_better_R = (
        np.where(
            (capital_RT >= 1 / evidence.LEVEL).any(axis=1), (capital_RT >= 1 / evidence.LEVEL).argmax(axis=1) + 1, 0
        )
        for capital_RT in evidence.highest_capital(found_RT, changed=len(population))
    )
    after_R = np.where((better_R > 0) & (not_better_R > 0), np.minimum(better_R, not_better_R), better_R + not_better_R)
    said_better_R = (better_R > 0) & (after_R == better_R)
    answers_R = np.where(after_R > 0, after_R, np.inf)
    return {
        "runs": runs,
        "better": round(float(said_better_R.mean()), 4),
        "not_better": round(float(((after_R > 0) & ~said_better_R).mean()), 4),
        "known_after_100": round(float((answers_R <= 100).mean()), 4),
        "median_answers": _number(np.quantile(answers_R, 0.5, method="higher")),
        "answers_80": _number(np.quantile(answers_R, 0.8, method="higher")),
    }


def _number(answers: float) -> str:
    return f"{answers:.0f}" if np.isfinite(answers) else ""


def print_tables(simulated: Path, real: Path) -> None:
    """The tables of the page, in Markdown."""
    print_table(
        [row for row in rows_of(simulated) if float(row["gain_pp"]) >= 0 and row["neither"] == "0.3"],
        ("gain_pp", "changed", "better", "not_better", "known_after_100", "median_answers", "answers_80"),
    )
    for said, sign, title in (("better", -1, "nothing"), ("not_better", 1, "something")):
        wrong = max(float(row[said]) for row in rows_of(simulated) if np.sign(float(row["gain_pp"]) - 1e-9) == sign)
        print(f"\nwhere {title} is gained, `{said}` is said wrongly in {wrong:.2%} of the runs at most")
    print()
    columns = ("transfer", "candidate", "changed", "neither", "gain_pp")
    print_table(rows_of(real), (*columns, "better", "not_better", "known_after_100", "median_answers"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def print_table(rows: Iterable[Mapping[str, str]], columns: tuple[str, ...]) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row[column] or "–" for column in columns) + " |")


if __name__ == "__main__":
    main()
