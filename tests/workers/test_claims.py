"""Which cells a worker takes: a group at a time, none that another has, and in the end those of others' groups."""

import pytest

from gainfinder.study import Failure, StudyFolder, study_cells
from gainfinder.workers.claims import Claims
from studies import finish_cell


def test_a_worker_alone_takes_every_cell_group_by_group(folder: StudyFolder) -> None:
    cells = folder.all_cells()
    taken = []
    for cell in Claims(folder, cells, number=0, workers=1):
        taken.append(cell)
        finish_cell(folder, cell)
    assert taken == cells
    assert list(Claims(folder, cells, number=0, workers=1)) == []


def test_two_workers_take_a_group_each_and_then_help_from_the_other_end(folder: StudyFolder) -> None:
    cells = folder.all_cells()
    groups = {name: [cell for cell in cells if cell.student == name] for name in ("vit", "resnet")}
    one, two = (iter(Claims(folder, cells, number=number, workers=2)) for number in (0, 1))
    first, other = next(one), next(two)
    assert first == groups["vit"][0] and other == groups["resnet"][0]
    for cell in groups["resnet"]:
        finish_cell(folder, cell)
    assert next(two) == groups["vit"][-1]  # it is done with its own


def test_what_is_done_or_failed_or_taken_is_left_alone(folder: StudyFolder) -> None:
    cells = folder.all_cells()
    finish_cell(folder, cells[0])
    folder.fail(cells[1], Failure(error="e", kind="k", trace="", when=0.0, host="h"))
    lock = folder.lock(cells[2].key)
    assert lock is not None and folder.lock(cells[2].key) is None
    assert next(iter(Claims(folder, cells, number=0, workers=1))) == cells[3]
    lock.release()
    assert next(iter(Claims(folder, cells, number=0, workers=1))) == cells[2]


def test_a_cell_done_between_the_look_and_the_lock_is_not_run_again(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = study_cells(folder.read(), folder.path)
    real = folder.lock

    def slow(name: str) -> object:
        if name == cells[0].key:
            finish_cell(folder, cells[0])
        return real(name)

    monkeypatch.setattr(folder, "lock", slow)
    assert next(iter(Claims(folder, cells, number=0, workers=1))) == cells[1]
