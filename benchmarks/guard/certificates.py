"""What the guard certifies, without labels, by referees and with labels, on small transfers whose outcome is known.

    python -m benchmarks.guard.certificates run --models ZOO ZOO2 --images IMAGES --minutes 30 --out certificates.csv
    python -m benchmarks.guard.certificates run --long --models ZOO ZOO2 --images IMAGES --minutes 30 --out long.csv
    python -m benchmarks.guard.certificates table benchmarks/guard/certificates.csv

`rejudge` decides anew, by the guard's present rule, what is kept by the posterior and by labels: from the gains and
p-values of the rows, which do not change with it. What referees keep it leaves as it was.

A row is a transfer (`small.py`) and a candidate; rows are added as they come. Columns: the job; `delta_pp`, the true
change in accuracy on the images that measure, and `delta_error_pp`; `changed`, the share of guard images whose answer
changed; `gained` and `lost`, and the posterior's `gain`, `error`, `p_value` and `veto` on guard images; `half`, by
student and teacher: the rule was chosen on 0 and is reported on 1; and whether it is what is kept by the posterior, by
one and by three referees, by labels, and by the rule before certificates.
"""

import argparse
import csv
import hashlib
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.guard import former
from benchmarks.guard.small import ADAPTED, GUARD_IMAGES, Job, Parts, Recording, Small, jobs, long_jobs
from benchmarks.lab.rows import append
from gainfinder.metrics import Candidate, Judgement, choose, judge, selection
from gainfinder.predictions import Predictions

RULES = ("posterior", "one_referee", "three_referees", "labels", "former")
RELATED = {"resnet20": "public", "resnet32": "public"}
"""Models that were trained alike; each other one is of a kind of its own."""


def predictions(name: str, logits: Tensor, target: Tensor | None = None) -> Predictions:
    """Images go by their number."""
    ids = tuple(map(str, range(len(logits))))
    return Predictions(model=name, ids=ids, logits=logits.float(), target=target)


def referees_of(job: Job, names: Sequence[str]) -> list[str]:
    """All models that are no relatives of student and teacher, in an order of the job's own."""
    taken = {RELATED.get(name, name) for name in (job.student, job.teacher)}
    free = [name for name in names if RELATED.get(name, name) not in taken]
    return sorted(free, key=lambda name: zlib.crc32(f"{name} {job}".encode()))


def judged(
    found: Recording, *, referees: Sequence[Predictions] = (), target: Tensor | None = None
) -> dict[Candidate, Judgement]:
    """As `runs.guard` judges: the re-estimated student first."""
    before, teacher = predictions("before", found.before.guard, target), predictions("teacher", found.teacher.guard)
    level = level_of(found.candidates, apart=target is not None or bool(referees))
    judgements: dict[Candidate, Judgement] = {}
    adapted = None
    for candidate, parts in sorted(found.candidates.items(), key=lambda one: not one[0].bn_reestimated):
        after = predictions(candidate.name, parts.guard)
        judgements[candidate] = judge(
            before, after, [teacher], candidate=candidate, level=level, referees=referees, adapted=adapted
        )
        if judgements[candidate].measure == "information" and judgements[candidate].holds:
            adapted = after
    return judgements


def level_of(candidates: Iterable[Candidate], *, apart: bool) -> float:
    """Error of each test: the re-estimated student has a test of its own where it is not judged by information."""
    return selection.LEVEL / (2 if apart and ADAPTED in candidates else 1)


def formerly(found: Recording) -> Candidate | None:
    """What the rule before certificates keeps."""
    before, teacher = predictions("before", found.before.guard), predictions("teacher", found.teacher.guard)
    judgements = [
        former.judge(
            before,
            predictions(candidate.name, parts.guard),
            [teacher],
            candidate=candidate,
        )
        for candidate, parts in found.candidates.items()
    ]
    return former.choose(judgements)


def rows_of(
    job: Job, found: Recording, others: Mapping[str, Tensor], *, guard_y: Tensor, test_y: Tensor
) -> Iterator[dict[str, Any]]:
    """A row for each candidate.

    Args:
        job: the transfer.
        found: its answers.
        others: logits of all models for the guard images, by name.
        guard_y: labels of the images that guard.
        test_y: labels of those that measure.
    """
    referees = [predictions(name, others[name]) for name in referees_of(job, sorted(others))[:3]]
    by_posterior, by_labels = judged(found), judged(found, target=guard_y)
    level = level_of(found.candidates, apart=True)
    kept = {
        "posterior": choose(list(by_posterior.values())),
        "one_referee": choose(list(judged(found, referees=referees[:1]).values()), level=level),
        "three_referees": choose(list(judged(found, referees=referees).values()), level=level),
        "labels": choose(list(by_labels.values()), level=level),
        "former": formerly(found),
    }
    half = int(hashlib.md5(str((job.student, job.teacher)).encode()).hexdigest(), 16) % 2
    for candidate, parts in found.candidates.items():
        blind, seeing = by_posterior[candidate], by_labels[candidate]
        gains = 100 * (right(parts, test_y) - right(found.before, test_y))
        changed = parts.guard.argmax(dim=1) != found.before.guard.argmax(dim=1)
        row = {
            **asdict(job),
            "candidate": candidate.name,
            "half": half,
            "delta_pp": float(gains.mean()),
            "delta_error_pp": float(gains.std()) / len(gains) ** 0.5,
            "changed": float(changed.double().mean()),
            "gained": seeing.gained,
            "lost": seeing.lost,
            "measure": blind.measure,
            "gain": blind.gain,
            "error": blind.error,
            "p_value": "" if blind.p_value is None else blind.p_value,
            "veto": blind.veto or "",
            **{rule: int(kept[rule] == candidate) for rule in RULES},
        }
        yield {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


def right(parts: Parts, target: Tensor) -> Tensor:
    return (parts.test.argmax(dim=1) == target).double()


def run(models: Sequence[Path], images: Path, out: Path, *, minutes: float, first: int, long: bool) -> None:
    """Run transfers until the time is over."""
    lab, began = Small(models, images), time.monotonic()
    others = {name: answers[-2] for name, answers in lab.answers.items()}
    for job in (long_jobs if long else jobs)(first):
        if time.monotonic() - began > 60 * minutes:
            return
        for row in rows_of(job, lab.record(job), others, guard_y=lab.guard_y, test_y=lab.test_y):
            append(out, row)


def transfers_in(path: Path) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """The rows of each transfer, in the order of the file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    transfers: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        transfers.setdefault(tuple(row[name] for name in Job.__dataclass_fields__), []).append(row)
    return transfers


def rejudge(path: Path) -> None:
    """Write the file anew with what the present rule keeps."""
    rows = []
    for transfer in transfers_in(path).values():
        for rule, remade in (("posterior", _by_posterior), ("labels", _by_labels)):
            level = level_of(map(_candidate, transfer), apart=rule == "labels")
            kept = choose([remade(row, level) for row in transfer], level=level)
            for row in transfer:
                row[rule] = str(int(kept == _candidate(row)))
        rows += transfer
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _candidate(row: Mapping[str, str]) -> Candidate:
    return ADAPTED if row["candidate"] == ADAPTED.name else Candidate(alpha=float(row["candidate"]))


def _by_posterior(row: Mapping[str, str], level: float) -> Judgement:
    gain, error = float(row["gain"]), float(row["error"])
    by_information = row["measure"] == "information"
    p_value = float(row["p_value"]) if row["p_value"] else None
    margin = selection.INFORMATION_MARGIN if by_information else selection.POSTERIOR_MARGIN
    return Judgement(
        candidate=_candidate(row),
        measure="information" if by_information else "posterior",
        gain=gain,
        error=error,
        sure_gain=gain - margin * error,
        veto=_chance(p_value, level) if row["veto"] in ("", selection.MAY_BE_CHANCE) else row["veto"],
        p_value=p_value,
    )


def _chance(p_value: float | None, level: float) -> str | None:
    return selection.MAY_BE_CHANCE if p_value is not None and p_value > level else None


def _by_labels(row: Mapping[str, str], level: float) -> Judgement:
    gained, lost = int(row["gained"]), int(row["lost"])
    p_value, gain = selection.sign_test(gained, lost), 100 * (gained - lost) / GUARD_IMAGES
    error = 100 * (gained + lost - (gained - lost) ** 2 / GUARD_IMAGES) ** 0.5 / GUARD_IMAGES
    return Judgement(
        candidate=_candidate(row),
        measure="accuracy",
        gain=gain,
        error=error,
        sure_gain=gain - selection.ACCURACY_MARGIN * error,
        veto=selection.MAY_BE_CHANCE if p_value > level else None,
        p_value=p_value,
    )


def print_tables(path: Path) -> None:
    """How often each rule is right, and each transfer by itself."""
    transfers = transfers_in(path)
    print(
        "| judged by | half | transfers | gain ≥ 1 pp | of these kept | no gain | of these kept | significantly < 0 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for rule in RULES:
        for name, halves in (("chosen on", "0"), ("reported on", "1"), ("both", "01")):
            chosen = [one for one in transfers.values() if one[0]["half"] in halves]
            print(f"| {rule.replace('_', ' ')} | {name} | {' | '.join(map(str, counts(chosen, rule)))} |")
    print("\n| student | teacher | method | best Δ pp | kept by the posterior | Δ pp | right |")
    print("|---|---|---|---|---|---|---|")
    for one in sorted(transfers.values(), key=lambda one: (one[0]["student"], one[0]["teacher"])):
        print(f"| {' | '.join(told(one))} |")


def counts(transfers: Sequence[Sequence[Mapping[str, str]]], rule: str) -> tuple[int, ...]:
    gains = [one for one in transfers if best(one) >= 1]
    none = [one for one in transfers if best(one) <= 0]
    kept = [row for one in transfers for row in one if row[rule] == "1"]
    worse = [row for row in kept if float(row["delta_pp"]) < -1.645 * float(row["delta_error_pp"])]
    return (
        len(transfers),
        len(gains),
        sum(any(row[rule] == "1" and float(row["delta_pp"]) > 0 for row in one) for one in gains),
        len(none),
        sum(any(row[rule] == "1" for row in one) for one in none),
        len(worse),
    )


def best(transfer: Sequence[Mapping[str, str]]) -> float:
    return max(float(row["delta_pp"]) for row in transfer)


def told(transfer: Sequence[Mapping[str, str]]) -> list[str]:
    first, kept = transfer[0], [row for row in transfer if row["posterior"] == "1"]
    delta = float(kept[0]["delta_pp"]) if kept else 0.0
    verdict = ("yes" if delta > 0 else "no") if kept else ("missed" if best(transfer) >= 1 else "yes")
    return [
        f"{first['student']}{', worn' if first['worn'] == 'True' else ''}",
        f"{first['teacher']}{', ' + first['broken'] if first['broken'] else ''}",
        f"{first['method']} {float(first['lr']):g}",
        f"{best(transfer):+.2f}",
        kept[0]["candidate"] if kept else "–",
        f"{delta:+.2f}",
        verdict,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--models", type=Path, nargs="+", required=True)
    running.add_argument("--images", type=Path, required=True)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--minutes", type=float, default=30)
    running.add_argument("--first", type=int, default=0, help="seed of the first transfer")
    running.add_argument("--long", action="store_true", help="ten epochs and more at a high rate")
    for command in ("table", "rejudge"):
        commands.add_parser(command).add_argument("rows", type=Path)
    args = parser.parse_args()
    if args.command == "table":
        print_tables(args.rows)
    elif args.command == "rejudge":
        rejudge(args.rows)
    else:
        torch.set_num_threads(1)
        run(args.models, args.images, args.out, minutes=args.minutes, first=args.first, long=args.long)


if __name__ == "__main__":
    main()
