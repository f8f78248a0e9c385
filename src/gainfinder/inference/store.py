"""A folder of entries, each of a few arrays: written whole or not at all, found out when damaged, bounded in size.

    NAME/meta.json     the key, what its maker says of it, and a digest of itself and of each of the other files
    NAME/*.npy         the arrays

An entry is written under a lock and renamed when it is complete; it is checked against its digests when it is opened,
and one that is torn or altered is removed, to be made again. Names and keys are the caller's. (diskcache would pickle
arrays into files of its own: nothing to map, no digests, no entries kept from removal while a run needs them.)
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from ..files import parse_json, remove_partials, write_atomically

SPARE_BYTES = 16384
"""Upper bound for an entry's description and the headers of its files."""
META = "meta.json"
CROPS = "crops"
"""The entries in this folder below go first: they are made again sooner than others."""

Entry = TypeVar("Entry")
Opener = Callable[[Path, dict[str, Any]], Entry]
"""Makes an entry of its folder and description; a `ValueError` or the like says that it is damaged."""


class Store:
    """A folder of entries.

    Args:
        folder: folder of the entries, created with the first one.
        limit: bytes that all entries together may take; None for as much as the disk has.
    """

    def __init__(self, folder: Path, *, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit
        # Checking reads all of an entry: once for each state of its files is enough.
        self._checked: dict[str, tuple[tuple[int, int, int], ...]] = {}

    def find(self, name: str, key: Mapping[str, Any], opened: Opener[Entry]) -> Entry | None:
        """The entry of that name and key, or None. A damaged or altered one is removed."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        try:
            meta = parse_json((folder / META).read_text(encoding="utf-8"))
            if meta["key"] != key or meta.pop("digest") != _digest_of(meta):
                raise ValueError("another key, or altered")
            state = tuple(_state(folder / file) for file in meta["files"])
            if self._checked.get(name) != state:
                if any(_digest(folder / file) != digest for file, digest in meta["files"].items()):
                    raise ValueError("another digest")
                self._checked[name] = state
            entry = opened(folder, meta)
            with contextlib.suppress(OSError):  # a bank that may only be read, by its rights or its file system
                (folder / META).touch()  # the time of its last use
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return entry

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other processes from making this entry; waits for one that does.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.folder / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield

    def write(self, name: str, key: Mapping[str, Any], fill: Callable[[Path], Mapping[str, Any]]) -> None:
        """Write an entry, whose lock this process has, in place of any other of its name.

        Args:
            name: its name.
            key: its key, JSON values.
            fill: writes the arrays into a folder, and returns what else is to be said of them: JSON values.

        Raises:
            RunFolderError: it cannot be written.
            OSError: likewise.
        """
        workplace = self.folder / f"{name}.work"
        workplace.mkdir(exist_ok=True)
        remove_partials(workplace)  # of writers that were killed
        whole = workplace / (self.folder / name).name

        def write(partial: Path) -> None:
            """Fill the entry's folder, its description last."""
            partial.mkdir()
            about = fill(partial)
            digests = {path.name: _digest(path) for path in sorted(partial.iterdir())}
            meta = {"key": dict(key), **about, "files": digests}
            text = json.dumps({**meta, "digest": _digest_of(meta)}, indent=2)
            (partial / META).write_text(text, encoding="utf-8")

        try:
            write_atomically(whole, write)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            whole.rename(self.folder / name)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)

    def size(self) -> int:
        """Bytes that all entries take."""
        return sum(_size(folder) for folder in self._folders())

    def free(self) -> int:
        """Bytes that are free on the disk, whether or not the folder is there."""
        return shutil.disk_usage(next(at for at in (self.folder, *self.folder.absolute().parents) if at.exists())).free

    def make_room(self, needed: int, *, keep: Collection[str] = (), crops_alone: bool = False) -> bool:
        """Evict entries until there is room, crops first, then by their last use; whether there is room now.

        Args:
            needed: bytes that are wanted.
            keep: names of entries that stay.
            crops_alone: whether only crops may go.
        """
        free, used_bytes = self.free(), self.size()

        def fits() -> bool:
            return needed <= free and (self.limit is None or used_bytes + needed <= self.limit)

        for folder in sorted(self._folders(), key=lambda folder: (not self._holds_crops(folder), _last_use(folder))):
            if fits():
                return True
            if folder.name in keep or (crops_alone and not self._holds_crops(folder)):
                continue
            size = _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            free, used_bytes = free + size, used_bytes - size
        return fits()

    def _holds_crops(self, folder: Path) -> bool:
        return folder.parent != self.folder

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            for pattern in (f"*/{META}", f"{CROPS}/*/{META}"):
                yield from (meta.parent for meta in self.folder.glob(pattern))


def _digest_of(meta: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _size(folder: Path) -> int:
    sizes = []
    for path in folder.glob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # another process has just removed it
            continue
    return sum(sizes)


def _last_use(folder: Path) -> int:
    try:
        return (folder / META).stat().st_mtime_ns
    except OSError:
        return 0
