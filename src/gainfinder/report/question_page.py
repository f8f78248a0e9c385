"""A page to answer questions on, by keyboard: one file that does not tell which student is which."""

import base64
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ..files import write_text
from ..metrics import evidence
from ..results import NEITHER, Questions
from .page import digest_of, render_template, template_text


def write_question_page(path: Path, questions: Questions, pictures: Sequence[bytes]) -> None:
    """Write the page atomically.

    Args:
        path: the page's path, in the result folder.
        questions: the questions of that folder.
        pictures: encoded images of the first of them, which are asked.

    Raises:
        RunFolderError: it cannot be written.
    """
    style, script = template_text("ask.css"), template_text("ask.js")
    page = render_template(
        "ask.html.j2",
        changed=len(questions.ids),
        command=f"gainfinder ask {shlex.quote(str(path.parent))} --answers answers.csv",
        data=Markup(_data(questions, pictures)),
        style_hash=digest_of(style),
        script_hash=digest_of(script),
        style=style,
        script=script,
    )
    write_text(path, page)


def _data(questions: Questions, pictures: Sequence[bytes]) -> str:
    """What the script reads; of the two models one is +1 and the other −1, by lot."""
    lot = 1 if np.random.default_rng(list(bytes.fromhex(questions.key))[::-1]).random() < 0.5 else -1
    rows = [
        {
            "id": questions.ids[index],
            "shown": questions.shown(index),
            "sign": lot if questions.swapped[index] else -lot,
            "picture": _uri(picture),
        }
        for index, picture in enumerate(pictures)
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


def _uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
