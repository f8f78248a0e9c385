"""Values and texts that no user means, for fuzzers: of every type, far out of range, or made to break a reader."""

import random
import string
from collections.abc import Sequence

NUMBERS = (
    *("0", "1", "-1", "3", "64", "224", "0.5", "1.0", "-0.0", "1e-7", "1e-320", "1e-4", "1e400", "inf", "-inf", "nan"),
    *(
        "9" * 25,
        "1" + "0" * 5000,
        "-" + "9" * 4400,
        "0x10",
        "1_000",
        "١٢",
        "²",
        "1e",
        "+5",
        " 5",
        "5 ",
        "00",
        "1" * 310,
    ),
)
"""Numbers and what looks like one."""
TEXTS = (
    *(
        "",
        " ",
        "a",
        "cat",
        "kl",
        "none",
        "auto",
        "true",
        "null",
        "digits",
        "resnet18",
        "no/such",
        "..",
        "/",
        "~nosuchuser/x",
    ),
    *(
        "~",
        "a\x00b",
        "a\nb",
        "a\tb",
        "\ufeffx",
        "\u202eabc",
        "é" * 300,
        "x" * 5000,
        "a/" * 3000,
        "\ud800",
        "'",
        '"',
        "\\",
        "`",
    ),
    *(
        "<script>alert(1)</script>",
        "=1+1",
        "@x",
        "{zoo}",
        "{a",
        "%s",
        "{0}",
        "$HOME",
        "*",
        "[",
        "]",
        "&",
        "?",
        "#",
        "a=b",
    ),
    *("https://me:pass@host/x", "s3://k:s@b", "hf_" + "a" * 30, "con", "nul.txt", "."),
)
"""Texts."""


def number(draw: random.Random) -> str:
    """A number as text, or what looks like one."""
    return draw.choice(NUMBERS) if draw.random() < 0.8 else repr(draw.uniform(-10, 10) * 10 ** draw.randint(-12, 12))


def text(draw: random.Random) -> str:
    """A text, mostly one of `TEXTS`."""
    if draw.random() < 0.7:
        return draw.choice(TEXTS)
    letters = string.printable + "éß中\u200b\x00\x7f"
    return "".join(draw.choice(letters) for _ in range(draw.choice((1, 3, 8, 40))))


def value(draw: random.Random, *, depth: int = 0) -> object:
    """A value as TOML, JSON or Python know it, of any type."""
    kind = draw.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return draw.choice((0, 1, -1, 5, 10**9, 10**12, 2**63, 10**30, 1 << 20000))
    if kind == 2:
        return draw.choice((0.0, 0.5, -1.0, 1e-320, 1e308, float("inf"), float("nan"), 3.0))
    if kind < 5:
        return text(draw)
    if kind == 5:
        return draw.choice((True, False, None))
    if kind < 8:
        return [value(draw, depth=depth + 1) for _ in range(draw.randrange(4))]
    return {text(draw): value(draw, depth=depth + 1) for _ in range(draw.randrange(4))}


def nested(opening: str, closing: str, draw: random.Random) -> str:
    """Brackets within each other, up to some thousands."""
    deep = draw.choice((5, 70, 900, 1500, 50_000))
    return opening * deep + closing * draw.choice((deep, deep, deep - 1))


def mangled(given: str, draw: random.Random, *, times: int = 3) -> str:
    """A text with pieces removed, doubled, replaced or put in."""
    for _ in range(draw.randint(1, times)):
        place = draw.randrange(len(given) + 1)
        end = min(len(given), place + draw.choice((1, 2, 8, 40)))
        pieces: Sequence[str] = (
            *("", given[place:end] * 2, text(draw), number(draw), "[", "]", "{", "}", '"', "=", "\n", ",", "\x00"),
        )
        given = given[:place] + draw.choice(pieces) + given[end:]
    return given
