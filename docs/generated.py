"""What the site takes from elsewhere: commands, methods and docstrings from the program, and the measurements."""

import json
import re
import textwrap
from os.path import relpath
from pathlib import Path
from typing import Any

import typer

from gainfinder.cli import app
from gainfinder.config import METHODS, SETTINGS, DeclaredSetting, Method
from gainfinder.config.declaration import type_text

DOCS = Path(__file__).resolve().parent
BENCHMARKS = DOCS.parent / "benchmarks"
MEASUREMENTS = re.compile(r"<!-- measurements ?(?P<question>\w*) -->")
"""The index of the benchmarks, or the page of a question."""
FORMULA = re.compile(r"^ {4,}\S")
HEADINGS = {"Args:", "Attributes:", "Example:", "Note:", "Raises:", "Returns:", "Yields:"}


def filled(page: str) -> str:
    """A page with what it asks for."""
    for name, make in MAKERS.items():
        mark = f"<!-- {name} -->"
        if mark in page:
            page = page.replace(mark, make())
    return MEASUREMENTS.sub(lambda mark: measurements(mark["question"]), page)


def commands() -> str:
    """Every command with every option, in Markdown."""
    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(name, command) for name, command in group.commands.items())


def _command(name: str, command: Any) -> str:
    options = [option for option in command.params if not getattr(option, "hidden", False)]
    shown = " ".join(_flag(option) for option in options if option.required)
    rows = ["| option | what it says | default |", "|---|---|---|", *(_row(option) for option in options)]
    usage = " ".join(f"gainfinder {name} {shown} [OPTIONS]".split())
    return "\n\n".join([f"## {name}", textwrap.dedent(command.help), f"```text\n{usage}\n```", "\n".join(rows)])


def _flag(option: Any) -> str:
    return f"{option.opts[0]} {option.name.upper()}" + (" …" if option.multiple else "")


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    cells = (names + (" (may be repeated)" if option.multiple else ""), option.help or "", _default(option))
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _default(option: Any) -> str:
    if option.required:
        return "must be given"
    if option.is_flag:
        return "" if option.default is None else f"`{option.opts[0]}`" if option.default else "off"
    return "" if option.default is None else f"`{option.default}`"


def methods() -> str:
    """The table of methods, in Markdown."""
    head = ["| method | teaches | loss | λ, labels' weight | T | labels | source |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*head, *(_method_row(method) for method in METHODS)])


def _method_row(method: Method) -> str:
    who = {None: "the teacher", "label": "who is surer of the label", "confidence": "who is more confident"}
    teaches = who[method.partition] + (", all of them weighted" if method.soft else "")
    teaches = teaches if method.needs_teachers else "nobody"
    weights = f"{method.distill_weight:g}, {method.label_weight:g}"
    temperature = "–" if method.needs_features else f"{method.temperature:g}"
    labels = "read" if method.needs_labels else "not read"
    name = f"`{method.name}`"
    return f"| {name} | {teaches} | {method.objective} | {weights} | {temperature} | {labels} | {method.source} |"


def settings() -> str:
    """The table of all settings, in Markdown."""
    head = ["| setting | what it says | type | default | range | changes results |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *(_setting_row(setting) for setting in SETTINGS)])


def _setting_row(setting: DeclaredSetting) -> str:
    about = setting.about
    said = " ".join([setting.help, about.more]).strip()
    default = f"`{setting.default!r}`"
    if setting.default is None:
        default = about.rule if about.fallback is None else f"`{about.fallback!r}`"
    # the words of a choice stand in its type
    allowed = setting.range if setting.kinds else ""
    changes = "yes" if about.changes_results else "no"
    cells = (f"`{setting.name}`", said, f"`{type_text(setting.type)}`", default, allowed, changes)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def measurements(question: str) -> str:
    """The page of a question of the benchmarks, or without one their index, with its links as they are on the site."""
    source = BENCHMARKS / question / "README.md"
    page = _measurements_page(source)

    def linked(link: re.Match[str]) -> str:
        target = (source.parent / link["path"]).resolve()
        return f"]({relpath(_measurements_page(target), page.parent)}{link['anchor'] or ''})"

    text = source.read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)(?P<path>[^)#]+)(?P<anchor>#[^)]*)?\)", linked, text)


def _measurements_page(file: Path) -> Path:
    """Where the site has a page of the benchmarks; any other file is where it is."""
    if file.name != "README.md" or not file.is_relative_to(BENCHMARKS):
        return file
    question = file.parent.relative_to(BENCHMARKS)
    return DOCS / "measurements" / f"{question}.md" if question.name else DOCS / "measurements.md"


def notebook(page: str, source: str) -> str:
    """A notebook that says below its title where to have it."""
    document: dict[str, Any] = json.loads(source)
    name = page.rpartition("/")[2] + ".ipynb"
    text = f"{{download}}`{name} <{name}>`, to be opened by `jupyter lab {name}`: [Notebooks](../notebooks.md)."
    title, *cells = document["cells"]
    cell = {"cell_type": "markdown", "id": "download", "metadata": {}, "source": text}
    return json.dumps({**document, "cells": [title, cell, *cells]})


MAKERS = {"commands": commands, "methods": methods, "settings": settings}


def as_restructured_text(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings as Sphinx reads them: formulas become literal blocks, and signs that it takes for markup are escaped.

    A formula is an indented paragraph of its own that no heading such as `Args:` stands before.
    """
    done: list[str] = []
    in_formula = False
    for place, line in enumerate(lines):
        if in_formula and line and not FORMULA.match(line):
            in_formula = False
        starts = FORMULA.match(line) and place > 0 and not lines[place - 1].strip() and not _in_section(lines, place)
        if starts and not in_formula:
            done += ["::", ""]
            in_formula = True
        is_code = in_formula or line.lstrip().startswith((">>>", "..."))
        done.append(line if is_code else re.sub(r"(?<!`)([|*]|_(?!\w))(?!`)", r"\\\1", line))
    lines[:] = done


def _in_section(lines: list[str], place: int) -> bool:
    before = [line for line in lines[:place] if line and not line.startswith(" ")]
    return bool(before) and before[-1] in HEADINGS
