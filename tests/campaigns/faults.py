"""Takes a run's surroundings away: disk, permission, clock, folder, data; and looks at what is said, and what is left.

    PYTHONPATH=tests/helpers python tests/campaigns/faults.py --out FOLDER [--only NAME …]

Each fault must end the command with exit code 2 and one line, or not at all; and once it is mended, the same command
must end with what an undisturbed one leaves. Full and read-only disks are small file systems in memory, which need
root. Prints a line a case; exits with 1 where one is wrong.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import gainfinder
from forked import comparable, documents, end_all, ended, last_line, start, unreadable
from tiny_models import train_zoo

SHORT = "--preset gentle --epochs 4 --batch-size 16 --limit 64 --checkpoint-every 2 --device cpu"
PAIR = "--student local-dir:zoo/vit --teacher local-dir:zoo/resnet --data digits#1/4 --val digits#2/4"
GUARD = "--labels none --guard --guard-data digits#3/4"
COMMANDS = {
    "transfer": f"transfer {PAIR} {SHORT} --no-guard --method kl-dp --out disk/out",
    "guard": f"transfer {PAIR} {SHORT} {GUARD} --out disk/out",
    "bank": f"transfer {PAIR} {SHORT} --no-guard --method kl-dp-u --bank disk/bank --out disk/out",
    "scan": "scan --model local-dir:zoo/vit --model local-dir:zoo/resnet --data digits#2/2 --device cpu --out disk/out",
    "predict": "predict --model local-dir:zoo/vit --data digits#2/2 --device cpu --out disk/out.parquet",
}
ROOM_KB = (16, 64, 200, 500, 900, 1500, 2500)
"""Sizes of disks: some are full before the first file, some within a checkpoint, some within the report."""
ROOMY_KB = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(asked.out.absolute())
    for name in asked.only:
        for told in CASES[name](campaign):
            print(f"{name}: {told}", flush=True)
    print(f"{campaign.cases} cases, {len(campaign.wrong)} wrong")
    sys.exit(int(bool(campaign.wrong)))


class Campaign:
    """Folders to run in, and what was found."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.cases = 0
        self.wrong: list[str] = []
        self._calm: dict[str, dict[str, object]] = {}
        if not (out / "zoo").exists():
            train_zoo(out / "zoo")

    def fresh(self, name: str) -> Path:
        """An empty folder with the models in it, its disk unmounted if one was left."""
        folder = self.out / name.replace(" ", "-")
        subprocess.run(["umount", str(folder / "disk")], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "disk").mkdir(parents=True)
        shutil.copytree(self.out / "zoo", folder / "zoo")
        return folder

    def calm(self, kind: str) -> dict[str, object]:
        """What the command leaves undisturbed."""
        if kind not in self._calm:
            folders = [self.fresh(f"calm-{kind}-{number}") for number in range(2)]
            codes = [ended(start(COMMANDS[kind], folder)) for folder in folders]
            if codes != [0, 0]:
                raise SystemExit(f"{kind} ends with {codes} undisturbed: {last_line(folders[0])}")
            self._calm[kind] = comparable(*folders)
        return self._calm[kind]

    def note(self, case: str, folder: Path, problems: list[str]) -> str:
        """Count a case; a line on it."""
        self.cases += 1
        self.wrong += [f"{case}: {one}" for one in problems]
        if not problems:
            shutil.rmtree(folder)
        return f"{case}: " + ("; ".join(problems) or "right")

    def refused(self, code: int | None, folder: Path, *words: str) -> list[str]:
        """What is wrong with how a command ended that could not go on."""
        text = (folder / "log").read_text(errors="replace")
        problems = [] if code == 2 else [f"ends with {code}: {last_line(folder)}"]
        problems += ["a traceback"] if "Traceback" in text else []
        problems += [f"no {word!r} in: {last_line(folder)}" for word in words if word not in last_line(folder)]
        return problems + unreadable(folder)

    def goes_on(self, kind: str, folder: Path) -> list[str]:
        """What is wrong with the result of the same command, now that nothing is in its way."""
        # A file of predictions that is there is not made again.
        there = kind == "predict" and (folder / "disk" / "out.parquet").exists()
        code = 0 if there else ended(start(COMMANDS[kind], folder))
        if code != 0:
            return [f"does not go on, ends with {code}: {last_line(folder)}"]
        found = documents(folder)
        wanted = self.calm(kind).items()
        # What a bank without room has let go, it need not have in the end.
        wrong = [key for key, value in wanted if found.get(key) != value and (key in found or "/bank/" not in key)]
        return [f"{key} differs" for key in wrong[:3]]


@contextlib.contextmanager
def disk(folder: Path, size_kb: int) -> Iterator[Callable[..., None]]:
    """A file system of so many kB in place of folder/disk; the function given changes its options."""
    at = str(folder / "disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", at], check=True)

    def change(*options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{','.join(options)}", at], check=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def full_disk(campaign: Campaign) -> Iterator[str]:
    """It fills up at some place; then there is room."""
    for kind, command in COMMANDS.items():
        for size_kb in ROOM_KB:
            campaign.calm(kind)
            folder = campaign.fresh(f"full-{kind}-{size_kb}")
            with disk(folder, size_kb) as change:
                code = ended(start(command, folder))
                problems = [] if code == 0 else campaign.refused(code, folder)
                change(f"size={ROOMY_KB}k")
                problems += campaign.goes_on(kind, folder)
            yield campaign.note(f"{kind}, {size_kb} kB (ended with {code})", folder, problems)


def read_only_disk(campaign: Campaign) -> Iterator[str]:
    """It cannot be written from the start."""
    for kind, command in COMMANDS.items():
        campaign.calm(kind)
        folder = campaign.fresh(f"read-only-{kind}")
        with disk(folder, ROOMY_KB) as change:
            change("ro")
            problems = campaign.refused(ended(start(command, folder)), folder)
            change("rw")
            problems += campaign.goes_on(kind, folder)
        yield campaign.note(kind, folder, problems)


def jumping_clock(campaign: Campaign) -> Iterator[str]:
    """The time of day jumps by days, forwards and backwards, at every look."""
    drawn, real = random.Random(0), time.time

    def jump() -> None:
        time.time = lambda: real() + drawn.uniform(-3e6, 3e6)

    for kind, command in COMMANDS.items():
        campaign.calm(kind)
        folder = campaign.fresh(f"clock-{kind}")
        code = ended(start(command, folder, jump))
        problems = [] if code == 0 else [f"ends with {code}: {last_line(folder)}"]
        yield campaign.note(kind, folder, problems + campaign.goes_on(kind, folder))


def folder_goes(campaign: Campaign) -> Iterator[str]:
    """The result's folder is moved away while it is written, and comes back; or is removed."""
    for kind in ("transfer", "guard", "bank"):
        for how in ("moved", "removed"):
            campaign.calm(kind)
            folder = campaign.fresh(f"{how}-{kind}")
            process = start(COMMANDS[kind], folder)
            out, away = folder / "disk" / "out", folder / "away"
            wait_for(out / "checkpoint.pt", process)
            if how == "moved":
                out.rename(away)
            else:
                shutil.rmtree(out, ignore_errors=True)
            code = ended(process)
            problems = [] if code == 0 else campaign.refused(code, folder, "out")
            if how == "removed":  # a file that was written while the others went keeps the folder: it is removed again
                shutil.rmtree(out, ignore_errors=True)
            if how == "moved":
                if out.exists():
                    problems.append("a new folder was made in place of the one that was moved")
                    shutil.rmtree(out)
                away.rename(out)
            yield campaign.note(f"{kind}, {how} (ended with {code})", folder, problems + campaign.goes_on(kind, folder))


def two_processes(campaign: Campaign) -> Iterator[str]:
    """A second process on a folder names the first one and leaves it alone."""
    for kind in ("transfer", "guard", "bank"):
        campaign.calm(kind)
        folder = campaign.fresh(f"two-{kind}")
        process = start(COMMANDS[kind], folder)
        wait_for(folder / "disk" / "out" / "checkpoint.pt", process)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)  # it lives, and is not done before the second one comes
        problems = campaign.refused(ended(start(COMMANDS[kind], folder)), folder, str(process.pid))
        os.kill(process.pid, signal.SIGCONT)
        if ended(process) != 0:
            problems.append(f"the first one ends with {process.exitcode}")
        yield campaign.note(kind, folder, problems + campaign.goes_on(kind, folder))


def changed_sources(campaign: Campaign) -> Iterator[str]:
    """Weights or images are others after a kill: what changed is named, and nothing is done."""
    pictures = PAIR.replace("digits#1/4", "pictures").replace("digits#2/4", "pictures")
    command = f"transfer {pictures} {SHORT.replace('--limit 64', '')} --no-guard --method kl --out disk/out"
    changes: dict[str, Callable[[Path], object]] = {
        "student": lambda folder: swap(folder, "vit"),
        "teacher": lambda folder: swap(folder, "resnet"),
        "data": lambda folder: next((folder / "pictures").rglob("*.png")).unlink(),
        "pictures": lambda folder: repaint(folder / "pictures"),
    }
    for name, change in changes.items():
        folder = campaign.fresh(f"changed-{name}")
        write_pictures(folder / "pictures")
        process = start(command, folder)
        wait_for(folder / "disk" / "out" / "checkpoint.pt", process)
        end_all(process)
        before = documents(folder)
        change(folder)
        word = "data" if name == "pictures" else name
        problems = campaign.refused(ended(start(command, folder)), folder, word)
        problems += [] if documents(folder) == before else ["files in its folder changed"]
        yield campaign.note(name, folder, problems)


def wait_for(path: Path, process: BaseProcess) -> None:
    while not path.exists() and process.exitcode is None:
        time.sleep(0.002)


def swap(folder: Path, name: str) -> None:
    """Other weights of the same names and shapes."""
    from safetensors.torch import load_file, save_file

    path = folder / "zoo" / name / "model.safetensors"
    save_file({key: value.flip(0) for key, value in load_file(path).items()}, path)


def write_pictures(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(160):
        place = folder / str(digits.target[number])
        place.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * 15.9).astype("uint8")
        Image.fromarray(pixels).save(place / f"{number}.png")


def repaint(folder: Path) -> None:
    """All pictures are others, of the same names and sizes."""
    from PIL import Image, ImageOps

    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            turned = ImageOps.invert(image.convert("L"))
        turned.save(path)


CASES: dict[str, Callable[[Campaign], Iterator[str]]] = {
    "full disk": full_disk,
    "read-only disk": read_only_disk,
    "jumping clock": jumping_clock,
    "folder goes": folder_goes,
    "two processes": two_processes,
    "changed sources": changed_sources,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gainfinder.transfer  # noqa: B018 - imports what every command needs before anything is forked
    main()
