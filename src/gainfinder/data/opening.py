"""From a parsed data reference to the reader of its source. Readers are imported when first needed: some are heavy."""

import logging
from pathlib import Path

from ..errors import BadReference, DataError
from ..files import file_problem, user_path
from ..references import check_keys, shown, suggest
from .layout import is_hidden, note_passed_over
from .reference import DataRef, first_class, wants_upright
from .samples import Samples
from .survey import survey

_log = logging.getLogger("gainfinder")

_NO_RANDOM_ACCESS = ("wds", "tfds", "hfids")
# Compressed archives are recognised only to be refused with the command that unpacks them.
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_PARQUET = (".parquet",)
_TABLES_OF_TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_TEXTS = (*_TABLES_OF_TEXTS, *(f"{ending}.gz" for ending in _TABLES_OF_TEXTS))
_FILE_KEYS = ("orient",)
_TABLE_KEYS = ("image", "label", "orient", "mask", "count_from")
_MASK_KEYS = ("count_from",)
_TEXT_KEYS = ("text", "label")


def open_source(ref: DataRef, *, labels: bool) -> Samples:
    """All images of a source, and notes on what is assumed of them; the reference's part is left to the caller.

    Raises:
        BadReference: an unknown setting, or a kind of source without random access.
        DataError: the path does not exist, or what lies there cannot be used.
        MissingExtra: `hfds/` without the package datasets.
    """
    images = _open(ref, labels=labels)
    for note in survey(images):
        _log.warning(note)
    return images


def _open(ref: DataRef, *, labels: bool) -> Samples:
    scheme, slash, _ = ref.base.partition("/")
    scheme = scheme.lower() if slash else ""
    if scheme in _NO_RANDOM_ACCESS:
        raise BadReference(
            f"{str(ref)!r} cannot be used: {scheme}/ streams without random access; expected hfds/NAME, torch/NAME, a "
            "folder, .tar shards or Parquet"
        )
    if scheme == "hfds":
        from .timm_readers import open_hfds  # noqa: PLC0415

        return open_hfds(ref, labels=labels)
    if scheme == "torch":
        from .timm_readers import open_torch  # noqa: PLC0415

        return open_torch(ref, labels=labels)
    if ref.base == "digits":
        from .digits import open_digits  # noqa: PLC0415

        check_keys(ref.query, (), reference=str(ref))
        return open_digits(reference=str(ref), labels=labels)
    return _open_path(user_path(ref.base, what="data"), ref, labels=labels)


def _open_path(path: Path, ref: DataRef, *, labels: bool) -> Samples:
    if path.is_dir():
        return _open_directory(path, ref, labels=labels)
    if not path.exists():
        raise DataError(_missing(path))
    if (problem := file_problem(path)) is not None:
        raise DataError(f"{path} {problem}; expected a .tar archive, a .parquet file or a folder")
    name = path.name.lower()
    if name.endswith(_TAR):
        return _open_tars([path], path, ref, labels)
    if name.endswith(_PARQUET):
        return _open_tables([path], path, ref, labels)
    if name.endswith(_TEXTS):
        return _open_texts([path], path, ref, labels)
    raise DataError(
        f"{path}: unknown kind of file, expected a .tar archive, a .parquet file or a folder of images, or texts as "
        f".csv, .tsv, .jsonl or .parquet; {_remedy(name)}"
    )


def _remedy(name: str) -> str:
    """What to do with a file of another kind, by its name."""
    if name.endswith(".txt"):
        return "of texts make a table, a row each with the columns text and label"
    if name.endswith((".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz")):
        return "unpack it and give the folder"
    return "give the folder of the images, or store their bytes and labels as Parquet"


def _open_directory(path: Path, ref: DataRef, *, labels: bool) -> Samples:
    from .folder import holds_images, open_folder  # noqa: PLC0415
    from .masked_folder import holds_masks, open_masked_folder  # noqa: PLC0415

    tars, tables = _files_of(path, _TAR), _files_of(path, _PARQUET)
    if not tars and not tables and (texts := _files_of(path, _TEXTS)) and not holds_images(path):
        return _open_texts(texts, path, ref, labels)
    if not tars and not tables:
        if holds_masks(path):
            check_keys(ref.query, _MASK_KEYS, reference=str(ref))
            return open_masked_folder(path, reference=str(ref), labels=labels, count_from=first_class(ref))
        check_keys(ref.query, _FILE_KEYS, reference=str(ref))
        return open_folder(path, reference=str(ref), labels=labels, upright=wants_upright(ref))
    kinds = [f"{len(tars)} .tar archive(s)"] * bool(tars) + [f"{len(tables)} Parquet file(s)"] * bool(tables)
    if len(kinds) == 1 and holds_images(path):
        kinds.append("images")
    if len(kinds) > 1:
        raise DataError(
            f"{path} holds {' and '.join(kinds)}, expected one kind; give one file, such as {(tars + tables)[0]}, or "
            "move the others away"
        )
    note = note_passed_over(_others_of(path, tars + tables), where=str(path), beside=kinds[0])
    if note is not None:
        _log.warning(note)
    return (_open_tars if tars else _open_tables)(tars or tables, path, ref, labels)


def _open_tars(archives: list[Path], root: Path, ref: DataRef, labels: bool) -> Samples:
    from .tar import open_tar  # noqa: PLC0415

    check_keys(ref.query, _FILE_KEYS, reference=str(ref))
    return open_tar(archives, root=root, reference=str(ref), labels=labels, upright=wants_upright(ref))


def _open_texts(files: list[Path], root: Path, ref: DataRef, labels: bool) -> Samples:
    from .text_tables import open_texts  # noqa: PLC0415

    check_keys(ref.query, _TEXT_KEYS, reference=str(ref))
    return open_texts(files, root=root, reference=str(ref), labels=labels, text=ref.get("text"), label=ref.get("label"))


def _open_tables(files: list[Path], root: Path, ref: DataRef, labels: bool) -> Samples:
    from .parquet import holds_texts, open_parquet  # noqa: PLC0415

    if ref.get("text") is not None or (ref.get("image") is None and holds_texts(files[0])):
        return _open_texts(files, root, ref, labels)
    check_keys(ref.query, _TABLE_KEYS, reference=str(ref))
    return open_parquet(
        files,
        root=root,
        reference=str(ref),
        labels=labels,
        image=ref.get("image"),
        label=ref.get("label"),
        mask=ref.get("mask"),
        count_from=first_class(ref),
        upright=wants_upright(ref),
    )


def _files_of(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return [p for p in entries if p.name.lower().endswith(endings) and not p.name.startswith(".") and not p.is_dir()]


def _others_of(folder: Path, read: list[Path]) -> list[str]:
    return [p.name for p in folder.iterdir() if p not in read and not is_hidden(p.name) and not p.is_dir()]


def _missing(path: Path) -> str:
    """The message for a path that does not exist: its first missing component, and similar names beside it."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    try:
        siblings = [entry.name for entry in folder.iterdir()]
    except OSError:  # no folder, or one that may not be listed
        siblings = []
    if folder == Path():
        siblings.append("digits")
    return (
        f"{_named(path)} does not exist{suggest(missing.name, siblings)}; expected a folder, a .tar, a .parquet, "
        "a .csv or .jsonl of texts, digits, hfds/NAME or torch/NAME"
    )


def _named(path: Path) -> str:
    """A path as messages name it, quoted where it is very long or would be several lines."""
    text = str(path)
    return text if len(text) <= 250 and text.isprintable() else shown(text)
