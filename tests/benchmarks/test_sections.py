"""A long measurement in sections: what is done is not done again, what fails does not keep the rest."""

import csv
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.speed.sections import COLUMNS, Section, Sheet, run_sections


def section(name: str, run: Callable[[Sheet], None], *, budget_s: float = 60) -> Section:
    return Section(name=name, budget_s=budget_s, run=run)


def writes(value: float) -> Callable[[Sheet], None]:
    return lambda sheet: sheet.add("step_ms", value, model="m", kind="live", number=3, note="a, b")


def fails(sheet: Sheet) -> None:
    sheet.add("step_ms", 1.0)
    raise ValueError("no such kernel")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_there_as_they_come(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "steps.csv", budget_s=60)
    writes(66.4)(sheet)
    expected = dict(zip(COLUMNS, ("m", "", "live", "3", "step_ms", "66.4", "a, b"), strict=True))
    assert rows(tmp_path / "steps.csv") == [expected]


def test_a_section_that_is_done_is_skipped(tmp_path: Path) -> None:
    assert run_sections([section("one", writes(1))], tmp_path, total_s=60) == []
    assert run_sections([section("one", fails), section("two", writes(2))], tmp_path, total_s=60) == []
    assert [row["value"] for name in ("one", "two") for row in rows(tmp_path / f"{name}.csv")] == ["1", "2"]
    assert {path.name for path in tmp_path.iterdir()} == {"one.csv", "one.done", "two.csv", "two.done"}


def test_a_failure_is_noted_and_the_next_section_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_sections([section("one", fails), section("two", writes(2))], tmp_path, total_s=60) == ["one"]
    assert "ValueError: no such kernel" in (tmp_path / "one.failed").read_text(encoding="utf-8")
    assert "ValueError: no such kernel" in capsys.readouterr().out
    assert not (tmp_path / "one.done").exists() and (tmp_path / "two.done").exists()


def test_a_section_that_failed_begins_anew(tmp_path: Path) -> None:
    run_sections([section("one", fails)], tmp_path, total_s=60)
    assert run_sections([section("one", writes(5))], tmp_path, total_s=60) == []
    assert [row["value"] for row in rows(tmp_path / "one.csv")] == ["5"]
    assert not (tmp_path / "one.failed").exists()


def test_a_section_is_stopped_when_its_time_is_up(tmp_path: Path) -> None:
    def stubborn(_: Sheet) -> None:
        while True:
            try:
                time.sleep(5)
            except Exception:  # as libraries do
                continue

    sections = [section("one", stubborn, budget_s=0.1), section("two", writes(2))]
    assert run_sections(sections, tmp_path, total_s=60) == ["one"]
    assert "OutOfTime: stopped after 0 s" in (tmp_path / "one.failed").read_text(encoding="utf-8")
    assert (tmp_path / "two.done").exists()


def test_a_section_has_what_is_left_of_all_time_or_does_not_begin(tmp_path: Path) -> None:
    left: list[float] = []

    def looks(sheet: Sheet) -> None:
        left.append(sheet.left_s())

    assert run_sections([section("one", looks, budget_s=60)], tmp_path, total_s=20) == []
    assert 16 < left[0] <= 17  # some of it is kept back
    assert run_sections([section("two", looks, budget_s=60)], tmp_path, total_s=5) == ["two"]
    assert len(left) == 1
    rest = Section(name="rest", budget_s=10, run=looks, takes_rest=True)
    assert run_sections([rest], tmp_path, total_s=20) == []
    assert 16 < left[1] <= 17
