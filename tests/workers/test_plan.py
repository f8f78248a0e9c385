"""A plan tries every model and all images once: what cannot be loaded is told before anything runs."""

from pathlib import Path

import pytest

from digit_files import digit_folder
from gainfinder.study import Cell, StudyFolder, read_study, study_cells
from gainfinder.workers import StudyPlan, plan_study
from studies import write_study


def plan(zoo: dict[str, str], tmp_path: Path, *overrides: str, most: int = 1) -> tuple[StudyPlan, list[Cell]]:
    """The plan of a study of which one cell is timed, and the cells that were tried."""
    folder = StudyFolder(tmp_path / "out")
    study = read_study(write_study(tmp_path / "small.toml", zoo), overrides)
    tried: list[Cell] = []
    return plan_study(folder, study_cells(study, folder.path), most=most, on_cell=tried.append), tried


def test_every_model_is_loaded_and_one_cell_timed(zoo: dict[str, str], tmp_path: Path) -> None:
    found, tried = plan(zoo, tmp_path)
    assert (found.cells, found.timed, found.mistakes) == (6, 1, ())
    assert {name for cell in tried for name in (cell.student, *cell.teachers)} == {"vit", "resnet", "convnext"}
    assert len(tried) == 2
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_not_there_is_told_though_no_cell_of_it_is_timed(zoo: dict[str, str], tmp_path: Path) -> None:
    found, _ = plan(zoo, tmp_path, "models.resnet=local-dir:nowhere", 'study.students=["vit"]')
    assert found.timed == 1
    assert len(found.mistakes) == 1 and found.mistakes[0].startswith("vit from resnet; kl: local-dir:nowhere")


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("models.vit=local-dir:nowhere", "vit from convnext; kl: local-dir:nowhere"),
        ("data.val=nowhere", "vit from convnext; kl: "),
    ],
)
def test_what_is_broken_is_told_once(zoo: dict[str, str], tmp_path: Path, override: str, first: str) -> None:
    found, _ = plan(zoo, tmp_path, override)
    assert len(found.mistakes) == 1 and found.mistakes[0].startswith(first)


def test_counting_alone_loads_nothing(zoo: dict[str, str], tmp_path: Path) -> None:
    found, tried = plan(zoo, tmp_path, "models.vit=local-dir:nowhere", most=0)
    assert (found.cells, found.hours, found.mistakes, tried) == (6, None, (), [])


def test_decoded_images_are_counted_once_for_a_student(zoo: dict[str, str], tmp_path: Path) -> None:
    pictures = digit_folder(tmp_path / "pictures", 120, broken=0)
    few = ('study.students=["vit"]', 'study.teachers=["resnet"]', 'settings.augment="none"', "settings.limit=40")
    files = (*few, f'data.data="{pictures}#1/2"', f'data.val="{pictures}#2/2"')
    one, _ = plan(zoo, tmp_path, *files)
    seeds, _ = plan(zoo, tmp_path, *files, "axes.seed=[0, 1]")
    none, _ = plan(zoo, tmp_path, *few)
    assert one.bank_mb is not None and seeds.bank_mb is not None and none.bank_mb is not None
    logits = none.bank_mb  # of as many embedded digits, which are not kept
    assert seeds.cells == 2 * one.cells and seeds.bank_mb - 2 * logits == pytest.approx(one.bank_mb - logits)
    assert one.bank_mb > logits + 0.02
