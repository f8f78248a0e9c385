"""The files that a published student is made of: those of its folder, with a card for strangers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, RunFolderError
from ..files import parse_json, read_user_text
from ..models import load_model
from ..references import TRUST, split_query
from ..report import TransferRecord, is_own_card, model_card, read_record, student_library
from ..results import CARD_FILE, HEAD_FILE

CLASSES_FILE = "classes.txt"
CONFIG_FILE = "config.json"
LOADERS = ("timm", "transformers")
ORIGIN_KEYS = ("_name_or_path",)
"""Keys of a transformers configuration that hold where a model lay on this machine."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A student ready to be published.

    Attributes:
        library: `timm` or `transformers`, which loads it.
        files: name in the repository to its path, or its content where that is another than the file's.
        own_card: whether the card is one that somebody wrote or changed, and goes along as it is.
        noun: what a sample of it is: `image` or `text`.
        classified: what it gives a class: the sample, or each `word`, `token` or `cell`.
    """

    library: str
    noun: str
    classified: str
    files: dict[str, Path | bytes]
    own_card: bool

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: one.stat().st_size if isinstance(one, Path) else len(one) for name, one in self.files.items()}


def read_result(folder: Path) -> TransferRecord:
    """The finished transfer in a folder.

    Raises:
        RunFolderError: there is none, or another kind of result.
    """
    if (folder / HEAD_FILE).exists():
        raise RunFolderError(f"{folder}: holds a model with a new head; expected the result folder of a transfer")
    record = read_record(folder)
    if not isinstance(record, TransferRecord):
        raise RunFolderError(f"{folder}: holds a scan, which leaves no student; expected the result of a transfer")
    return record


def make_bundle(folder: Path, *, repository: str) -> Bundle:
    """The files of a result's student.

    It is loaded once, so that what is published can be.

    Args:
        folder: result folder of a finished transfer.
        repository: `ORG/NAME` that it is published as, which its card names.

    Raises:
        RunFolderError: the folder holds no finished transfer.
        ModelError: neither timm nor transformers alone could load the student, or its files are damaged.
    """
    record = read_result(folder)
    library = _library(record)
    student = folder / "student"
    _check_loads(record, student, library)
    files: dict[str, Path | bytes] = {
        path.relative_to(student).as_posix(): path
        for path in sorted(student.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(student).parts)
    }
    own_card = CARD_FILE in files and not is_own_card(student / CARD_FILE)
    if not own_card:
        files[CARD_FILE] = model_card(record, repository=repository).encode()
    if library == "transformers" and (config := _published_config(student)) is not None:
        files[CONFIG_FILE] = config
    return Bundle(library=library, noun=record.noun, classified=record.classified, files=files, own_card=own_card)


def _library(record: TransferRecord) -> str:
    reference = record.metrics.student_reference
    library = student_library(reference)
    if library not in LOADERS:
        what = "weights without a reference" if reference is None else f"{reference!r}, of {library}"
        raise ModelError(
            f"{record.folder}: its student is {what}: neither timm nor transformers alone could load it from a hub; "
            f"publish {record.folder / 'student'} together with the code that builds it, or make an ONNX file of it "
            f"(gainfinder export)"
        )
    if TRUST in dict(split_query(reference or "")[1]):
        raise ModelError(
            f"{record.folder}: its student runs code of its own ({reference!r}), which is not in the folder: publish "
            f"{record.folder / 'student'} together with that code"
        )
    return library


def _check_loads(record: TransferRecord, student: Path, library: str) -> None:
    prefix = "local-dir" if library == "timm" else "hf"
    found = load_model(f"{prefix}:{student}", **_needed(record, library))
    if found.num_classes != record.after.num_classes:
        raise ModelError(
            f"{student}: its model has {found.num_classes} classes, its predictions have {record.after.num_classes}; "
            "the folder has been changed since the transfer"
        )


def _needed(record: TransferRecord, library: str) -> dict[str, Any]:
    """Settings without which this package asks for the size of a model that has no image processor."""
    query = dict(split_query(record.metrics.student_reference or "")[1])
    if library == "timm" or "size" not in query:
        return {}
    edges = [int(edge) for edge in query["size"].split("x")]
    return {"size": (edges[0], edges[-1])}


def _published_config(student: Path) -> bytes | None:
    """A transformers configuration with the classes' names and without paths; None where it is so already."""
    try:
        config = parse_json(read_user_text(student / CONFIG_FILE))
    except (OSError, ValueError) as error:
        raise ModelError(f"{student / CONFIG_FILE}: cannot be read: {error}") from error
    changed = {key: value for key, value in config.items() if key not in ORIGIN_KEYS}
    names = student / CLASSES_FILE
    if names.exists():
        listed = read_user_text(names).splitlines()
        changed["id2label"] = {str(index): name for index, name in enumerate(listed)}
        changed["label2id"] = {name: index for index, name in enumerate(listed)}
    return None if changed == config else (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
