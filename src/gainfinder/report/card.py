"""The model card of a result's student: `student/README.md` in the form of the Hugging Face hub."""

import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import readable
from ..files import read_user_text, write_text
from ..metrics import wilson_interval
from ..references import short_names, split_query
from ..results import CARD_FILE, ModelOrigin
from .card_loading import student_library
from .card_text import card_body
from .publishable import hub_dataset, publishable_data, published
from .records import TransferRecord

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

SURE = ("card", "registry")
"""Who says a licence of these very weights; a configuration may have it from those that training began with."""
TAGS = ["gainfinder", "knowledge-transfer"]
TASKS = {
    "image": ("image-classification", "Image Classification"),
    "text": ("text-classification", "Text Classification"),
    "word": ("token-classification", "Token Classification"),
    "token": ("text-generation", "Text Generation"),
    "cell": ("image-segmentation", "Image Segmentation"),
}
"""The hub's word for what a model does that gives such things a class, and its name."""
_MARK = "<!-- gainfinder wrote this card, and keeps it as it is once somebody changes it; digest {} -->\n"
_MARKED = re.compile(re.escape(_MARK).replace(r"\{\}", r"(?P<digest>[0-9a-f]{16})") + r"\Z")
_PART = re.compile(r"#[0-9]+/[0-9]+$")
_NO_WORD = re.compile(r"[^\w.-]+")

_log = logging.getLogger("gainfinder")


def write_card(record: TransferRecord) -> None:
    """Write the card into the folder of a result's student; one that somebody wrote or changed stays as it is.

    Raises:
        RunFolderError: it cannot be written.
    """
    folder = record.folder / "student"
    if not folder.is_dir():
        return
    path = folder / CARD_FILE
    if path.exists() and not is_own_card(path):
        _log.warning("%s was written or changed by hand and stays as it is; without it a new one is made", path)
        return
    write_text(path, model_card(record), within=record.folder)


def is_own_card(path: Path) -> bool:
    """Whether a card is one that `write_card` wrote and nobody has changed since."""
    try:
        text = read_user_text(path)
    except (OSError, ValueError):
        return False
    found = _MARKED.search(text)
    return found is not None and found["digest"] == _digest(text[: found.start()])


def model_card(record: TransferRecord, *, repository: str | None = None) -> str:
    """The card of a transfer's student: front matter, what it is and how it was made, and a mark that it is ours.

    Args:
        record: the transfer, as read from its folder.
        repository: `ORG/NAME` that it is published as; None for its folder on a disk.
    """
    text = f"---\n{card_data(record).to_yaml()}\n---\n\n{card_body(record, repository=repository)}\n"
    return text + _MARK.format(_digest(text))


def card_data(record: TransferRecord) -> "ModelCardData":
    """The front matter; accuracy is a fraction of 1, as metrics of the hub are."""
    from huggingface_hub import ModelCardData  # noqa: PLC0415 (reports load nothing of the hub's)

    library, (task, _) = student_library(record.metrics.student_reference), _task(record)
    origin = record.config.environment.origins.get(record.metrics.student, ModelOrigin())
    found: dict[str, Any] = {
        "library_name": library if library in ("timm", "transformers", "onnx") else "pytorch",
        "pipeline_tag": task,
        "tags": [task, *TAGS] if library != "torchvision" else [task, *TAGS, library],
        "base_model": origin.repository,
        "base_model_relation": None if origin.repository is None else "finetune",
        "datasets": [name] if (name := hub_dataset(record.config.data.reference)) else None,
    }
    if origin.license is not None and origin.said_by in SURE:
        found |= {"license": origin.license, "license_name": origin.license_name, "license_link": origin.license_link}
    return ModelCardData(**{key: value for key, value in found.items() if value is not None}, **_measured(record))


def _task(record: TransferRecord) -> tuple[str, str]:
    return TASKS[record.classified]


def _measured(record: TransferRecord) -> dict[str, Any]:
    """The `model-index`: accuracy on the samples measured on; nothing where no label says who is right."""
    from huggingface_hub import EvalResult  # noqa: PLC0415

    metrics, val = record.metrics, record.config.val
    if metrics.accuracy_after is None:
        return {}
    reference = publishable_data(val.reference)
    low, high = wilson_interval(round(metrics.accuracy_after * metrics.samples), metrics.samples)
    dataset = hub_dataset(val.reference) or _NO_WORD.sub("-", reference).strip("-").lower() or f"{record.noun}s"
    task, task_name = _task(record)
    result = EvalResult(
        task_type=task,
        task_name=task_name,
        dataset_type=dataset,
        dataset_name=reference,
        dataset_split=dict(split_query(_PART.sub("", val.reference))[1]).get("split"),
        dataset_args={f"{record.noun}s": metrics.samples, "digest": val.digest},
        metric_type="accuracy",
        metric_name="Accuracy",
        metric_value=metrics.accuracy_after,
        metric_args={"interval_95": [low, high], "accuracy_before": metrics.accuracy_before},
    )
    name = next(iter(short_names([published(record).metrics.student]).values()))
    return {"model_name": f"{readable(name)} (gainfinder)", "eval_results": [result]}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
