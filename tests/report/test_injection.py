"""Names, settings and errors that hold markup, scripts or formulas: shown as they are, run by nobody."""

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gainfinder.predictions import Predictions
from gainfinder.report import write_report
from gainfinder.report.drawing import Drawer
from gainfinder.report.page import digest_of
from gainfinder.report.study.report import study_page, study_section
from gainfinder.report.study.rows_files import write_rows
from gainfinder.report.study.table import StudyTable, latex, markdown, words
from gainfinder.results import read_pairs, read_scan, write_scan
from made_studies import made_document, made_row, made_study

from .conftest import NEEDS_CHROMIUM

BAD = (
    "<script>document.title = 'ran'</script>",
    "</script><script>document.title = 'ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "\"'><svg onload=document.title='ran'>",
    "javascript:document.title='ran'",
    "{{ 7 * 7 }}{% raw %}",
    "<!--<script>",
    "=HYPERLINK(1)",
    "a\u2028b",
    "a\x01b",
    "\\<b>|",
)
TAGS_OF_SCRIPTS = {"script"}


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check_page(page: str) -> None:
    """No element or attribute but the templates' own, and a policy that lets no script in but theirs."""
    elements = Elements(page).found
    for _, attributes in elements:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), attributes
    policy = next(one["content"] or "" for _, one in elements if one.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in rules["script-src"] and rules["img-src"] == "data:"
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert rules["script-src"].split() == [f"'{digest_of(script)}'" for script in scripts]
    allowed = {"script", "svg", "img", "link"}
    assert [tag for tag, attributes in elements if tag == "script" and attributes] in ([], ["script"])
    assert sum(tag == "script" for tag, _ in elements) <= len(scripts) + 1 and allowed


@pytest.fixture(scope="module")
def hostile(results: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transfer whose classes, models, ids, settings, images and command are all hostile, with its report."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(results["guarded"], folder)
    for path in (folder / "predictions").glob("*.parquet"):
        old = Predictions.load(path)
        names = tuple(f"{BAD[i % len(BAD)]}{i}" for i in range(old.logits.shape[1]))
        replace(old, class_names=names).write(path)
    result = json.loads((folder / "result.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    result |= {"student": BAD[1], "teachers": [BAD[0]]}
    config["student"]["reference"], config["data"]["reference"] = BAD[2], BAD[3]
    config["settings"] |= {"augment": BAD[1], "method": result["method"]}
    config["environment"] |= {"command": BAD[1], "platform": BAD[3], "more": list(BAD)}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps(config))
    write_report(folder)
    return folder


def test_a_transfers_page_shows_names_as_they_are(hostile: Path) -> None:
    page = (hostile / "report.html").read_text(encoding="utf-8")
    check_page(page)
    assert "49" not in re.findall(r"(\d+)\{%", page) and "&lt;script&gt;" in page


def test_figures_hold_names_as_text(hostile: Path) -> None:
    figures = [*(hostile / "figures").glob("*.svg")]
    assert {path.stem for path in figures} == {"measures", "epochs", "classes", "partition"}, "none is left out"
    for path in figures:
        tags = {tag for tag, _ in Elements(path.read_text(encoding="utf-8")).found}
        assert tags <= {"svg", "g", "path", "rect", "text", "line", "defs", "clippath", "lineargradient", "stop"}, tags


def test_a_scans_page_holds_names_as_data(results: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    shutil.copytree(results["scan"], folder)
    document: dict[str, Any] = read_scan(folder)
    pairs = read_pairs(folder, document).to_pylist()
    names = {model["model"]: BAD[i] for i, model in enumerate(document["models"])}
    text = json.dumps({**document, "pairs": pairs})
    for old, new in names.items():
        text = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
    changed = json.loads(text)
    changed["data"], changed["failed_models"] = BAD[2], [{"model": BAD[1], "reason": BAD[0]}]
    write_scan(folder, changed)
    page = write_report(folder).read_text(encoding="utf-8")
    check_page(page)
    data = re.search(r'<script type="application/json" id="zoo">(.*?)</script>', page, flags=re.DOTALL)
    assert data is not None and {one["reference"] for one in json.loads(data[1])["models"]} == set(names.values())


def hostile_study() -> tuple[Any, Any, Any]:
    rows, epochs = made_study(students=3, teachers=3, methods=("kl", "kl-dp"))
    rows = [
        row.model_copy(update={"student": f"{BAD[0]} {row.student}", "teacher": f"{row.teacher}{BAD[1]}"})
        for row in rows
    ]
    failed = made_row(BAD[1], BAD[0], None, state="failed", error=BAD[2], axes={BAD[7]: BAD[7]})
    study = made_document()
    return study.model_copy(update={"study": study.study.model_copy(update={"name": BAD[1], "about": BAD[0]})}), [
        *rows, failed
    ], epochs  # fmt: skip


def test_a_studys_page_shows_names_as_they_are() -> None:
    section = study_section(*hostile_study())
    with Drawer() as drawer:
        check_page(study_page(section, drawer=drawer))


@pytest.mark.parametrize("text", [*BAD, "a\n\nb", "[x](javascript:y)", "\\", "\\end{tabular}\\input{/etc/passwd}"])
def test_tables_hold_names_as_text(text: str) -> None:
    table = StudyTable(name="t", title=text, columns=(text, "b"), rows=((words(text), words("1")),), notes=(text,))
    made = markdown(table)
    assert len(made.splitlines()) == 7 and not re.search(r"(?<!\\)(\\\\)*<[A-Za-z/!]", made)
    for line in made.splitlines()[2:5]:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3, "no cell more"
    source = latex(table)
    inside = source.replace(r"\begin{tabular}", "").replace(r"\end{tabular}", "", 1)
    assert r"\input" not in inside and r"\end{tabular}" not in inside and "\n\n" not in source


def test_a_spreadsheet_runs_no_formula_of_a_name(tmp_path: Path) -> None:
    names = ("=1+1", "+x", "-x", "@x", "\tx", "-0.5", "cat", "'=x")
    rows = [made_row(name, "a", None, axes={"=lr": name}) for name in names]
    write_rows(tmp_path, rows, [], rows_format="csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["student"] for row in found] == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "-0.5", "cat", "''=x"]
    assert [row["axis_=lr"] for row in found] == [row["student"] for row in found]
    write_rows(tmp_path, rows, [], rows_format="parquet")
    assert pq.read_table(tmp_path / "rows.parquet").column("student").to_pylist() == list(names), "not for spreadsheets"


@NEEDS_CHROMIUM
def test_nothing_runs_in_a_browser(browser: Any, hostile: Path, tmp_path: Path) -> None:
    browser.get(f"file://{hostile}/report.html")
    assert browser.title != "ran"
    assert not browser.execute_script(
        "return document.querySelectorAll('main script, main [onerror], main [onload]').length"
    )
    with Drawer() as drawer:
        page = study_page(study_section(*hostile_study()), drawer=drawer)
    (tmp_path / "study.html").write_text(page, encoding="utf-8")
    browser.get(f"file://{tmp_path}/study.html")
    assert browser.title == f"Study {BAD[1]}"


@NEEDS_CHROMIUM
def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Any, hostile: Path) -> None:
    page = (hostile / "report.html").read_text(encoding="utf-8")
    (hostile / "changed.html").write_text(page.replace("<main>", "<main><script>document.title = 'ran'</script>"))
    browser.get_log("browser")
    browser.get(f"file://{hostile}/changed.html")
    assert browser.title != "ran" and any("script-src" in one["message"] for one in browser.get_log("browser"))
