"""Results as tables and JSON on stdout."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column left, the others right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 160)
    console.print(title, style="bold")
    console.print(table)
    console.print()


def print_lines(*lines: str) -> None:
    """Plain lines on stdout."""
    sys.stdout.write("\n".join(lines) + "\n")


def broken_lines(broken: Sequence[str]) -> list[str]:
    """What to say of images that were skipped: nothing, or one line."""
    shown = "; ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    return [f"{len(broken)} broken image(s) skipped: {shown}"] if broken else []


def scan_tables(document: Mapping[str, Any]) -> None:
    """A scan for people: models by accuracy, then pairs by positive flips."""
    models = sorted(document["models"], key=lambda model: -model["accuracy"])
    print_table(
        f"Accuracy on {document['samples']:,} images",
        ("model", "accuracy"),
        [(model["model"], f"{model['accuracy']:.4f}") for model in models],
    )
    pairs = sorted(document["pairs"], key=lambda pair: -pair["positive_flips"])
    print_table(
        "What each teacher has right and the student wrong (positive flips, share of all images)",
        ("student ← teacher", "Δacc pp", "positive", "negative", "entropy nats"),
        [
            (
                f"{pair['student']} ← {pair['teacher']}",
                f"{pair['delta_acc_pp']:+.2f}",
                f"{pair['positive_flips']:.4f}",
                f"{pair['negative_flips']:.4f}",
                "–" if pair["flip_entropy"] is None else f"{pair['flip_entropy']:.3f}",
            )
            for pair in pairs
        ],
    )
    for line in broken_lines(document["broken_images"]):
        print_lines(line)


def transfer_table(account: Mapping[str, Any]) -> None:
    """A transfer for people."""
    print_table(
        f"{account['student']} ← {', '.join(account['teachers'])} by {account['method']}, "
        f"measured on {account['samples']:,} images",
        ("measure", "value"),
        _labelled_rows(account) if account["accuracy_after"] is not None else _unlabelled_rows(account),
    )


def _labelled_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = account["transfer_delta_ci_pp"]
    rows = [
        ("accuracy before → after", f"{account['accuracy_before']:.4f} → {account['accuracy_after']:.4f}"),
        ("transfer delta (95 % interval)", f"{account['transfer_delta_pp']:+.2f} pp ({low:+.2f} to {high:+.2f})"),
        ("knowledge gained / lost", f"{account['knowledge_gain']:.2%} / {account['knowledge_loss']:.2%} of all images"),
        ("teacher right, student wrong before", f"{account['positive_flips']:.2%} of all images"),
        ("teacher wrong, student right before", f"{account['negative_flips']:.2%} of all images"),
        ("of the former, now right", _percent(account["transfer_rate"])),
        ("training samples taught by the teacher", _percent(account["teacher_share"])),
    ]
    return [*rows, *_broken_rows(account)]


def _unlabelled_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("accuracy, gain and loss", "unknown: the images measured on carry no labels"),
        ("predictions unchanged by the transfer", f"{account['agreement']:.2%}"),
        ("mean confidence before → after", f"{account['confidence_before']:.4f} → {account['confidence_after']:.4f}"),
        ("training samples taught by the teacher", _percent(account["teacher_share"])),
    ]
    for teacher, (before, after) in zip(account["teachers"], account["agreement_with_teachers"], strict=True):
        rows.append((f"agreement with {teacher} before → after", f"{before:.2%} → {after:.2%}"))
    return [*rows, *_broken_rows(account)]


def _broken_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    broken = account["broken_images"]
    return [("broken images, skipped", f"{len(broken)}, the first: {broken[0]}")] if broken else []


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
