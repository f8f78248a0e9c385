"""The table of results, in a terminal and as a page."""

import html
import json
import re
from pathlib import Path

from typer.testing import CliRunner

from gainfinder.cli import app

RUNNER = CliRunner()


def test_real_results_as_table_json_and_page(results: dict[str, Path], tmp_path: Path) -> None:
    folder, page = results["transfer"].parent, tmp_path / "pages" / "list.html"
    shown = RUNNER.invoke(app, ["list", str(folder), "--page", str(page)])
    assert shown.exit_code == 0, shown.output
    document = json.loads(RUNNER.invoke(app, ["list", str(folder), "--json"]).stdout)
    names = [one["folder"] for one in document["results"]]
    assert {*names} == {"transfer", "guarded", "sequence", "soup", "unlabelled", "control"} and names[
        -1
    ] == "unlabelled"
    deltas = [one["transfer_delta_pp"] for one in document["results"][:-1]]
    assert deltas == sorted(deltas, reverse=True)
    result = json.loads((folder / "transfer" / "result.json").read_text())
    first = next(one for one in document["results"] if one["folder"] == "transfer")
    assert first["transfer_delta_ci_pp"] == result["transfer_delta_ci_pp"] and first["seconds"] > 0
    assert f"{result['transfer_delta_pp']:+.2f} (" in shown.stdout and "6 results under" in shown.stdout
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr>") == 7
    links = [html.unescape(one) for one in re.findall(r'<a href="([^"]+)"', text)]
    assert {(page.parent / link).resolve() for link in links} == {
        (folder / name / "report.html").resolve() for name in names
    }


def test_a_page_of_results_is_replaced_and_nothing_else_is(results: dict[str, Path], tmp_path: Path) -> None:
    folder, page = str(results["guarded"]), tmp_path / "list.html"
    assert RUNNER.invoke(app, ["list", folder, "--page", str(page)]).exit_code == 0
    assert RUNNER.invoke(app, ["list", folder, "--page", str(page)]).exit_code == 0
    page.write_text("mine")
    refused = RUNNER.invoke(app, ["list", folder, "--page", str(page)])
    assert refused.exit_code == 2 and "is no page of results, and is not overwritten" in refused.stderr
    assert page.read_text() == "mine"


def test_an_empty_folder_is_no_mistake(tmp_path: Path) -> None:
    shown = RUNNER.invoke(app, ["list", str(tmp_path)])
    assert shown.exit_code == 0 and "no finished transfer is under it" in shown.stdout
