"""What a study will cost: cells, hours and disk, from a few real steps of some of its cells."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config import TransferSpec
from ..errors import GainfinderError
from ..profiling import Estimate, estimate
from ..runs import PreparedTransfer, banked_models
from ..study import CELL_FILE, Cell, StudyFolder, read_measures
from .loaded import LoadedSources

TIMED = 24
"""Cells that are timed, at most."""
RESULTS_MB = 0.1
"""Size of a cell that keeps its results alone."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """The cost of a study.

    Attributes:
        cells: number of cells.
        done: number of these that are done.
        hours: hours of one worker for the others; None where no cell was timed.
        disk_mb: disk that all results take, the bank's aside.
        bank_mb: disk that the bank takes at most, for logits and decoded images.
        timed: number of cells that were timed or are done, from which the rest is estimated.
        mistakes: `cell: why` of prepared cells that cannot be run.
    """

    cells: int
    done: int
    hours: float | None
    disk_mb: float | None
    bank_mb: float | None
    timed: int
    mistakes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return asdict(self)


def plan_study(
    folder: StudyFolder,
    cells: Sequence[Cell],
    *,
    keep_all: bool = True,
    most: int = TIMED,
    on_cell: Callable[[Cell], None] | None = None,
) -> StudyPlan:
    """Estimate what is left of a study; nothing is written.

    Cells of one student, variant and number of teachers are taken to cost alike: one of them is timed, or one that is
    done is looked up. Of every model and every source of images that is named, a cell is prepared besides: one that
    cannot be loaded, or whose classes do not match, is found before the study runs.

    Args:
        folder: the study's folder, which need not exist.
        cells: its cells.
        keep_all: whether students and predictions are kept.
        most: number of cells that are timed, at most; 0 times none and loads nothing.
        on_cell: called before a cell is prepared.
    """
    trials = _Trials(on_cell)
    kinds: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(_kind(cell), []).append(cell)
    seconds = {kind: found for kind, alike in kinds.items() if (found := _measured_s(folder, alike)) is not None}
    costs: list[Estimate] = []
    entries: list[float] = []
    for kind in _spread([kind for kind in kinds if kind not in seconds], most):
        prepared = trials.prepared(kinds[kind][0])
        if prepared is None:
            continue
        try:
            cost = estimate(prepared)
        except GainfinderError as error:
            trials.note(kinds[kind][0], error)
            continue
        seconds[kind] = cost.time_s
        costs.append(cost)
        entries += [cost.bank_mb / len(banked_models(prepared))] if banked_models(prepared) else []
    left = [cell for cell in cells if not folder.is_done(cell)]
    if most:
        trials.try_all_references(left)
    mean_s = statistics.fmean(seconds.values()) if seconds else None
    result_mb = statistics.fmean(cost.result_mb for cost in costs) if costs else None
    return StudyPlan(
        cells=len(cells),
        done=len(cells) - len(left),
        hours=None if mean_s is None else sum(seconds.get(_kind(cell), mean_s) for cell in left) / 3600,
        disk_mb=None if result_mb is None else len(cells) * (result_mb if keep_all else RESULTS_MB),
        bank_mb=None if not costs else _bank_mb(cells, costs, entries),
        timed=len(seconds),
        mistakes=tuple(trials.mistakes),
    )


class _Trials:
    """Cells that are prepared before the study runs, and what is wrong with them."""

    def __init__(self, on_cell: Callable[[Cell], None] | None) -> None:
        self.mistakes: list[str] = []
        self._on_cell = on_cell
        self._loaded = LoadedSources()
        self._sound: set[str] = set()
        self._broken: set[str] = set()

    def prepared(self, cell: Cell) -> PreparedTransfer | None:
        """The cell, prepared; None, and its mistake noted, where that fails."""
        if self._on_cell is not None:
            self._on_cell(cell)
        try:
            found = self._loaded.prepare(cell.spec)
        except GainfinderError as error:
            self.note(cell, error)
            self._broken |= self._to_blame(cell.spec)
            return None
        self._sound |= _references(cell.spec)
        return found

    def note(self, cell: Cell, error: GainfinderError) -> None:
        """Note why a cell cannot be run."""
        self.mistakes.append(f"{cell.label}: {error}")

    def try_all_references(self, cells: Sequence[Cell]) -> None:
        """Prepare cells until each model and each source of images was in one, or is known to be broken."""
        for cell in cells:
            found = _references(cell.spec)
            if not found <= self._sound and found.isdisjoint(self._broken):
                self.prepared(cell)

    def _to_blame(self, spec: TransferSpec) -> set[str]:
        """The models and images that cannot be loaded by themselves; else the teachers, which do not match the rest."""
        broken = set()
        for reference in _references(spec):
            try:
                if reference in (spec.data, spec.val, spec.guard_data):
                    self._loaded.images(reference, labels=False)
                else:
                    self._loaded.teacher(reference)
            except GainfinderError:
                broken.add(reference)
        return broken or set(spec.teachers)


def _references(spec: TransferSpec) -> set[str]:
    images = {one for one in (spec.data, spec.val, spec.guard_data) if one is not None}
    return {spec.student, *spec.teachers, *spec.referees, *images}


def _kind(cell: Cell) -> tuple[Any, ...]:
    """Cells of one kind cost alike."""
    config = cell.spec.config
    axes = tuple((name, str(value)) for name, value in cell.axes.items() if name != "seed")
    return cell.student, cell.data, cell.variant, len(cell.teachers), config.strategy, axes


def _measured_s(folder: StudyFolder, cells: Sequence[Cell]) -> float | None:
    found = [read_measures(folder.run_folder(cell).path / CELL_FILE).seconds for cell in cells if folder.is_done(cell)]
    return statistics.fmean(found) if found else None


def _spread(kinds: list[tuple[Any, ...]], most: int) -> list[tuple[Any, ...]]:
    """So many of them, evenly over the list."""
    if len(kinds) <= most:
        return kinds
    return [kinds[number * len(kinds) // most] for number in range(most)]


def _bank_mb(cells: Sequence[Cell], costs: Sequence[Estimate], entries: Sequence[float]) -> float:
    """Size of the bank: the logits of each (model, views), and the images of each student, as those that were timed."""
    of_logits = _banked(cells) * (statistics.fmean(entries) if entries else 0.0)
    shown = {
        (cell.spec.student, cell.spec.data, cell.spec.val, cell.spec.guard_data)
        for cell in cells
        if cell.spec.config.bank is not None
    }
    crops = [cost.crops_mb for cost in costs if cost.crops_mb]
    return of_logits + len(shown) * (statistics.fmean(crops) if crops else 0.0)


def _banked(cells: Sequence[Cell]) -> int:
    """Number of (model, views) whose logits the bank keeps."""
    found = set()
    for cell in cells:
        config = cell.spec.config
        if config.bank is not None:
            views = (cell.data, config.seed if config.view_seed is None else config.view_seed, config.augment)
            found |= {(model, views) for model in (cell.spec.student, *cell.spec.teachers)}
    return len(found)
