"""Findings say what their interval says, and nothing of too few."""

import pytest

from gainfinder.report.study.findings import (
    EXPERTISE,
    PARTITION,
    SEQUENCE,
    SIZE,
    SOUP,
    WEAKER,
    StudyFinding,
    study_findings,
)
from gainfinder.report.study.grouping import group_rows
from gainfinder.study import TOGETHER, StudyRow
from made_studies import made_row


def found(rows: list[StudyRow], claim: str) -> StudyFinding:
    (one,) = [one for one in study_findings(group_rows(rows)["data"]) if one.claim == claim]
    return one


def pairs(method: str, delta: float, *, students: int = 6, **fields: object) -> list[StudyRow]:
    return [
        made_row(f"s{i}", f"t{j}", delta + 0.1 * (i - j), method=method, **fields)
        for i in range(students)
        for j in range(4)
    ]


@pytest.mark.parametrize(("delta", "verdict"), [(2.0, "holds"), (-2.0, "does not hold"), (-0.1, "cannot be told")])
def test_weaker_teachers(delta: float, verdict: str) -> None:
    one = found(pairs("kl-dp", delta), WEAKER)
    assert one.verdict == verdict and one.estimate == pytest.approx(delta + 0.1)
    assert one.count == "24 pairs" and f"{delta + 0.1:+.2f} pp" in one.text
    stronger = found(pairs("kl-dp", delta, delta_acc_pp=3.0), WEAKER)
    assert stronger.estimate is None and stronger.verdict == "cannot be told"


def test_few_students_cannot_tell() -> None:
    one = found(pairs("kl-dp", 2.0, students=3), WEAKER)
    assert one.verdict == "cannot be told" and one.text.endswith("Of 3 students that says little.")


def test_partition_against_kl() -> None:
    one = found([*pairs("kl", 0.0), *pairs("kl-dp", 0.5)], PARTITION)
    assert one.verdict == "holds" and one.estimate == pytest.approx(0.5) and one.method == "kl-dp, kl"


def test_strategies() -> None:
    rows = [
        made_row(f"s{i}", TOGETHER.join("ab"), delta, method="kl-dp", strategy=strategy)
        for i in range(5)
        for strategy, delta in (("sequential", 1.0 + i), ("parallel", 0.5 + i), ("soup", 0.7 + i))
    ]
    assert (found(rows, SEQUENCE).verdict, found(rows, SOUP).verdict) == ("holds", "does not hold")
    assert found(rows, SEQUENCE).estimate == pytest.approx(0.5) and found(rows, SEQUENCE).count == "5 students"


def test_size_is_told_within_families() -> None:
    rows = [
        made_row(f"s{i}", "t", 0.1, method="kl-dp", parameters=10**6 * 2**i, transfer_rate=0.1 + 0.03 * i)
        for i in range(6)
    ]
    one = found(rows, SIZE)
    assert one.verdict == "holds" and one.estimate == pytest.approx(3)


def test_expertise() -> None:
    one = found(pairs("kl-dp", 0.1), EXPERTISE)
    assert one.verdict == "holds" and one.estimate == pytest.approx(10)


def test_without_cells_nothing_can_be_told() -> None:
    for one in study_findings(group_rows([made_row("s", "a", None)])["data"]):
        assert one.verdict == "cannot be told" and one.text.startswith("No ")
