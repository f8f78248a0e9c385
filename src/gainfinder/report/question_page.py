"""A page to answer questions on, by keyboard: one file that does not tell which student is which."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ..files import write_text
from ..metrics import evidence
from ..results import NEITHER, Content, Questions
from .page import digest_of, render_template, template_text
from .sections import data_url


def write_question_page(path: Path, questions: Questions, contents: Sequence[Content]) -> None:
    """Write the page atomically.

    Args:
        path: the page's path, in the result folder.
        questions: the questions of that folder.
        contents: what is shown of the samples of the first of them, which are asked.

    Raises:
        RunFolderError: it cannot be written.
    """
    style, script = template_text("ask.css"), template_text("ask.js")
    page = render_template(
        "ask.html.j2",
        noun=questions.noun,
        changed=len(questions.ids),
        command=f"gainfinder ask {shlex.quote(str(path.parent))} --answers answers.csv",
        data=Markup(_data(questions, contents)),
        style_hash=digest_of(style),
        script_hash=digest_of(script),
        style=style,
        script=script,
    )
    write_text(path, page)


def _data(questions: Questions, contents: Sequence[Content]) -> str:
    """What the script reads; of the two models one is +1 and the other −1, by lot."""
    lot = 1 if np.random.default_rng(list(bytes.fromhex(questions.key))[::-1]).random() < 0.5 else -1
    rows = [
        {
            "id": questions.ids[index],
            "shown": questions.shown(index),
            "sign": lot if questions.swapped[index] else -lot,
            **({"picture": data_url(content)} if isinstance(content, bytes) else {"texts": content}),
        }
        for index, content in enumerate(contents)
    ]
    document = {
        "key": questions.key,
        "changed": len(questions.ids),
        "fractions": evidence.FRACTIONS,
        "level": evidence.LEVEL,
        "neither": NEITHER,
        "questions": rows,
    }
    # No markup can end the element that holds it.
    return json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")
