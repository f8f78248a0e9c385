"""The page of a zoo in a real browser: dots, map and table tell the same pairs, sort, filter and pick together."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gainfinder.report import write_report
from gainfinder.results import read_pairs, read_scan
from made_up_zoo import made_up_zoo

from .conftest import NEEDS_CHROMIUM
from .test_browser import show

pytestmark = NEEDS_CHROMIUM
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["few", "many"])
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """The page of 7 models and of 73, whose 5,256 pairs are no more dots of their own; and the pairs."""
    folder = tmp_path_factory.mktemp(request.param)
    made_up_zoo(folder, families=[3, 4] if request.param == "few" else [30, 20, 23])
    write_report(folder)
    return folder, read_pairs(folder, read_scan(folder)).to_pylist()


def listed(browser: Any) -> list[list[str]]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#all-pairs tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )


def told(browser: Any) -> list[str]:
    """The lines of what is shown on hover."""
    return browser.execute_script(
        "const tip = document.getElementById('tip'); return tip.hidden ? [] : tip.textContent.split('\\n')"
    )


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def filtered(browser: Any, **names: str) -> str:
    """Type into the filters; how many pairs are left, as the page says."""
    for side, name in names.items():
        browser.execute_script(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('input'))",
            f"of-{side}",
            name,
        )
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return str(browser.execute_script("return document.getElementById('found').textContent"))


def marked(browser: Any) -> int:
    """How many figures mark the picked pair."""
    return int(browser.execute_script("return document.querySelectorAll('svg .picked').length"))


def point_at_mark(browser: Any, number: int) -> None:
    """Move the pointer to the mark of the picked pair in a figure, away from the panel below."""
    x, y = browser.execute_script(
        "const mark = document.querySelectorAll('svg .picked')[arguments[0]];"
        "scrollBy(0, mark.getBoundingClientRect().top - 300);"
        "const box = mark.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]",
        number,
    )
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})


def test_the_table_pages_and_sorts_through_all_pairs(browser: Any, zoo: tuple[Path, Rows]) -> None:
    folder, pairs = zoo
    assert show(browser, folder, width=1280) == [f"file://{folder}/report.html"]
    assert browser.get_log("browser") == []
    flips = sorted((row["positive_flips"] for row in pairs), reverse=True)
    assert [row[3] for row in listed(browser)] == [f"{share:.2%}" for share in flips[:100]]
    many = len(pairs) > 100
    assert browser.execute_script("return document.getElementById('pager').hidden") is not many
    if many:
        click(browser, "#on")
        assert [row[3] for row in listed(browser)] == [f"{share:.2%}" for share in flips[100:200]]
        click(browser, "#last")
        assert [row[3] for row in listed(browser)] == [f"{share:.2%}" for share in flips[-(len(pairs) % 100 or 100) :]]
    click(browser, "#all-pairs th:nth-child(3) button")
    falling = sorted((row["delta_acc_pp"] for row in pairs), reverse=True)
    assert [row[2] for row in listed(browser)] == [f"{value:+.2f}".replace("-0.00", "+0.00") for value in falling[:100]]
    click(browser, "#all-pairs th:nth-child(3) button")
    rising = [f"{value:+.2f}".replace("-0.00", "+0.00") for value in falling[::-1]]
    assert [row[2] for row in listed(browser)] == rising[:100]
    click(browser, "#all-pairs th:nth-child(2) button")
    first = min({row["teacher"] for row in pairs})
    assert {row[1] for row in listed(browser)[:6]} == {first}


def test_filters_keep_pairs_by_parts_of_both_names(browser: Any, zoo: tuple[Path, Rows]) -> None:
    folder, pairs = zoo
    show(browser, folder, width=1280)
    left = [row for row in pairs if "family-0" in row["student"] and "family-1" in row["teacher"]]
    assert filtered(browser, student="y-0", teacher="FAMILY -1-") == f"{len(left):,} of {len(pairs):,} pairs"
    rows = listed(browser)
    assert len(rows) == min(100, len(left))
    assert all(row[0].startswith("family-0") and row[1].startswith("family-1") for row in rows)
    assert filtered(browser, student="nobody") == f"0 of {len(pairs):,} pairs" and listed(browser) == []
    assert filtered(browser, student="", teacher="") == f"{len(pairs):,} pairs"


def test_a_picked_row_is_marked_in_every_figure_and_each_mark_tells_it(browser: Any, zoo: tuple[Path, Rows]) -> None:
    folder, pairs = zoo
    show(browser, folder, width=1280)
    # The extremes: no other dot lies upon them.
    row = max(pairs, key=lambda row: row["delta_acc_pp"])
    click(browser, "#all-pairs th:nth-child(3) button")
    click(browser, "#all-pairs tbody tr")
    kept = browser.execute_script(
        "return [...document.querySelectorAll('#picked tbody tr')].map(row => row.cells[2].textContent)"
    )
    assert kept == [f"{row['delta_acc_pp']:+.2f}", f"{-row['delta_acc_pp']:+.2f}"], "the pair and its reverse"
    assert marked(browser) == 3
    for number in range(3):
        point_at_mark(browser, number)
        assert told(browser)[:3] == [
            f"{row['teacher']} teaches {row['student']}",
            f"Δ accuracy pp: {row['delta_acc_pp']:+.2f}",
            f"positive flips: {row['positive_flips']:.2%}",
        ]
    click(browser, "#unpick")
    assert marked(browser) == 0


def test_a_click_on_the_map_picks_and_arrow_keys_go_from_cell_to_cell(browser: Any, zoo: tuple[Path, Rows]) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    folder, pairs = zoo
    show(browser, folder, width=1280)
    cells = browser.find_element(By.CSS_SELECTOR, ".cells")
    browser.execute_script("arguments[0].focus()", cells)
    seen = set()
    for key in (Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        ActionChains(browser).send_keys(key).perform()
        seen.add(told(browser)[0])
    assert len(seen) >= 4 and seen <= {f"{row['teacher']} teaches {row['student']}" for row in pairs}
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    student, teacher = browser.execute_script(
        "return [...document.querySelector('#picked tbody tr').cells].slice(0, 2).map(cell => cell.textContent)"
    )
    assert told(browser)[0] == f"{teacher} teaches {student}"


def test_entropy_against_flips_and_against_accuracy(browser: Any, zoo: tuple[Path, Rows]) -> None:
    folder, pairs = zoo
    show(browser, folder, width=1280)
    known = [row for row in pairs if row["flip_entropy"] is not None]
    row = max(known, key=lambda row: row["positive_flips"])
    click(browser, "#all-pairs tbody tr")  # by falling flips, as it opens
    middles = []
    for across, title in (
        ("delta_acc_pp", "accuracy of teacher − student (pp)"),
        ("positive_flips", "teacher right, student wrong"),
    ):
        browser.execute_script(
            "const one = document.querySelector('select[aria-label=across]'); one.value = arguments[0];"
            "one.dispatchEvent(new Event('change'))",
            across,
        )
        told_title, ticks, x, y = browser.execute_script(
            "const box = document.querySelectorAll('.dots')[1], ring = box.querySelector('.picked');"
            "const labels = [...box.querySelectorAll('text:not(.title)[text-anchor=middle]')];"
            "return [box.querySelector('.title').textContent,"
            "labels.map(one => [parseFloat(one.textContent), Number(one.getAttribute('x'))]),"
            "Number(ring.getAttribute('cx')), Number(ring.getAttribute('cy'))]"
        )
        assert told_title == title
        (low, left), *_, (high, right) = ticks
        value = row[across] * (100 if across == "positive_flips" else 1)
        assert low <= value <= high
        assert x == pytest.approx(left + (right - left) * (value - low) / (high - low), abs=0.5), "where the axis says"
        middles.append(y)
    assert middles[0] == middles[1]


def test_the_map_groups_models_that_err_alike(browser: Any, zoo: tuple[Path, Rows]) -> None:
    folder, _ = zoo
    show(browser, folder, width=1280)
    orders = browser.execute_script(
        "const zoo = JSON.parse(document.getElementById('zoo').textContent);"
        "return Object.entries(zoo.orders).map(([name, order]) => [name, order.map(i => zoo.models[i].name)])"
    )
    named = dict(orders)
    changes = {name: sum(one[:8] != other[:8] for one, other in pairwise(order)) for name, order in named.items()}
    assert changes["similar errors"] == len({name[:8] for name in named["accuracy"]}) - 1 < changes["accuracy"]
    options = browser.execute_script(
        "return [...document.querySelectorAll('figure select')[2].options].map(o => o.value)"
    )
    assert options == list(named)


def test_the_table_of_models_is_filtered_by_words(browser: Any, zoo: tuple[Path, Rows]) -> None:
    folder, pairs = zoo
    show(browser, folder, width=1280)
    rows, left = browser.execute_script(
        "const rows = [...document.querySelector('table').tBodies[0].rows];"
        "const one = document.querySelector('[type=search]');"
        "if (one.placeholder === 'find in this table') {"
        "  one.value = 'FAMILY-1 -0-1'; one.dispatchEvent(new Event('input')); }"
        "return [rows, rows.filter(row => !row.hidden)].map(all => all.map(row => row.textContent))"
    )
    if len(pairs) < 100:
        assert left == rows, "few need no filter"
    else:
        assert left == [row for row in rows if "family-1" in row and "-0-1" in row] and 0 < len(left) < len(rows)
