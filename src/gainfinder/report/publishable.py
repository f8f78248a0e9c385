"""References and commands as strangers may read them: of paths on this machine the last part, and no secret."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import BadReference, readable
from ..references import Query, join_query, split_query
from ..results import RunConfig, TransferMetrics
from .records import TransferRecord

MODEL_OPTIONS = ("--student", "--teacher", "--referee")
DATA_OPTIONS = ("--data", "--val", "--guard-data")
OWN_STUDENT = "student"
"""Name of the folder of a result's model, which says nothing without the one that it lies in."""

_SEPARATOR = re.compile(r"[/\\]+")
_PART = re.compile(r"#[0-9]+/[0-9]+$")
_FILE = re.compile(r"(?P<path>.*?\.py)(?P<factory>:[^@]*)?(?:@(?P<weights>.*))?", re.DOTALL)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
_READERS = ("hfds", "torch")
_CLOUD = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)", re.IGNORECASE)


def publishable_path(text: str) -> str:
    """The last part of a path; of a result's model the folder of the result, too. Addresses keep their scheme.

    >>> publishable_path("/home/ann/photos/"), publishable_path("runs/better/student"), publishable_path("s3://b/x/y")
    ('photos', 'better/student', 's3://…/y')
    """
    cloud = _CLOUD.match(text)
    parts = [part for part in _SEPARATOR.split(text[cloud.end() :] if cloud else text) if part not in ("", ".", "..")]
    last = parts[-2:] if parts[-1:] == [OWN_STUDENT] else parts[-1:]
    end = "/".join(last) or "."
    return f"{cloud['scheme']}…/{end}" if cloud else end


def publishable_model(reference: str) -> str:
    """A model reference in which each path is its last part.

    >>> publishable_model("file:/home/ann/nets.py:small@/tmp/w.pt?classes=@/home/ann/names.txt")
    'file:nets.py:small@w.pt?classes=@names.txt'
    >>> publishable_model("hf-hub:timm/resnet18.a1_in1k"), publishable_model("local-dir:zoo/vit")
    ('hf-hub:timm/resnet18.a1_in1k', 'local-dir:vit')
    """
    base, query = _split(reference)
    prefix, colon, name = base.partition(":")
    if not colon or len(prefix) == 1:  # timm's name, a module's class, or a Windows drive
        shortened = publishable_path(base) if _is_path(base) else base
    elif prefix == "file" and (match := _FILE.fullmatch(name)) is not None:
        weights = "" if match["weights"] is None else f"@{publishable_path(match['weights'])}"
        shortened = f"file:{publishable_path(match['path'])}{match['factory'] or ''}{weights}"
    elif prefix == "torchvision":
        own, at, weights = name.partition("@")
        shortened = f"torchvision:{own}{at}{publishable_path(weights) if at else ''}"
    elif prefix in ("hf-hub", "hf_hub") or (prefix == "hf" and not _is_folder(name)):
        shortened = base
    else:
        shortened = f"{prefix}:{publishable_path(name)}"
    return readable(join_query(shortened, _shortened(query)))


def publishable_data(reference: str) -> str:
    """A data reference in which each path is its last part.

    >>> publishable_data("/home/ann/photos/#1/2"), publishable_data("hfds/org/set?split=test&root=/data")
    ('photos#1/2', 'hfds/org/set?split=test&root=data')
    """
    found = _PART.search(reference)
    part = found[0] if found else ""
    base, query = _split(reference[: len(reference) - len(part)])
    scheme, slash, name = base.partition("/")
    if scheme in _READERS and slash:
        shortened = f"{scheme}/{publishable_path(name) if _is_folder(name) else name}"
    else:
        shortened = publishable_path(base) if _SEPARATOR.search(base) else base
    return readable(join_query(shortened, _shortened(query)) + part)


def hub_dataset(reference: str) -> str | None:
    """The name on the hub of the data set that a reference names; None for all others, and for a folder.

    >>> hub_dataset("hfds/org/set?split=test#1/2"), hub_dataset("digits")
    ('org/set', None)
    """
    name = _split(_PART.sub("", reference))[0].partition("hfds/")[2]
    return name if name and reference.startswith("hfds/") and not _is_folder(name) else None


def publishable_command(command: str) -> str:
    """A command line in which each path is its last part.

    >>> publishable_command("gainfinder transfer --student local-dir:/home/ann/vit --data '/data/my set' --out /tmp/x")
    "gainfinder transfer --student local-dir:vit --data 'my set' --out x"
    """
    try:
        words = shlex.split(command)
    except ValueError:  # no command line: an older version's, or another's
        words = command.split()
    shown: list[str] = []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        before = shown[-1] if shown else ""
        short = _word(value, option or before) if value else ""
        shown.append(f"{option}{equals}{short}" if option else short)
    return " ".join(shlex.quote(readable(word)) for word in shown)


def published(record: TransferRecord) -> TransferRecord:
    """A transfer with references as strangers may read them, those of its steps too; different ones stay different."""
    return _with_names(record, publishable_names(record))


def publishable_names(record: TransferRecord) -> dict[str, str]:
    """What each model of a transfer is called where strangers read it, by reference."""
    names: dict[str, str] = {}
    for reference in dict.fromkeys(_references(record)):
        name, taken = publishable_model(reference), {*names.values()}
        others = (f"{name} ({number})" for number in range(2, len(taken) + 3))
        names[reference] = next(one for one in (name, *others) if one not in taken)
    return names


def _references(record: TransferRecord) -> list[str]:
    metrics = record.metrics
    found = [metrics.student, *metrics.teachers, record.config.student.reference]
    found += [one.reference for one in record.config.teachers]
    return [*found, *(reference for step in record.steps for reference in _references(step))]


def _with_names(record: TransferRecord, names: dict[str, str]) -> TransferRecord:
    return replace(
        record,
        metrics=_metrics(record.metrics, names),
        config=_config(record.config, names),
        steps=tuple(_with_names(step, names) for step in record.steps),
    )


def _metrics(metrics: TransferMetrics, names: dict[str, str]) -> TransferMetrics:
    def named(references: Sequence[str]) -> tuple[str, ...]:
        return tuple(names.get(one) or publishable_model(one) for one in references)

    diverged = metrics.diverged
    if diverged is not None and diverged.teacher is not None:
        diverged = diverged.model_copy(update={"teacher": named([diverged.teacher])[0]})
    return metrics.model_copy(
        update={
            "student": named([metrics.student])[0],
            "teachers": named(metrics.teachers),
            "unaugmented_teachers": named(metrics.unaugmented_teachers),
            "steps": tuple(step.model_copy(update={"teacher": named([step.teacher])[0]}) for step in metrics.steps),
            "diverged": diverged,
            "out": None,
        }
    )


def _config(config: RunConfig, names: dict[str, str]) -> RunConfig:
    images = {
        role: None if one is None else one.model_copy(update={"reference": publishable_data(one.reference)})
        for role, one in (("data", config.data), ("val", config.val), ("guard", config.guard))
    }
    models = [one.model_copy(update={"reference": names[one.reference]}) for one in (config.student, *config.teachers)]
    return config.model_copy(update={"student": models[0], "teachers": tuple(models[1:]), **images})


def _word(word: str, option: str) -> str:
    """A word of a command line, an option's value by what the option takes."""
    if option in MODEL_OPTIONS:
        return publishable_model(word)
    if option in DATA_OPTIONS:
        return publishable_data(word)
    return publishable_path(word) if _SEPARATOR.search(word) else word


def _split(reference: str) -> tuple[str, Query]:
    try:
        return split_query(reference)
    except BadReference:  # the name of something that was passed in
        return reference, ()


def _shortened(query: Query) -> Query:
    return tuple(
        (key, f"@{publishable_path(value[1:])}" if value.startswith("@") else _setting(value)) for key, value in query
    )


def _setting(value: str) -> str:
    return publishable_path(value) if _is_path(value) else value


def _is_path(text: str) -> bool:
    """Whether a text can only be a path, or an address."""
    return text.startswith(("/", "~", "./", "../", "\\")) or re.match(r"[A-Za-z]:[\\/]", text) is not None or (
        _CLOUD.match(text) is not None
    )  # fmt: skip


def _is_folder(name: str) -> bool:
    """Whether what could be a repository's name is a folder on this machine, or could be no repository's."""
    return _HUB_NAME.fullmatch(name) is None or name.startswith(".") or Path(name).expanduser().is_dir()
