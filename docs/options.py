"""Write the types of `gainfinder.transfer`'s keyword arguments for type checkers, from the declared settings.

    python docs/options.py

A type checker cannot read them off a pydantic model, and a setting is declared once. A test compares the file.
"""

from pathlib import Path

import gainfinder.config
from gainfinder.config import SETTINGS
from gainfinder.config.declaration import type_text

FILE = Path(gainfinder.config.__file__).with_name("options.py")
HEAD = '''"""The keyword arguments of `gainfinder.transfer`, for type checkers; `docs/options.py` writes this file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict


class TransferOptions(TypedDict, total=False):
    """Settings by name: fields of `TransferConfig`, where each is declared and explained."""

'''


def options() -> str:
    """The file's text."""
    return HEAD + "".join(f"    {one.name}: {type_text(one.type)}\n" for one in SETTINGS)


if __name__ == "__main__":
    FILE.write_text(options(), encoding="utf-8")
