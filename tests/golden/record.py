"""Record what the command line does: `python tests/golden/record.py OUT [--source SRC_DIR] [--fresh]`.

Runs the commands of `commands.toml` on tiny models, on the CPU, and writes OUT/recording.json: exit codes and
messages, digests of weights and predictions, and the accounts in the result folders. Nothing here imports gainfinder,
so any version of it can be recorded; `compare.py` tells what differs between two recordings.

Each command is a process of its own that runs the module gainfinder as `python -m gainfinder` does. Importing torch
takes most of such a process's time, so that by default these are forked from one that has imported the libraries
(never gainfinder) already; with --fresh each is a new interpreter.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src"
LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "pyarrow", "scikit-learn", "altair")
PRELOADED = [
    "accelerate", "altair", "pyarrow.csv", "pyarrow.parquet", "rich.table", "safetensors.torch", "sklearn.datasets",
    "timm", "torch", "torch._dynamo", "torchvision", "typer",
]  # fmt: skip
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
UNSET = ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONWARNINGS", "TERM")
KILL_LIMIT_S = 300
SIZE = 16
TIMES = ("seconds", "finished")
"""Of a result: told by the clock."""
EXPERTISE = {"vit": range(10), "resnet": range(7), "convnext": (0, 1, 2, 3, 5)}
WORDS = ("nine", "eight", "seven", "six", "five", "four", "three", "two", "one", "zero")

OWN = '''"""A small classifier."""

from torch import nn


def own():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(128, 10)
    )
    norm = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "crop_pct": 1.0}
    model.pretrained_cfg = {"input_size": (3, 16, 16), **norm}
    return model
'''

Document = dict[str, Any]
Start = Callable[[str, Path, Path], "multiprocessing.process.BaseProcess | subprocess.Popen[bytes]"]


# Processes


def run_here(line: str, folder: Path, logs: Path, source: Path) -> None:
    """Run a command in this process, which is its own."""
    os.chdir(folder)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        with logs.with_suffix(f".{name}").open("wb") as file:
            os.dup2(file.fileno(), stream)
        setattr(sys, name, open(stream, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
    sys.path.insert(0, str(source))
    sys.argv[1:] = shlex.split(line)
    runpy.run_module("gainfinder", run_name="__main__", alter_sys=True)


def forked(source: Path) -> Start:
    """Starts commands in processes forked from one that has imported the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def start(line: str, folder: Path, logs: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=run_here, args=(line, folder, logs, source))
        process.start()
        return process

    return start


def fresh(source: Path) -> Start:
    """Starts commands in new interpreters."""
    environment = {**os.environ, "PYTHONPATH": str(source)}

    def start(line: str, folder: Path, logs: Path) -> subprocess.Popen[bytes]:
        with logs.with_suffix(".stdout").open("wb") as out, logs.with_suffix(".stderr").open("wb") as err:
            command = [sys.executable, "-m", "gainfinder", *shlex.split(line)]
            return subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    return start


def ended(process: "multiprocessing.process.BaseProcess | subprocess.Popen[bytes]") -> int | None:
    """Wait for a process; its exit code."""
    if isinstance(process, subprocess.Popen):
        return process.wait()
    process.join()
    return process.exitcode


def kill_after_an_epoch(start: Start, line: str, folder: Path, logs: Path) -> None:
    """Start a transfer and kill it (SIGKILL) once it has written the row of its first epoch and a checkpoint."""
    process = start(line, folder, logs)
    run = folder / option(line, "--out")
    end = time.monotonic() + KILL_LIMIT_S
    while not ((run / "checkpoint.pt").exists() and _size(run / "epochs.jsonl")):
        if time.monotonic() > end or (run / "result.json").exists():
            raise SystemExit(f"{line}: could not be killed in time")
        time.sleep(0.002)
    process.kill()
    ended(process)
    if (run / "result.json").exists():
        raise SystemExit(f"{line}: had ended before it was killed")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# Models and images, made by the libraries alone


def make_inputs(out: Path) -> None:
    """Make all that the commands are about."""
    make_maps(out / "maps")
    make_images(out / "images")
    make_models(out / "models")


def make_models(folder: Path) -> None:
    """Save four tiny classifiers of handwritten digits as folders for local-dir:, each trained a little."""
    import torch
    from timm.models import save_for_hf

    x, y = _digits()
    for number, (name, classes) in enumerate(EXPERTISE.items()):
        torch.manual_seed(number)
        model = _tiny(name)
        # A twentieth of the other digits: an area of expertise, not a gap.
        keep = torch.isin(y, torch.tensor(list(classes))) | (torch.arange(len(y)) % 20 == 0)
        _fit(model, x[keep], y[keep])
        save_for_hf(model, str(folder / name), safe_serialization=True)
    words = _tiny("vit")
    words.load_state_dict(_state(folder / "vit"))
    with torch.no_grad():  # the vit with its classes the other way round, and other names
        words.head.weight.copy_(words.head.weight.flip(0))
        words.head.bias.copy_(words.head.bias.flip(0))
    words.pretrained_cfg = {**words.pretrained_cfg, "label_names": WORDS}
    save_for_hf(words, str(folder / "words"), safe_serialization=True)
    _make_own(folder, x, y)


def make_images(folder: Path) -> None:
    """Save digits as files: `labelled` in class folders, two of them cut short, `bare` in one folder, and as a .tar."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i in range(100):
        pixels = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)
        paths = (folder / "labelled" / str(digits.target[i]) / f"{i:03}.png", folder / "bare" / f"{i:03}.png")
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        if i < 2:
            paths[0].write_bytes(paths[0].read_bytes()[:60])
    with tarfile.open(folder / "bare.tar", "w") as archive:
        archive.add(folder / "bare", "bare")


def make_maps(folder: Path) -> None:
    """Label maps for the model of other class names."""
    folder.mkdir(parents=True)
    (folder / "words.json").write_text(json.dumps({word: str(9 - k) for k, word in enumerate(WORDS)}))
    (folder / "wrong.csv").write_text("teacher,student\neleven,1\n")


def _make_own(folder: Path, x: Any, y: Any) -> None:
    """A module of one's own, as a Python file and its weights, for file:."""
    import torch
    from safetensors.torch import save_file

    (folder / "own.py").write_text(OWN, encoding="utf-8")
    torch.manual_seed(len(EXPERTISE))
    model = runpy.run_path(str(folder / "own.py"))["own"]()
    _fit(model, x, y)
    save_file(model.state_dict(), folder / "own.safetensors")


def _digits() -> tuple[Any, Any]:
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1) / 16
    x = torch.nn.functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
    return (x - 0.5) / 0.5, torch.tensor(labels)


def _tiny(name: str) -> Any:
    import timm

    shape: Document
    if name == "vit":
        shape = {"img_size": SIZE, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 2}
        model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **shape)
    elif name == "convnext":
        shape = {"patch_size": 1, "depths": (1, 1, 1, 1), "dims": (8, 16, 32, 32)}
        model = timm.create_model("convnext_atto", num_classes=10, **shape)
    else:
        model = timm.create_model("resnet18", num_classes=10, layers=(1, 1, 1, 1), channels=(8, 16, 16, 32))
    model.pretrained_cfg = {
        **{key: value for key, value in model.pretrained_cfg.items() if not key.startswith("test_")},
        "input_size": (3, SIZE, SIZE),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": 10,
        "label_names": tuple("0123456789"),
    }
    return model


def _fit(model: Any, x: Any, y: Any) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(4):
        for batch in torch.randperm(len(y)).split(64):
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


def _state(folder: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


# What a command leaves


def option(line: str, name: str) -> str:
    """The value of an option of a command, or nothing."""
    words = shlex.split(line)
    return words[words.index(name) + 1] if name in words else ""


def files_of(line: str, folder: Path) -> dict[str, Path]:
    """The files that a command left where it was told to, by their path in the recording."""
    places = [option(line, "--out"), option(line, "--bank")]
    if line.startswith("report "):
        places.append(shlex.split(line)[1])
    roots = [folder / place for place in places if place and (folder / place).exists()]
    paths = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return {
        path.relative_to(folder).as_posix(): path
        for path in paths
        if path.is_file() and ".lock" not in {path.name, path.suffix}
    }


def read_files(files: dict[str, Path], mask: Callable[[str], str]) -> Document:
    """What the files say, in the groups `weights`, `predictions`, `accounts` and `messages`."""
    found: Document = {
        "weights": {},
        "predictions": {},
        "accounts": {"files": dict.fromkeys(files, True)},
        "messages": {},
    }
    for name, path in files.items():
        if path.suffix == ".safetensors":
            found["weights"][name] = _sha256(path.read_bytes())
        elif path.suffix in {".npy", ".csv"}:
            found["predictions"][name] = _sha256(path.read_bytes())
        elif path.suffix == ".parquet":
            found["predictions"][name], about = read_parquet(path)
            found["accounts"][name] = json.loads(mask(json.dumps(about)))
        elif path.suffix == ".json":
            found["accounts"][name] = _without_environment(json.loads(mask(path.read_text(encoding="utf-8"))))
        elif path.suffix == ".jsonl":
            found["accounts"][name] = [json.loads(mask(row)) for row in path.read_text(encoding="utf-8").splitlines()]
        elif path.suffix in {".html", ".svg"}:
            found["messages"][name] = mask(text_of(path.read_text(encoding="utf-8"))).splitlines()
    return found


def read_parquet(path: Path) -> tuple[Document, Document]:
    """A digest of each column's values, and what the metadata says."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = {
        name: f"{table[name].type} {_sha256(json.dumps(table[name].to_pylist(), default=bytes.hex).encode())}"
        for name in table.column_names
    }
    about = {key.decode(): json.loads(value) for key, value in (table.schema.metadata or {}).items()}
    return {"rows": len(table), **columns}, about


def text_of(page: str) -> str:
    """The words of a report or figure, a line each piece of text."""
    page = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
    pieces = (" ".join(piece.split()) for piece in re.split(r"<[^>]*>", page))
    return "\n".join(piece for piece in pieces if piece)


def masking(out: Path, source: Path) -> Callable[[str], str]:
    """Replaces what differs from one run or machine to the next: paths, times, memory and versions."""
    rules = [
        (re.escape(str(out)), "OUT"),
        (re.escape(str(source)), "SOURCE"),
        (re.escape(sys.prefix), "PYTHON"),
        (re.escape(importlib.metadata.version("torch")), "VERSION"),
        (r"\bgainfinder(\s+)\d[\w.]*", r"gainfinder\1VERSION"),
        (r"(?m)^.*: [\d,]+ of [\d,]+ images.*\n", ""),  # progress, a line every ten seconds
        (r"time: about .*", "time: TIME"),
        (r"memory: about [\d,]+ MB", "memory: MEMORY"),
        (r'"(\w+_s|memory_mb)": [\d.e+-]+', r'"\1": "MEASURED"'),
        (r"[\d,]+(\.\d+)? MB are free", "FREE"),
    ]

    def mask(text: str) -> str:
        for pattern, replacement in rules:
            text = re.sub(pattern, replacement, text)
        return text

    return mask


def forget_the_kill(found: Document, epochs: int) -> None:
    """Of a run that was killed: when that was, which differs from time to time."""
    lines = found["messages"]["stderr"]
    found["messages"]["stderr"] = [
        re.sub(r"going on after .*", "going on", line) for line in lines if not line.startswith("epoch ")
    ]
    for name, account in found["accounts"].items():
        if name.endswith("result.json"):
            account["resumed_epochs"] = (
                "some" if 1 <= account["resumed_epochs"] <= epochs else account["resumed_epochs"]
            )


def _without_environment(document: Document) -> Document:
    # The digest of a bank's entry is of the description that holds it.
    left_out = {"environment", *TIMES, *(["digest"] if "key" in document else [])}
    return {key: value for key, value in document.items() if key not in left_out}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# The whole


def record_one(start: Start, line: str, folder: Path, logs: Path, mask: Callable[[str], str]) -> Document:
    """Run a command, and read what it said and left."""
    exit_code = ended(start(line, folder, logs))
    said = {name: mask(logs.with_suffix(f".{name}").read_text(encoding="utf-8")) for name in ("stdout", "stderr")}
    found = read_files(files_of(line, folder) if exit_code == 0 else {}, mask)
    if "--json" in shlex.split(line) and exit_code == 0:
        found["accounts"]["stdout"] = _without_environment(json.loads(said.pop("stdout")))
    found["line"] = line
    found["messages"] |= {"exit code": exit_code, **{name: text.splitlines() for name, text in said.items()}}
    return found


def record(out: Path, source: Path, start: Start, renamed: dict[str, str]) -> Document:
    """Run all commands in a folder that does not exist yet; options have the old names that `renamed` begins with."""
    asked = tomllib.loads((HERE / "commands.toml").read_text(encoding="utf-8"))
    logs, mask = out / "logs", masking(out, source)
    logs.mkdir(parents=True)
    process = multiprocessing.get_context("spawn").Process(target=make_inputs, args=(out,))
    process.start()
    if ended(process) != 0:
        raise SystemExit("models and images could not be made")
    weights = {path.relative_to(out): path for path in sorted((out / "models").rglob("*.safetensors"))}
    found: Document = {
        "models": {str(name): _sha256(path.read_bytes()) for name, path in weights.items()},
        "commands": {},
    }
    for kind, name, line in _lines(asked, renamed):
        began = time.monotonic()
        if kind == "killed":
            kill_after_an_epoch(start, line, out, logs / f"{name}-killed")
        one = found["commands"][name] = record_one(start, line, out, logs / name, mask)
        if kind == "killed":
            forget_the_kill(one, int(option(line, "--epochs")))
        expected = 2 if kind == "mistakes" else 0
        wrong = "" if one["messages"]["exit code"] == expected else f"  exit code {one['messages']['exit code']}!"
        print(f"{time.monotonic() - began:6.1f} s  {name}{wrong}", flush=True)
    return found


def _lines(asked: Document, renamed: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    for kind in ("done", "killed", "mistakes"):
        for name, text in asked[kind].items():
            line = text.replace("{short}", asked["short"])
            yield kind, name, functools.reduce(lambda line, old: line.replace(renamed[old], old), renamed, line)


def main() -> None:
    """Record, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the recording; must not exist")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder that holds the package; default: src")
    parser.add_argument("--fresh", action="store_true", help="a new interpreter for each command (slow)")
    parser.add_argument("--old-options", action="store_true", help="SOURCE is of before options were renamed")
    asked = parser.parse_args()
    renamed = json.loads((HERE / "renamed.json").read_text(encoding="utf-8"))["options"] if asked.old_options else {}
    out, source = asked.out.resolve(), asked.source.resolve()
    if out.exists():
        parser.error(f"{out} exists already")
    if not (source / "gainfinder").is_dir():
        parser.error(f"{source} holds no package gainfinder")
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(ENVIRONMENT)
    began = time.monotonic()
    found = record(out, source, fresh(source) if asked.fresh else forked(source), renamed)
    found["versions"] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    (out / "recording.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{out / 'recording.json'}: {len(found['commands'])} commands in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
