"""The notebooks are executed, and their outputs are those that they show, by the rules of docs/contributing.md."""

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from once import made_once
from pages import Ran, differences

DOCS = Path(__file__).parents[2] / "docs"
MAKER = runpy.run_path(str(DOCS / "notebooks.py"))
NOTEBOOKS: tuple[Path, ...] = MAKER["NOTEBOOKS"]
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
MACHINE = re.compile(r"/(?:home|root|tmp|usr|work|Users)/|[A-Z]:\\")
"""The beginning of an absolute path."""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, after_demo: tuple[Path, Ran]) -> dict[str, Any]:
    """Each notebook with the outputs that it has in an empty folder with what the demo leaves; all executed once."""

    def make(folder: Path) -> None:
        places = [folder / path.stem for path in NOTEBOOKS]
        for place in places:
            shutil.copytree(after_demo[0] / "gainfinder-demo", place / "gainfinder-demo")
        # an error is an output that no notebook shows: the others are compared all the same
        for path, notebook in zip(NOTEBOOKS, MAKER["execute"](NOTEBOOKS, places, allow_errors=True), strict=True):
            nbformat.write(notebook, folder / path.name)

    folder = made_once(tmp_path_factory, "notebooks", make)
    return {path.name: nbformat.read(folder / path.name, as_version=4) for path in NOTEBOOKS}


def unlike(stored: Any, made: Any, *, counts: bool) -> str:
    """What differs between the outputs of a cell, empty where they agree.

    Args:
        stored: the outputs that the notebook shows.
        made: those that it has now.
        counts: whether whole numbers may be others, as well as those with a point.
    """
    if (kinds := [_kind(one) for one in stored]) != (now := [_kind(one) for one in made]):
        return f"outputs are {now}, and the notebook shows {kinds}\n" + "\n".join(map(_text, made))
    shown, printed = ([NUMBER.sub("0", text) if counts else text for text in map(_text, one)] for one in (stored, made))
    pairs = zip(shown, printed, strict=True)
    return "\n".join(filter(None, (differences(*pair, figures=True) for pair in pairs)))


def _kind(output: Any) -> list[str]:
    """Where an output comes from and in which forms it is there; of pictures nothing else is compared."""
    return [output.output_type, output.get("name", ""), *sorted(output.get("data", {}))]


def _text(output: Any) -> str:
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}\n"
    return str(output.get("text", output.get("data", {}).get("text/plain", "")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_does_as_it_shows(path: Path, executed: dict[str, Any]) -> None:
    stored = nbformat.read(path, as_version=4)
    compared = 0
    for cell, made in zip(stored.cells, executed[path.name].cells, strict=True):
        assert cell.source == made.source
        if cell.cell_type != "code":
            continue
        found = unlike(cell.outputs, made.outputs, counts="counts" in cell.metadata.get("tags", []))
        assert not found, f"{path.name}: {cell.source}\n{found}\nright? `python docs/notebooks.py` stores it"
        compared += len(cell.outputs)
    assert compared >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_of_no_machine(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "not executed from top to bottom"
    assert stored.metadata.language_info == {"name": "python"} and all("execution" not in one.metadata for one in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert {_kind(output)[1] for output in outputs} <= {"", "stdout"}, "a warning is stored"
    assert "error" not in {output.output_type for output in outputs}
    assert not MACHINE.search(json.dumps(outputs))


def output(text: str, **fields: Any) -> Any:
    return nbformat.v4.new_output("stream", text=text, **fields)


def test_what_a_notebook_shows_is_compared() -> None:
    right = [output("better, 12 of 50, +1.5 pp")]
    assert not unlike(right, [output("better, 12 of 50, +2.5 pp")], counts=False)
    assert not unlike(right, [output("better, 9 of 48, +2 pp")], counts=True)
    assert unlike(right, [output("better, 9 of 48, +1.5 pp")], counts=False)
    assert unlike(right, [output("not better, 12 of 50, +1.5 pp")], counts=True)
    assert unlike(right, [], counts=True) and unlike([], right, counts=True)
    assert unlike(right, [output(right[0].text, name="stderr")], counts=True)
    failed = nbformat.v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    assert "KeyError: 'x'" in unlike(right, [failed], counts=True)
    picture, text = (
        [nbformat.v4.new_output("execute_result", {form: "0"})] for form in ("image/svg+xml", "text/plain")
    )
    assert unlike(picture, text, counts=True)
