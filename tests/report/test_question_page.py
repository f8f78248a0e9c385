"""The page of questions in headless Chromium: by keyboard, offline, blind, and it stops as soon as it is known."""

import csv
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

import gainfinder
from gainfinder.metrics import assess
from gainfinder.results import outcomes, read_answers, read_questions
from transfers import SHORT

from .conftest import NEEDS_CHROMIUM

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def asked(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with questions."""
    folder = tmp_path_factory.mktemp("asked") / "run"
    settings = {**SHORT, "labels": "none", "method": "kl", "limit": 200, "lr": 0.05, "epochs": 2}
    bare = gainfinder.load_images("digits#1/4", labels=False)
    gainfinder.transfer(zoo["convnext"], zoo["resnet"], "digits#2/4", val=bare, out=folder, **settings)
    gainfinder.ask(folder, labels=60, data=bare)
    return folder


def open_page(browser: Any, folder: Path, *, width: int = 360) -> list[str]:
    """Open the page anew; the addresses that were asked for."""
    size = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{folder}/ask.html")
    browser.execute_script("localStorage.clear()")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(f"file://{folder}/ask.html")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.by import By

    for key in keys:
        browser.find_element(By.TAG_NAME, "body").send_keys(key)


def text(browser: Any, name: str) -> str:
    from selenium.webdriver.common.by import By

    return str(browser.find_element(By.ID, name).text)


def saved(browser: Any, path: Path) -> Path:
    """What the link saves, as a file."""
    link = browser.execute_script("return document.getElementById('save').href")
    assert link.startswith("data:text/csv;charset=utf-8,")
    path.write_text(unquote(link.split(",", 1)[1]))
    return path


@pytest.mark.parametrize("width", [360, 1280])
def test_opens_without_error_request_or_overflow(browser: Any, asked: Path, width: int) -> None:
    assert open_page(browser, asked, width=width) == [f"file://{asked}/ask.html"]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("const one = document.getElementById('picture'); return one.naturalWidth") > 0
    assert "question 1 of at most 60" in text(browser, "progress")
    assert not browser.execute_script("return [...document.querySelectorAll('[style]')].length")


def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Any, asked: Path) -> None:
    page = (asked / "ask.html").read_text()
    assert "script-src 'sha256-" in page and "unsafe-inline" not in page
    (asked / "changed.html").write_text(page.replace('"use strict";', '"use strict"; document.title = "ran";', 1))
    browser.get(f"file://{asked}/changed.html")
    assert browser.title == "Which class is it?" and any(
        "sha256" in one["message"] for one in browser.get_log("browser")
    )
    (asked / "changed.html").unlink()


def test_it_does_not_say_which_student_is_which(asked: Path) -> None:
    page = (asked / "ask.html").read_text()
    data = json.loads(page.split('id="data">', 1)[1].split("</script>", 1)[0])
    assert set(data) == {"key", "changed", "fractions", "level", "neither", "questions"}
    assert {tuple(one) for one in data["questions"]} == {("id", "shown", "sign", "picture")}
    assert len({one["sign"] for one in data["questions"]}) == 2


def test_answers_by_keyboard_with_undo_are_those_that_are_saved(browser: Any, asked: Path, tmp_path: Path) -> None:
    open_page(browser, asked)
    press(browser, "1", "2", "2", "u", "0", "x")
    assert "question 4 of" in text(browser, "progress")
    questions = read_questions(asked)
    rows = list(csv.DictReader(saved(browser, tmp_path / "answers.csv").read_text().splitlines()))
    shown = [questions.shown(i) for i in range(3)]
    assert [row["answer"] for row in rows] == [shown[0][0], shown[1][1], "neither"]
    assert [row["id"] for row in rows] == [*questions.ids[:3]]
    assert len(outcomes(read_answers(tmp_path / "answers.csv", questions), questions)) == 3
    browser.refresh()
    assert "question 4 of" in text(browser, "progress"), "answers survive a closed page"
    press(browser, "u", "u", "u", "u")
    assert "question 1 of" in text(browser, "progress")


@pytest.mark.parametrize("right", [0, 1], ids=["old", "new"])
def test_it_stops_as_soon_as_it_is_known(browser: Any, asked: Path, tmp_path: Path, right: int) -> None:
    """Mostly one student is right: the page stops where the test says so, and not before."""
    open_page(browser, asked)
    questions, given = read_questions(asked), 0
    while not text(browser, "end"):
        said = questions.class_names[questions.classes[given, right if given % 4 else 1 - right]]
        press(browser, "1" if questions.shown(given)[0] == said else "2")
        given += 1
    assert "it is known" in text(browser, "end") and given < 60
    found = outcomes(read_answers(saved(browser, tmp_path / "answers.csv"), questions), questions)
    size = {"changed": len(questions.ids), "images": questions.images}
    verdict = assess(found, **size)
    assert verdict.verdict == ("better" if right else "not better")
    if right:
        assert verdict.decided_after == given
    assert assess(np.array(found[:-3]), **size).decided_after is None
