"""The gallery links the pages that are there: whole reports, small ones, of no machine."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "gallery").iterdir())
LARGEST = 800_000
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users)/\w+")


def test_every_page_is_linked_and_every_link_leads_to_one() -> None:
    links = re.findall(r'<a href="gallery/([^"]+)">', (DOCS / "gallery.md").read_text(encoding="utf-8"))
    assert len(links) >= 5 and sorted(links) == [path.name for path in PAGES]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_a_whole_report(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    assert "Content-Security-Policy" in page and "gainfinder" in page
    assert not MACHINE.search(page) and len(page) < LARGEST


def test_photographs_of_others_are_not_shown() -> None:
    """CIFAR-10's pictures are of a licence that nobody knows."""
    of_cifar = [path for path in PAGES if "cifar" in path.name]
    assert of_cifar
    for path in of_cifar:
        assert "data:image/" not in path.read_text(encoding="utf-8"), path
