"""Finished cells copied to another place, such as a bucket, by fsspec."""

import logging
from pathlib import Path

from ..errors import MissingExtra
from ..libraries import first_line

_log = logging.getLogger("gainfinder")


def copy_to_mirror(folder: Path, url: str) -> None:
    """Copy a finished cell below a URL; what goes wrong is noted, as the cell itself is safe here.

    The file that says that a cell is done is copied last.

    Args:
        folder: the cell's folder.
        url: URL of the study's mirror, of any kind that fsspec knows, such as `s3://bucket/study`.

    Raises:
        MissingExtra: fsspec is not installed.
    """
    try:
        import fsspec  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("fsspec", None, f"copying results to {url}") from error
    base = f"{url.rstrip('/')}/cells/{folder.name}"
    try:
        system, target = fsspec.core.url_to_fs(base)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        for path in sorted(paths, key=lambda path: path.name == "cell.json"):
            goal = f"{target}/{path.relative_to(folder).as_posix()}"
            system.makedirs(goal.rsplit("/", 1)[0], exist_ok=True)
            system.put_file(str(path), goal)
    except Exception as error:  # of any file system there is
        _log.warning("%s: not copied to %s (%s: %s)", folder, url, type(error).__name__, first_line(error))
