"""Image classifiers of transformers: from the Hugging Face hub or from a folder that `save_pretrained` wrote."""

import copy
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..errors import GainfinderError, MissingExtra, ModelError
from ..files import near_siblings, user_path
from ..libraries import first_line, hub_or_cache, hub_reason, quiet, tensors_only
from ..references import TRUST, TRUSTED, Query
from .assembly import (
    assemble,
    names_in_module_order,
    note_normalisation,
    query_of,
    with_names_beside,
    with_query_over,
    without,
)
from .classifier import Classifier, ReheadFunction
from .configs import check_files, read_config
from .from_torchvision import crop_share
from .heads import REPLACED, class_layers, is_built_by, resize_layers
from .imagenet import as_wnids
from .modules import copy_module
from .preprocessing import CROP_ROUNDINGS, Preprocessing
from .reference import ModelRef

_log = logging.getLogger("gainfinder")

_LOGGERS = ("huggingface_hub", "huggingface_hub.utils._http", "httpx")
_EDGES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# mean difference between our transform and the processor's, in inputs scaled to [0, 1]; they differ by rounding, as
# processors resize tensors and timm resizes images
_AGREEMENT = 0.02
_ADVICE = "add ?size=EDGE&mean=R,G,B&std=R,G,B&interpolation=NAME&crop_pct=SHARE to the reference"


def load(ref: ModelRef) -> Classifier:
    """Load a model and the preprocessing that its image processor describes.

    Raises:
        MissingExtra: transformers is not installed.
        ModelError: the model is missing or has no trained classifier, or its image processor does what timm's
            evaluation transform cannot do.
    """
    reference = str(ref)
    folder = user_path(ref.name, what="model folder", error=ModelError)
    if not folder.is_dir() and (folder.is_absolute() or ref.name.startswith(".") or ref.name.count("/") > 1):
        raise ModelError(f"{reference}: the folder {ref.name!r} does not exist{near_siblings(folder)}")
    if folder.is_dir():
        _check_folder(folder, reference)
    name, _, revision = (str(folder), "", "") if folder.is_dir() else ref.name.partition("@")
    trusted, query = ref.setting(TRUST) == TRUSTED, without(ref.query, TRUST)
    with _quiet_transformers(reference), tensors_only(), hub_or_cache(needed=not folder.is_dir()) as reachable:
        module = _load_module(ref, name, revision or None, reachable=reachable)
        processor = load_processor(name, revision or None, trusted=trusted)
        preprocessing = _preprocessing(processor, module, query, reference)
    names = names_of(module)
    if getattr(module.config, "problem_type", None) == "multi_label_classification" and not dict(query).get("output"):
        _log.warning(
            "%s: it was trained to give an image several classes (problem_type in its config.json); its outputs are "
            "taken as logits of one class an image: ?output=logits says that this is meant",
            reference,
        )
    return assemble(
        module,
        reference=reference,
        preprocessing=preprocessing,
        class_names=names,
        query=query,
        save=partial(save, processor=processor, query=ref.query, loaded_names=names),
        rehead=rehead_function(processor=processor, query=ref.query),
    )


def save(
    classifier: Classifier,
    folder: Path,
    *,
    processor: Any,
    query: Query,
    loaded_names: tuple[str, ...] | None,
) -> str:
    """Write the model and its image processor as transformers does.

    Returns:
        `hf:FOLDER` with the settings the model was loaded with; all of its preprocessing where it has no processor.
    """
    module: Any = classifier.module
    names = names_in_module_order(classifier, loaded_names)
    with _quiet_transformers(classifier.reference):
        if names is not None and names != names_of(module):
            query = with_names_beside(query, names, folder)
        module.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
        else:
            query = with_query_over(query, query_of(classifier.preprocessing))
    return str(ModelRef(source="hf", name=str(folder), query=query))


def rehead_function(*, processor: Any, query: Query) -> ReheadFunction:
    """The function for `Classifier.rehead`: a copy for other classes, with a configuration that names them.

    Args:
        processor: the model's image processor, or None.
        query: settings the model was loaded with.
    """

    def rehead(classifier: Classifier, names: tuple[str, ...]) -> Classifier:
        """A copy of a classifier of this processor and query for classes of these names, its new layers blank."""
        module: Any = copy_module(classifier.module, reference=classifier.reference)

        def build(num_classes: int) -> nn.Module:
            config = copy.deepcopy(module.config)
            config.num_labels = num_classes
            built: nn.Module = type(module)(config)
            return built

        with _quiet_transformers(classifier.reference):
            layers = class_layers(build, reference=classifier.reference)
        resize_layers(module, layers, len(names), reference=classifier.reference)
        module.num_labels = len(names)
        module.config.id2label = dict(enumerate(names))
        module.config.label2id = {name: index for index, name in enumerate(names)}
        own = partial(save, processor=processor, query=without(query, "classes"), loaded_names=names)
        return replace(classifier, module=module, num_classes=len(names), class_names=names, label_map=None, save=own)

    return rehead


def load_processor(name: str, revision: str | None = None, *, local_only: bool = False, trusted: bool = False) -> Any:
    """The image processor of a folder or repository, or None where it has none.

    Args:
        name: folder or repository.
        revision: of the repository.
        local_only: whether the network is left alone.
        trusted: whether it may be one of the model's own code, which is run.
    """
    from transformers import AutoImageProcessor  # noqa: PLC0415 (slow, and an extra)

    try:
        return AutoImageProcessor.from_pretrained(
            name, revision=revision, local_files_only=local_only, trust_remote_code=trusted
        )
    except Exception:  # a folder without one raises whatever the processor's own loading comes across
        return None


def processor_beside(module: Any) -> Any:
    """The image processor beside the weights that a module was loaded from, or None; without network access."""
    name = getattr(module, "name_or_path", "")
    if not name:
        return None
    with _quiet_transformers(type(module).__name__):
        return load_processor(name, local_only=True)


def is_as_built(module: Any) -> bool:
    """Whether a module of transformers still has the layers of its architecture, so that its folder loads again."""
    config = copy.deepcopy(module.config)
    return is_built_by(module, lambda: type(module)(config))


def names_of(module: Any) -> tuple[str, ...] | None:
    """Class names of a model's configuration; WordNet ids for ImageNet's; None for `LABEL_0`, `LABEL_1`, …"""
    by_index: Mapping[int, str] = getattr(module.config, "id2label", None) or {}
    if sorted(by_index) != list(range(len(by_index))) or not by_index:
        return None
    names = [str(by_index[index]) for index in range(len(by_index))]
    if all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        return None
    return as_wnids(names)


def preprocessing_of_processor(processor: Any, *, channels: int, reference: str) -> Preprocessing:
    """An image processor's preprocessing in timm's terms, compared with its output for an image.

    Single values differ by rounding, positions do not.

    Raises:
        ModelError: it does something that timm's evaluation transform does not.
    """
    timm_config = getattr(processor, "data_config", None)
    if isinstance(timm_config, Mapping):
        return Preprocessing.from_timm_config(timm_config)
    try:
        translated = _translate(processor, channels)
        # both are tried, timm's first, which stays where they are the same: versions of transformers differ
        candidates = [replace(translated, crop_rounding=rounding) for rounding in CROP_ROUNDINGS]
        differences = [_difference(processor, candidate) for candidate in candidates]
        difference = min(differences)
        preprocessing = candidates[differences.index(difference)]
    except Exception as error:
        reason = str(error) if isinstance(error, GainfinderError) else first_line(error)
        raise ModelError(
            f"{reference}: the image processor {type(processor).__name__} cannot be expressed: {reason}; {_ADVICE}"
        ) from error
    if not difference < _AGREEMENT:
        raise ModelError(
            f"{reference}: the image processor {type(processor).__name__} does something of its own (its output "
            f"differs by {difference:.3f} of the value range from the same size, crop and normalisation); {_ADVICE}"
        )
    return preprocessing


def _check_folder(folder: Path, reference: str) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{reference}: the folder has no config.json: expected a folder that save_pretrained wrote")
    read_config(path, reference=reference)
    check_files(folder, reference=reference)
    processor = folder / "preprocessor_config.json"
    if processor.exists():  # transformers takes one that it cannot read for none
        read_config(processor, reference=reference)


def _preprocessing(processor: Any, module: Any, query: Query, reference: str) -> Preprocessing:
    channels = getattr(module.config, "num_channels", 3)
    try:
        if processor is None:
            raise ModelError(f"{reference}: there is no image processor (preprocessor_config.json): {_ADVICE}")
        return preprocessing_of_processor(processor, channels=channels, reference=reference)
    except ModelError:
        if dict(query).get("size") is None:
            raise
        assumed = Preprocessing.from_timm_config({"input_size": (channels, 224, 224)})
        note_normalisation(assumed, None, query, reference=reference)
        return assumed


def _translate(processor: Any, channels: int) -> Preprocessing:
    factor = float(getattr(processor, "rescale_factor", None) or 1 / 255)
    if getattr(processor, "do_rescale", True) is False or abs(factor * 255 - 1) > 1e-4:
        raise ModelError(f"it does not scale pixels by 1/255 (do_rescale, rescale_factor {factor:g})")
    normalize = getattr(processor, "do_normalize", True) is not False
    size, share, mode = _geometry(processor)
    return Preprocessing.from_timm_config(
        {
            "input_size": (channels, *size),
            "mean": processor.image_mean if normalize else [0.0] * channels,
            "std": processor.image_std if normalize else [1.0] * channels,
            "interpolation": _FILTERS[int(getattr(processor, "resample", None) or 0)],
            "crop_pct": share,
            "crop_mode": mode,
        }
    )


def _geometry(processor: Any) -> tuple[tuple[int, int], float, str]:
    """Input height and width, crop share and crop mode."""
    size = _sizes(getattr(processor, "size", None))
    crop = _sizes(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", None) else {}
    if getattr(processor, "do_resize", True) is False:
        raise ModelError("it does not resize (do_resize is false)")
    if "height" in size and "width" in size:
        edges = (size["height"], size["width"])
        if not crop:
            return edges, 1.0, "squash"
        return (crop["height"], crop["width"]), _shared_share((crop["height"], crop["width"]), edges), "squash"
    edge = size["shortest_edge"]
    own_share = getattr(processor, "crop_pct", None)
    if own_share:  # ConvNeXt's: a crop below 384 pixels, both edges resized from there on
        return (edge, edge), *((crop_share(edge, int(edge / own_share)), "center") if edge < 384 else (1.0, "squash"))
    if not crop:
        raise ModelError("it resizes the shortest edge and does not crop, so images keep different sizes")
    return (crop["height"], crop["width"]), _shared_share((crop["height"], crop["width"]), (edge, edge)), "center"


def _shared_share(crop: tuple[int, int], resized: tuple[int, int]) -> float:
    shares = {crop_share(small, large) for small, large in zip(crop, resized, strict=True)}
    if len(shares) > 1:
        raise ModelError(f"it crops {resized} to {crop}: the shares of height and width differ")
    return shares.pop()


def _sizes(size: Any) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size}
    items = dict(size or {}) if isinstance(size, Mapping) else {k: getattr(size, k, None) for k in _EDGES}
    return {key: int(value) for key, value in items.items() if value is not None}


def _difference(processor: Any, preprocessing: Preprocessing) -> float:
    """Mean absolute difference on a smooth image, in inputs scaled to [0, 1]."""
    channels, height, width = preprocessing.input_size
    # twice the edges after resizing, of which the longer has a margin of 3 pixels more than a multiple of 4: half of it
    # is rounded to even and down to different pixels
    resized = math.floor(height / preprocessing.crop_pct), math.floor(width / preprocessing.crop_pct) + height // 3
    longer = resized[1] + (width + 3 - resized[1]) % 4
    rows, columns = np.mgrid[0 : 2 * resized[0], 0 : 2 * longer] / 17.0
    pattern = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    image = Image.fromarray(((pattern + 1) * 127.5).astype(np.uint8), "RGB")
    theirs = processor(image if channels == 3 else image.convert("L"), return_tensors="pt")["pixel_values"][0]
    ours = preprocessing.evaluation_transform()(image)
    if theirs.shape != ours.shape:
        raise ModelError(f"it gives inputs of shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}")
    std = torch.tensor(preprocessing.std).view(-1, 1, 1)
    return float(((theirs - ours) * std).abs().mean())


def _load_module(ref: ModelRef, name: str, revision: str | None, *, reachable: bool) -> nn.Module:
    reference, trusted = str(ref), ref.setting(TRUST) == TRUSTED
    from transformers import AutoModelForImageClassification  # noqa: PLC0415 (slow, and an extra)

    if trusted:
        _check_code(ref, name, revision)
    try:
        module: nn.Module
        module, info = AutoModelForImageClassification.from_pretrained(
            name, revision=revision, output_loading_info=True, trust_remote_code=trusted
        )
    except Exception as error:
        if not trusted and "trust_remote_code" in str(error):
            raise ModelError(
                f"{reference}: it asks to run Python code of its own (auto_map in its config.json), which is refused: "
                f"read that code, and where you trust it, give `trust_remote_code={ref.name}`"
                f" (hf:{ref.name}?{TRUST}={TRUSTED} in Python)"
            ) from error
        reason = hub_reason(error, reachable=reachable)
        raise ModelError(f"{reference}: transformers cannot load this model: {reason}") from error
    missing = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
    if missing:
        raise ModelError(
            f"{reference}: the weights lack {len(missing)} tensor(s) of the classifier "
            f"({', '.join(missing[:3])}): is it a backbone that was never trained to classify? Else, {REPLACED}"
        )
    return module


def _check_code(ref: ModelRef, name: str, revision: str | None) -> None:
    """Refuse a model whose code is another repository's: neither its name nor its revision was given."""
    from transformers import ImageProcessingMixin, PretrainedConfig  # noqa: PLC0415 (slow, and an extra)

    for read in (PretrainedConfig.get_config_dict, ImageProcessingMixin.get_image_processor_dict):
        try:
            about, _ = read(name, revision=revision)
        except Exception:  # told where it is loaded; there may be no image processor
            continue
        found = about.get("auto_map")
        values = [*found.values()] if isinstance(found, Mapping) else [found]
        parts = [part for one in values for part in (one if isinstance(one, list | tuple) else [one])]
        owners = [part.partition("--")[0] for part in parts if isinstance(part, str) and "--" in part]
        other = next((owner for owner in owners if owner != name), None)
        if other is not None:
            raise ModelError(
                f"{ref}: its code is that of another repository, {other!r}, for which leave was not given: put that "
                "code into a folder with the model's files, name it in auto_map there, and give hf:FOLDER"
            )


@contextmanager
def _quiet_transformers(purpose: str) -> Iterator[None]:
    """Mute transformers' bars, reports and warnings within the block."""
    try:
        from transformers.utils import logging  # noqa: PLC0415 (slow, and an extra)
    except ImportError as error:
        raise MissingExtra("transformers", "hf", purpose) from error

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with quiet(*_LOGGERS):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
