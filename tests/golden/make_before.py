"""Make a folder like `before/`, which holds what users of an earlier version have on disk.

`python tests/golden/make_before.py OUT --source SRC_DIR` runs the commands of `before/commands.toml` in OUT by the
package in SRC_DIR, and removes what is large and can be made again: reports, figures, what the guard asked.
"""

import argparse
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

BEFORE = Path(__file__).resolve().parent / "before"
EXPERTISE = {"student": range(7), "teacher": (0, 1, 4, 5, 6, 7, 8, 9)}
NOT_KEPT = ("figures", "report.html", "*.lock", "guard-*.parquet", "probe-*.parquet")


def make_models(folder: Path) -> None:
    """Train the two classifiers a little, each mostly on its own digits."""
    import torch
    from safetensors.torch import save_file
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1) / 16 - 0.5) / 0.5
    y = torch.tensor(labels)
    nets = runpy.run_path(str(folder / "nets.py"))
    for name, classes in EXPERTISE.items():
        torch.manual_seed(0)
        model = nets[name]()
        keep = torch.isin(y, torch.tensor(list(classes))) | (torch.arange(len(y)) % 20 == 0)
        _fit(model, x[keep], y[keep])
        save_file(model.state_dict(), folder / f"{name}.safetensors")


def _fit(model: Any, x: Any, y: Any) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(3):
        for batch in torch.randperm(len(y)).split(64):
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def start(line: str, folder: Path, source: Path) -> subprocess.Popen[bytes]:
    """Start a command."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([sys.executable, "-m", "gainfinder", *shlex.split(line)], cwd=folder, env=environment)


def make_unfinished(line: str, folder: Path, source: Path) -> None:
    """Run the transfer to its end, keep its student in expected/, and kill it in a second run."""
    if start(line, folder, source).wait():
        raise SystemExit(f"failed: {line}")
    run = folder / "unfinished"
    (folder / "expected").mkdir()
    (run / "student" / "model.safetensors").rename(folder / "expected" / "model.safetensors")
    while not _is_within_an_epoch(run / "checkpoint.pt"):
        shutil.rmtree(run)
        process = start(line, folder, source)
        while not ((run / "checkpoint.pt").exists() and (run / "epochs.jsonl").exists()):
            time.sleep(0.001)
        while not (run / "epochs.jsonl").stat().st_size:
            time.sleep(0.001)
        time.sleep(0.01)
        process.kill()
        process.wait()


def _is_within_an_epoch(checkpoint: Path) -> bool:
    import torch

    if not checkpoint.exists():
        return False
    progress = torch.load(checkpoint, weights_only=True)["progress"]
    return bool(progress["epoch"] >= 1 and progress["step"] >= 1)


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="must not exist")
    parser.add_argument("--source", type=Path, required=True, help="folder that holds the package")
    asked = parser.parse_args()
    out, source = asked.out.resolve(), asked.source.resolve()
    (out / "models").mkdir(parents=True)
    shutil.copy(BEFORE / "commands.toml", out)
    shutil.copy(BEFORE / "models" / "nets.py", out / "models")
    make_models(out / "models")
    texts = tomllib.loads((out / "commands.toml").read_text(encoding="utf-8"))
    lines = {
        name: line.replace("{nets}", texts["nets"]).replace("{short}", texts["short"]) for name, line in texts.items()
    }
    for name in ("finished", "scan", "predictions"):
        if start(lines[name], out, source).wait():
            raise SystemExit(f"failed: {lines[name]}")
    make_unfinished(lines["unfinished"], out, source)
    for path in [path for pattern in NOT_KEPT for path in out.rglob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
