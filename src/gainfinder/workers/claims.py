"""Which cell a worker takes next: what suits what it has in memory, and is free."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from filelock import FileLock

from ..study import Cell, StudyFolder


class Claims:
    """The cells that one worker takes, one after another, each locked while it has it.

    Cells of one student on the same images form a group. A worker stays in its group, as its models, crops and
    predictions are at hand; then it takes a group that nobody is in, and at last cells of groups that others are in,
    from their end.

    Args:
        folder: the study's folder.
        cells: the study's cells.
        number: number of the worker, from 0.
        workers: number of workers.
    """

    def __init__(self, folder: StudyFolder, cells: Sequence[Cell], *, number: int, workers: int) -> None:
        self.folder = folder
        self.groups: dict[str, list[Cell]] = {}
        for cell in cells:
            self.groups.setdefault(group_of(cell), []).append(cell)
        names = list(self.groups)
        first = number * len(names) // max(1, workers)
        self.order = [*names[first:], *names[:first]]

    def __iter__(self) -> Iterator[Cell]:
        """Each cell that is free when its turn comes; it is locked until the next is asked for."""
        for name in self.order:
            with ExitStack() as held:
                if self._hold(held, f"group-{self._number(name)}"):
                    yield from self._free(self.groups[name])
        # Others are at work on what is left, if anything is: help them, from the other end.
        for name in self.order:
            yield from self._free(self.groups[name][::-1])

    def _free(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        for cell in cells:
            if not self.folder.is_open(cell):
                continue
            with ExitStack() as held:
                # It may have been done between the look and the lock.
                if self._hold(held, cell.key) and self.folder.is_open(cell):
                    yield cell

    def _hold(self, held: ExitStack, name: str) -> bool:
        lock: FileLock | None = self.folder.lock(name)
        if lock is None:
            return False
        held.callback(lock.release)
        return True

    def _number(self, name: str) -> int:
        return list(self.groups).index(name)


def group_of(cell: Cell) -> str:
    """Cells of one group share a student and images."""
    spec = cell.spec
    return f"{spec.student}\n{spec.data}\n{spec.val}\n{spec.guard_data}"
