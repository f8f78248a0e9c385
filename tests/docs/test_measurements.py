"""The measurements on the site: a page of each question, in the index of all."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_question_of_the_benchmarks_has_its_page() -> None:
    questions = {page.parent.name for page in (ROOT / "benchmarks").glob("*/README.md")}
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs/measurements").glob("*.md")}
    index = (ROOT / "docs/measurements.md").read_text(encoding="utf-8")
    assert pages == {question: f"<!-- measurements {question} -->\n" for question in questions}
    assert set(re.findall(r"^measurements/(\w+)$", index, re.MULTILINE)) == questions
