"""Results as tables and JSON on stdout."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table

from ..references import short_names

TEXT_COLUMNS = ("reference", "teaches", "objective", "what it does", "source")
SHOWN_BROKEN = 10
"""Broken images named one by one."""


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column left, the others right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        justify: JustifyMethod = "left" if number == 0 or column in TEXT_COLUMNS else "right"
        table.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 160)
    console.print(title, style="bold")
    console.print(table)
    console.print()


def print_lines(*lines: str) -> None:
    """Plain lines on stdout."""
    sys.stdout.write("\n".join(lines) + "\n")


def show_broken(broken: Sequence[str]) -> None:
    """Name the images that were skipped, on stderr."""
    if not broken:
        return
    lines = [f"skipped {len(broken)} broken image(s):", *broken[:SHOWN_BROKEN]]
    if len(broken) > SHOWN_BROKEN:
        lines.append(f"… and {len(broken) - SHOWN_BROKEN} more (all of them with --json)")
    sys.stderr.write("\n  ".join(lines) + "\n")


def scan_tables(document: Mapping[str, Any]) -> None:
    """A scan for people: models by accuracy, then pairs by positive flips."""
    models = sorted(document["models"], key=lambda model: -model["accuracy"])
    name = short_names([model["model"] for model in models])
    print_table(
        f"Accuracy on {document['samples']:,} images",
        ("model", "accuracy", "reference"),
        [(name[model["model"]], f"{model['accuracy']:.4f}", model["model"]) for model in models],
    )
    pairs = sorted(document["pairs"], key=lambda pair: -pair["positive_flips"])
    print_table(
        "What each teacher has right and the student wrong (positive flips, share of all images)",
        ("student ← teacher", "Δacc pp", "positive", "negative", "entropy nats"),
        [
            (
                f"{name[pair['student']]} ← {name[pair['teacher']]}",
                f"{pair['delta_acc_pp']:+.2f}",
                f"{pair['positive_flips']:.4f}",
                f"{pair['negative_flips']:.4f}",
                "–" if pair["flip_entropy"] is None else f"{pair['flip_entropy']:.3f}",
            )
            for pair in pairs
        ],
    )


def methods_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """The transfer methods for people."""
    print_table(
        "Transfer methods",
        ("method", "teaches", "objective", "weights", "labels", "paper lr", "what it does", "source"),
        [
            (
                row["name"],
                _teaches(row),
                row["objective"],
                f"{row['distill_weight']:g} / {row['label_weight']:g}",
                "yes" if row["needs_labels"] else "no",
                f"{row['paper_lr']:g}",
                row["summary"],
                row["source"],
            )
            for row in rows
        ],
    )
    print_lines(
        "teaches: which model a sample is learned from; the initial student is always one of those that are compared.",
        "weights: of the objective and of the cross-entropy with the labels.",
    )


def _teaches(row: Mapping[str, Any]) -> str:
    by = {None: "teacher", "label": "surer of label", "confidence": "more confident"}[row["partition"]]
    return ("all, " if row["soft"] else "") + by + (", calibrated" if row["calibrated"] else "")


def transfer_table(account: Mapping[str, Any]) -> None:
    """A transfer for people."""
    print_table(
        f"{account['student']} ← {', '.join(account['teachers'])} by {account['method']}, "
        f"measured on {account['samples']:,} images",
        ("measure", "value"),
        _labelled_rows(account) if account["accuracy_after"] is not None else _unlabelled_rows(account),
    )
    if account.get("steps"):
        _steps_table(account)


def _steps_table(account: Mapping[str, Any]) -> None:
    name = short_names([step["teacher"] for step in account["steps"]])
    rows = []
    for number, step in enumerate(account["steps"], start=1):
        guard = step["guard"]
        known = step["accuracy_after"] is not None
        rows.append(
            (
                f"{number}: {name[step['teacher']]}",
                f"{step['accuracy_after']:.4f}" if known else "–",
                f"{step['transfer_delta_pp']:+.2f}" if known else "–",
                f"{step['knowledge_gain']:.2%} / {step['knowledge_loss']:.2%}" if known else "–",
                _percent(step["teacher_share"]),
                "–" if guard is None else "adapted" if guard["adapted"] else f"{guard['share']:.0%}",
            )
        )
    columns = ("teacher", "accuracy after", "delta pp", "gained / lost", "taught", "kept of the way")
    print_table(f"Each transfer ({account['strategy']})", columns, rows)


def _labelled_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = account["transfer_delta_ci_pp"]
    return [
        ("accuracy before → after", f"{account['accuracy_before']:.4f} → {account['accuracy_after']:.4f}"),
        ("transfer delta (95 % interval)", f"{account['transfer_delta_pp']:+.2f} pp ({low:+.2f} to {high:+.2f})"),
        ("knowledge gained / lost", f"{account['knowledge_gain']:.2%} / {account['knowledge_loss']:.2%} of all images"),
        ("teacher right, student wrong before", _of_all(account["positive_flips"])),
        ("  of these, now right", _percent(account["transfer_rate"])),
        ("teacher wrong, student right before", _of_all(account["negative_flips"])),
        ("training samples taught by the teacher", _percent(account["teacher_share"])),
        *_guard_rows(account),
        *_control_rows(account),
        *_bank_rows(account),
    ]


def _control_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    control = account.get("control")
    if control is None:
        return []
    rows = []
    for name, key in (("learning from its own copy instead (control)", "transfer_delta"), ("  beyond that", "beyond")):
        low, high = control[f"{key}_ci_pp"]
        rows.append((name, f"{control[f'{key}_pp']:+.2f} pp ({low:+.2f} to {high:+.2f})"))
    return rows


def _guard_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    guard = account["guard"]
    if guard is None:
        return []
    by = "accuracy" if guard["labelled"] else "an estimate without labels"
    rows = [(f"kept by the guard ({guard['images']:,} images, by {by})", _kept(guard))]
    if guard["share"] != 1 and guard["unguarded_delta_pp"] is not None:
        rows.append(("  without it", f"{guard['unguarded_delta_pp']:+.2f} pp"))
    return rows


def _bank_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    bank = account.get("bank")
    if bank is None:
        return []
    made = f"{bank['entries']} view(s), {bank['made']} of them asked for now"
    rows = [("answers of frozen models in the bank", made)]
    if bank["checked"]:
        off = bank["largest_difference"] or 0.0
        rows.append((f"  {bank['checked']} of each asked again", f"at most {off:.2g} off in log-probability"))
    return rows


def _kept(guard: Mapping[str, Any]) -> str:
    if guard["adapted"]:
        return "the initial student with batch-norm statistics re-estimated: adapted, nothing learned"
    if guard["share"] == 0:
        return "the initial student: no gain was sure"
    return f"{'all' if guard['share'] == 1 else format(guard['share'], '.0%')} of the way from the initial student"


def _unlabelled_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("accuracy, gain and loss", "unknown: the images measured on carry no labels"),
        ("predictions unchanged by the transfer", f"{account['agreement']:.2%}"),
        ("mean confidence before → after", f"{account['confidence_before']:.4f} → {account['confidence_after']:.4f}"),
        ("training samples taught by the teacher", _percent(account["teacher_share"])),
    ]
    for teacher, agreement in zip(account["teachers"], account["agreement_with_teachers"], strict=True):
        if agreement is not None:
            rows.append((f"agreement with {teacher} before → after", f"{agreement[0]:.2%} → {agreement[1]:.2%}"))
    return [*rows, *_guard_rows(account), *_bank_rows(account)]


def _of_all(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%} of all images"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
