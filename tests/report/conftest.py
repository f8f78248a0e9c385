"""Result folders of every kind, made once, and a browser to look at pages with."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gainfinder
from gainfinder.data.images import Images
from once import made_once
from transfers import SHORT, Run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
NEEDS_CHROMIUM = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
SETTINGS: Run = {**SHORT, "epochs": 2, "limit": 96, "lr": 3e-2, "method": "kl-dp-u"}


@pytest.fixture(scope="session")
def results(zoo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders: `transfer`, `guarded`, `sequence`, `soup`, `unlabelled`, `control`, `scan`, `scan-bare`."""
    folder = made_once(tmp_path_factory, "results", lambda folder: _fill(folder, zoo))
    return {path.name: path for path in folder.iterdir()}


def _fill(folder: Path, zoo: dict[str, str]) -> None:
    student, teacher, other = zoo["convnext"], zoo["vit"], zoo["resnet"]
    data: Run = {"data": "digits#2/4", "val": "digits#1/4"}
    bare: Images = replace(gainfinder.load_images("digits#1/4"), labels=None, num_classes=None)
    gainfinder.transfer(student, teacher, **data, out=folder / "transfer", control=("copy", "labels"), **SETTINGS)
    gainfinder.transfer(
        student, teacher, **data, out=folder / "guarded", guard_data="digits#3/4", **{**SETTINGS, "guard": True}
    )
    gainfinder.transfer(student, [teacher, other], **data, out=folder / "sequence", **SETTINGS)
    gainfinder.transfer(student, [teacher, other], **data, out=folder / "soup", strategy="soup", **SETTINGS)
    unlabelled: Run = {"data": "digits#2/4", "val": bare, "labels": "none"}
    gainfinder.transfer(student, teacher, **unlabelled, out=folder / "unlabelled", **SETTINGS)
    gainfinder.transfer(student, student, **data, out=folder / "control", **SETTINGS)
    gainfinder.scan(list(zoo.values()), "digits#1/4", device="cpu", workers=0, out=folder / "scan")
    gainfinder.scan(list(zoo.values()), bare, student=student, device="cpu", workers=0, out=folder / "scan-bare")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                 "--disable-component-update", "--disable-dev-shm-usage"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()
