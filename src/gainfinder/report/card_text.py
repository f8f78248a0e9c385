"""The body of a model card: what a transfer made, from the numbers of its result folder alone, as Markdown."""

from typing import Any

from ..config import SETTINGS, DeclaredSetting, find_method
from ..metrics import by_teacher
from ..references import short_names
from ..results import GuardDecision, ImagesDescription, ModelOrigin
from .card_loading import loading
from .certificates import certificate_text, harm_text
from .findings import BETTER, WORSE, findings
from .markdown import block, code, plain, table
from .publishable import publishable_command, publishable_names, published
from .records import TransferRecord
from .rows import counted, with_article
from .sections import transfer_title

NOT_KNOWN = "not known"
SHARED = (
    "Paths of models and {noun}s are shortened to their last part, here and in the command, so that this page can be "
    "published: put your own in their place."
)
_SAYS = {
    "card": "its model card",
    "registry": "timm's registry",
    "configuration": "the configuration beside its weights",
}


def card_body(record: TransferRecord, *, repository: str | None = None) -> str:
    """The card below its front matter.

    Args:
        record: the transfer, as read from its folder.
        repository: `ORG/NAME` that the student is published as; None for its folder on a disk.
    """
    shown = published(record)
    parts = [
        f"# {plain(transfer_title(shown.metrics))}",
        _summary(shown),
        "## How to load it",
        loading(record, repository),
        "## What it gained and lost",
        *_gains(shown),
        "## What is certified",
        *_certified(shown),
        "## How it was made",
        *_made(shown, record.config.environment.command),
        "## Licences",
        *_licences(record),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(record: TransferRecord) -> str:
    metrics = record.metrics
    student = code(metrics.student)
    teachers = ", ".join(code(one) for one in dict.fromkeys(metrics.teachers))
    taught = f"after it learned from {teachers}" if find_method(metrics.method).needs_teachers else "after it learned"
    samples = f"on {counted(record.config.data.samples, record.noun)} of {code(record.config.data.reference)}"
    text = (
        f"{with_article(record.noun).capitalize()} classifier of {record.after.num_classes:,} classes: {student} "
        f"{taught} {samples}, by the method {code(metrics.method)} of gainfinder. It has the size and the speed that "
        "it had before."
    )
    if metrics.transfer_delta_ci_pp is None:
        changed = f"{1 - metrics.agreement:.2%} of {counted(metrics.samples, 'answer')} changed"
        return (
            f"{text} The {record.noun}s that it was measured on carry no labels, so its accuracy is not known; "
            f"{changed}."
        )
    low, high = metrics.transfer_delta_ci_pp
    return (
        f"{text} On {counted(metrics.samples, record.noun)} of {code(record.config.val.reference)} its accuracy "
        f"went from {metrics.accuracy_before:.2%} to **{metrics.accuracy_after:.2%}** "
        f"({metrics.transfer_delta_pp:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}). In the front matter "
        "above, accuracy is a fraction of 1, with a 95 % interval of its own (Wilson)."
    )


def _gains(record: TransferRecord) -> list[str]:
    found = [one for one in findings(record) if one.question not in (BETTER, WORSE)]
    lines = [f"- **{plain(one.question)}** {plain(one.answer)} {plain(one.text)}" for one in found]
    return ["\n".join(lines), *_by_teacher(record)]


def _by_teacher(record: TransferRecord) -> list[str]:
    """For each teacher what it had to teach, what arrived, and what was lost where it is wrong."""
    if not record.labelled or not find_method(record.metrics.method).needs_teachers:
        return []
    names = short_names(list(record.metrics.teachers))
    rows = []
    for reference, teacher in zip(record.metrics.teachers, record.teachers, strict=True):
        if teacher is None:
            rows.append([code(names[reference], in_table=True), *["–"] * 5])
            continue
        one = by_teacher(record.before, record.after, teacher)
        counts = (one.positive_flips, one.transferred, one.negative_flips, one.misled)
        rows.append(
            [
                code(names[reference], in_table=True),
                f"{one.right / record.metrics.samples:.2%}",
                *(f"{count:,}" for count in counts),
            ]
        )
    head = ["teacher", "accuracy", "right where the student was wrong", "of these right now"]
    head += ["wrong where the student was right", "of these wrong now"]
    return [f"By teacher, on the {counted(record.metrics.samples, record.noun)} measured on:", table(head, rows)]


def _certified(record: TransferRecord) -> list[str]:
    """What the guard and a few labels certify, with the risk of each."""
    found = []
    steps = [step for step in record.steps if step.metrics.guard is not None]
    names = short_names([step.metrics.teachers[0] for step in steps])
    for step in steps:
        assert step.metrics.guard is not None
        found += [f"{code(names[step.metrics.teachers[0]])}: {plain(_guard_text(step.metrics.guard, record.noun))}"]
    if record.metrics.guard is not None:
        found.append(plain(_guard_text(record.metrics.guard, record.noun)))
        found += [plain(text) for text in (harm_text(record.metrics.guard, noun=record.noun),) if text is not None]
    if record.metrics.certificate is not None:
        found.append(plain(certificate_text(record.metrics.certificate, noun=record.noun)))
    return found or ["Nothing: there was no guard, and no labels were asked for. What is measured stands above."]


def _guard_text(guard: GuardDecision, noun: str) -> str:
    samples = counted(guard.images, f"guard {noun}")
    if guard.kept_initial:
        return (
            f"On {samples} no candidate was sure to be better, so the guard kept the student that was given: these are "
            "its weights as they were, and nothing is certified of them."
        )
    if guard.bn_reestimated:
        what = f"the student that was given with its batch-norm statistics re-estimated on the transfer {noun}s"
    else:
        what = (
            f"the point at α = {guard.alpha:g} on the line from the weights that were given (0) to the trained ones (1)"
        )
    return f"On {samples} it is {what}. {guard.certificate or 'The guard itself certifies nothing of it.'}"


def _made(record: TransferRecord, command: str | None) -> list[str]:
    config, environment = record.config, record.config.environment
    settings = ", ".join(f"{code(name)} {plain(value)}" for name, value in _settings(record))
    rows = [
        _images_row(what, one)
        for what, one in (("learned from", config.data), ("measured on", config.val), ("guarded by", config.guard))
        if one is not None
    ]
    found = [
        f"Method {code(record.metrics.method)}: {plain(find_method(record.metrics.method).summary)}. Settings that are "
        f"given or go by a rule, as they were decided: {settings or 'none'}.",
        table([f"{record.noun}s", "reference", "number", "labels", "digest of ids and labels"], rows),
    ]
    models = [("student", config.student), *(("teacher", teacher) for teacher in config.teachers)]
    found.append(
        table(
            ["model", "reference", "digest of the weights"],
            [[what, code(one.reference, in_table=True), one.digest or NOT_KNOWN] for what, one in models],
        )
    )
    if command is not None:
        found.append("The command that repeats it:")
        found.append(block(publishable_command(command), "console"))
    versions = [
        f"{name} {getattr(environment, name)}"
        for name in ("gainfinder", "python", "torch", "torchvision", "timm", "numpy", "pillow")
        if getattr(environment, name)
    ]
    if versions:
        found.append(f"Versions: {plain(', '.join(versions))}.")
    return [*found, SHARED.format(noun=record.noun)]


def _settings(record: TransferRecord) -> list[tuple[str, str]]:
    """The settings that were read, but those that have the value that they always have when nobody gives one."""
    values: dict[str, Any] = {**record.config.settings}
    for name in find_method(record.metrics.method).unread(values.get("schedule")):
        values.pop(name, None)
    if record.metrics.trials and record.metrics.optimizer is not None:
        values |= {"optimizer": record.metrics.optimizer, "lr": record.metrics.learning_rate}
    found = []
    for one in SETTINGS:
        value = values.get(one.name)
        if value is not None and value != _fixed(one, record.metrics.method):
            found.append((one.name, f"{value:g}" if isinstance(value, float) else str(value)))
    return [pair for pair in found if pair[0] != "method"]


def _fixed(setting: DeclaredSetting, method: str) -> Any:
    """What a setting is where neither user nor rule decides."""
    default = setting.default if setting.about.fallback is None else setting.about.fallback
    return getattr(find_method(method), setting.name, default)


def _images_row(what: str, images: ImagesDescription) -> list[str]:
    labels = {True: "yes", False: "none, or not read", None: NOT_KNOWN}[images.labelled]
    reference = code(images.reference, in_table=True)
    if images.held_out:
        reference += f" (set apart from the transfer {images.noun}s)"
    return [what, reference, f"{images.samples:,}", labels, images.digest or NOT_KNOWN]


def _licences(record: TransferRecord) -> list[str]:
    names, origins = publishable_names(record), record.config.environment.origins
    models = [record.metrics.student, *dict.fromkeys(record.metrics.teachers)]
    rows = []
    for place, reference in enumerate(models):
        origin = origins.get(reference, ModelOrigin())
        repository = "–" if origin.repository is None else code(origin.repository, in_table=True)
        what = "teacher" if place else "student"
        rows.append([what, code(names[reference], in_table=True), repository, _licence(origin)])
    return [
        table(["model", "reference", "repository", "licence"], rows),
        "As far as files on the machine that made it say so. Whether a teacher's licence binds what was learned from "
        "it is for whoever publishes this model to find out.",
    ]


def _licence(origin: ModelOrigin) -> str:
    if origin.license is None:
        return NOT_KNOWN
    name = origin.license if origin.license_name is None else f"{origin.license_name} ({origin.license})"
    by = _SAYS.get(origin.said_by or "")
    return plain(name) + (f", by {by}" if by else "")
