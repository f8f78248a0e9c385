"""What draws figures, in a process of its own: Vega-Lite in, SVG, PDF or PNG out. `drawing.py` starts it as a script.

The JavaScript engine in vl-convert ends its process where it gets no memory; here that takes no result down. Nothing of
gainfinder is imported, which would take longer than to draw.

A request is 8 bytes that say its length and JSON with the keys `kind`, `spec`, `version` and `ppi`; an answer one byte,
0 for a figure and 1 for a message, 8 bytes that say its length, and the figure or message. It ends with its input.
"""

import json
import os
import sys
from typing import Any, BinaryIO

LENGTH_BYTES = 8


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no answer
    requests = sys.stdin.buffer
    while length := requests.read(LENGTH_BYTES):
        request = json.loads(requests.read(int.from_bytes(length, "big")))
        try:
            status, content = 0, drawn(**request)
        except Exception as error:  # whatever the library finds wrong with a figure
            status, content = 1, f"{type(error).__name__}: {error}".encode()
        _answer(answers, status, content)


def drawn(kind: str, spec: dict[str, Any], version: str, ppi: int) -> bytes:
    """A figure.

    Args:
        kind: `svg`, `pdf` or `png`.
        spec: specification in Vega-Lite.
        version: version of Vega-Lite, such as `v6.1`.
        ppi: pixels an inch, of PNG alone.
    """
    import vl_convert  # noqa: PLC0415 - before the first request nothing may end this process

    if kind == "svg":
        return vl_convert.vegalite_to_svg(spec, vl_version=version).encode()
    if kind == "pdf":
        return vl_convert.vegalite_to_pdf(spec, vl_version=version)
    return vl_convert.vegalite_to_png(spec, vl_version=version, ppi=ppi)


def _answer(answers: BinaryIO, status: int, content: bytes) -> None:
    answers.write(bytes([status]) + len(content).to_bytes(LENGTH_BYTES, "big") + content)
    answers.flush()


if __name__ == "__main__":
    main()
