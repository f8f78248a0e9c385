"""From a parsed data reference to the reader of its source. Readers are imported when first needed: some are heavy."""

from pathlib import Path

from ..errors import BadReference, DataError
from ..references import check_keys, suggest
from .images import Images
from .reference import DataRef

_NO_RANDOM_ACCESS = ("wds", "tfds", "hfids")
# Compressed archives are recognised only to be refused with the command that unpacks them.
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_PARQUET = (".parquet",)


def open_source(ref: DataRef, *, labels: bool) -> Images:
    """All images of a source; the reference's part is left to the caller.

    Raises:
        BadReference: an unknown setting, or a kind of source without random access.
        DataError: the path does not exist, or what lies there cannot be used.
        MissingExtra: `hfds/` without the package datasets.
    """
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
    check_keys(ref.query, (), reference=str(ref))
    if ref.base == "digits":
        from .digits import open_digits  # noqa: PLC0415

        return open_digits(reference=str(ref), labels=labels)
    return _open_path(Path(ref.base).expanduser(), reference=str(ref), labels=labels)


def _open_path(path: Path, *, reference: str, labels: bool) -> Images:
    if path.is_dir():
        return _open_directory(path, reference=reference, labels=labels)
    if not path.exists():
        raise DataError(_missing(path))
    name = path.name.lower()
    if name.endswith(_TAR):
        return _open_tars([path], path, reference, labels)
    if name.endswith(_PARQUET):
        return _open_tables([path], path, reference, labels)
    raise DataError(f"{path}: unknown kind of file, expected a .tar archive, a .parquet file or a folder")


def _open_directory(path: Path, *, reference: str, labels: bool) -> Images:
    from .folder import holds_images, open_folder  # noqa: PLC0415

    tars, tables = _files_of(path, _TAR), _files_of(path, _PARQUET)
    if not tars and not tables:
        return open_folder(path, reference=reference, labels=labels)
    kinds = [f"{len(tars)} .tar archive(s)"] * bool(tars) + [f"{len(tables)} Parquet file(s)"] * bool(tables)
    if len(kinds) == 1 and holds_images(path):
        kinds.append("images")
    if len(kinds) > 1:
        raise DataError(
            f"{path} holds {' and '.join(kinds)}, expected one kind; give one file, such as {(tars + tables)[0]}, or "
            "move the others away"
        )
    return (_open_tars if tars else _open_tables)(tars or tables, path, reference, labels)


def _open_tars(archives: list[Path], root: Path, reference: str, labels: bool) -> Images:
    from .tar import open_tar  # noqa: PLC0415

    return open_tar(archives, root=root, reference=reference, labels=labels)


def _open_tables(files: list[Path], root: Path, reference: str, labels: bool) -> Images:
    from .parquet import open_parquet  # noqa: PLC0415

    return open_parquet(files, root=root, reference=reference, labels=labels)


def _files_of(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return [p for p in entries if p.name.lower().endswith(endings) and not p.name.startswith(".") and p.is_file()]


def _missing(path: Path) -> str:
    """The message for a path that does not exist: its first missing component, and similar names beside it."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if folder == Path():
        siblings.append("digits")
    return (
        f"{path} does not exist{suggest(missing.name, siblings)}; expected a folder, a .tar, a .parquet, digits, "
        "hfds/NAME or torch/NAME"
    )
