"""48 transfers as one study with a shared bank, and as 48 commands `gainfinder transfer`, one after another.

    python -m benchmarks.speed.commands --models MODELS --images IMAGES --out benchmarks/speed/commands.csv

Whole commands are timed: start-up, models, decoding and, of single commands, their page. The study is run before the
single commands and after them, each time into an empty folder, so that a machine which becomes slower shows. A row
each, as they come: of a study's cell the seconds that its worker took, in a row of its own those of the whole study.
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gainfinder
from benchmarks.lab import zoo
from benchmarks.speed.study import METHODS, STUDENTS, TEACHERS

COLUMNS = ("way", "student", "teacher", "method", "seconds", "transfer_delta_pp")
ALL = "all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--val", default="test.parquet#1/10")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    asked = parser.parse_args()
    asked.models, asked.images = asked.models.resolve(), asked.images.resolve()
    with asked.out.open("w", newline="") as file, tempfile.TemporaryDirectory() as folder:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows(asked, Path(folder)):
            writer.writerow(row)
            file.flush()
    with asked.out.open(newline="") as file:
        summarise(list(csv.DictReader(file)))


def rows(asked: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    yield from study(asked, folder, "study before")
    for student, teacher, method in itertools.product(asked.students, TEACHERS, METHODS):
        yield command(asked, folder / f"{student}-{teacher}-{method}", student, teacher, method)
    yield from study(asked, folder, "study after")


def study(asked: argparse.Namespace, folder: Path, way: str) -> Iterator[dict[str, object]]:
    out = folder / way.replace(" ", "-")
    file = folder / "study.toml"
    file.write_text(document(asked), encoding="utf-8")
    seconds = timed("study", "run", str(file), "--out", str(out), "--workers", str(asked.workers))
    for row in gainfinder.study_rows(out):
        about = {"way": way, "student": row.student, "teacher": row.teacher, "method": row.method}
        yield {**about, "seconds": row.seconds, "transfer_delta_pp": row.transfer_delta_pp}
    yield {"way": way, "student": ALL, "teacher": ALL, "method": ALL, "seconds": f"{seconds:.3f}"}


def document(asked: argparse.Namespace) -> str:
    """The study's file; strings and lists of JSON are those of TOML."""
    tables: dict[str, dict[str, object]] = {
        "study": {"students": list(asked.students), "teachers": list(TEACHERS), "with_itself": True},
        "models": {name: zoo.reference(asked.models, name) for name in sorted({*asked.students, *TEACHERS})},
        "data": images(asked),
        "settings": {**settings(asked), "guard": False},
        **{f"variants.{method}": {"method": method} for method in METHODS},
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def settings(asked: argparse.Namespace) -> dict[str, object]:
    return {"preset": "gentle", "batch_size": 64, "limit": asked.limit, "epochs": asked.epochs}


def images(asked: argparse.Namespace) -> dict[str, object]:
    return {"data": f"{asked.images}/train.parquet", "val": f"{asked.images}/{asked.val}"}


def command(asked: argparse.Namespace, out: Path, student: str, teacher: str, method: str) -> dict[str, object]:
    models = [zoo.reference(asked.models, name) for name in (student, teacher)]
    given = {
        **images(asked),
        **settings(asked),
        "student": models[0],
        "teacher": models[1],
        "method": method,
        "out": out,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    seconds = timed("transfer", *options, "--no-guard")
    metrics = json.loads((out / "result.json").read_text(encoding="utf-8"))
    about = {"way": "single commands", "student": student, "teacher": teacher, "method": method}
    return {**about, "seconds": f"{seconds:.3f}", "transfer_delta_pp": metrics["transfer_delta_pp"]}


def timed(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "gainfinder", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def summarise(rows: list[dict[str, str]]) -> None:
    single = [row for row in rows if row["way"] == "single commands"]
    alone_s = sum(float(row["seconds"]) for row in single)
    deltas = {pair(row): float(row["transfer_delta_pp"]) for row in single}
    print(f"{len(single)} single commands: {alone_s:.0f} s")
    for way in ("study before", "study after"):
        cells = [row for row in rows if row["way"] == way and row["student"] != ALL]
        whole_s = next(float(row["seconds"]) for row in rows if row["way"] == way and row["student"] == ALL)
        apart = max(abs(deltas[pair(row)] - float(row["transfer_delta_pp"])) for row in cells)
        print(f"{way}: {whole_s:.0f} s, {whole_s / alone_s:.2f} of it; Δ_transf differs by at most {apart:.2f} pp")


def pair(row: dict[str, str]) -> tuple[str, ...]:
    return row["student"], row["teacher"], row["method"]


if __name__ == "__main__":
    main()
