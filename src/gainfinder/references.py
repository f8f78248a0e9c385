"""The grammar that model and data references share: `BASE?key=value&key=value`; near matches; short names for people.

A reference is one string, parses to a frozen value and prints back identically. A `?` begins settings only where a
`key=` follows it, so a path that holds a question mark stays a path.
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .errors import BadReference, GainfinderError

_QUERY = re.compile(r"\?(?=[A-Za-z_]+=)(?P<query>[^?]*)$")

LONGEST_SHOWN = 400
"""Characters of a value in a message."""
LONGEST_SUGGESTED = 500
"""Characters of a word for which near matches are looked for."""

TRUST = "trust_remote_code"
"""The setting of a reference that lets a model run code of its own; no file can give it."""
TRUSTED = "yes"

AUTO_MODELS = {
    "image": "AutoModelForImageClassification",
    "cell": "AutoModelForSemanticSegmentation",
    "text": "AutoModelForSequenceClassification",
    "word": "AutoModelForTokenClassification",
    "token": "AutoModelForCausalLM",
}
"""Name of the class by which transformers loads an `hf:` model, by what the model gives a class."""

Query = tuple[tuple[str, str], ...]


def split_query(text: str) -> tuple[str, Query]:
    """Split `BASE?key=value&key=value` into the base and its settings, in the order given.

    Raises:
        BadReference: a setting has no value, or one is given twice.

    >>> split_query("resnet18?size=64&mean=0.5,0.5,0.5")
    ('resnet18', (('size', '64'), ('mean', '0.5,0.5,0.5')))
    >>> split_query("photos/what?.tar")
    ('photos/what?.tar', ())
    """
    match = _QUERY.search(text)
    if match is None:
        return text, ()
    pairs: list[tuple[str, str]] = []
    for part in match["query"].split("&"):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise BadReference(f"setting {part!r} in {text!r} has no value: expected key=value")
        if any(key == other for other, _ in pairs):
            raise BadReference(f"setting {key!r} is given twice in {text!r}: give it once")
        pairs.append((key, value))
    return text[: match.start()], tuple(pairs)


def join_query(base: str, query: Query) -> str:
    """Print what `split_query` parsed, identically.

    >>> join_query("resnet18", (("size", "64"),))
    'resnet18?size=64'
    """
    return base + ("?" + "&".join(f"{key}={value}" for key, value in query) if query else "")


def check_keys(query: Query, allowed: Sequence[str], *, reference: str) -> None:
    """Refuse settings that are not in `allowed`, naming near matches.

    Raises:
        BadReference: a key is unknown.
    """
    for key, _ in query:
        if key not in allowed:
            raise BadReference(
                f"unknown setting {key!r} in {reference!r}{suggest(key, allowed)}; "
                f"known: {', '.join(allowed) if allowed else 'none'}"
            )


def number_within(text: str, *, low: int, high: int) -> int | None:
    """The whole number that a text holds, in plain digits; None where it holds none, or one out of range.

    However many digits there are: Python refuses to read more than 4,300 with an error of its own.

    >>> number_within("64", low=1, high=4096), number_within("1" * 5000, low=1, high=4096)
    (64, None)
    """
    if re.fullmatch(r"0*[0-9]{1,18}", text) is None:
        return None
    number = int(text.lstrip("0") or "0")
    return number if low <= number <= high else None


def finite_number(text: str) -> float | None:
    """The finite number that a text holds; None where it holds none.

    >>> finite_number("0.5"), finite_number("1e999"), finite_number("nan")
    (0.5, None, None)
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def shown_value(value: object) -> str:
    """A value as a message has it, also one that Python does not print.

    >>> shown_value([1, "a"]), shown_value(1 << 100_000)
    ("[1, 'a']", 'a number of more than 4,300 digits')
    """
    try:
        text = repr(value)
    except ValueError:
        return f"a {'number' if isinstance(value, int) else 'value with a number'} of more than 4,300 digits"
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]} … {text[-LONGEST_SHOWN // 4 :]}"


def suggest(word: str, known: Iterable[str], *, limit: int = 3) -> str:
    """A phrase that suggests the known words nearest to `word`, or an empty string.

    >>> suggest("resnet81", ["resnet18", "vit_base"])
    '; near matches: resnet18'
    >>> suggest("zzz", ["resnet18"])
    ''
    """
    if len(word) > LONGEST_SUGGESTED:  # nothing is near, and to compare takes long
        return ""
    found = difflib.get_close_matches(word, list(known), n=limit, cutoff=0.6)
    return f"; near matches: {', '.join(found)}" if found else ""


def shown(text: str, *, most: int = 80) -> str:
    """A user's text as a message quotes it: in quotes, shortened in the middle where it is long.

    >>> shown("cat"), shown("x" * 5000)
    ("'cat'", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxx' (5000 characters)")
    """
    if len(text) <= most:
        return repr(text)
    return f"{text[: most // 2] + '…' + text[-most // 4 :]!r} ({len(text)} characters)"


def whole_number(text: str, *, what: str, least: int, most: int, error: type[GainfinderError] = BadReference) -> int:
    """The whole number that a user's text spells in decimal digits, of any length.

    Args:
        text: digits, a sign before them allowed.
        what: what the number is, for the message.
        least: smallest number that makes sense.
        most: largest number that makes sense.
        error: kind of error to raise.

    Raises:
        GainfinderError: of the kind `error`; it is none, or outside `least` … `most`.

    >>> whole_number("12", what="num_classes", least=1, most=1000)
    12
    >>> whole_number("0", what="num_classes", least=1, most=1000)
    Traceback (most recent call last):
    gainfinder.errors.BadReference: num_classes is '0': expected a whole number from 1 to 1000
    """
    if re.fullmatch(r"[+-]?[0-9]{1,4000}", text) and least <= int(text) <= most:
        return int(text)
    raise error(f"{what} is {shown(text)}: expected a whole number from {least} to {most}")


def short_names(references: Sequence[str]) -> dict[str, str]:
    """A short name for each model reference; the reference itself where a short one would fit two different ones.

    >>> short_names(["file:nets.py:small@small.pt", "local-dir:zoo/vit", "local-dir:zoo/vit"])
    {'file:nets.py:small@small.pt': 'small', 'local-dir:zoo/vit': 'vit'}
    >>> short_names(["local-dir:a/vit", "local-dir:b/vit"])["local-dir:a/vit"]
    'local-dir:a/vit'
    """
    names = {reference: _short_name(reference) for reference in references}
    counts = Counter(names.values())
    return {reference: name if counts[name] == 1 else reference for reference, name in names.items()}


def _short_name(reference: str) -> str:
    base = reference.split("?", maxsplit=1)[0]
    if base.startswith("file:"):
        return base.split("@")[0].rpartition(":")[2]
    if base.startswith("torchvision:"):
        return base.removeprefix("torchvision:").split("/")[0]
    return base.rpartition(":")[2].rstrip("/").rpartition("/")[2]


def trusting(references: Sequence[str], names: Sequence[str]) -> list[str]:
    """Model references, those of the models that are named with leave to run code of their own.

    Args:
        references: model references.
        names: repositories or folders of `hf:` references, as they stand there, with `@REVISION` where one does.

    Returns:
        The references in their order, with the setting `trust_remote_code=yes` where it was given.

    Raises:
        BadReference: a name is that of no `hf:` reference.

    >>> trusting(["hf:lab/net?size=64", "hf:lab/other"], ["lab/net"])
    ['hf:lab/net?size=64&trust_remote_code=yes', 'hf:lab/other']
    """
    split = [split_query(reference) for reference in references]
    known = [base.removeprefix("hf:") for base, _ in split if base.startswith("hf:")]
    wanted = {name.removeprefix("hf:") for name in names}
    for name in sorted(wanted - {*known}):
        models = f"its hf: models are {', '.join(known)}" if known else "it has no hf: model"
        raise BadReference(f"`trust_remote_code={name}` names no model of this run{suggest(name, known)}; {models}")
    return [
        join_query(base, (*(one for one in query if one[0] != TRUST), (TRUST, TRUSTED)))
        if base.startswith("hf:") and base.removeprefix("hf:") in wanted
        else reference
        for reference, (base, query) in zip(references, split, strict=True)
    ]


def refuse_trust(reference: str, *, where: str) -> None:
    """Refuse the setting `trust_remote_code` in a file: another's file must not let code run.

    Raises:
        BadReference: the reference has it; `where` says where the reference stands.
    """
    base, query = split_query(reference)
    if TRUST in dict(query):
        name = base.removeprefix("hf:")
        raise BadReference(
            f"{where}: {shown(reference)} trusts the model's own code, which no file can: read that code, and where "
            f"you trust it, leave the setting out and give `trust_remote_code={name}`"
        )
