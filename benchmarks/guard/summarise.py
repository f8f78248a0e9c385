"""The tables of this folder's page, from the rows of transfers.csv.

    python -m benchmarks.guard.summarise benchmarks/guard/transfers.csv

Prints, in Markdown, what the guard did to groups of transfers, and what it would have done with fewer checks or other
weights. "Significantly" means by more than 1.96 standard errors on the images that measure.
"""

import csv
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.guard import former
from benchmarks.guard.former import Judgement, choose
from benchmarks.guard.transfers import ADAPTED, GUARD_IMAGES, Job
from benchmarks.lab.zoo import ZOO
from gainfinder.metrics import Candidate

Row = dict[str, str]
Transfer = dict[Candidate, Row]
"""The rows of a transfer, by candidate."""

WHOLE = Candidate(alpha=1.0)


def main() -> None:
    with Path(sys.argv[1]).open(newline="") as file:
        transfers = by_transfer(list(csv.DictReader(file)))
    print_groups(transfers)
    print()
    print_ablation(transfers)


def by_transfer(rows: list[Row]) -> list[Transfer]:
    transfers: dict[tuple[str, ...], Transfer] = {}
    for row in rows:
        name = row["candidate"]
        candidate = ADAPTED if name == ADAPTED.name else Candidate(alpha=float(name))
        transfers.setdefault(tuple(row[field] for field in Job.__dataclass_fields__), {})[candidate] = row
    return list(transfers.values())


def print_groups(transfers: list[Transfer]) -> None:
    """What the guard did, by group of transfers."""
    headings = (
        "group", "transfers", "mean Δ unguarded", "significantly below 0", "mean Δ guarded without labels",
        "significantly below 0", "worst", "initial student kept", "`adapted` kept", "mean Δ guarded with labels",
        "best choice",
    )  # fmt: skip
    print_row(*headings)
    print_row(*["---"] * len(headings))
    for group, belongs in GROUPS.items():
        ours = [one for one in transfers if belongs(one[WHOLE])]
        unguarded = Outcome.of([(one, WHOLE) for one in ours])
        blind = Outcome.of([(one, choose(judged(one))) for one in ours])
        seeing = Outcome.of([(one, choose(judged_with_labels(one))) for one in ours])
        best = [max(0.0, *(number(row, "delta_pp") for row in one.values())) for one in ours]
        print_row(
            group, len(ours), f"{unguarded.mean:+.2f}", unguarded.losses, f"{blind.mean:+.2f}", blind.losses,
            f"{blind.worst:+.2f}", blind.initial, blind.adapted, f"{seeing.mean:+.2f}", f"{sum(best) / len(best):+.2f}",
        )  # fmt: skip


def print_ablation(transfers: list[Transfer]) -> None:
    """What the guard without labels would have done with fewer checks or other weights."""
    headings = (
        "without labels", "mean Δ", "significantly below 0", "worst", "initial student kept", "`adapted` kept"
    )  # fmt: skip
    print_row(*headings)
    print_row(*["---"] * len(headings))
    rules: dict[str, Callable[[Transfer], list[Judgement]]] = {
        "movement alone": lambda one: [by_movement(*point) for point in trained(one)],
        "and consensus may veto": lambda one: [by_movement(*point, consensus=True) for point in trained(one)],
        "and classes may veto": lambda one: [
            by_movement(*point, consensus=True, classes=True) for point in trained(one)
        ],
        "and adaptation: the guard as it is": judged,
        "the guard, consensus not asked": lambda one: [
            *adaptation(one),
            *(by_movement(*point, classes=True) for point in trained(one)),
        ],
    }
    for weight in (1.0, 2.0, 3.0, 4.0):
        rules[f"the guard, an agreement lost counting {weight:g}"] = functools.partial(with_weight, weight=weight)
    for name, rule in rules.items():
        found = Outcome.of([(one, choose(rule(one))) for one in transfers])
        print_row(name, f"{found.mean:+.2f}", found.losses, f"{found.worst:+.2f}", found.initial, found.adapted)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What choices led to: mean and worst change in pp, how many were significant losses, and what was kept."""

    mean: float
    worst: float
    losses: int
    initial: int
    adapted: int

    @classmethod
    def of(cls, choices: list[tuple[Transfer, Candidate | None]]) -> "Outcome":
        kept = [transfer[choice] for transfer, choice in choices if choice is not None]
        initial = len(choices) - len(kept)
        deltas = [number(row, "delta_pp") for row in kept] + [0.0] * initial
        return cls(
            mean=sum(deltas) / len(deltas),
            worst=min(deltas),
            losses=sum(number(row, "delta_pp") < -1.96 * number(row, "delta_error_pp") for row in kept),
            initial=initial,
            adapted=sum(choice is not None and choice.bn_reestimated for _, choice in choices),
        )


def judged(transfer: Transfer) -> list[Judgement]:
    """What the guard said without labels."""
    return [judgement(candidate, row) for candidate, row in transfer.items()]


def adaptation(transfer: Transfer) -> list[Judgement]:
    """What it said of the adapted initial student, if there is one."""
    return [judgement(*point) for point in transfer.items() if point[0].bn_reestimated]


def judgement(candidate: Candidate, row: Row) -> Judgement:
    return Judgement(
        candidate=candidate, measure="information" if candidate.bn_reestimated else "movement",
        gain=number(row, "gain"), error=number(row, "error"), sure_gain=number(row, "sure_gain"),
        veto=row["veto"] or None,
    )  # fmt: skip


def judged_with_labels(transfer: Transfer) -> list[Judgement]:
    """What the guard said with labels."""
    found = []
    for candidate, row in transfer.items():
        gain, error = number(row, "labels_gain_pp"), number(row, "labels_error_pp")
        sure_gain = gain - former.ACCURACY_MARGIN * error
        found.append(Judgement(candidate=candidate, measure="accuracy", gain=gain, error=error, sure_gain=sure_gain))
    return found


def with_weight(transfer: Transfer, *, weight: float) -> list[Judgement]:
    """What it would have said with another weight of an agreement lost."""
    points = trained(transfer)
    return [
        *adaptation(transfer),
        *(by_movement(*point, weight=weight, consensus=True, classes=True) for point in points),
    ]


def trained(transfer: Transfer) -> list[tuple[Candidate, Row]]:
    return [(candidate, row) for candidate, row in transfer.items() if not candidate.bn_reestimated]


def by_movement(
    candidate: Candidate,
    row: Row,
    *,
    weight: float = former.LOST_AGREEMENT_WEIGHT,
    consensus: bool = False,
    classes: bool = False,
) -> Judgement:
    """What the guard would say with another weight of agreements lost, and with some vetoes only."""
    toward, away = number(row, "toward_pp") / 100, number(row, "away_pp") / 100
    gain = toward - weight * away
    variance = (toward + weight**2 * away - gain**2) / (GUARD_IMAGES - 1)  # each image's move is 1, −weight or 0
    error = variance**0.5
    vetoed = consensus and number(row, "consensus_gain") < -former.VETO_MARGIN * number(row, "consensus_error")
    vetoed |= classes and number(row, "classes_change") < -former.VETO_MARGIN * number(row, "classes_error")
    return Judgement(
        candidate=candidate, measure="movement", gain=100 * gain, error=100 * error,
        sure_gain=100 * (gain - former.MOVEMENT_MARGIN * error), veto="vetoed" if vetoed else None,
    )  # fmt: skip


def is_specialist(name: str) -> bool:
    return name.endswith(("_a", "_b"))


GROUPS: dict[str, Callable[[Row], bool]] = {
    "all": lambda row: True,
    "`kl-dp-u`": lambda row: row["method"] == "kl-dp-u",
    "`kl`": lambda row: row["method"] == "kl",
    "student and teacher of the zoo": lambda row: row["student"] in ZOO and row["teacher"] in ZOO,
    "a specialist learns or teaches": lambda row: is_specialist(row["student"]) or is_specialist(row["teacher"]),
    "no specialist": lambda row: not (is_specialist(row["student"]) or is_specialist(row["teacher"])),
    "hard imitation of weaker teachers": lambda row: row["seed"] == "7",
    "teacher weaker by more than 2 pp": lambda row: number(row, "delta_acc_pp") < -2,
    "teacher within 2 pp": lambda row: abs(number(row, "delta_acc_pp")) <= 2,
    "teacher stronger by more than 2 pp": lambda row: number(row, "delta_acc_pp") > 2,
}


def number(row: Row, name: str) -> float:
    return float(row[name])


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
