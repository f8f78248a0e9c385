"""The folder of a two-way transfer: two result folders, what was done, and a page on both.

1/, 2/               result folders: of the student that was given, and of the teacher that was given
two-way.json         what was done; present when both are finished
report.html          a page on both; made of all the above
checkpoint.pt        with `both="live"`: the state of both to resume from; removed when both are finished
"""

from pathlib import Path
from typing import Literal

from ..errors import RunFolderError
from ..files import check_writable, remove_partials, write_json
from .documents import read_json, unreadable, validated, written_to
from .folder import DIRECTIONS, REPORT_FILE, TWO_WAY_FILE, RunFolder, ways_begun
from .metrics import Record

TWO_WAY_FORMAT = 1


class TwoWay(Record):
    """The content of `two-way.json`.

    Attributes:
        format_version: 1.
        both: `frozen` or `live`: what each learned from.
        student: reference of the model that was given as student, whose result is in the first folder.
        teacher: reference of the model that was given as teacher, whose result is in the second.
        results: names of the two folders.
    """

    format_version: int = TWO_WAY_FORMAT
    both: Literal["frozen", "live"]
    student: str
    teacher: str
    results: tuple[str, str] = DIRECTIONS


class TwoWayFolder:
    """The folder of a two-way transfer; each result folder in it has its own lock.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = tuple(RunFolder(path / name) for name in DIRECTIONS)
        self.document = path / TWO_WAY_FILE
        self.report = path / REPORT_FILE
        self.checkpoint = path / "checkpoint.pt"

    @property
    def is_begun(self) -> bool:
        """Whether a two-way transfer began here, finished or not."""
        return self.document.exists() or bool(ways_begun(self.path))

    def check(self) -> None:
        """Make sure, before any work, that a two-way transfer may begin or go on here; nothing is left behind.

        Raises:
            RunFolderError: the folder holds something else, or cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path}: is a file; expected a folder or a name that is free")
        if RunFolder(self.path).config.exists():
            raise RunFolderError(
                f"{self.path}: holds a transfer one way, and `both` needs a folder of its own; choose another `out`"
            )
        names = sorted(one.name for one in self.path.iterdir()) if self.path.exists() else []
        others = [name for name in names if not name.startswith(".") and name not in DIRECTIONS]
        if others and not self.is_begun:
            raise RunFolderError(
                f"{self.path}: holds files but no two-way transfer ({', '.join(others[:3])}); choose an empty `out`"
            )
        check_writable(self.document)

    def read(self) -> TwoWay | None:
        """What was done; None where the two are not finished.

        Raises:
            RunFolderError: the file is damaged, or of a newer version.
        """
        document = read_json(self.document)
        if document is None:
            return None
        found = validated(TwoWay, document, self.document)
        if found.format_version != TWO_WAY_FORMAT:
            raise unreadable(self.document, f"format_version: unexpected {found.format_version}")
        if found.results != DIRECTIONS:
            raise unreadable(self.document, f"results: unexpected {found.results}")
        return found

    def write(self, found: TwoWay) -> None:
        """Write what was done, atomically and last: then the two-way transfer is complete.

        Raises:
            RunFolderError: it cannot be written.
        """
        remove_partials(self.path)
        with written_to():
            existing = self.read()
        if existing != found:
            write_json(self.document, found.to_dict(), within=self.path)
        self.checkpoint.unlink(missing_ok=True)


def refuse_two_way(path: Path) -> None:
    """Refuse the folder of a two-way transfer where one of its results is expected.

    Raises:
        RunFolderError: it is one; its results are named.
    """
    if (path / TWO_WAY_FILE).exists():
        one, other = (path / name for name in DIRECTIONS)
        raise RunFolderError(f"{path}: holds both results of a two-way transfer: give one of them, {one} or {other}")
