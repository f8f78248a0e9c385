"""Loads hostile data sources and decodes their images, each in a process of its own, and counts what happens.

    PYTHONPATH=tests/helpers python tests/campaigns/fuzz_data.py --out FOLDER [--runs 300] [--seed 0] [--only 17]

Sources are made at random from seed and number (tests/helpers/hostile.py): folders, tar archives, Parquet files, data
references and label maps, with images that are sound, odd, damaged or bombs. Each is read, or refused in one line; a
traceback, a message of several lines, a hang, a crash, more than 10 s of work or 2 GB of memory is a fault. Prints the
counts by kind as JSON, and of each fault its number, by which `--only` runs it again. Exits with 1 where there is one.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from hostile import Case, make_case, read

SLOW_S = 10.0
"""Seconds of work on a processor, above which a case is too slow."""
HANGS_S = 90.0
"""Seconds on the clock, after which a case is ended."""
MOST_GB = 2.0
GOOD = ("read", "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=None)
    asked = parser.parse_args()
    _warm_up(asked.out / "first")
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    for number in range(asked.runs) if asked.only is None else [asked.only]:
        folder = asked.out / str(number)
        case = make_case(f"{asked.seed}/{number}", folder)
        outcome, text = _tried(case)
        counts[case.kind, outcome] += 1
        if outcome not in GOOD:
            faults.append({"number": number, "kind": case.kind, "outcome": outcome, "text": text})
            print(json.dumps(faults[-1]), file=sys.stderr, flush=True)
        elif asked.only is None:
            shutil.rmtree(folder, ignore_errors=True)
        if asked.only is not None:
            print(f"{case.reference[:300]!r}: {text}")
    kinds = sorted({kind for kind, _ in counts})
    table = {kind: {outcome: n for (one, outcome), n in sorted(counts.items()) if one == kind} for kind in kinds}
    print(json.dumps({"runs": sum(counts.values()), "seed": asked.seed, "counts": table, "faults": faults}, indent=2))
    sys.exit(int(bool(faults)))


def _warm_up(folder: Path) -> None:
    """Import what readers import when they are first used, once for all the processes that are forked."""
    for number in range(12):
        read(make_case(f"first/{number}", folder / str(number)))
    read(Case("reference", "torch/mnist"))
    shutil.rmtree(folder)


def _tried(case: Case) -> tuple[str, str]:
    """What became of a case, in a forked process."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(case, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(HANGS_S):
            process.kill()
            return "HANG", f"ended after {HANGS_S:.0f} s"
        outcome, text = ours.recv()
        return str(outcome), str(text)
    except EOFError:
        process.join()
        return "CRASH", f"exit code {process.exitcode}"
    finally:
        process.join()


def _child(case: Case, results: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # notes, and what decoders write there
    began = time.process_time()
    outcome, text = read(case)
    took_s = time.process_time() - began
    held_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if outcome in GOOD and took_s > SLOW_S:
        outcome, text = "SLOW", f"{took_s:.0f} s of work; {text}"
    if outcome in GOOD and held_gb > MOST_GB:
        outcome, text = "MEMORY", f"{held_gb:.1f} GB; {text}"
    results.send((outcome, text))


if __name__ == "__main__":
    main()
