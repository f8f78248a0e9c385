"""Pages on classifiers of texts: they speak of texts and show them, and change no word that users gave."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import gainfinder
from gainfinder.predictions import Predictions
from gainfinder.report import write_listing_page, write_report
from texts import ODD

from .conftest import NEEDS_CHROMIUM
from .test_injection import Elements, check_page

OURS = re.compile(r"\bimages?\b|\bpictures?\b|\bpixels?\b", flags=re.IGNORECASE)
"""Words of pages on images."""


def words(page: Path) -> str:
    """What a reader sees of a page, without what users gave."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    text = re.sub(r"<blockquote.*?</blockquote>", " ", text, flags=re.DOTALL)
    said = " ".join([*re.findall(r'(?:aria-label|alt|title)="([^"]*)"', text), re.sub(r"<[^>]*>", " ", text)])
    return re.sub(r"\S*/images(-bare)?\.csv|images\.csv|images-bare\.csv", " ", html.unescape(said))


@pytest.mark.parametrize("kind", ["transfer", "pairs", "bare", "scan"])
def test_a_page_on_texts_speaks_of_texts(text_results: dict[str, Path], kind: str) -> None:
    said = words(write_report(text_results[kind]))
    assert not OURS.findall(said), said
    assert re.search(r"\b(on|of) 1?\d\d texts|\b1?\d\d texts of", said)


def test_pictures_of_texts_are_excerpts(text_results: dict[str, Path]) -> None:
    page = (text_results["transfer"] / "report.html").read_text(encoding="utf-8")
    check_page(page)
    shown = [html.unescape(one) for one in re.findall(r'<blockquote dir="auto">(.*?)</blockquote>', page)]
    assert shown and all("\n" not in one for one in shown), "each on one line"
    for odd in ODD:
        assert any(one.startswith(" ".join(odd.split())) for one in shown), odd
    assert "<h2>Texts it has right now</h2>" in page and "49" not in re.findall(r"(\d+) &amp;amp;", page)
    assert ".texts blockquote" in page and re.search(r"<i>teacher</i> trees \d+%", page)


def test_of_pairs_both_texts_are_shown(text_results: dict[str, Path]) -> None:
    page = write_report(text_results["pairs"]).read_text(encoding="utf-8")
    for one in re.findall(r"<li>\n<blockquote.*?</li>", page, flags=re.DOTALL):
        assert one.count("<blockquote") == 2
    assert "<blockquote" in page


def test_names_that_users_gave_stay_as_they_are(text_results: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(text_results["transfer"], folder)
    for path in (folder / "predictions").glob("*.parquet"):
        replace(Predictions.load(path), class_names=("images", "image", "pixels")).write(path)
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count("images.csv, ") == 1 and ">images</th>" in page and "the most in pixels (" in page
    card = (folder / "student" / "README.md").read_text(encoding="utf-8")
    assert "are 0: images, 1: image, 2: pixels." in card and "`images.csv`" in card


def test_a_page_on_images_has_nothing_of_texts(results: dict[str, Path]) -> None:
    page = write_report(results["transfer"]).read_text(encoding="utf-8")
    assert "blockquote" not in page and "<h2>Images it has right now</h2>" in page
    assert not re.search(r"\btexts?\b", words(results["transfer"] / "report.html"))


def test_the_card_is_one_of_text_classification(text_results: dict[str, Path]) -> None:
    folder = text_results["transfer"]
    card = ModelCard((folder / "student" / "README.md").read_text(encoding="utf-8"))
    data: Any = card.data
    assert data.pipeline_tag == "text-classification" and data.library_name == "transformers"
    assert data.tags == ["text-classification", "gainfinder", "knowledge-transfer"]
    (found,) = data.eval_results
    result = json.loads((folder / "result.json").read_text())
    assert found.task_type == "text-classification" and found.metric_value == result["accuracy_after"]
    assert found.dataset_args["texts"] == result["samples"] and found.dataset_name == "images.csv"
    assert not OURS.findall(re.sub(r"images[\w-]*\.csv", "", card.text))


def test_the_cards_lines_load_the_student(text_results: dict[str, Path]) -> None:
    folder = text_results["transfer"] / "student"
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None
    lines = code[1].replace("FOLDER", str(folder)).replace('pipeline("text', 'found = pipeline("text')
    names: dict[str, object] = {}
    exec(lines, names)  # our own lines
    assert names["found"][0]["label"] in ("birds", "fish", "trees")  # type: ignore[index]
    assert names["logits"].shape == (1, 3)  # type: ignore[attr-defined]


def test_a_listing_says_what_was_measured_on(
    text_results: dict[str, Path], results: dict[str, Path], tmp_path: Path
) -> None:
    texts = gainfinder.list_results(text_results["transfer"].parent)
    assert {one.noun for one in texts.results} == {"text"}
    write_listing_page(texts, tmp_path / "texts.html")
    assert "the texts measured on" in (tmp_path / "texts.html").read_text()
    both = texts.model_copy(update={"results": (*texts.results, *gainfinder.list_results(results["guarded"]).results)})
    assert both.noun == "sample"


def test_questions_show_whole_texts(text_results: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_results["bare"], tmp_path / "run"))
    page = gainfinder.ask(folder, labels=20)
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.split('id="data">', 1)[1].split("</script>", 1)[0])
    shown = {one["id"]: one["texts"] for one in data["questions"]}
    whole = gainfinder.load_samples(str(text_results["bare"].parent / "images-bare.csv"))
    assert shown and all(texts == [whole.read(whole.ids.index(name))] for name, texts in shown.items())
    assert 'id="picture"' not in text and "Judge by the text alone" in text
    assert not any(tag == "img" for tag, _ in Elements(text).found) and not OURS.findall(words(page))


@NEEDS_CHROMIUM
def test_a_question_shows_its_text_and_takes_answers(
    browser: object, text_results: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(text_results["bare"], tmp_path / "run"))
    page = gainfinder.ask(folder, labels=20)
    data = json.loads(page.read_text().split('id="data">', 1)[1].split("</script>", 1)[0])
    browser.get(f"file://{page}")  # type: ignore[attr-defined]
    read = "return [...document.querySelectorAll('#texts p')].map((one) => one.textContent)"
    assert browser.execute_script(read) == data["questions"][0]["texts"]  # type: ignore[attr-defined]
    browser.execute_script("document.getElementById('first').click()")  # type: ignore[attr-defined]
    assert browser.execute_script(read) == data["questions"][1]["texts"]  # type: ignore[attr-defined]
    assert browser.get_log("browser") == [] and browser.title == "Which class is it?"  # type: ignore[attr-defined]
