"""Changes valid tiny models of every kind at random, in bytes and in structure, and loads each.

    PYTHONPATH=tests/helpers python tests/campaigns/fuzz_models.py [--runs 500] [--seed 0] [--kind onnx] [--show]

Prints how many were loaded, refused in one line, or ended otherwise, by kind. Exits with 1 where a case ended in a
traceback, in a message of several lines, in a crash of the process, or not at all.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

from model_fuzzing import KINDS, make_seeds, run_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind (may be repeated)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds after which a case hangs")
    parser.add_argument("--show", action="store_true", help="print each case's outcome")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        seeds = make_seeds(base / "seeds")
        for number in range(given.runs):
            kind = (given.kind or KINDS)[number % len(given.kind or KINDS)]
            name, folder = f"{given.seed}/{number}", base / f"case{number}"
            found = run_case(seeds[kind], base / "seeds" / kind, folder, number=name, timeout_s=given.timeout)
            counts[kind, found.word] += 1
            if given.show or not found.good:
                print(f"{name} {kind}: {found.word} {found.text}", flush=True)
            if not found.good:
                faults.append(name)
            shutil.rmtree(folder, ignore_errors=True)
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind}: " + ", ".join(f"{n} {word}" for (of, word), n in sorted(counts.items()) if of == kind))
    print(f"{given.runs} cases, {len(faults)} faults" + (f": {', '.join(faults)}" if faults else ""))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
