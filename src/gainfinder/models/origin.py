"""Where a model comes from and under which licence, as far as files on this machine say so; no network is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import metadata_load, try_to_load_from_cache
from timm.models import split_model_name_tag

from ..errors import GainfinderError
from ..files import MOST_TEXT, file_problem, user_path
from .assembly import config_of
from .classifier import Classifier
from .from_table import PredictionTable
from .reference import ModelRef, parse_model_ref

CARD = "card"
REGISTRY = "registry"
CONFIGURATION = "configuration"
LONGEST = 100
"""Characters of a licence's name."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A model's repository and licence.

    Attributes:
        repository: `ORG/NAME` on the Hugging Face hub, or None where it came from elsewhere.
        license: identifier of the licence, such as `apache-2.0`; None where no file says it.
        license_name: name of a licence that the hub has no identifier for (`license` is `other`), or None.
        license_link: where that licence is, or None.
        said_by: who says it: the model `card`; timm's `registry`, of the weights that it fetches; or the
            `configuration` beside weights, which may have it from those that training began with. None without a
            licence.
    """

    repository: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    said_by: str | None = None


def find_origin(model: Classifier | PredictionTable) -> Origin:
    """The repository and licence of a loaded model; what no file says is None, and nothing is guessed.

    A model card's front matter has the first word: that in the model's folder, or in the hub's cache, where a client
    has put it. Next come timm's registry and a configuration's `license`, and of an ONNX file its metadata.

    Args:
        model: the model, or table of predictions.
    """
    module = getattr(model, "module", None)
    try:
        return Origin() if module is None else _of_module(parse_model_ref(model.reference), module)
    except GainfinderError:  # the name of a module that was passed in is no reference
        return Origin()


def _of_module(ref: ModelRef, module: Any) -> Origin:
    if ref.source == "timm":
        return _of_timm(ref, config_of(module) or {})
    if ref.source == "hf":
        return _of_transformers(ref)
    if ref.source == "onnx":
        return _licensed(getattr(module, "metadata", {}), by=CONFIGURATION)
    return Origin()


def _of_timm(ref: ModelRef, config: Mapping[str, Any]) -> Origin:
    prefix, colon, name = ref.name.partition(":")
    if colon and prefix == "local-dir":
        return _of_card(user_path(name, what="model folder") / "README.md") or _licensed(config, by=CONFIGURATION)
    if colon:
        repository, _, revision = name.partition("@")
        found = _of_cached_card(repository, revision) or _licensed(config, by=CONFIGURATION)
        return Origin(**{**vars(found), "repository": repository})
    if not timm.is_model(split_model_name_tag(ref.name)[0]):  # the class of a module that was passed in
        return Origin()
    found = _licensed(config, by=REGISTRY)
    return Origin(**{**vars(found), "repository": _repository_of(config)})


def _of_transformers(ref: ModelRef) -> Origin:
    folder = user_path(ref.name, what="model folder")
    if folder.is_dir():
        return _of_card(folder / "README.md") or Origin()
    repository, _, revision = ref.name.partition("@")
    return Origin(**{**vars(_of_cached_card(repository, revision) or Origin()), "repository": repository})


def _repository_of(config: Mapping[str, Any]) -> str | None:
    """The repository of weights in timm's registry."""
    name, tag = config.get("hf_hub_id"), config.get("tag")
    if not isinstance(name, str) or not name:
        return None
    if not name.endswith("/"):
        return name
    return f"{name}{config.get('architecture')}" + (f".{tag}" if tag else "")


def _of_cached_card(repository: str, revision: str) -> Origin | None:
    try:
        path = try_to_load_from_cache(repository, "README.md", revision=revision or None)
    except ValueError:  # no name of a repository
        return None
    return _of_card(Path(path)) if isinstance(path, str) else None


def _of_card(path: Path) -> Origin | None:
    """What a model card's front matter says; None where there is no card, no licence in it, or no reading it."""
    if file_problem(path) is not None or path.stat().st_size > MOST_TEXT:
        return None
    try:
        data = metadata_load(path)
    except Exception:  # of YAML that is none, or text that is not UTF-8
        return None
    found = _licensed(data if isinstance(data, Mapping) else {}, by=CARD)
    return found if found.license else None


def _licensed(data: Mapping[str, Any], *, by: str) -> Origin:
    given = data.get("license")
    one = given[0] if isinstance(given, list) and len(given) == 1 else given
    if not isinstance(one, str) or not one.strip():
        return Origin()
    texts = {key: data.get(key) for key in ("license_name", "license_link")}
    others = {key: text.strip()[:LONGEST] for key, text in texts.items() if isinstance(text, str) and text.strip()}
    return Origin(license=one.strip()[:LONGEST], said_by=by, **others)
