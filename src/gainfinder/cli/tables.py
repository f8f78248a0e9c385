"""Results as tables and JSON on stdout."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table

from ..metrics import RankedTeacher, Ranking, TeacherChoice
from ..predictions import IMAGE
from ..references import short_names
from ..results import GuardDecision, TransferMetrics

CEILING_COLUMNS = ("oracle", "routed", "mean", "headroom pp")
RANKING_COLUMNS = (
    "teacher", "expect pp", "95 %", "accuracy", "Δacc pp", "positive pp", "negative pp", "of these taught",
    "headroom pp", "target pp", "agreement", "overconfident pp",
)  # fmt: skip
TEXT_COLUMNS = ("reference", "teaches", "objective", "what it does", "source", "for", "first classes")
SHOWN_CLASSES = 3
"""Classes of an area of expertise that are named."""
SHOWN_BROKEN = 10
"""Broken samples named one by one."""


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


def show_broken(broken: Sequence[str], noun: str) -> None:
    """Name the samples that were skipped, on stderr; `noun` is what a sample is."""
    if not broken:
        return
    lines = [f"skipped {len(broken)} broken {noun}(s):", *broken[:SHOWN_BROKEN]]
    if len(broken) > SHOWN_BROKEN:
        lines.append(f"… and {len(broken) - SHOWN_BROKEN} more (all of them with --json)")
    sys.stderr.write("\n  ".join(lines) + "\n")


def scan_tables(document: Mapping[str, Any]) -> None:
    """A scan for people: models by accuracy, then pairs by positive flips, or by what stands in for them."""
    name = short_names([model["model"] for model in document["models"]])
    if document["labelled"]:
        _labelled_scan(document, name)
    else:
        _unlabelled_scan(document, name)
    if document["failed_models"]:
        print_table(
            "Left out",
            ("model", "reason"),
            [(failed["model"], failed["reason"]) for failed in document["failed_models"]],
        )


def _labelled_scan(document: Mapping[str, Any], name: Mapping[str, str]) -> None:
    models, noun = sorted(document["models"], key=lambda model: -model["accuracy"]), document.get("noun", IMAGE)
    print_table(
        f"Accuracy on {document['samples']:,} {noun}s",
        ("model", "accuracy", "reference"),
        [(name[model["model"]], f"{model['accuracy']:.4f}", model["model"]) for model in models],
    )
    print_table(
        "What each could win from all the others together (any right, the surest, their mean)",
        ("student", *CEILING_COLUMNS),
        [(name[model["model"]], *_ceiling_cells(model)) for model in models],
    )
    print_table(
        f"What each teacher has right and the student wrong (positive flips, share of all {noun}s)",
        ("student ← teacher", "Δacc pp", "positive", "negative", "entropy nats", *CEILING_COLUMNS),
        [
            (
                f"{name[pair['student']]} ← {name[pair['teacher']]}",
                f"{pair['delta_acc_pp']:+.2f}",
                f"{pair['positive_flips']:.4f}",
                f"{pair['negative_flips']:.4f}",
                _optional(pair["flip_entropy"], ".3f"),
                *_ceiling_cells(pair),
            )
            for pair in sorted(document["pairs"], key=lambda pair: -pair["positive_flips"])
        ],
    )
    if document["student"] is not None:
        print_table(
            f"Teachers for {name[document['student']]}, each the one that adds most to the ensemble of all so far",
            ("teacher", "the surest", "their mean", "headroom pp", "added pp"),
            [
                (
                    name[one["teacher"]],
                    f"{one['routed_accuracy']:.4f}",
                    _optional(one["mean_accuracy"], ".4f"),
                    f"{one['headroom_pp']:+.2f}",
                    f"{one['added_pp']:+.2f}",
                )
                for one in document["teachers"]
            ],
        )
    _expertise_table(document["expertise"], name)
    if len(document["models"]) > 2:
        print_table(
            "How well what needs no labels follows what does",
            ("stand-in", "for", "rank correlation", "slope"),
            [
                (one["stand_in"], one["measure"], _optional(one["spearman"], ".3f"), _optional(one["slope"], ".2f"))
                for one in document["tracking"]
            ],
        )


def _expertise_table(expertise: Mapping[str, Any], name: Mapping[str, str]) -> None:
    """The areas of expertise of the pairs shown: their sizes, how alike their classes are, and the first classes."""
    rows = []
    for pair in expertise["pairs"]:
        first = [one["name"] for one in pair["classes"][:SHOWN_CLASSES] if one["flips"]]
        rows.append(
            (
                f"{name[pair['student']]} ← {name[pair['teacher']]}",
                pair["kind"],
                *(_area_cell(area) for area in pair["areas"]),
                ", ".join(first),
            )
        )
    if rows:
        alike = "" if expertise["embeddings"] is None else ", and how much more alike these are than all"
        print_table(
            f"Areas of expertise: the fewest classes that hold so much of the positive flips{alike}",
            (
                "student ← teacher",
                "teacher is",
                *(f"{percent} %" for percent in expertise["percents"]),
                "first classes",
            ),
            rows,
        )


def _area_cell(area: Mapping[str, Any]) -> str:
    return f"{area['size']}" + ("" if area["similarity"] is None else f" {area['similarity']:+.1%}")


def _unlabelled_scan(document: Mapping[str, Any], name: Mapping[str, str]) -> None:
    noun = document.get("noun", IMAGE)
    print_table(
        f"Models on {document['samples']:,} {noun}s without labels; accuracy is an estimate by all of them together",
        ("model", "accuracy, estimated", "agreement with others", "reference"),
        [
            (name[one["model"]], f"{one['estimated_accuracy']:.4f}", f"{one['agreement']:.4f}", one["model"])
            for one in sorted(document["models"], key=lambda model: -model["estimated_accuracy"])
        ],
    )
    print_table(
        f"Where they disagree (shares of all {noun}s), and what each teacher is held to have right and the student "
        "wrong",
        ("student ← teacher", "disagree", "teacher surer", "kappa", "Δacc pp, estimated", "positive, estimated"),
        [
            (
                f"{name[pair['student']]} ← {name[pair['teacher']]}",
                f"{pair['disagreement']:.4f}",
                f"{pair['surer_disagreement']:.4f}",
                _optional(pair["kappa"], ".3f"),
                f"{pair['estimated_delta_acc_pp']:+.2f}",
                f"{pair['estimated_positive_flips']:.4f}",
            )
            for pair in sorted(document["pairs"], key=lambda pair: -pair["estimated_positive_flips"])
        ],
    )
    if document["student"] is not None:
        print_table(
            f"Teachers for {name[document['student']]}, each the one that is held to add most to the ensemble of all "
            "so far",
            ("teacher", "headroom pp, estimated", "added pp, estimated"),
            [
                (name[one["teacher"]], f"{one['estimated_headroom_pp']:+.2f}", f"{one['estimated_added_pp']:+.2f}")
                for one in document["teachers"]
            ],
        )


def _ceiling_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (row["oracle_accuracy"], row["routed_accuracy"], row["mean_accuracy"])
    return (*(_optional(share, ".4f") for share in shares), f"{row['headroom_pp']:+.2f}")


def _optional(number: float | None, form: str) -> str:
    return "–" if number is None else f"{number:{form}}"


def ranking_tables(ranking: Ranking) -> None:
    """Teachers for a student, the best first, and what to make of it."""
    name = short_names([ranking.student, *(one.teacher for one in ranking.teachers)])
    measured = "" if ranking.labelled else " without labels; all is estimated by the models together"
    print_table(
        f"Teachers for {name[ranking.student]} (accuracy {ranking.student_accuracy:.4f}) on "
        f"{ranking.samples:,} {ranking.noun}s{measured}",
        RANKING_COLUMNS,
        [_ranking_row(name[one.teacher], one) for one in ranking.teachers],
    )
    if any(one.reaches_beyond for one in ranking.teachers):
        print_lines("*: a guess, for no transfer was measured with such values of what the rule goes by")
    if ranking.chosen:
        estimated = "" if ranking.labelled else ", estimated"
        print_table(
            "Best together, each the one that adds most to the ensemble of all so far",
            ("teacher", f"headroom pp{estimated}", f"added pp{estimated}"),
            [(name[one.teacher], *_added_cells(one)) for one in ranking.chosen],
        )
    if ranking.failed:
        print_table("Left out", ("model", "reason"), [(failed.model, failed.reason) for failed in ranking.failed])
    print_lines(ranking.advice, ranking.basis)


def _ranking_row(name: str, one: RankedTeacher) -> tuple[str, ...]:
    known, interval = one.features, one.interval_pp
    return (
        name,
        f"{one.expected_delta_pp:+.1f}" + ("*" if one.reaches_beyond else ""),
        "–" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}",
        f"{known.teacher_accuracy:.4f}",
        f"{known.delta_acc_pp:+.2f}",
        f"{known.positive_flips_pp:.2f}",
        f"{known.negative_flips_pp:.2f}",
        f"{known.taught_positive_pp:.2f} / {known.taught_negative_pp:.2f}",
        f"{known.headroom_pp:+.2f}",
        _optional(known.target_headroom_pp, "+.2f"),
        f"{known.agreement:.4f}",
        f"{known.teacher_overconfidence_pp:+.1f}",
    )


def _added_cells(one: TeacherChoice) -> tuple[str, str]:
    headroom, added = one.headroom_pp, one.added_pp
    if headroom is None or added is None:
        headroom, added = one.estimated_headroom_pp, one.estimated_added_pp
    return _optional(headroom, "+.2f"), _optional(added, "+.2f")


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
    if not row["distill_weight"]:
        return "nobody"
    if row["pooling"] is not None:
        return f"all, by the {row['pooling']}" + (", calibrated" if row["calibrated"] else "")
    by = {None: "teacher", "label": "surer of label", "confidence": "more confident"}[row["partition"]]
    return ("all, " if row["soft"] else "") + by + (", calibrated" if row["calibrated"] else "")


def transfer_table(metrics: TransferMetrics, *, noun: str = IMAGE, place: str | None = None) -> None:
    """A transfer for people.

    Args:
        metrics: its measures.
        noun: what a sample is.
        place: of samples in places what one of them is, such as a word.
    """
    print_table(
        f"{metrics.student} ← {', '.join(metrics.teachers)} by {metrics.method}, "
        f"measured on {metrics.samples:,} {noun}s{_of_each(place)}",
        ("measure", "value"),
        _labelled_rows(metrics, noun) if metrics.labelled else _unlabelled_rows(metrics, noun),
    )
    if metrics.steps:
        _steps_table(metrics)


def _of_each(place: str | None) -> str:
    return "" if place is None else f", one {place} of each"


def _steps_table(metrics: TransferMetrics) -> None:
    name = short_names([step.teacher for step in metrics.steps])
    rows = []
    for number, step in enumerate(metrics.steps, start=1):
        guard = step.guard
        known = step.accuracy_after is not None
        rows.append(
            (
                f"{number}: {name[step.teacher]}",
                f"{step.accuracy_after:.4f}" if known else "–",
                f"{step.transfer_delta_pp:+.2f}" if known else "–",
                f"{step.knowledge_gain:.2%} / {step.knowledge_loss:.2%}" if known else "–",
                _percent(step.teacher_share),
                "–" if guard is None else "re-estimated" if guard.bn_reestimated else f"{guard.alpha:g}",
            )
        )
    columns = ("teacher", "accuracy after", "delta pp", "gained / lost", "taught", "kept at α")
    print_table(f"Each transfer ({metrics.strategy})", columns, rows)


def _labelled_rows(metrics: TransferMetrics, noun: str) -> list[tuple[str, str]]:
    return [
        ("accuracy before → after", f"{metrics.accuracy_before:.4f} → {metrics.accuracy_after:.4f}"),
        ("transfer delta (95 % interval)", _change(metrics.transfer_delta_pp, metrics.transfer_delta_ci_pp)),
        ("knowledge gained / lost", f"{metrics.knowledge_gain:.2%} / {metrics.knowledge_loss:.2%} of all {noun}s"),
        ("teacher right, student wrong before", _of_all(metrics.positive_flips, noun)),
        ("  of these, now right", _percent(metrics.transfer_rate)),
        ("teacher wrong, student right before", _of_all(metrics.negative_flips, noun)),
        *_ceiling_rows(metrics),
        ("training samples taught by the teacher", _percent(metrics.teacher_share)),
        *_recipe_rows(metrics),
        *_guard_rows(metrics, noun),
        *_control_rows(metrics),
        *_bank_rows(metrics),
    ]


def _recipe_rows(metrics: TransferMetrics) -> list[tuple[str, str]]:
    """The optimiser and rate, and of how many trials they are the choice; nothing where each of several has its own."""
    if metrics.optimizer is None or metrics.learning_rate is None:
        return []
    chosen = f", chosen by {len(metrics.trials)} trials" if metrics.trials else ""
    return [("optimiser and rate", f"{metrics.optimizer} at {metrics.learning_rate:g}{chosen}")]


def _ceiling_rows(metrics: TransferMetrics) -> list[tuple[str, str]]:
    """What there was to win, and how much of it the student has; nothing where no teacher's predictions are known."""
    if metrics.headroom_pp is None:
        return []
    shares = (metrics.oracle_accuracy, metrics.routed_accuracy, metrics.mean_accuracy)
    known = " / ".join("–" if share is None else f"{share:.4f}" for share in shares)
    share = metrics.headroom_captured
    headroom = "none" if share is None else f"{metrics.headroom_pp:+.2f} pp, {share:.0%} of it captured"
    return [("ceilings: any right / the surest / their mean", known), ("  headroom of the better ensemble", headroom)]


def _control_rows(metrics: TransferMetrics) -> list[tuple[str, str]]:
    rows, own, labels = [], metrics.control, metrics.control_labels
    if own is not None:
        learning = "learning from its own copy instead (control)"
        rows.append((learning, _change(own.transfer_delta_pp, own.transfer_delta_ci_pp)))
        rows.append(("  beyond that", _change(own.beyond_pp, own.beyond_ci_pp)))
    if labels is not None:
        learning = "learning from the true labels instead (control)"
        rows.append((learning, _change(labels.transfer_delta_pp, labels.transfer_delta_ci_pp)))
        rows.append(("  of that, captured", _percent(labels.captured_of_labels)))
    return rows


def _guard_rows(metrics: TransferMetrics, noun: str) -> list[tuple[str, str]]:
    guard = metrics.guard
    if guard is None:
        return []
    by = "accuracy" if guard.labelled else "an estimate without labels"
    found = []
    if metrics.certificate is not None:
        by_labels = f"by {metrics.certificate.answers:,} labels of changed answers the new student is"
        found.append((by_labels, metrics.certificate.verdict))
    who = "kept by these labels" if metrics.kept_by_labels else f"kept by the guard ({guard.images:,} {noun}s, by {by})"
    rows = [*found, (who, _kept(guard))]
    if guard.alpha != 1 and guard.unguarded_delta_pp is not None:
        rows.append(("  without it", f"{guard.unguarded_delta_pp:+.2f} pp"))
    if guard.offered_alpha is not None:
        rows.append(("  a few labels may still show a gain", "gainfinder ask FOLDER"))
    return rows


def _bank_rows(metrics: TransferMetrics) -> list[tuple[str, str]]:
    bank = metrics.bank
    if bank is None:
        return []
    made = f"{bank.entries} view(s), {bank.made} of them computed now"
    rows = [("logits of frozen models in the bank", made)]
    if bank.checked:
        off = bank.largest_difference or 0.0
        rows.append((f"  {bank.checked} of each computed again", f"at most {off:.2g} off in log-probability"))
    return rows


def _kept(guard: GuardDecision) -> str:
    if guard.bn_reestimated:
        return "the initial student with batch-norm statistics re-estimated: nothing learned"
    if guard.alpha == 0:
        return "the initial student: no gain was sure"
    return "the trained student" if guard.alpha == 1 else f"interpolation α = {guard.alpha:g}, from initial to trained"


def _unlabelled_rows(metrics: TransferMetrics, noun: str) -> list[tuple[str, str]]:
    rows = [
        ("accuracy, gain and loss", f"unknown: the {noun}s measured on carry no labels"),
        ("predictions unchanged by the transfer", f"{metrics.agreement:.2%}"),
        ("mean confidence before → after", f"{metrics.confidence_before:.4f} → {metrics.confidence_after:.4f}"),
        ("training samples taught by the teacher", _percent(metrics.teacher_share)),
    ]
    for teacher, agreement in zip(metrics.teachers, metrics.agreement_with_teachers, strict=True):
        if agreement is not None:
            rows.append((f"agreement with {teacher} before → after", f"{agreement[0]:.2%} → {agreement[1]:.2%}"))
    return [*rows, *_recipe_rows(metrics), *_guard_rows(metrics, noun), *_bank_rows(metrics)]


def _change(delta_pp: float | None, interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{delta_pp:+.2f} pp ({interval[0]:+.2f} to {interval[1]:+.2f})"


def _of_all(share: float | None, noun: str) -> str:
    return "–" if share is None else f"{share:.2%} of all {noun}s"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
