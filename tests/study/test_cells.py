"""The cells of a study: every combination that no rule leaves out, each once, by keys that nothing else changes."""

import itertools
from pathlib import Path

import pytest

from gainfinder.errors import SettingsError
from gainfinder.study import Cell, read_study, study_cells
from studies import SMALL

OUT = Path("out")


def cells(tmp_path: Path, *overrides: str, text: str = SMALL, out: Path = OUT) -> list[Cell]:
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return study_cells(read_study(path, overrides), out)


def test_cells_are_all_combinations_but_a_student_with_itself(tmp_path: Path) -> None:
    found = cells(tmp_path, "axes.seed=[0, 1]")
    expected = [
        (student, teacher, variant, seed)
        for student, seed, teacher, variant in itertools.product(
            ("vit", "resnet"), (0, 1), ("convnext", "resnet"), ("kl", "dp")
        )
        if student != teacher
    ]
    assert [(one.student, *one.teachers, one.variant, one.spec.config.seed) for one in found] == expected
    assert len({one.key for one in found}) == len(found)


def test_a_student_learns_from_its_own_copy_where_that_is_asked_for(tmp_path: Path) -> None:
    found = cells(tmp_path, "study.with_itself=true", 'study.teachers=["resnet", ["resnet", "vit"]]')
    assert {(one.student, one.teachers) for one in found} == {
        ("vit", ("resnet",)),
        ("resnet", ("resnet",)),
    }


def test_a_key_is_of_what_changes_the_result_alone(tmp_path: Path) -> None:
    plain = [one.key for one in cells(tmp_path)]
    assert [one.key for one in cells(tmp_path, out=Path("elsewhere"))] == plain
    assert [one.key for one in cells(tmp_path, "settings.workers=2", "settings.seed=0")] == plain
    grown = cells(tmp_path, 'variants.xe={method="xe-kl"}', 'study.teachers=["convnext", "resnet", "vit"]')
    assert set(plain) < {one.key for one in grown}
    assert not set(plain) & {one.key for one in cells(tmp_path, "settings.epochs=3")}
    assert not set(plain) & {one.key for one in cells(tmp_path, "settings.seed=1")}


def test_strategies_of_a_single_teacher_are_one_cell(tmp_path: Path) -> None:
    found = cells(
        tmp_path, 'axes.strategy=["sequential", "soup"]', 'study.teachers=["convnext", ["convnext", "resnet"]]'
    )
    of_vit = [one for one in found if one.student == "vit" and one.variant == "kl"]
    assert [(len(one.teachers), one.spec.config.strategy) for one in of_vit] == [
        (1, "sequential"),
        (2, "sequential"),
        (2, "soup"),
    ]


def test_rules_leave_out_what_matches_all_their_keys(tmp_path: Path) -> None:
    text = SMALL + '[[exclude]]\nstudent = "v*"\nvariant = "kl"\n'
    found = {(one.student, one.variant) for one in cells(tmp_path, text=text)}
    assert found == {("vit", "dp"), ("resnet", "kl"), ("resnet", "dp")}
    text = SMALL + '[[only]]\nteacher = ["convnext"]\nmethod = "kl"\n[[only]]\nteacher_count = 2\n'
    assert {(one.teachers, one.variant) for one in cells(tmp_path, text=text)} == {(("convnext",), "kl")}
    text = SMALL + "[[exclude]]\nseed = 0\n"
    with pytest.raises(SettingsError, match="has no cell"):
        cells(tmp_path, text=text)


def test_the_bank_is_shared_but_for_methods_that_compare_features(tmp_path: Path) -> None:
    found = cells(tmp_path, 'variants.cd={method="cd"}', out=Path("study"))
    assert {(one.variant, one.spec.config.bank) for one in found} == {
        ("kl", Path("study/bank")),
        ("dp", Path("study/bank")),
        ("cd", None),
    }
    assert all(one.spec.config.bank is None for one in cells(tmp_path, "study.bank=false"))


def test_guard_images_are_for_cells_with_a_guard(tmp_path: Path) -> None:
    found = cells(tmp_path, "data.guard_data=digits#3/4", "variants.kl.guard=true")
    assert {(one.variant, one.spec.guard_data) for one in found} == {("kl", "digits#3/4"), ("dp", None)}


def test_settings_that_do_not_go_together_name_the_cell(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"study 'small', vit from convnext, variant 'kl': limit and subset"):
        cells(tmp_path, "settings.subset=0.5")


def test_a_cell_has_one_student(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="vit from convnext, variant 'kl': `both` is no setting of a study"):
        cells(tmp_path, "settings.both=live")


def test_too_many_combinations_are_counted_before_any_is_made(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_text(SMALL, encoding="utf-8")
    thousand = f"[{', '.join(map(str, range(1, 1001)))}]"
    axes = [f"axes.{name}={thousand}" for name in ("epochs", "views", "seed")]
    with pytest.raises(SettingsError, match="the axes have 1,000,000,000 combinations: expected at most 100,000"):
        read_study(tmp_path / "large.toml", axes)
    study = read_study(tmp_path / "large.toml", [axes[0], "axes.seed=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"])
    pairs = len(study.study.students) * len(study.study.teachers) * len(study.variants)
    many = study.model_copy(update={"axes": {**study.axes, "views": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}})
    with pytest.raises(SettingsError, match=f"has {100 * pairs},000 combinations of students, .* at most 100,000"):
        study_cells(many, tmp_path)
