"""What it spares that glibc keeps the memory that a command frees, for its next tensors, and what memory that takes.

    python -m benchmarks.speed.memory --folder FOLDER --out benchmarks/speed/memory.csv

Models of random weights learn from a ResNet-18 on the digits that come with scikit-learn, made as large as the models
want them: whole `gainfinder transfer` commands on one thread, one way and the other in turn. Nothing else is needed
but Linux with glibc, which by default gives each freed tensor of 32 MB and more back to the system.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
from timm.models import save_for_hf

STUDENTS: dict[str, dict[str, Any]] = {
    "resnet18, 224": {"name": "resnet18"},
    "tf_efficientnet_lite0, 224": {"name": "tf_efficientnet_lite0"},
    "vit_tiny_patch16_224, 224": {"name": "vit_tiny_patch16_224"},
    "resnet18, 64": {"name": "resnet18", "size": 64},
}
WAYS: dict[str, dict[str, str]] = {
    "as it is": {},
    "kept": {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)},
}
MEASURES = ("wall_s", "user_s", "system_s", "peak_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--students", nargs="+", choices=tuple(STUDENTS), default=tuple(STUDENTS))
    asked = parser.parse_args()
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    with asked.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("student", "way", "round", *MEASURES))
        for number in range(1, asked.rounds + 1):
            for student in asked.students:
                for way in WAYS:
                    measured = run(student, way, asked.folder, asked.images)
                    found.setdefault((student, way), []).append(measured)
                    writer.writerow((student, way, number, *(f"{value:.2f}" for value in measured)))
                    file.flush()
                    print(student, way, number, *(f"{value:.1f}" for value in measured), flush=True)
    for (student, way), rows in found.items():
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(
            f"{student}, {way}:",
            ", ".join(f"{name} {value:.1f}" for name, value in zip(MEASURES, medians, strict=True)),
        )


def run(student: str, way: str, folder: Path, images: int) -> tuple[float, ...]:
    """Seconds, processor seconds of the program and of the system, and the largest size in memory, of one command."""
    references = [
        f"local-dir:{made(folder, **model)}" for model in (STUDENTS[student], {"name": "resnet18", "size": 64})
    ]
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    arguments = [
        "transfer", "--student", references[0], "--teacher", references[1], "--data", "digits#2/4", "--val",
        "digits#1/8", "--no-guard", "--limit", str(images), "--epochs", "1", "--batch-size", "32", "--lr", "1e-4",
        "--workers", "0", "--device", "cpu", "--out", str(out),
    ]  # fmt: skip
    code = f"import sys; sys.argv[1:] = {arguments!r}; from gainfinder.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **WAYS[way]}
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{student}, {way}: {said.decode()}")
    return time.perf_counter() - began_s, used.ru_utime, used.ru_stime, used.ru_maxrss * 1024 / 1e6


def made(folder: Path, *, name: str, size: int = 224) -> Path:
    """A folder with a model of random weights and ten classes."""
    path = folder / f"{name}-{size}"
    if not path.exists():
        model: Any = timm.create_model(name, num_classes=10)
        model.pretrained_cfg = {**model.pretrained_cfg, "num_classes": 10, "input_size": (3, size, size)}
        save_for_hf(model, str(path))
    return path


if __name__ == "__main__":
    main()
