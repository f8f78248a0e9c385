"""The page on both results of a two-way transfer, made of two result folders."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gainfinder.cli import app
from gainfinder.errors import RunFolderError
from gainfinder.report import write_report
from gainfinder.results import TwoWay, TwoWayFolder


@pytest.fixture
def folder(results: dict[str, Path], tmp_path: Path) -> Path:
    """Of a labelled and an unlabelled result."""
    out = tmp_path / "both"
    for name, kind in (("1", "guarded"), ("2", "unlabelled")):
        shutil.copytree(results[kind], out / name)
    document = json.loads((out / "1" / "result.json").read_text())
    found = TwoWay(both="live", student=document["student"], teacher=document["teachers"][0])
    TwoWayFolder(out).write(found)
    return out


def test_both_results_stand_side_by_side_with_links_to_their_pages(folder: Path) -> None:
    made = {name: (folder / name / "report.html").stat().st_mtime_ns for name in ("1", "2")}
    page = write_report(folder).read_text(encoding="utf-8")
    assert made == {name: (folder / name / "report.html").stat().st_mtime_ns for name in ("1", "2")}
    metrics = json.loads((folder / "1" / "result.json").read_text())
    assert "<h1>What convnext and vit learned from each other</h1>" in page
    assert "Both learned in step" in page and page.count("<tr><td ") == 2
    assert f"<td>{metrics['accuracy_before']:.2%}</td><td>{metrics['accuracy_after']:.2%}</td>" in page
    assert f"<td>{metrics['transfer_delta_pp']:+.2f}</td>" in page and "of its answers changed" in page
    assert all(f'<a href="{name}/report.html">' in page for name in ("1", "2"))
    assert "<script src" not in page and "<img" not in page


def test_the_command_makes_it_again_and_with_it_a_page_that_is_older(folder: Path) -> None:
    os.utime(folder / "1" / "report.html", (1000, 1000))
    done = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout) == {"report": str(folder / "report.html")}
    assert (folder / "1" / "report.html").stat().st_mtime > 1000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"both": "mutual"}, "both: unexpected 'mutual'"),
        ({"format_version": 2}, "format_version: unexpected 2"),
        ({"results": ["1", "../.."]}, "results: unexpected"),
    ],
)
def test_a_damaged_document_is_one_line(folder: Path, change: dict[str, object], match: str) -> None:
    file = folder / "two-way.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(RunFolderError, match=match) as caught:
        write_report(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_result_that_is_gone_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "2")
    with pytest.raises(RunFolderError, match=str(folder / "2")) as caught:
        write_report(folder)
    assert len(str(caught.value).splitlines()) == 1
