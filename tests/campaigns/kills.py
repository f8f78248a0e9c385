"""Kills commands at random moments, starts them again, and compares what they leave with what undisturbed ones leave.

    PYTHONPATH=tests/helpers python tests/campaigns/kills.py --out FOLDER [--kills 300] [--seed 0] [--only NAME …]

A command of each kind is run twice undisturbed; of the values in its documents those that differ then (times) are not
compared. Then it is killed (SIGKILL, with all its processes) again and again in a fresh folder, at moments spread over
the time that it takes; every sixth life runs to its end, as does one that is quicker than its kill. After each kill
whatever has a whole file's name must be readable, and no finished epoch may be lost; in the end all documents, weights
and tables must be the same. Prints a line a command and totals as JSON; exits with 1 where anything is wrong.

Processes are forked from this one, which has imported the libraries: importing takes longer than what is killed.
"""

import argparse
import json
import random
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import gainfinder
from digit_files import digit_folder
from forked import comparable, documents, end_all, ended, last_line, start, unreadable
from tiny_models import train_zoo

SHORT = "--preset gentle --epochs 4 --batch-size 16 --limit 64 --checkpoint-every 2 --device cpu"
PAIR = "--student local-dir:zoo/vit --teacher local-dir:zoo/resnet --data digits#1/4 --val digits#2/4"
TWO = f"{PAIR} --teacher local-dir:zoo/convnext"
GUARD = "--labels none --guard --guard-data digits#3/4"
JOBS = {
    "transfer": f"transfer {PAIR} {SHORT} --no-guard --method kl-dp --out out",
    "slow weights": f"transfer {PAIR} {SHORT} --no-guard --method xe-kl-mcl --out out",
    "features": f"transfer {PAIR} {SHORT} --no-guard --method crd --negatives 16 --out out",
    "guard": f"transfer {PAIR} {SHORT} {GUARD} --referee local-dir:zoo/convnext --out out",
    "recipe": f"transfer {PAIR} {GUARD} --limit 48 --batch-size 16 --epochs 6 --device cpu --out out",
    "controls": f"transfer {PAIR} {SHORT} --guard --guard-data digits#3/4 --control copy --control labels --out out",
    "sequence": f"transfer {TWO} {SHORT} --no-guard --strategy sequential --method kl-dp-u --out out",
    "parallel": f"transfer {TWO} {SHORT} --no-guard --strategy parallel --method kl-dp-u --out out",
    "soup": f"transfer {TWO} {SHORT} --no-guard --strategy soup --method kl --out out",
    "bank": f"transfer {PAIR} {SHORT} --no-guard --method kl-dp-u --augment crop-flip --bank bank --out out",
    "crops": "transfer --student local-dir:zoo/vit --teacher local-dir:zoo/resnet --data digits --max-broken 0.1 "
             f"{SHORT} --no-guard --method kl-dp-u --augment crop-flip --decide-on image --bank bank --out out",
    "scan": "scan --model local-dir:zoo/vit --model local-dir:zoo/resnet --model local-dir:zoo/convnext "
            "--data digits#2/2 --device cpu --out out",
    "head": "fit-head --model local-dir:zoo/vit --data digits#1/2 --device cpu --out out",
    "study": "study run study.toml --out out --workers 2 --threads 1",
}  # fmt: skip
STUDY = """
[study]
students = ["vit", "resnet"]
teachers = ["convnext", "resnet"]
[models]
vit = "local-dir:zoo/vit"
resnet = "local-dir:zoo/resnet"
convnext = "local-dir:zoo/convnext"
[data]
data = "digits#1/4"
val = "digits#2/4"
[settings]
preset = "gentle"
epochs = 4
limit = 64
batch_size = 16
device = "cpu"
guard = false
method = "kl-dp-u"
"""
LIVES = 6
"""A folder is killed so often at most, less one; its last life runs to the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if not (asked.out / "zoo").exists():
        train_zoo(asked.out / "zoo")
    if not (asked.out / "digits").exists():
        digit_folder(asked.out / "digits", 120, broken=2)
    drawn, counts = random.Random(asked.seed), []
    for number, name in enumerate(asked.only):
        kills = asked.kills // len(asked.only) + (number < asked.kills % len(asked.only))
        job = Job(name=name, command=JOBS[name], folder=asked.out.absolute() / name.replace(" ", "-"))
        counts.append(job.run(kills, drawn))
        print(f"{name}: {counts[-1]}", *job.wrong, sep="\n  ", flush=True)
        if not job.wrong:
            shutil.rmtree(job.folder)
    total = {key: sum(count[key] for count in counts) for key in counts[0]}
    print(json.dumps(total))
    sys.exit(int(total["wrong"] > 0))


@dataclass(kw_only=True)
class Job:
    """A command that is run undisturbed, and killed."""

    name: str
    command: str
    folder: Path
    wrong: list[str] = field(default_factory=list)

    def run(self, kills: int, drawn: random.Random) -> dict[str, int]:
        """Kill the command so often, each folder until it is done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        began = time.monotonic()
        calm = [self._calm(f"calm-{number}") for number in range(2)]
        took_s = (time.monotonic() - began) / 2
        same = comparable(calm[0], calm[1])
        done, folders = 0, 0
        while done < kills and len(self.wrong) < 5:
            folder = self._fresh(f"killed-{folders}")
            done += self._lives(folder, min(LIVES - 1, kills - done), took_s, drawn)
            folders += 1
            self._compare(folder, same)
        return {"kills": done, "folders": folders, "compared": len(same), "wrong": len(self.wrong)}

    def _calm(self, name: str) -> Path:
        folder = self._fresh(name)
        code = ended(start(self.command, folder))
        if code != 0:
            raise SystemExit(f"{self.name}: ends with {code} undisturbed: {folder}/log")
        return folder

    def _fresh(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        for shared in ("zoo", "digits"):
            (folder / shared).symlink_to(self.folder.parent / shared)
        (folder / "study.toml").write_text(STUDY, encoding="utf-8")
        return folder

    def _lives(self, folder: Path, most: int, took_s: float, drawn: random.Random) -> int:
        """Start the command until it ends by itself; how often it was killed."""
        kills, rows = 0, finished_epochs(folder)
        while True:
            process = start(self.command, folder)
            if kills < most:
                process.join(drawn.uniform(0.0, took_s))
            else:
                process.join()
            if process.exitcode is None:
                end_all(process)
                kills += 1
                self.wrong += [f"{folder}: after kill {kills}: {one}" for one in unreadable(folder)]
                now = finished_epochs(folder)
                lost = [path for path, count in rows.items() if now.get(path, 0) < count]
                self.wrong += [f"{folder}: kill {kills} loses finished epochs of {path}" for path in lost]
                rows = now
                continue
            if process.exitcode != 0:
                self.wrong.append(f"{folder}: ends with {process.exitcode} after kill {kills}: {last_line(folder)}")
            return kills

    def _compare(self, folder: Path, same: dict[str, object]) -> None:
        found = documents(folder)
        for key, value in same.items():
            if found.get(key) != value:
                self.wrong.append(f"{folder}: {key} is {found.get(key)!r:.80}, undisturbed {value!r:.80}")
        self.wrong += [f"{path} is left over" for path in folder.rglob(".partial-*")]


def finished_epochs(folder: Path) -> dict[str, int]:
    """Rows of finished epochs, whole lines alone, in each result folder."""
    found = {}
    for path in folder.rglob("epochs.jsonl"):
        found[str(path.relative_to(folder))] = path.read_text(encoding="utf-8").count("\n")
    return found


if __name__ == "__main__":
    gainfinder.transfer  # noqa: B018 - imports what every command needs before anything is forked
    main()
