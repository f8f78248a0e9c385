"""The report of a study's folder: its files, its page, and what it says of a study that is not done."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gainfinder.errors import RunFolderError
from gainfinder.report import write_study_report, write_study_rows
from gainfinder.report.drawing import Drawer
from gainfinder.report.study.report import StudySection, study_page, study_section
from gainfinder.report.study.rows_files import rows_table
from gainfinder.study import StudyFolder, StudyRow, read_study
from made_studies import made_document, made_row, made_study
from studies import write_study


def page_of(section: StudySection) -> str:
    with Drawer() as drawer:
        return study_page(section, drawer=drawer)


def test_a_page_of_a_whole_study() -> None:
    rows, epochs = made_study(holes=0.1)
    section = study_section(made_document(), rows, epochs)
    page = page_of(section)
    for words in ("Weaker teachers help", "Figure 4a", "Figure 11", "Table 7", "Left out", "Figure 9: fewer than two"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page
    assert len(section.figures) == 9 and page.count("<figure") == 9
    assert sum(row.state == "missing" for row in rows) and "missing" in page


def test_data_sets_are_told_apart() -> None:
    rows, _ = made_study(students=3, teachers=3, methods=("kl",))
    two = [*rows, *(row.model_copy(update={"data": "cub"}) for row in rows)]
    section = study_section(made_document(), two, [])
    assert {"table-1-data", "table-1-cub"} <= {one.name for one in section.tables}
    assert {"figure-4a-data", "figure-4a-cub", "figure-9"} <= {one.figure.name for one in section.figures}
    assert "cub: Table 9" in " ".join(section.omitted)


def test_two_methods_of_nearly_one_name_have_files_each() -> None:
    rows = [made_row("s", "a", 0.1, variant=name) for name in ("x, y", "x y")]
    names = [one.name for one in study_section(made_document(), rows, []).tables]
    assert {"table-7-x-y", "table-7-x-y-2"} <= set(names) and len(set(names)) == len(names)


def test_a_students_own_copy_is_a_control() -> None:
    rows = [made_row("s", "a", 1.0), made_row("s", "s", 0.2), made_row("t", "a", 1.0), made_row("t", "t", None)]
    section = study_section(made_document(), rows, [])
    (own,) = [one for one in section.tables if one.name == "own-copy"]
    assert [[cell.text for cell in row] for row in own.rows] == [["s", "+0.20 [-0.30, +0.70]"], ["t", "missing"]]
    (methods,) = [one for one in section.tables if one.name == "methods"]
    assert methods.rows[0][1].text == "2" and methods.rows[0][4].text == "+1.00 [+1.00, +1.00]"


def test_names_are_escaped_on_the_page() -> None:
    section = study_section(made_document("<b>x</b>"), [made_row("<i>s</i>", "a", 0.1), made_row("t", "a", 0.2)], [])
    page = page_of(section)
    assert "<i>s</i>" not in page and "<b>x</b>" not in page and "&lt;i&gt;s&lt;/i&gt;" in page


def test_failures_are_listed() -> None:
    row = made_row("s", "a", None, state="failed", error="out of memory")
    section = study_section(made_document(), [row], [])
    assert section.failures == ("s from a (kl, seed 0): out of memory",) and "out of memory" in page_of(section)


def test_rows_keep_their_types_and_axes() -> None:
    rows = [made_row("s", "a", None, axes={"lr": "0.1"}), made_row("s", "b", None, axes={"lr": "0.2"})]
    table = rows_table(rows)
    assert str(table.schema.field("transfer_delta_pp").type) == "double"
    assert table.column("axis_lr").to_pylist() == ["0.1", "0.2"]
    assert set(StudyRow.model_fields) - set(table.column_names) == {"axes", "noun"}


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A study of which nothing is done."""
    file = write_study(tmp_path / "tiny.toml", {"vit": f"local-dir:{tmp_path}/zoo/vit"})
    folder = StudyFolder(tmp_path / "out")
    folder.claim(read_study(file))
    return folder


def test_a_study_of_which_nothing_is_done_says_so(study: StudyFolder) -> None:
    page = write_study_report(study.path)
    assert page == study.path / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    assert "Nothing is done yet" in text and "6 cells: 6 missing." in text
    assert pq.read_table(study.report / "rows.parquet").column("state").to_pylist() == ["missing"] * 6
    assert not list(study.report.rglob("*.svg"))


def test_an_earlier_report_is_replaced(study: StudyFolder) -> None:
    for name in (
        "figures/figure-5a.svg",
        "figures/figure-5a-rows.parquet",
        "tables/table-1.md",
        "rows.csv",
        "notes.txt",
    ):
        (study.report / name).parent.mkdir(parents=True, exist_ok=True)
        (study.report / name).write_text("old", encoding="utf-8")
    write_study_report(study.path)
    there = {path.relative_to(study.report).as_posix() for path in study.report.rglob("*") if path.is_file()}
    assert there == {"index.html", "rows.parquet", "epochs.parquet", "notes.txt"}


def test_all_rows_as_csv(study: StudyFolder) -> None:
    rows, epochs = write_study_rows(study.path, rows_format="csv")
    with rows.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["state"] for row in found] == ["missing"] * 6 and found[0]["student"] == "vit"
    assert epochs.read_text(encoding="utf-8").startswith('"cell","student"')


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no study"):
        write_study_report(tmp_path)
