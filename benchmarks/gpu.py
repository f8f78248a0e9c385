"""All that is measured of the project's speed on a GPU, in one command of less than eight minutes.

    python -m benchmarks.gpu --out DIR                # on a machine with an NVIDIA GPU
    python -m benchmarks.gpu --out DIR --small        # tiny models, a few steps: to try the script, on a CPU too

Neither network nor weights nor images are needed: models have random weights, images are noise. Sections, each with
its own file of rows `DIR/NAME.csv` and its own time (`--budget NAME=SECONDS`):

    steps      a step of transfer beside fine-tuning, timm's task and the published code; peak memory of each
    bare       fine-tuning beside a bare PyTorch loop
    profile    where a step's time goes, by torch's profiler
    frozen     changes to a frozen model's forward pass, one at a time
    compiled   torch.compile: a frozen model's forward pass and a bare step
    disk       images a second from JPEG files, by the number of decoding processes
    doctor     what `gainfinder doctor` finds
    several    two processes, where there are two GPUs
    tests      the tests marked `gpu`, in what time the others leave

A section that is done (`DIR/NAME.done`) is skipped, one that was cut off begins anew, and one that fails leaves
`DIR/NAME.failed` and does not keep the others. What the rows mean: benchmarks/speed/README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import gainfinder
from benchmarks.speed.bench import FULL, SMALL, Bench
from benchmarks.speed.gpu_compiled import measure_compiled
from benchmarks.speed.gpu_disk import measure_disk
from benchmarks.speed.gpu_inside import measure_frozen, measure_profile
from benchmarks.speed.gpu_outside import measure_doctor, measure_several, measure_tests
from benchmarks.speed.gpu_steps import measure_bare, measure_steps
from benchmarks.speed.sections import Section, Sheet, run_sections

SECTIONS: dict[str, tuple[float, Callable[[Sheet, Bench], None]]] = {
    "steps": (80, measure_steps),
    "bare": (25, measure_bare),
    "profile": (20, measure_profile),
    "frozen": (40, measure_frozen),
    "disk": (40, measure_disk),
    "doctor": (40, measure_doctor),
    "compiled": (90, measure_compiled),
    "several": (10, measure_several),
    "tests": (120, measure_tests),
}
"""The sections in their order, with the seconds that each may take; the last one has what the others leave, too."""
LAST = "tests"
TOTAL_S = 470.0
SLOWER = 10
"""With `--small` each may take so many times as long: a CPU may be slow."""
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "triton", "nvidia-cudnn-cu13")


def main() -> None:
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    out: Path = asked.out.resolve()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not asked.small:
        sys.exit("torch finds no GPU: `--small` tries the script without one")
    machine = machine_of(device)
    (out / "machine.json").write_text(json.dumps(machine, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(machine), flush=True)
    work = out / "work" if asked.work is None else asked.work.resolve()
    bench = Bench(work=work, out=out, scale=SMALL if asked.small else FULL, device=device)
    slower = SLOWER if asked.small else 1
    budgets = {**{name: slower * seconds for name, (seconds, _) in SECTIONS.items()}, **dict(asked.budget)}
    failed = run_sections(sections_for(bench, asked.only, budgets), out, total_s=slower * asked.total)
    if failed:
        sys.exit(f"not done: {', '.join(failed)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder for models, images and traces, 2 GB; by default OUT/work")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--small", action="store_true", help="tiny models and few steps, to try the script")
    parser.add_argument("--total", type=float, default=TOTAL_S, help=f"seconds for all, {TOTAL_S:.0f}")
    parser.add_argument("--budget", nargs="+", type=budget, default=[], metavar="NAME=SECONDS")
    return parser.parse_args()


def budget(text: str) -> tuple[str, float]:
    """The seconds that a section is given."""
    name, _, seconds = text.partition("=")
    if name not in SECTIONS:
        raise argparse.ArgumentTypeError(f"{name!r} is no section: expected one of {', '.join(SECTIONS)}")
    return name, float(seconds)


def sections_for(bench: Bench, names: list[str], budgets: dict[str, float]) -> list[Section]:
    """The sections of these names, in their own order."""

    def section(name: str, measure: Callable[[Sheet, Bench], None]) -> Section:
        return Section(
            name=name, budget_s=budgets[name], run=lambda sheet: measure(sheet, bench), takes_rest=name == LAST
        )

    return [section(name, measure) for name, (_, measure) in SECTIONS.items() if name in names]


def machine_of(device: torch.device) -> dict[str, Any]:
    """GPU, processor, versions and date."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gainfinder": gainfinder.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{name: _version(name) for name in PACKAGES},
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": gpu.name,
            "gpus": torch.cuda.device_count(),
            "gpu_memory_mb": round(gpu.total_memory / 1e6),
            "gpu_processors": gpu.multi_processor_count,
            "compute_capability": f"{gpu.major}.{gpu.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    main()
