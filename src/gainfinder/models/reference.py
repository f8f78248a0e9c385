"""The grammar of model references: one string that parses to a frozen value and prints back identically.

    NAME                             whatever `timm.create_model(NAME, pretrained=True)` takes, so also
    hf-hub:ORG/NAME[@REVISION]       a timm model on the Hugging Face hub
    local-dir:FOLDER                 a folder that timm (or gainfinder) saved
    torchvision:NAME[/WEIGHTS]       WEIGHTS a member of the model's weights enum, `DEFAULT` where left out
    torchvision:NAME[/WEIGHTS]@PATH  own weights over it
    hf:REPO[@REVISION]               a transformers classifier of images, their cells, or texts on the hub
    hf:FOLDER                        a folder that `save_pretrained` wrote
    file:PATH.py:FACTORY             FACTORY() of a Python file returns the module
    file:PATH.py:FACTORY@PATH        own weights over it
    onnx:PATH                        an ONNX file; it can predict and teach, but not be trained
    table:PATH                       a file of a model's predictions; it can teach, and nothing else

Any of them can end in `?key=value&...`, with the keys of `preprocessing.OVERRIDES`; `onnx:` also takes
`output_name`, `file:` takes `num_classes`, `hf:` takes `trust_remote_code=yes` and, of
texts, `max_length`, of segmentation `grid` and no `output`, and `table:` takes
`TABLE_SETTINGS` alone.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from ..errors import BadReference
from ..references import TRUST, TRUSTED, Query, check_keys, join_query, split_query, suggest
from .preprocessing import OVERRIDES, check_numbers

Source = Literal["timm", "torchvision", "hf", "file", "onnx", "table"]

ONNX_SETTINGS = (*OVERRIDES, "output_name")
FILE_SETTINGS = (*OVERRIDES, "num_classes")
HF_SETTINGS = (*OVERRIDES, "max_length", "grid", TRUST)
TABLE_SETTINGS = ("classes", "num_classes")

_OWN_PREFIXES = ("torchvision", "hf", "file", "onnx", "table")
_TIMM_PREFIXES = ("hf-hub", "hf_hub", "local-dir")
_PREFIXES = ("torchvision", "hf", "file", "onnx", "table", "hf-hub", "local-dir")
_SETTINGS = {"file": FILE_SETTINGS, "hf": HF_SETTINGS, "onnx": ONNX_SETTINGS, "table": TABLE_SETTINGS}
# two letters at least, so that a Windows drive is no prefix
_PREFIX = re.compile(r"(?P<prefix>[A-Za-z][\w.+-]+):(?P<rest>.*)", re.DOTALL)
_TORCHVISION = re.compile(r"(?P<name>[^/@]*)(?:/(?P<tag>[^/@]*))?(?:@(?P<weights>.*))?", re.DOTALL)
_FILE = re.compile(r"(?P<name>.*?\.py)(?::(?P<factory>[^@]*)(?:@(?P<weights>.*))?)?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A parsed model reference; `str` prints the text it was parsed from.

    Attributes:
        source: the library, or kind of file, that the model comes from.
        name: timm's name (with `hf-hub:` or `local-dir:`), torchvision's, a repository or folder, or a file.
        tag: member of the weights enum; torchvision only.
        factory: name of the function that returns the module; files only.
        weights: path of own weights; torchvision and files only.
        query: settings, in the order given.
    """

    source: Source
    name: str
    tag: str | None = None
    factory: str | None = None
    weights: str | None = None
    query: Query = ()

    def __str__(self) -> str:
        base = self.name if self.source == "timm" else f"{self.source}:{self.name}"
        for mark, part in (("/", self.tag), (":", self.factory), ("@", self.weights)):
            base += "" if part is None else mark + part
        return join_query(base, self.query)

    def setting(self, key: str) -> str | None:
        """The value of a setting, or None where it is not given."""
        return dict(self.query).get(key)

    @property
    def code(self) -> tuple[str, ...]:
        """Whose Python code loading it runs besides the libraries': a file's, or the model's own; empty for none."""
        if self.source == "file":
            return (self.name, self.factory or "")
        return (TRUST,) if self.setting(TRUST) == TRUSTED else ()


def parse_model_ref(text: str) -> ModelRef:
    """Parse a model reference; nothing is looked up.

    Raises:
        BadReference: an unknown prefix or setting, a number that cannot be read or is out of range, or an empty part.

    Example:
        >>> parse_model_ref("torchvision:resnet18/IMAGENET1K_V1?size=64").tag
        'IMAGENET1K_V1'
        >>> str(parse_model_ref("file:nets.py:resnet20@w.pt"))
        'file:nets.py:resnet20@w.pt'
    """
    base, query = split_query(text)
    if not base.strip():
        raise BadReference(f"model reference {text!r} is empty: expected a timm name or one of {_forms()}")
    match = _PREFIX.fullmatch(base)
    check_keys(query, _SETTINGS.get(match["prefix"] if match else "", OVERRIDES), reference=text)
    check_numbers(query, reference=text)
    if dict(query).get(TRUST, TRUSTED) != TRUSTED:
        raise BadReference(f"setting {TRUST} in {text!r} cannot be used: expected {TRUSTED}, or leave it out")
    if match is None:
        return ModelRef(source="timm", name=base, query=query)
    prefix, rest = match["prefix"], match["rest"]
    if prefix not in _OWN_PREFIXES + _TIMM_PREFIXES:
        raise BadReference(f"unknown prefix {prefix + ':'!r} in {text!r}{_near_prefix(prefix)}; known: {_forms()}")
    if not rest:
        raise BadReference(f"model reference {text!r} names nothing after {prefix + ':'!r}")
    if prefix in _TIMM_PREFIXES:
        return ModelRef(source="timm", name=base, query=query)
    if prefix == "torchvision":
        return _parse_torchvision(rest, query, text)
    if prefix == "file":
        return _parse_file(rest, query, text)
    source: Literal["onnx", "table", "hf"] = "onnx" if prefix == "onnx" else "table" if prefix == "table" else "hf"
    return ModelRef(source=source, name=rest, query=query)


def _parse_torchvision(rest: str, query: Query, text: str) -> ModelRef:
    match = _TORCHVISION.fullmatch(rest)
    if match is None:
        raise BadReference(f"model reference {text!r} cannot be read: expected torchvision:NAME/WEIGHTS@PATH")
    _refuse_empty(match, {"name": "NAME", "tag": "WEIGHTS", "weights": "PATH"}, "torchvision:NAME/WEIGHTS@PATH", text)
    return ModelRef(source="torchvision", query=query, **match.groupdict())


def _parse_file(rest: str, query: Query, text: str) -> ModelRef:
    match = _FILE.fullmatch(rest)
    if match is None:
        raise BadReference(f"model reference {text!r} names no Python file: expected file:PATH.py:FACTORY@WEIGHTS")
    if match["factory"] is None:
        raise BadReference(
            f"model reference {text!r} names no factory: expected file:PATH.py:FACTORY, "
            "where FACTORY() returns the module"
        )
    _refuse_empty(match, {"factory": "FACTORY", "weights": "WEIGHTS"}, "file:PATH.py:FACTORY@WEIGHTS", text)
    return ModelRef(source="file", query=query, **match.groupdict())


def _refuse_empty(match: re.Match[str], parts: dict[str, str], form: str, text: str) -> None:
    for group, part in parts.items():
        if match[group] == "":
            raise BadReference(f"{part} is empty in {text!r}: expected {form}")


def _near_prefix(prefix: str) -> str:
    # a transposed letter leaves a short word less alike than `suggest` asks for
    found = difflib.get_close_matches(prefix.lower(), _PREFIXES, n=2, cutoff=0.5)
    return f"; near matches: {', '.join(word + ':' for word in found)}" if found else suggest(prefix, _PREFIXES)


def _forms() -> str:
    return ", ".join(f"{prefix}:" for prefix in _PREFIXES)
