"""The page of a study in a real browser: no error, no request, nothing wider than a phone, no label cut off.

Skipped where there is no Chromium with its driver.
"""

from pathlib import Path
from typing import Any

import pytest

from gainfinder.report.drawing import Drawer
from gainfinder.report.study.report import study_page, study_section
from made_studies import made_document, made_study

from ..conftest import NEEDS_CHROMIUM
from ..test_browser import show

pytestmark = NEEDS_CHROMIUM


@pytest.mark.parametrize("width", [360, 1280])
def test_opens_without_error_request_or_overflow(browser: Any, tmp_path: Path, width: int) -> None:
    rows, epochs = made_study(students=20, holes=0.1)
    with Drawer() as drawer:
        page = study_page(study_section(made_document(), rows, epochs), drawer=drawer)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    assert show(browser, tmp_path, width=width) == [f"file://{tmp_path}/report.html"]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = browser.execute_script(
        "const left = one => one.getBoundingClientRect().left;"
        "return [...document.querySelectorAll('figure svg text')]"
        ".filter(one => left(one) < left(one.closest('svg')) - 1).map(one => one.textContent)"
    )
    assert cut == []
