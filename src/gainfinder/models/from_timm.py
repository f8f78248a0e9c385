"""Models of timm: by name, from the Hugging Face hub (`hf-hub:`) and from folders (`local-dir:`)."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_model_args, parse_model_name, save_for_hf, split_model_name_tag
from torch import nn

from ..errors import BadReference, ModelError
from ..files import file_problem, user_path
from ..libraries import hub_or_cache, hub_reason, quiet, tensors_only
from ..references import join_query, suggest
from .assembly import assemble, config_of, names_in_module_order, names_of_config, rounding_of
from .classifier import Classifier
from .configs import check_files, read_config
from .heads import REPLACED, class_layers, is_built_by, resize_layers
from .imagenet import imagenet_wnids
from .modules import copy_module
from .pickles import ENDINGS
from .preprocessing import Preprocessing
from .reference import ModelRef

_FILES = {".onnx": "onnx", ".parquet": "table", ".csv": "table"}
_AGAIN = "expected config.json and weights as timm.models.save_for_hf writes them: save the folder again"
_LOGGERS = ("timm", "huggingface_hub", "huggingface_hub.utils._http", "httpx")


def load(ref: ModelRef) -> Classifier:
    """Load a model as `timm.create_model(ref.name, pretrained=True)` does.

    A `size` setting other than the configuration's rebuilds a model of fixed input size for it; timm resamples its
    position embeddings.

    Raises:
        BadReference: timm knows no such architecture or weights.
        ModelError: there are no pretrained weights, or they cannot be fetched or read.
    """
    reference = str(ref)
    is_registered = _check_name(ref)
    module: Any = _create(ref, {})
    preprocessing = _preprocessing(module, reference)
    requested = preprocessing.with_overrides(ref.query, reference=reference)
    if requested.view_size != preprocessing.view_size and module.pretrained_cfg.get("fixed_input_size"):
        module = _create(ref, {"img_size": requested.view_size})
    if getattr(module, "num_classes", None) == 0:
        raise ModelError(_no_classifier(reference))
    names = class_names(module, is_registered=is_registered, reference=reference)
    return assemble(
        module,
        reference=reference,
        preprocessing=preprocessing,
        class_names=names,
        channels_last=True,
        query=ref.query,
        save=partial(save, loaded_names=names),
        rehead=rehead,
    )


def save(classifier: Classifier, folder: Path, *, loaded_names: tuple[str, ...] | None) -> str:
    """Write `config.json` and `model.safetensors`, with the current preprocessing and class names.

    Returns:
        `local-dir:FOLDER`, which timm itself loads too; with `crop_rounding` where that is not timm's.
    """
    names = names_in_module_order(classifier, loaded_names)
    config = {"label_names": list(names)} if names is not None else {}
    module: Any = classifier.module
    hook = module.register_state_dict_post_hook(_copy_tensors)
    try:
        with quiet(*_LOGGERS):
            save_for_hf(
                module,
                str(folder),
                model_config=config,
                safe_serialization=True,
                data_config=classifier.image_preprocessing.timm_config(),
            )
    finally:
        hook.remove()
    # timm's configuration has no word for this setting
    return join_query(f"local-dir:{folder}", rounding_of(classifier.image_preprocessing))


def rehead(classifier: Classifier, names: tuple[str, ...]) -> Classifier:
    """A copy for other classes, for `Classifier.rehead`; its configuration names them.

    Raises:
        ModelError: timm does not build the architecture so, or the module is not as timm built it.
    """
    module: Any = copy_module(classifier.module, reference=classifier.reference)
    config = dict(config_of(module) or {})
    arguments = {key: value for key, value in get_model_args(module).items() if key != "num_classes"}

    def build(num_classes: int) -> nn.Module:
        built: nn.Module = timm.create_model(config["architecture"], num_classes=num_classes, **arguments)
        return built

    resize_layers(
        module,
        class_layers(build, reference=classifier.reference),
        len(names),
        reference=classifier.reference,
    )
    config.pop("label_descriptions", None)
    module.num_classes = len(names)
    module.pretrained_cfg = module.default_cfg = {**config, "num_classes": len(names), "label_names": names}
    return replace(
        classifier,
        module=module,
        num_classes=len(names),
        class_names=names,
        label_map=None,
        save=partial(save, loaded_names=names),
    )


def is_timm_model(module: nn.Module) -> bool:
    """Whether `timm.create_model` built the module, so that `save` can write its configuration."""
    config = config_of(module)
    architecture = config.get("architecture") if config is not None else None
    return isinstance(architecture, str) and timm.is_model(architecture) and hasattr(module, "_model_args")


def is_as_built(module: Any) -> bool:
    """Whether a module of timm still has the layers of its architecture, so that its configuration loads it again."""
    config = dict(config_of(module) or {})
    arguments = {**get_model_args(module), "num_classes": getattr(module, "num_classes", None)}
    return is_built_by(module, lambda: timm.create_model(config["architecture"], **arguments))


def class_names(module: nn.Module, *, is_registered: bool, reference: str) -> tuple[str, ...] | None:
    """Names that the configuration carries; else ImageNet's for 1000 classes trained on it; else None.

    Args:
        module: a module, with or without a `pretrained_cfg`.
        is_registered: whether the weights are in timm's own registry, where all models with 1000 classes are
            ImageNet's.
        reference: the model reference, for messages.
    """
    config = config_of(module) or {}
    names = names_of_config(config, reference=reference)
    if names is not None:
        return names
    trained_on_imagenet = is_registered or "in1k" in str(config.get("tag") or config.get("hf_hub_id") or "")
    if trained_on_imagenet and getattr(module, "num_classes", None) == 1000:
        return imagenet_wnids()
    return None


def _preprocessing(module: nn.Module, reference: str) -> Preprocessing:
    try:
        return Preprocessing.from_timm_config(config_of(module) or {})
    except ModelError as error:
        raise ModelError(f"{reference}: {error}") from error


def _create(ref: ModelRef, arguments: dict[str, Any]) -> nn.Module:
    source, name = parse_model_name(ref.name)
    needs_hub = source != "local-dir"
    name = ref.name if needs_hub else f"local-dir:{user_path(name, what='model folder', error=ModelError)}"
    with quiet(*_LOGGERS), tensors_only(), hub_or_cache(needed=needs_hub) as reachable:
        try:
            module: nn.Module = timm.create_model(name, pretrained=True, **arguments)
        except Exception as error:
            reason = hub_reason(error, reachable=reachable)
            remedy = f"; {REPLACED}" if "state_dict" in reason else "" if needs_hub else f"; {_AGAIN}"
            raise ModelError(f"{ref}: timm cannot load this model: {reason}{remedy}") from error
    return module


def _check_name(ref: ModelRef) -> bool:
    """Whether timm's registry (not a folder or repository) names the model; raises if the name cannot be used."""
    try:
        source, name = parse_model_name(ref.name)
    except ValueError as error:
        raise BadReference(_hint(ref.name) or f"{str(ref)!r} cannot be read by timm: {error}") from error
    if source == "local-dir":
        _check_folder(user_path(name, what="model folder", error=ModelError), str(ref))
    if source is not None:
        return False
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(architecture):
        raise BadReference(
            _hint(ref.name) or f"timm has no architecture {architecture!r}{suggest(architecture, timm.list_models())}"
        )
    # deprecated names are not listed: timm maps them itself
    if architecture in timm.list_models():
        _check_weights(architecture, tag)
    return True


def _hint(name: str) -> str | None:
    """The reference to write instead of a bare path, as a message."""
    path = user_path(name, what="model")
    if path.is_dir():
        return f"{name!r} is a folder: a model that timm saved is local-dir:{name}, one of transformers hf:{name}"
    if path.is_file() and path.suffix.lower() in _FILES:
        return f"{name!r} is a file: give it as {_FILES[path.suffix.lower()]}:{name}"
    if path.is_file():
        return f"{name!r} is a file; weights need their architecture: file:PATH.py:FACTORY@{name}"
    return None


def _check_weights(architecture: str, tag: str) -> None:
    tags = [
        found
        for listed, found in map(split_model_name_tag, timm.list_pretrained(f"{architecture}*"))
        if listed == architecture
    ]
    if not tags:
        raise ModelError(
            f"timm has no pretrained weights for {architecture!r}: load your own with file:PATH.py:FACTORY@WEIGHTS, "
            f"or choose one of timm.list_pretrained(){suggest(architecture, _pretrained_architectures())}"
        )
    if tag and tag not in tags:
        raise BadReference(
            f"timm has no weights {tag!r} for {architecture!r}{suggest(tag, tags)}; there are: {', '.join(tags)}"
        )
    # raised before anything is downloaded
    config = timm.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    if config is not None and config.num_classes == 0:
        raise ModelError(_no_classifier(f"{architecture}.{tag}" if tag else architecture))


def _no_classifier(reference: str) -> str:
    return f"{reference}: this model has no classifier (num_classes is 0), it only gives features"


def _pretrained_architectures() -> list[str]:
    return sorted({split_model_name_tag(name)[0] for name in timm.list_pretrained()})


def _check_folder(folder: Path, reference: str) -> None:
    if not folder.is_dir():
        problem = file_problem(folder) or "is a file, expected a folder"
        raise ModelError(f"{reference}: the folder {str(folder)!r} {problem}")
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{reference}: the folder has no config.json: expected a folder that timm saved")
    architecture = read_config(path, reference=reference).get("architecture")
    if not isinstance(architecture, str):
        raise ModelError(
            f"{reference}: config.json is no timm configuration (it names no architecture); a folder of transformers "
            "is loaded as hf:FOLDER"
        )
    if not timm.is_model(architecture):
        raise ModelError(
            f"{reference}: config.json names the architecture {architecture!r}, which timm {timm.__version__} does not "
            f"have{suggest(architecture, timm.list_models())}"
        )
    if not any(entry.name.endswith((".safetensors", *ENDINGS)) for entry in folder.iterdir()):
        raise ModelError(f"{reference}: the folder has no weights: expected model.safetensors")
    check_files(folder, reference=reference)


def _copy_tensors(module: nn.Module, tensors: dict[str, Any], prefix: str, metadata: Any) -> None:
    # timm hands the tensors to safetensors, which refuses shared memory and strides
    for name, value in tensors.items():
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
