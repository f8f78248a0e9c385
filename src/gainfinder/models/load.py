"""Loading: a model reference or a module becomes a `Classifier`, or a table of predictions as a teacher."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from torch import nn

from ..errors import BadReference, ModelError, SettingsError
from ..references import TRUST, TRUSTED, suggest
from .assembly import with_query_over
from .classifier import Classifier
from .from_module import Size, Values, classifier_from_module, overrides_query
from .from_table import PredictionTable, load_table
from .modules import copy_module, unwrapped
from .reference import ModelRef, parse_model_ref
from .weights import load_into, load_weights

ModelSource = str | ModelRef | Classifier | nn.Module
"""A model reference, as text or parsed, a classifier or a module."""
TeacherSource = ModelSource | PredictionTable
"""A teacher: a model, or a table of its predictions."""


class Overrides(TypedDict, total=False):
    """Settings that replace a model's own; see `classifier_from_module`."""

    size: Size | None
    mean: Values | None
    std: Values | None
    interpolation: str | None
    crop_pct: float | None
    crop_mode: str | None
    crop_rounding: str | None
    class_names: list[str] | tuple[str, ...] | None
    output: str | None
    grid: int | None


def load_model(model: ModelSource, **overrides: Unpack[Overrides]) -> Classifier:
    """Load a model as a classifier.

    Args:
        model: a reference (see `models.reference`), a classifier, which is returned as it is, or a module.
        overrides: settings that replace the model's own, and those in the reference.

    Returns:
        The classifier, its module in evaluation mode and float32.

    Raises:
        BadReference: the reference cannot be parsed or names nothing, or a setting cannot be used.
        ModelError: the model cannot be loaded, or is no classifier.
        MissingExtra: the source's package is not installed.
        SettingsError: an override is unknown, or given with a classifier.
    """
    known = list(Overrides.__annotations__)
    for key in overrides:
        if key not in known:
            raise SettingsError(f"unknown override {key!r}{suggest(key, known)}; known: {', '.join(known)}")
    if isinstance(model, Classifier):
        if overrides:
            raise SettingsError(f"{model.reference} is loaded already: give {', '.join(overrides)} when it is loaded")
        return model
    if isinstance(model, nn.Module):
        return classifier_from_module(model, **overrides)
    ref = parse_model_ref(model) if isinstance(model, str) else model
    if not isinstance(ref, ModelRef):
        raise ModelError(
            f"expected a model: a reference as text, such as 'resnet18.a1_in1k', what load_model gives, or a torch "
            f"module; got {type(model).__name__}"
        )
    return _load(ref, overrides)


def load_copy(model: ModelSource, **overrides: Unpack[Overrides]) -> Classifier:
    """As `load_model`; of a module or classifier that was passed in, a copy, so that its owner's stays as it is."""
    if isinstance(model, nn.Module):
        name = type(model).__name__
        return load_model(copy_module(unwrapped(model, reference=name), reference=name), **overrides)
    loaded = load_model(model, **overrides)
    return loaded.copied() if isinstance(model, Classifier) else loaded


def load_written(reference: str, *, of: Classifier, weights: Path, where: str) -> Classifier:
    """The model that a result's file names, which may run no Python code but that of the model it was made from.

    Leave for a transformers model's own code is for that of the model that was given, not for what lies in the folder:
    the weights are loaded into a copy of it.

    Args:
        reference: what the file says.
        of: the model it was made from, loaded as the user gave it, with the same layers.
        weights: its weights in the folder.
        where: the file, for the message.

    Raises:
        ModelError: it names other code: the file was changed, or is another's.
        GainfinderError: whatever else is wrong with it.
    """
    ref = parse_model_ref(reference)
    # a classifier that was passed in has a name of its own as reference, which names no code
    if ref.code and ref.code != _code_of(of.reference):
        raise ModelError(f"{where}: {reference!r} runs other Python code than {of.reference!r}, and is not loaded")
    if ref.setting(TRUST) == TRUSTED:
        found = replace(of.copied(), reference=reference)
        load_into(found.module, load_weights(weights), reference=reference)
        return found
    return load_model(ref)


def load_teacher(source: TeacherSource) -> Classifier | PredictionTable:
    """A teacher: `table:PATH` becomes a table of predictions, all else a classifier, as `load_copy` gives it.

    Raises:
        GainfinderError: whatever is wrong with the reference, the model or the table.
    """
    if isinstance(source, PredictionTable):
        return source
    ref = parse_model_ref(source) if isinstance(source, str) else source
    return load_table(ref) if isinstance(ref, ModelRef) and ref.source == "table" else load_copy(ref)


def _code_of(reference: str) -> tuple[str, ...]:
    try:
        return parse_model_ref(reference).code
    except BadReference:
        return ()


def _load(ref: ModelRef, overrides: Overrides) -> Classifier:
    if ref.source == "table":
        raise BadReference(f"{str(ref)!r} is a table of predictions, no model: it can only be a teacher")
    names = overrides.pop("class_names", None)
    changes = overrides_query(**overrides)  # type: ignore[misc]  # class_names was taken out above
    if names is not None:
        if any(mark in name for name in names for mark in ",&?\n") or names[0].startswith("@"):
            raise SettingsError(
                "a class name holds one of , & ? @: write one name a line to a file and give classes=@FILE"
            )
        changes += (("classes", ",".join(names)),)
    # printed and parsed again, so that overrides are checked as settings are
    ref = parse_model_ref(str(ModelRef(**{**vars(ref), "query": with_query_over(ref.query, changes)})))
    if ref.source == "timm":
        from .from_timm import load  # noqa: PLC0415 (sources are imported when they are used)
    elif ref.source == "torchvision":
        from .from_torchvision import load  # noqa: PLC0415
    elif ref.source == "hf":
        from .from_transformers import load  # noqa: PLC0415
    elif ref.source == "onnx":
        from .from_onnx import load  # noqa: PLC0415
    else:
        from .from_file import load  # noqa: PLC0415
    return load(ref)
