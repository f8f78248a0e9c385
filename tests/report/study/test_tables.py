"""Tables of rows with known numbers, against naive computations; what is missing is shown."""

import statistics

import pytest

from gainfinder.report.study.cells import Omitted
from gainfinder.report.study.grouping import group_rows
from gainfinder.report.study.method_tables import comparison_table, methods_table, published_table, same_students_table
from gainfinder.report.study.overview import compare_arms, summarise
from gainfinder.report.study.paper_tables import examples_table, flips_table, labels_table, pair_tables, student_table
from gainfinder.report.study.strategy_tables import partition_strategies_table, vanilla_strategies_table
from gainfinder.report.study.table import StudyTable
from gainfinder.study import TOGETHER, StudyRow
from made_studies import made_row, made_study


def texts(table: StudyTable | Omitted) -> list[list[str]]:
    assert isinstance(table, StudyTable), table
    return [[cell.text for cell in row] for row in table.rows]


def small() -> list[StudyRow]:
    """Two students, three teachers; the second student lacks a pair, and has two seeds of another."""
    deltas = {("s", "a"): 1.0, ("s", "b"): -0.5, ("s", "c"): 0.25, ("t", "a"): 0.0, ("t", "b"): None}
    rows = [made_row(*pair, delta) for pair, delta in deltas.items()]
    return [*rows, made_row("t", "c", 0.3, seed=0), made_row("t", "c", 0.5, seed=1)]


def test_students_have_mean_spread_and_number() -> None:
    results = group_rows(small())["data"]
    rows = {row[0]: row for row in texts(student_table(results))}
    s = statistics.stdev([1.0, -0.5, 0.25])
    assert rows["s"][4] == f"+0.25 ± {s:.2f} (3)"
    assert rows["t"][4] == f"+0.20 ± {statistics.stdev([0.0, 0.4]):.2f} (2 of 3)"
    assert rows["all pairs"][4].startswith("+0.23 [") and rows["all pairs"][4].endswith("(5 of 6)")
    assert rows["success, all pairs"][4].startswith("60% [")  # 0.0 is no gain


def test_pairs_say_why_they_are_missing() -> None:
    rows = [*small(), made_row("t", "d", None, state="failed", error="no"), made_row("s", "e", None, state="running")]
    table = pair_tables(group_rows(rows)["data"])[0]
    assert isinstance(table, StudyTable) and table.columns == ("student", "a", "b", "c", "d", "e", "over teachers")
    assert texts(table)[0][1:6] == ["+1.00", "-0.50", "+0.25", "·", "running"]
    assert texts(table)[1][1:6] == ["+0.00", "missing", "+0.40 ± 0.14", "failed", "·"]
    assert texts(table)[1][6].endswith("(2 of 4)")


def test_a_pair_of_which_seeds_are_missing_says_so() -> None:
    rows = [made_row("s", "a", 0.2, seed=0), made_row("s", "a", None, seed=1)]
    table = pair_tables(group_rows(rows)["data"])[0]
    assert texts(table)[0][1] == "+0.20 (1 of 2 seeds)"


def test_methods_equal_naive_loops() -> None:
    rows, _ = made_study(holes=0.2, seed=3)
    for summary in summarise(group_rows(rows)["data"]):
        ours = [row for row in rows if row.method == summary.arm.method and row.teacher_count == 1]
        done = [row.transfer_delta_pp for row in ours if row.transfer_delta_pp is not None]
        by_student = {
            student: [
                row.transfer_delta_pp > 0
                for row in ours
                if row.student == student and row.transfer_delta_pp is not None
            ]
            for student in {row.student for row in ours}
        }
        assert summary.success.value == pytest.approx(statistics.mean(one > 0 for one in done))
        assert summary.delta.value == pytest.approx(statistics.mean(done))
        assert (summary.delta.pairs, summary.delta.planned) == (len(done), len(ours))
        rates = [statistics.mean(one) for one in by_student.values() if one]
        assert summary.median_success == pytest.approx(statistics.median(rates))


def test_the_authors_numbers_are_those_that_their_file_gives() -> None:
    results = group_rows(made_study()[0])["data"]
    rows = {row[0]: row[-5:] for row in texts(methods_table(results))}
    assert rows["kl"][:3] == ["32.5%", "32.5%", "-0.30"]
    assert rows["kl-dp"][:3] == ["73.8%", "92.5%", "+0.32"]
    assert rows["kl-dp-u"][:3] == ["69.0%", "82.5%", "-0.06"]
    last = texts(published_table(results))[-2:]
    assert last[0][3:] == ["-0.30", "+0.32", "-0.06", "-1.90"] and last[1][3] == "32.5%"


def test_students_of_the_authors_stand_beside_theirs() -> None:
    table = texts(same_students_table(group_rows([made_row("pit_b_224.in1k", "a", 0.4)])["data"]))
    assert table == [["pit_b_224.in1k", "kl", "+0.40 (1)", "100%", "5.40", "5.00", "-0.30", "60%", "3.31", "3.61"]]
    assert isinstance(same_students_table(group_rows(small())["data"]), Omitted)


def test_comparisons_are_on_common_pairs_and_adjusted() -> None:
    rows = [made_row(f"s{i}", "a", 0.1 * i, method="kl") for i in range(4)]
    rows += [made_row(f"s{i}", "a", 0.1 * i + 1, method="kl-dp") for i in range(1, 4)]
    rows += [made_row(f"s{i}", "a", 0.1 * i, method="cd") for i in range(1, 4)]
    found = {(one.first.name, one.second.name): one for one in compare_arms(group_rows(rows)["data"])}
    one = found["kl", "kl-dp"]
    assert one.difference.pairs == 3 and one.difference.value == pytest.approx(-1)
    assert one.p_pairs == 0.25 and one.adjusted_pairs == pytest.approx(0.75)  # 2 of 8 flips, three comparisons
    assert found["kl", "cd"].p_pairs == 1.0
    assert len(texts(comparison_table(group_rows(rows)["data"]))) == 3


def test_examples_are_chosen_by_strength_alone() -> None:
    about = {"a": (5.0, 0.1), "b": (15.0, -2.0), "c": (-5.0, 3.0), "d": (-20.0, 0.2)}
    rows = [made_row("s", name, delta, method="kl-dp", delta_acc_pp=acc) for name, (acc, delta) in about.items()]
    assert texts(examples_table(group_rows(rows)["data"])) == [
        ["s", "kl-dp", "b", "+15.00", "-2.00 [-2.50, -1.50]", "d", "-20.00", "+0.20 [-0.30, +0.70]"]
    ]


def test_labels_are_compared_on_the_same_teachers() -> None:
    rows = [made_row("s", name, delta, method="kl-dp") for name, delta in (("a", 1.0), ("b", 2.0), ("c", 9.0))]
    rows += [
        made_row("s", name, d, method="kl-dp-u", supervised=False) for name, d in (("a", 1.5), ("b", 2.5), ("c", None))
    ]
    row = texts(labels_table(group_rows(rows)["data"]))[0]
    assert row[2:4] == ["+4.00 ± 4.36 (3)", "+2.00 ± 0.71 (2 of 3)"]
    assert row[4] == "+0.50 [+0.50, +0.50] (2 of 3)"


def test_several_teachers_stand_beside_each_alone() -> None:
    both = TOGETHER.join("ab")
    rows = [made_row("s", name, delta, method="kl-dp") for name, delta in (("a", 1.0), ("b", 2.0))]
    rows += [made_row("s", both, 3.0, method="kl-dp", strategy="sequential", order="ascending")]
    rows += [made_row("s", both, None, method="kl-dp", strategy="soup")]
    results = group_rows(rows)["data"]
    row, total = texts(partition_strategies_table(results))
    assert row == ["s", "kl-dp", "a +1.00; b +2.00", "+2.00", "+1.50", "+3.00 [+2.50, +3.50]", "missing"]
    assert total[2] == "0 of 1 students"
    assert str(vanilla_strategies_table(results)) == "Table 9: no cells with several teachers and method kl"


def test_flips_change_by_after_less_before() -> None:
    rows = [made_row("s", "a", 1.0, positive_flips=0.1, positive_flips_after=0.07), made_row("s", "b", 1.0)]
    first = texts(flips_table(group_rows(rows)["data"]))[0]
    assert first[2] == f"-2.00 ± {statistics.stdev([-3, -1]):.2f} (2)" and first[3] == "+0.00 ± 0.00 (2)"
