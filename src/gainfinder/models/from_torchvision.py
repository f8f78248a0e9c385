"""Classification models of torchvision, with its weights or with own weights over its architecture."""

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ..errors import BadReference, ModelError
from ..libraries import first_line, quiet, tensors_only
from ..references import suggest
from .assembly import assemble, names_in_file, names_in_module_order, with_names_beside, without
from .classifier import Classifier
from .heads import MARK, class_layers, resize_layers
from .imagenet import as_wnids
from .modules import copy_module
from .names import without_wrapped
from .preprocessing import Preprocessing
from .reference import ModelRef
from .weights import load_into, load_weights, save_weights

_log = logging.getLogger("gainfinder")


def load(ref: ModelRef) -> Classifier:
    """Load a model with the weights that `ref.tag` names (the default ones without it).

    With own weights, preprocessing is that of the named weights and the number of classes that of the file. Where
    the tag is named too, the module is built as for those weights (some take inputs transformed, or larger images).

    Raises:
        BadReference: torchvision has no such classification model or weights.
        ModelError: the weights cannot be fetched or read, or do not fit.
    """
    reference = str(ref)
    entry = _find_weights(ref)
    names = entry.meta.get("categories")
    if names is None and ref.weights is None:
        raise ModelError(f"{reference}: these weights have no trained classifier, they only give features")
    own = None if ref.weights is None else load_weights(ref.weights)
    if own is None:
        module = _fetch(ref, entry)
    else:
        arguments = _arguments(ref, entry, own)
        classes = _count_classes(ref.name, own, arguments)
        module = _build(ref, classes, arguments)
        load_into(module, own, reference=reference)
        names = names if names is not None and classes == len(names) else None
        if ref.tag is None:
            _note_preset(ref, entry)
    return assemble(
        module,
        reference=reference,
        preprocessing=preset(entry),
        class_names=None if names is None else as_wnids(names),
        channels_last=True,
        query=ref.query,
        save=partial(save, ref=ref, tag=entry.name, named=names_in_file(ref.query)),
        rehead=partial(rehead, ref=ref, entry=entry),
    )


def save(classifier: Classifier, folder: Path, *, ref: ModelRef, tag: str, named: bool = False) -> str:
    """Write `model.safetensors`, and `classes.txt` where the class names go beside it (`named`).

    Returns:
        `torchvision:NAME/WEIGHTS@FOLDER/model.safetensors` with the settings it was loaded with; without WEIGHTS
        where own weights were loaded without it.
    """
    path = folder / "model.safetensors"
    save_weights(classifier.module, path)
    names = names_in_module_order(classifier, None)
    query = with_names_beside(ref.query, names, folder) if named and names is not None else ref.query
    kept_tag = ref.tag if ref.weights is not None else tag
    return str(ModelRef(source="torchvision", name=ref.name, tag=kept_tag, weights=str(path), query=query))


def rehead(classifier: Classifier, names: tuple[str, ...], *, ref: ModelRef, entry: Any) -> Classifier:
    """A copy for other classes, for `Classifier.rehead`."""
    module = copy_module(classifier.module, reference=classifier.reference)
    arguments = _arguments(ref, entry, module.state_dict())

    def build(num_classes: int) -> nn.Module:
        built: nn.Module = torchvision.models.get_model(ref.name, weights=None, num_classes=num_classes, **arguments)
        return built

    layers = class_layers(build, reference=classifier.reference)
    resize_layers(module, layers, len(names), reference=classifier.reference)
    bare = replace(ref, query=without(ref.query, "classes"))
    return replace(
        classifier,
        module=module,
        num_classes=len(names),
        class_names=names,
        label_map=None,
        save=partial(save, ref=bare, tag=entry.name, named=True),
    )


def preset(entry: Any) -> Preprocessing:
    """The preprocessing of a torchvision weights entry, in timm's terms and equal to its own to the pixel."""
    transform = entry.transforms()
    size, resized = transform.crop_size[0], transform.resize_size[0]
    return Preprocessing(
        input_size=(3, size, size),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
        crop_pct=crop_share(size, resized),
    )


def _note_preset(ref: ModelRef, entry: Any) -> None:
    """Say what is assumed of own weights, where the reference leaves it open."""
    unknown = [key for key in ("size", "mean", "std") if ref.setting(key) is None]
    if not unknown:
        return
    assumed = preset(entry)
    values = {"size": str(assumed.input_size[1]), "mean": _listed(assumed.mean), "std": _listed(assumed.std)}
    _log.warning(
        "%s: a file of weights does not say what its images were like; %s are used, as of torchvision's own: give ?%s "
        "if they were trained otherwise, or name torchvision's weights (%s:%s/%s@…) if not",
        ref,
        " and ".join(f"{key} {values[key]}" for key in unknown),
        "&".join(f"{key}=…" for key in unknown),
        ref.source,
        ref.name,
        entry.name,
    )


def _listed(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def crop_share(size: int, resized: int) -> float:
    """The `crop_pct` with which timm resizes to exactly `resized` pixels: `floor(size / share) == resized`.

    Example:
        >>> crop_share(224, 256)
        0.875
        >>> math.floor(64 / (64 / 93)), math.floor(64 / crop_share(64, 93))
        (92, 93)
    """
    share = size / resized
    while math.floor(size / share) < resized:  # the division rounds down past a whole number
        share = math.nextafter(share, 0)
    return share


def _find_weights(ref: ModelRef) -> Any:
    models = torchvision.models.list_models(module=torchvision.models)
    if ref.name not in models:
        if ref.name in torchvision.models.list_models():
            raise BadReference(f"torchvision's {ref.name!r} is not a float image classifier: it cannot be used")
        raise BadReference(f"torchvision has no classification model {ref.name!r}{suggest(ref.name, models)}")
    entries = torchvision.models.get_model_weights(ref.name)
    tag = "DEFAULT" if ref.tag is None else ref.tag
    known = [entry.name for entry in entries]
    if tag != "DEFAULT" and tag not in known:
        raise BadReference(
            f"torchvision has no weights {tag!r} for {ref.name!r}{suggest(tag, known)}; "
            f"there are: {', '.join(known)}, DEFAULT"
        )
    return entries[tag]


def _fetch(ref: ModelRef, entry: Any) -> nn.Module:
    try:
        with quiet("torch.hub"), tensors_only():
            module: nn.Module = torchvision.models.get_model(ref.name, weights=entry, progress=False)
    except Exception as error:
        raise ModelError(
            f"{ref}: torchvision cannot load these weights from {entry.url} or the cache "
            f"{str(Path(torch.hub.get_dir()) / 'checkpoints')!r}: {first_line(error)}"
        ) from error
    return module


def _arguments(ref: ModelRef, entry: Any, weights: dict[str, Tensor]) -> dict[str, Any]:
    """What the architecture takes besides the number of classes, for weights of these names."""
    arguments: dict[str, Any] = {}
    if ref.name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False
        arguments["aux_logits"] = any(name.startswith(("aux1.", "AuxLogits.")) for name in weights)
        arguments["transform_input"] = ref.tag is not None
    if ref.name.startswith("vit_") and ref.tag is not None:
        arguments["image_size"] = entry.transforms().crop_size[0]
    return arguments


def _build(ref: ModelRef, classes: int, arguments: dict[str, Any]) -> nn.Module:
    with quiet():
        module: nn.Module = torchvision.models.get_model(ref.name, weights=None, num_classes=classes, **arguments)
    return module


def _count_classes(name: str, weights: dict[str, Tensor], arguments: dict[str, Any]) -> int:
    """The first edge of the classifier's bias in the file; 1000 where the file has no such tensor."""
    with quiet(), torch.device("meta"):
        blueprint = torchvision.models.get_model(name, weights=None, num_classes=MARK, **arguments)
    plain = {without_wrapped(key): value for key, value in weights.items()}
    for own, tensor in blueprint.state_dict().items():
        if tensor.ndim == 1 and tensor.shape[0] == MARK:
            found = next((value for key, value in plain.items() if key == own or key.endswith("." + own)), None)
            if found is not None and found.ndim == 1:
                return int(found.shape[0])
    return 1000
