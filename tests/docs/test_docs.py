"""Every block of the documentation is run, a page at a time, from top to bottom, and prints what the page shows."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pages import INSTALLS, Block, Ran, Reader, blocks, commands, differences

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
NOT_RUN = {
    "pip install .": "installs; the package is installed already",
    "pip install uv && uv run pytest": "the tests themselves",
    "uv run pytest tests/docs": "the tests themselves",
    "uv run pytest tests/metrics -k flips": "the tests themselves",
    "uv run --isolated --resolution lowest-direct --python 3.11 pytest": "the tests themselves, with other versions",
    "uv run --isolated --upgrade --python 3.13 pytest": "the tests themselves, with other versions",
    "python examples/timm_train.py --data-dir photos --model resnet18.a1_in1k --teachers vit_tiny_patch16_224": (
        "tests/integrations runs the example on smaller models"
    ),
    (
        "gainfinder transfer --student hf:small --teacher hf:large --data texts.jsonl --val held-out.jsonl --method "
        "kl-dp-u --bank bank --bank-storage top-50 --batch-size 8 --out better"
    ): "tests/e2e/test_language_models.py runs it on small models",
    "uv run gainfinder demo": "the same demo as below, which is run once",
    "uv run ruff check . && uv run ruff format --check . && uv run mypy": "looks at the source; .ci/run does it",
    "uv run python docs/notebooks.py": "executes the notebooks; tests/docs/test_notebooks.py does it",
    "uv run python docs/gallery.py": "writes into the repository, and takes minutes",
    "pip install jupyterlab && jupyter lab docs/notebooks/quick-start.ipynb": "installs, and opens a browser",
    "uv run --group docs sphinx-build -W docs site": "builds the site; .ci/run does it",
}
"""Commands that stand in the pages and are not run here, each with the reason."""
DEMO = INSTALLS + "demo"


def source(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def own_modules(reader_folder: Path) -> Any:
    """A page's modules are forgotten with it: another one may have others of the same names."""
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(reader_folder)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_as_it_says(
    page: str, reader_folder: Path, left_to_reader: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    text = source(page)
    demo: Ran | None = None
    if "gainfinder-demo" in text or DEMO in text:
        folder, demo = request.getfixturevalue("after_demo")
        shutil.copytree(folder / "gainfinder-demo", reader_folder / "gainfinder-demo")
    reader = Reader(reader_folder, left_to_reader)
    printed: str | None = None
    for block in blocks(text):
        if block.kind == "text":
            if printed is not None:
                found = differences(block.code, printed, figures=block.figures)
                assert not found, f"{page}, line {block.line}:\n{found}"
            printed = None
        elif block.kind in ("console", "python", "json", "toml"):
            printed = _printed(block, reader, page, demo)


def _printed(block: Block, reader: Reader, page: str, demo: Ran | None) -> str | None:
    if block.kind == "console" and demo is not None and DEMO in commands(block.code):
        return demo.out
    if block.kind == "console" and set(commands(block.code)) <= set(NOT_RUN):
        return None
    return reader.follow(block, page=f"{page}, line {block.line}", skipped=tuple(NOT_RUN))


def test_every_block_is_known() -> None:
    for page in PAGES:
        lines = source(page).splitlines()
        fences = [line for line in lines if line.lstrip().startswith("```")]
        found = blocks(source(page))
        assert len(fences) == 2 * len(found), f"{page}: a fence that is not read"
        assert {block.kind for block in found} <= {"console", "python", "json", "toml", "text", ""}, page


def test_what_is_not_run_is_still_there() -> None:
    there = {
        command
        for page in PAGES
        for block in blocks(source(page))
        if block.kind == "console"
        for command in commands(block.code)
    }
    assert not set(NOT_RUN) - there, "listed as not run, and in no page any more"
    assert DEMO in there
