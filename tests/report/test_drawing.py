"""Figures drawn by a process of their own: what its end, its errors and a page without figures look like."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import altair as alt
import pyarrow.parquet as pq
import pytest

import gainfinder.report
from gainfinder.report import write_report
from gainfinder.report.charts import Figure, measures, row_table, styled
from gainfinder.report.drawing import MOST_DEATHS, Drawer

CRASHES = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"]
ROW = {"measure": "gained", "value_pp": 1.0, "low_pp": 0.5, "high_pp": 1.5, "kind": "gain", "about": "a <b> & c"}


def figure(name: str = "measures") -> Figure:
    found = measures([ROW])
    return Figure(name=name, title=found.title, chart=found.chart, rows=found.rows)


def test_it_draws_what_the_library_draws_in_this_process(tmp_path: Path) -> None:
    one = figure()
    one.chart.save(str(tmp_path / "here.svg"))
    with Drawer() as drawer:
        assert drawer.svg(one) == (tmp_path / "here.svg").read_text(encoding="utf-8")
        assert drawer.save(one, tmp_path / "a.pdf") and drawer.save(one, tmp_path / "a.png")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert pq.read_table(tmp_path / "a-rows.parquet").to_pylist() == [ROW] and not drawer.failures


def test_rows_of_any_number_are_drawn() -> None:
    """Altair refuses more than 5,000 by default."""
    chart = alt.Chart(row_table([{"x": i} for i in range(6000)])).mark_tick().encode(x="x:Q")
    with Drawer() as drawer:
        assert (drawer.svg(Figure(name="many", title="", chart=styled(chart), rows={})) or "").count("<path") >= 6000


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_leaves_out_figures_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.svg").write_text("of an earlier report")
    with Drawer(command=CRASHES) as drawer, caplog.at_level(logging.WARNING):
        assert not drawer.save(figure("a"), tmp_path / "a.svg")
        assert drawer.svg(figure("b")) is None and drawer.svg(figure("c")) is None
    drawer.warn(tmp_path / "report.html")
    assert list(drawer.failures) == ["a", "b", "c"] and not (tmp_path / "a.svg").exists()
    assert pq.read_table(tmp_path / "a-rows.parquet").num_rows == 1, "the rows need no drawing"
    assert (
        "report.html: figures were left out (a, b, c): the process that draws figures crashed (SIGABRT)" in caplog.text
    )


def test_after_some_crashes_no_other_process_is_started(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    code = f"open({str(log)!r}, 'a').write('x'); raise SystemExit(3)"
    with Drawer(command=[sys.executable, "-c", code]) as drawer:
        assert [drawer.svg(figure(name)) for name in "abcd"] == [None] * 4
    assert log.read_text() == "x" * MOST_DEATHS
    assert drawer.failures["d"] == "the process that draws figures ended with code 3"


def test_only_the_figure_that_it_ends_on_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with Drawer() as drawer:
        assert drawer.svg(figure("a"))
        assert drawer._process is not None
        drawer._process.kill()
        assert drawer.svg(figure("b")) is None and drawer.svg(figure("c"))
    assert list(drawer.failures) == ["b"]


def test_a_process_that_does_not_answer_is_ended() -> None:
    with Drawer(command=[sys.executable, "-c", "import time; time.sleep(60)"], longest_s=0.5) as drawer:
        assert drawer.svg(figure()) is None
    assert "was ended: it took more than 0 s" in drawer.failures["measures"]


def test_a_command_that_is_not_there_is_told() -> None:
    with Drawer(command=["no-such-command-of-this-test"]) as drawer:
        assert drawer.svg(figure()) is None
    assert "could not be started" in drawer.failures["measures"]


def test_a_mistake_in_a_figure_is_told_and_the_next_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = alt.Chart(row_table([{"x": 1}])).mark_tick().encode(x=alt.X("x:Q", axis=alt.Axis(labelExpr="no_function(")))
    with Drawer() as drawer:
        assert drawer.svg(Figure(name="bad", title="", chart=styled(bad), rows={})) is None
        assert drawer.svg(figure()) and list(drawer.failures) == ["bad"]


def test_a_report_stands_without_figures(
    results: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = results["control"]
    before = (folder / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr(gainfinder.report, "Drawer", lambda: Drawer(command=CRASHES))
    with caplog.at_level(logging.WARNING):
        page = write_report(folder).read_text(encoding="utf-8")
    assert "figures were left out" in caplog.text
    assert "<svg" in before and "<svg" not in page and "This figure was left out: the process that draws" in page
    tables = re.compile(r"<table.*?</table>", re.DOTALL)
    assert tables.findall(page) == tables.findall(before) and not list((folder / "figures").glob("*.svg"))
    monkeypatch.undo()
    assert write_report(folder).read_text(encoding="utf-8") == before, "the next report has them again"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_a_limit_of_address_space_leaves_the_command_whole(results: dict[str, Path]) -> None:
    """The JavaScript engine traps where it gets no 16 GB of addresses; `gainfinder report` does not."""
    command = f"ulimit -v 16000000; exec {sys.executable} -m gainfinder report {results['control']}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "left out" in done.stderr:  # of an engine that needs as much
        assert "address space is limited to 16 GB here" in done.stderr and "`ulimit -v` says unlimited" in done.stderr
    assert (results["control"] / "report.html").exists()
    write_report(results["control"])
