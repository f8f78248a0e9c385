"""What large inputs cost: 50,000 images of 1,000 classes, a folder of 200,000 files, a scan of 60 models.

    python -m benchmarks.scale.commands --folder SCRATCH --out benchmarks/scale/commands.csv
    python -m benchmarks.scale.commands --table benchmarks/scale/commands.csv

Inputs are made in SCRATCH, some 1 GB of it with the results: pictures of 8 x 8 pixels and models of a layer or two, so
that what is measured is everything but the models. Each command is a new process; a row each with its seconds, those of
the processors, and the peak of its memory, as they come.
"""

import argparse
import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

COLUMNS = ("what", "images", "classes", "models", "seconds", "cpu_s", "peak_mib", "result_mib")
IMAGES, CLASSES = 50_000, 1_000
FILES, FOLDERS = 200_000, 1_000
MODELS = 60
PICTURES = 500
"""Pictures that differ; the others repeat them."""
LINEAR = '''"""A layer that answers for pictures of 8 x 8 pixels; two of them know different things."""

import torch
from torch import nn


class Mean(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.head = nn.Linear(192, 1000)
        nn.init.normal_(self.head.weight, std=0.5, generator=torch.Generator().manual_seed(seed))

    def forward(self, x):
        return self.head(x.flatten(1))


def first():
    return Mean(0)


def second():
    return Mean(1)
'''
PIXELS = "?size=8&mean=0.5,0.5,0.5&std=0.5,0.5,0.5&crop_pct=1&interpolation=bilinear"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, metavar="ROWS", help="only print the table of these rows")
    asked = parser.parse_args()
    if asked.table is None:
        if asked.folder is None or asked.out is None:
            parser.error("give --folder and --out, or --table")
        asked.folder.mkdir(parents=True, exist_ok=True)
        with asked.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in rows(asked.folder.absolute()):
                writer.writerow(row)
                file.flush()
    with (asked.table or asked.out).open(newline="") as file:
        print_table(list(csv.DictReader(file)))


def rows(folder: Path) -> Iterator[dict[str, object]]:
    (folder / "linear.py").write_text(LINEAR, encoding="utf-8")
    pictures = [drawn(number) for number in range(PICTURES)]
    yield from report_of_many_classes(folder, pictures)
    yield from folder_of_many_files(folder, pictures)
    yield from scan_of_many_models(folder)


def report_of_many_classes(folder: Path, pictures: list[bytes]) -> Iterator[dict[str, object]]:
    labels = np.arange(IMAGES) % CLASSES
    content = [{"bytes": pictures[number % PICTURES]} for number in range(IMAGES)]
    pq.write_table(pa.table({"image": content, "label": labels}), folder / "many.parquet")
    models = [f"file:{folder}/linear.py:{name}{PIXELS}" for name in ("first", "second")]
    out, about = folder / "out", {"images": IMAGES, "classes": CLASSES, "models": 2}
    learned = [
        "--data",
        f"{folder}/many.parquet",
        "--val",
        f"{folder}/many.parquet",
        "--limit",
        "2000",
        "--epochs",
        "1",
    ]
    transfer = [
        "transfer",
        "--student",
        models[0],
        "--teacher",
        models[1],
        *learned,
        "--no-guard",
        "--preset",
        "gentle",
    ]
    yield measured("transfer of 2,000 images, measured on all", [*transfer, "--out", str(out)], out, about)
    yield measured("report of that transfer", ["report", str(out)], out / "report.html", about)


def folder_of_many_files(folder: Path, pictures: list[bytes]) -> Iterator[dict[str, object]]:
    """Files of one content are one file by several names: listing and opening cost the same."""
    root = folder / "files"
    for number in range(FILES):
        path = root / f"{number % FOLDERS:03d}" / f"{number}.png"
        first = root / f"{number % PICTURES:03d}" / f"{number % PICTURES}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        if number < PICTURES:
            path.write_bytes(pictures[number])
        else:
            os.link(first, path)
    about = {"images": FILES, "classes": FOLDERS, "models": 0}
    look = "import gainfinder, sys; print(len(gainfinder.load_images(sys.argv[1])))"
    yield measured("a folder opened, nothing decoded", ["-c", look, str(root)], None, about)
    peer = "import sys; from torchvision.datasets import ImageFolder; print(len(ImageFolder(sys.argv[1])))"
    yield measured("the same by torchvision's ImageFolder", ["-c", peer, str(root)], None, about)
    model, out = f"file:{folder}/linear.py:first{PIXELS}", folder / "predictions.parquet"
    predict = ["predict", "--model", model, "--data", str(root), "--top-k", "10", "--out", str(out)]
    yield measured("predict, the ten most probable classes", predict, out, {**about, "models": 1})


def scan_of_many_models(folder: Path) -> Iterator[dict[str, object]]:
    for count in (6, MODELS):
        for number in range(count):
            place = folder / "zoo" / f"net{number}"
            if not place.exists():
                torch.manual_seed(number)
                net = timm.create_model("resnet18", num_classes=10, in_chans=3, pretrained=False)
                save_for_hf(net, str(place), safe_serialization=True)
        models = [f"--model=local-dir:{folder}/zoo/net{number}?size=32&crop_pct=1" for number in range(count)]
        scan, out = ["scan", *models, "--data", "digits#1/4"], folder / f"scan-{count}"
        about = {"images": 450, "classes": 10, "models": count}
        yield measured("scan of ResNet-18s at 32 pixels", [*scan, "--out", str(out)], out, about)


def measured(what: str, arguments: list[str], result: Path | None, about: dict[str, int]) -> dict[str, object]:
    program = [] if arguments[0] == "-c" else ["-m", "gainfinder"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *program, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{what}: ends with {os.waitstatus_to_exitcode(status)}")
    return {
        "what": what,
        **about,
        "seconds": f"{seconds:.1f}",
        "cpu_s": f"{usage.ru_utime + usage.ru_stime:.1f}",
        "peak_mib": round(usage.ru_maxrss / 1024),
        "result_mib": "" if result is None else f"{size(result) / 2**20:.1f}",
    }


def size(path: Path) -> int:
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())


def drawn(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def print_table(found: list[dict[str, str]]) -> None:
    print("| what | images | classes | models | seconds | of the processors | peak, MiB | result, MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for row in found:
        print("| " + " | ".join(row[name] for name in COLUMNS) + " |")


if __name__ == "__main__":
    main()
