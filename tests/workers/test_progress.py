"""What a worker notes of its cell: how much was learned in all attempts, those of lost workers included."""

from gainfinder.study import StudyFolder
from gainfinder.workers.progress import CellProgress


def test_views_of_a_lost_worker_count_though_its_last_note_is_older_than_its_checkpoint(folder: StudyFolder) -> None:
    cell = folder.all_cells()[0]
    folder.note_progress(cell, {"trained": 130})
    with CellProgress(folder, cell, worker=0) as progress:
        progress.epoch_begins(3, 4, 100, 50)
        assert progress.trained == 250
        progress.advance(50)
        assert progress.trained == 300


def test_views_that_are_learned_again_count_twice(folder: StudyFolder) -> None:
    cell = folder.all_cells()[0]
    folder.note_progress(cell, {"trained": 290})
    with CellProgress(folder, cell, worker=0) as progress:
        progress.epoch_begins(3, 4, 100, 0)
        progress.advance(100)
        progress.epoch({"transfer_delta_pp": 1.5})
        note = folder.progress(cell)
    assert note is not None and (note["trained"], note["delta_pp"]) == (390, 1.5)
