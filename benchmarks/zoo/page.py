"""What the page of a large zoo costs: to keep the scan, to write the page, and to open and use it in a browser.

    python -m benchmarks.zoo.page --out benchmarks/zoo/page.csv
    python -m benchmarks.zoo.page --table benchmarks/zoo/page.csv

The zoo is that of `benchmarks.zoo.pairs`, of made-up predictions. A row each and round, and what is measured:

    keep    `write_scan`: scan.json and pairs.parquet; their size, and the process's peak of memory
    write   `write_report` in a new process: the page and its figures; the page's size, the process's peak
    open    headless Chromium, new each time: from the navigation's start until all is drawn; the renderer's memory
    sort    a click on a column's head until the table shows its order
    filter  part of a teacher's name until table and figures show these pairs alone
    map     another measure on the map of all pairs

Needs Chromium with its driver, and selenium.
"""

import argparse
import csv
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

import gainfinder
from benchmarks.lab.rows import append
from benchmarks.zoo.pairs import kept_by_a_scan, made_up, peak_mib
from gainfinder.metrics import scan_predictions
from gainfinder.results import write_scan

USES = {
    "sort": "document.querySelectorAll('#all-pairs thead button')[2].click()",
    "filter": "const one = document.getElementById('of-teacher'); one.value = '30';"
    "one.dispatchEvent(new Event('input'))",
    "map": "const one = document.querySelector('select[aria-label=colour]'); one.selectedIndex = 1;"
    "one.dispatchEvent(new Event('change'))",
}
"""What a reader does, as the page's script sees it."""
TIMED = """
const done = arguments[0], began = performance.now();
{use};
// The frame after next: what was changed has been painted by then.
requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - began) / 1000)));
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("page.csv"))
    parser.add_argument("--table", type=Path, metavar="ROWS", help="only print the table of these rows")
    parser.add_argument("--models", type=int, default=301)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.table is None:
        measure(asked)
    print_table(asked.table or asked.out)


def measure(asked: argparse.Namespace) -> None:
    """Rows of all rounds, on the page of one scan."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rows = [_in_new_process(make_scan, folder, asked)]
        for number in range(asked.rounds):
            for row in (*rows, _in_new_process(written, folder), *opened(folder)):
                about = {"models": asked.models, "pairs": asked.models * (asked.models - 1), "round": number}
                append(asked.out, {"kind": row["kind"], **about, "load": round(os.getloadavg()[0], 2), **row})
            rows = []


def make_scan(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Scan a zoo that is made up; what it takes is measured by `benchmarks.zoo.pairs`."""
    torch.set_num_threads(1)
    zoo = made_up(asked.models, asked.images, asked.classes, seed=0)
    scan = scan_predictions(kept_by_a_scan(zoo), num_classes=asked.classes)
    document = {**scan.to_dict(), "data": "made up", "asked": [one.model for one in scan.models]}
    began = time.perf_counter()
    write_scan(folder, document)
    seconds = time.perf_counter() - began
    size = sum((folder / name).stat().st_size for name in ("scan.json", "pairs.parquet"))
    return {"kind": "keep", "seconds": round(seconds, 2), "mib": _mib(size), "peak_mib": round(peak_mib())}


def written(folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    page = gainfinder.write_report(folder)
    seconds = time.perf_counter() - began
    return {
        "kind": "write",
        "seconds": round(seconds, 2),
        "mib": _mib(page.stat().st_size),
        "peak_mib": round(peak_mib()),
    }


def opened(folder: Path) -> Iterator[dict[str, Any]]:
    """Open the page in a new browser, and use it."""
    page = folder / "report.html"
    with browser() as driver:
        driver.get(f"file://{page}")
        drawn_ms = driver.execute_script("return performance.getEntriesByName('zoo drawn')[0].startTime")
        yield {
            "kind": "open",
            "seconds": round(drawn_ms / 1000, 3),
            "mib": _mib(page.stat().st_size),
            "peak_mib": _renderer_mib(driver),
        }
        for kind, use in USES.items():
            seconds = driver.execute_async_script(TIMED.replace("{use}", use))
            yield {"kind": kind, "seconds": round(seconds, 3), "mib": "", "peak_mib": _renderer_mib(driver)}


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from selenium import webdriver  # noqa: PLC0415 (for this measurement alone)
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415 (likewise)

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def _renderer_mib(driver: Any) -> int:
    """Memory of the largest of the browser's renderers, which is the page's."""
    found: list[psutil.Process] = psutil.Process(driver.service.process.pid).children(recursive=True)
    largest: int = max(one.memory_info().rss for one in found if "--type=renderer" in one.cmdline())
    return round(largest / 2**20)


def _in_new_process(work: Any, *given: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(work, *given).result()


def _mib(size: int) -> float:
    return round(size / 2**20, 2)


def print_table(path: Path) -> None:
    """Medians over the rounds, least and most in brackets."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    print("| kind | rounds | seconds | file, MiB | memory, MiB | load |")
    print("|---|---|---|---|---|---|")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        seconds = [float(row["seconds"]) for row in own]
        spread = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(own) > 1 else ""
        peak = statistics.median(float(row["peak_mib"]) for row in own)
        load = statistics.median(float(row["load"]) for row in own)
        size = own[0]["mib"] or "–"
        print(f"| {kind} | {len(own)} | {statistics.median(seconds):.2f}{spread} | {size} | {peak:,.0f} | {load:.1f} |")


if __name__ == "__main__":
    main()
