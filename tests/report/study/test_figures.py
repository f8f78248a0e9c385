"""The rows that figures draw, against naive computations, and that every figure of a whole study is drawn."""

import math
import statistics
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gainfinder.report.drawing import Drawer
from gainfinder.report.study import figure_rows
from gainfinder.report.study.cells import Omitted
from gainfinder.report.study.figures import StudyFigure, across_figures, data_set_figures
from gainfinder.report.study.grouping import group_rows
from gainfinder.report.study.overview import summarise
from gainfinder.study import TOGETHER
from made_studies import made_epochs, made_row, made_study

NAMES = [
    "figure-4a", "figure-4b", "figure-5a", "figure-5b", "figure-6", "figure-7", "figure-7-authors", "figure-8",
    "figure-11",
]  # fmt: skip


def test_every_figure_of_a_study_is_drawn_with_its_rows(tmp_path: Path) -> None:
    rows, epochs = made_study(students=20, teachers=5, holes=0.1)
    found = data_set_figures(group_rows(rows)["data"], epochs, rows)
    assert [one.figure.name for one in found if isinstance(one, StudyFigure)] == NAMES
    drawer = Drawer()
    with drawer:
        for one in found:
            assert isinstance(one, StudyFigure) and drawer.save(one.figure, tmp_path / f"{one.figure.name}.svg")
    for one in found:
        assert isinstance(one, StudyFigure)
        assert (tmp_path / f"{one.figure.name}.svg").read_text(encoding="utf-8").count("aria-label") > 5
        for key, table in one.figure.rows.items():
            assert pq.read_table(tmp_path / f"{one.figure.name}-{key}.parquet").to_pylist() == [dict(r) for r in table]


def test_boxes_are_of_students_and_the_mean_of_pairs() -> None:
    rows, _ = made_study(holes=0.3, methods=("kl",))
    boxes, points = figure_rows.success_rows(summarise(group_rows(rows)["data"]))
    assert [box["label"] for box in boxes] == ["kl", "kl, authors"]
    ours = [point["success"] for point in points if point["label"] == "kl"]
    assert boxes[0]["median"] == pytest.approx(statistics.median(ours))
    done = [row.transfer_delta_pp for row in rows if row.teacher_count == 1 and row.transfer_delta_pp is not None]
    assert boxes[0]["mean"] == pytest.approx(statistics.mean(one > 0 for one in done))
    assert (boxes[1]["median"], boxes[1]["students"]) == (pytest.approx(0.325), 20)


def test_bins_equal_a_naive_loop() -> None:
    rows, _ = made_study(students=10, teachers=6, methods=("kl", "cd"))
    results = group_rows(rows)["data"]
    single = [row for row in rows if row.teacher_count == 1]
    strengths = [row.delta_acc_pp or 0.0 for row in single]
    width = (max(strengths) - min(strengths)) / 8
    naive: dict[tuple[str, int], list[float]] = {}
    for row in single:
        number = min(7, int(((row.delta_acc_pp or 0.0) - min(strengths)) / width))
        naive.setdefault((row.method, number + 1), []).append(row.transfer_delta_pp or 0.0)
    found = figure_rows.binned_rows(results, results.arms)
    assert {(row["method"], row["bin"]) for row in found} == set(naive)
    for drawn in found:
        deltas = sorted(naive[drawn["method"], drawn["bin"]], reverse=True)
        assert drawn["pairs"] == len(deltas)
        best = drawn["measure"] == figure_rows.TOP_MEAN
        chosen = deltas[: math.ceil(len(deltas) / 4)] if best else deltas
        assert drawn["value_pp"] == pytest.approx(statistics.mean(chosen))


def test_top_classes_are_means_over_a_familys_pairs() -> None:
    rows = [
        made_row(f"s{i}", "a", 0.1, student_family=family, transfer_rate=0.1, transfer_rate_top_2=rate)
        for i, (family, rate) in enumerate((("CNN", 0.2), ("CNN", 0.4), ("MLP", 0.9), ("MLP", None)))
    ]
    found = figure_rows.top_class_rows(group_rows(rows)["data"])
    top = {row["family"]: row for row in found if row["top"] == "2 %"}
    assert top["CNN"]["rate"] == pytest.approx(0.3) and top["CNN"]["pairs"] == 2
    assert top["MLP"]["rate"] == pytest.approx(0.9) and top["MLP"]["low"] is None
    assert all(row["overall"] == pytest.approx(0.1) for row in found)


def test_students_alike_in_two_properties_are_joined() -> None:
    about = {"a": ("CNN", 0.70, 10), "b": ("CNN", 0.71, 40), "c": ("MLP", 0.70, 11), "d": ("CNN", 0.80, 300)}
    rows = [
        made_row(name, "t", 0.1, student_family=family, accuracy_before=accuracy, parameters=10**6 * size)
        for name, (family, accuracy, size) in about.items()
    ]
    results = group_rows(rows)["data"]
    points, edges = figure_rows.alike_rows(results, results.arms[0])
    assert {(row["property"], row["edge"]) for row in edges} == {("size", "a and b"), ("family", "a and c")}
    assert len(points) == 4 and len(edges) == 4


def test_a_sequence_goes_on_through_its_teachers() -> None:
    row = made_row("s", TOGETHER.join(("a", "b")), 0.2, strategy="sequential", order="ascending")
    other = row.model_copy(update={"cell": "elsewhere"})
    epochs = [*made_epochs(row, each=2), *made_epochs(other)]
    found = figure_rows.sequence_rows(epochs, {row.cell: ("kl", row)})
    assert [one["epoch"] for one in found if one["kind"] == "delta"] == [1, 2, 3, 4]
    assert [(one["epoch"], one["teacher"]) for one in found if one["kind"] == "end"] == [(2, "a"), (4, "b")]
    assert [one["value_pp"] for one in found if one["kind"] == "gained"] == [2.0] * 4


def test_data_sets_and_domains_have_their_figures() -> None:
    rows, _ = made_study()
    two = [*rows, *(row.model_copy(update={"data": "cub"}) for row in rows)]
    nine, ten = across_figures(group_rows(two))
    assert isinstance(nine, StudyFigure) and {row["data"] for row in nine.figure.rows["rows"]} == {"data", "cub"}
    assert isinstance(ten, Omitted) and str(ten).startswith("Figure 10: no finished pairs whose images or teachers")
    drawn = [row.model_copy(update={"teacher": f"infograph_{row.teacher}"}) for row in rows if row.teacher_count == 1]
    nine, ten = across_figures(group_rows([*rows, *drawn]))
    assert str(nine) == "Figure 9: fewer than two data sets with finished pairs"
    assert isinstance(ten, StudyFigure)
    assert sum(row["pairs"] for row in ten.figure.rows["rows"] if row["measure"] == "mean of all") == 2 * 6 * 4


def test_what_the_cells_do_not_allow_is_left_out() -> None:
    results = group_rows([made_row("s", "a", None)])["data"]
    found = data_set_figures(results, [], [])
    assert all(isinstance(one, Omitted) for one in found)
    assert str(found[0]) == "Figure 4a: no finished pairs with a single teacher"
