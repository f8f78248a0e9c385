"""The pages in a real browser, headless Chromium: no error, no request, nothing wider than a phone, hover and sorting.

Skipped where there is no Chromium with its driver.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import NEEDS_CHROMIUM

KINDS = ("transfer", "guarded", "sequence", "soup", "unlabelled", "scan")
pytestmark = NEEDS_CHROMIUM


def show(browser: Any, folder: Path, *, width: int, scheme: str = "light", media: str = "screen") -> list[str]:
    """Open a page at a width; the addresses that were asked for."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(f"file://{folder}/report.html")
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith("data:")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [360, 1280])
def test_opens_without_error_request_or_overflow(browser: Any, results: dict[str, Path], kind: str, width: int) -> None:
    asked = show(browser, results[kind], width=width)
    assert asked == [f"file://{results[kind]}/report.html"]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return [...document.images].every(one => one.complete && one.naturalWidth > 0)")
    figures = browser.execute_script(
        "return [...document.querySelectorAll('figure')].map(one => one.querySelector('svg').clientWidth)"
    )
    steps = browser.execute_script("return document.querySelectorAll('.step figure').length")
    two_in_one = kind == "scan"  # entropy against flips or against accuracy
    assert len(figures) == len(list((results[kind] / "figures").glob("*.svg"))) + steps - two_in_one
    assert all(figure > 250 for figure in figures)


def test_no_label_of_a_figure_is_cut_off(browser: Any, results: dict[str, Path]) -> None:
    for kind in KINDS:
        show(browser, results[kind], width=1280)
        cut = browser.execute_script(
            "const left = one => one.getBoundingClientRect().left;"
            "return [...document.querySelectorAll('figure svg text')]"
            ".filter(one => left(one) < left(one.closest('svg')) - 1).map(one => one.textContent)"
        )
        assert cut == []


def test_marks_tell_what_they_are_on_hover(browser: Any, results: dict[str, Path]) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    for kind, words in (("transfer", "gained after epoch|points of all images|taught by"), ("scan", "has right and")):
        show(browser, results[kind], width=1280)
        tip = browser.find_element(By.ID, "tip")
        assert not tip.is_displayed()
        marks = browser.find_elements(By.CSS_SELECTOR, 'figure svg [role="graphics-symbol"][tabindex]')
        told = set()
        for mark in [one for one in marks if min(one.size.values()) > 1][:40]:  # a bar of nothing has no size
            ActionChains(browser, duration=0).move_to_element(mark).perform()
            assert tip.is_displayed(), mark.get_attribute("outerHTML")
            told.add(tip.text)
        assert len(told) > 5 and any(re.search(words, one) for one in told)


def test_tables_sort_by_number_and_by_word(browser: Any, results: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    show(browser, results["scan"], width=1280)
    table = browser.find_element(By.ID, "all-pairs")

    def column(number: int) -> list[str]:
        return [
            row.find_elements(By.TAG_NAME, "td")[number].text
            for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]

    heads = table.find_elements(By.CSS_SELECTOR, "th button")
    heads[2].click()
    falling = [float(value) for value in column(2)]
    assert falling == sorted(falling, reverse=True) and falling[0] > 0 > falling[-1]
    heads[2].click()
    assert [float(value) for value in column(2)] == sorted(falling)
    heads[0].click()
    assert column(0) == sorted(column(0))


def test_dark_and_print_are_readable(browser: Any, results: dict[str, Path]) -> None:
    def luminance(css: str) -> float:
        red, green, blue = (int(value) / 255 for value in re.findall(r"\d+", css)[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    colours = (
        "const s = getComputedStyle(document.body), t = document.querySelector('figure svg text');"
        "return [s.backgroundColor, s.color, getComputedStyle(t).fill]"
    )
    for scheme, media, dark in (("light", "screen", False), ("dark", "screen", True), ("dark", "print", False)):
        show(browser, results["transfer"], width=1280, scheme=scheme, media=media)
        paper, ink, label = (luminance(colour) for colour in browser.execute_script(colours))
        assert (paper < 0.2) == dark
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280
        assert abs(paper - ink) > 0.6 and abs(paper - label) > 0.3
