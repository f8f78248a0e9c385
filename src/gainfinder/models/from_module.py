"""Classifiers from modules that the caller built or loaded: for notebooks."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..references import Query
from .assembly import assemble, check_names, config_of, names_of_config, note_normalisation, preprocessing_of
from .classifier import Classifier, InputForm, ReheadFunction, SaveFunction
from .features import find_classifier_layer
from .heads import REPLACED, resize_layers
from .modules import copy_module, without_wrappers
from .preprocessing import WHOLE_IMAGE, Preprocessing
from .weights import save_weights

_KEYWORDS = "load_model(module, {})"

_log = logging.getLogger("gainfinder")

Size = int | tuple[int, int]
Values = float | Sequence[float]


def classifier_from_module(
    module: nn.Module,
    *,
    name: str | None = None,
    size: Size | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    crop_rounding: str | None = None,
    class_names: Sequence[str] | None = None,
    output: str | None = None,
    grid: int | None = None,
) -> Classifier:
    """Make a classifier of any module that returns logits (N, classes), or an object with `.logits`.

    Args:
        module: the module; put into evaluation mode and float32, in place. One in a wrapper (DataParallel,
            torch.compile, an average) is taken out of it, and so are its inner layers out of torch.compile, in place.
            Preprocessing is read from its `pretrained_cfg` or `default_cfg`; a transformers model's from the image
            processor beside its weights, if there is one, or of texts from the tokenizer there.
        name: the classifier's reference; the module's class name by default.
        size: edge in pixels, or height and width; needed where the module does not define it.
        mean: mean per channel, of inputs in [0, 1]; by default the module's, else ImageNet's.
        std: standard deviation per channel, likewise.
        interpolation: name of the resampling filter, one of `preprocessing.INTERPOLATIONS`.
        crop_pct: share of the resized image's edge that the crop keeps.
        crop_mode: `center`, `squash` or `border`.
        crop_rounding: `even` or `down`, of a crop's corner between two pixels; see `Preprocessing`.
        class_names: class names in the order of the logits.
        output: what the module returns, `logits`, `probs` (of a softmax) or `sigmoid`; found out by default.
        grid: of a model of segmentation of transformers cells a side, each of which gets a class.

    Raises:
        BadReference: a value cannot be used, or the class names do not fit the logits.
        ModelError: the size is unknown, or the module does not return logits.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
        >>> classifier = classifier_from_module(net, size=8, class_names=["cat", "dog"])
        >>> classifier.reference, classifier.num_classes, classifier.preprocessing.input_size
        ('Sequential', 2, (3, 8, 8))
    """
    reference = type(module).__name__ if name is None else name
    module = without_wrappers(module, reference=reference)
    reference = type(module).__name__ if name is None else name
    query = overrides_query(
        size=size,
        mean=mean,
        std=std,
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        crop_rounding=crop_rounding,
        output=output,
        grid=grid,
    )
    preprocessing, names, save, rehead = _read(module, query, reference)
    return assemble(
        module,
        reference=reference,
        preprocessing=preprocessing,
        class_names=names,
        given_names=None if class_names is None else check_names(list(class_names), reference=reference),
        query=query,
        save=save,
        rehead=rehead,
        remedy=_KEYWORDS.format("output='{}'"),
    )


def overrides_query(
    *,
    size: Size | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    crop_rounding: str | None = None,
    output: str | None = None,
    grid: int | None = None,
) -> Query:
    """Keyword overrides as the settings of a reference; those that are None are left out.

    Example:
        >>> overrides_query(size=(32, 64), mean=[0.5, 0.5, 0.5])
        (('size', '32x64'), ('mean', '0.5,0.5,0.5'))
    """
    values = {
        "size": None if size is None else str(size) if isinstance(size, int) else "x".join(map(str, size)),
        "mean": _joined(mean),
        "std": _joined(std),
        "interpolation": interpolation,
        "crop_pct": None if crop_pct is None else repr(float(crop_pct)),
        "crop_mode": crop_mode,
        "crop_rounding": crop_rounding,
        "output": output,
        "grid": None if grid is None else str(grid),
    }
    return tuple((key, value) for key, value in values.items() if value is not None)


_Read = tuple[InputForm, tuple[str, ...] | None, SaveFunction, ReheadFunction]


def rehead_found(classifier: Classifier, names: tuple[str, ...]) -> Classifier:
    """A copy for other classes, for `Classifier.rehead`: of any module, whose classifier layer is found by a run."""
    module = copy_module(classifier.module, reference=classifier.reference)
    layer = find_classifier_layer(classifier)
    resize_layers(module, [layer], len(names), reference=classifier.reference)
    return replace(classifier, module=module, num_classes=len(names), class_names=names, label_map=None)


def _read(module: nn.Module, query: Query, reference: str) -> _Read:
    """Preprocessing, class names and functions of whichever library the module is of."""
    if _is_of_transformers(module):
        return _read_transformers(module, query, reference)
    advice = (
        "use load_model(module, size=EDGE), with mean= and std= unless ImageNet's, or give the module a "
        "pretrained_cfg in timm's form"
    )
    preprocessing = preprocessing_of(module, query, reference=reference, advice=advice)
    note_normalisation(preprocessing, config_of(module), query, reference=reference, what="module", remedy=_KEYWORDS)
    if config_of(module) is None:
        return preprocessing, None, _save_weights, rehead_found

    from . import from_timm  # noqa: PLC0415 (sources are imported when they are used)

    changed = from_timm.is_timm_model(module) and not from_timm.is_as_built(module)
    if changed:
        _log.warning("%s: no reference will load it again: %s", reference, REPLACED)
    if changed or not from_timm.is_timm_model(module):
        return preprocessing, names_of_config(config_of(module), reference=reference), _save_weights, rehead_found
    names = from_timm.class_names(module, is_registered=False, reference=reference)
    return preprocessing, names, partial(from_timm.save, loaded_names=names), from_timm.rehead


def _read_transformers(module: Any, query: Query, reference: str) -> _Read:
    from . import from_transformers  # noqa: PLC0415 (sources are imported when they are used)
    from .image_processors import preprocessing_of_processor  # noqa: PLC0415
    from .processors import processor_beside  # noqa: PLC0415
    from .tokenizers import tokenization_of  # noqa: PLC0415

    preprocessing: InputForm
    classifies = from_transformers.classified_by(type(module).__name__)
    of_texts = classifies in from_transformers.OF_TEXTS
    processor = processor_beside(module, of_texts=of_texts)
    if of_texts:
        preprocessing = tokenization_of(processor, module, classifies=classifies, reference=reference)
    elif processor is None:
        preprocessing = _of_transformers_config(module, query, reference)
        preprocessing = replace(preprocessing, **WHOLE_IMAGE) if classifies == "cell" else preprocessing
        note_normalisation(preprocessing, None, query, reference=reference, what="module", remedy=_KEYWORDS)
    else:
        preprocessing = preprocessing_of_processor(
            processor, channels=getattr(module.config, "num_channels", 3), reference=reference
        )
    if classifies == "cell":
        assert isinstance(preprocessing, Preprocessing)
        preprocessing = preprocessing.in_cells(query, reference=reference)
    names = None if classifies == "token" else from_transformers.names_of(module)
    if not from_transformers.is_as_built(module):
        _log.warning("%s: no reference will load it again: %s", reference, REPLACED)
        return preprocessing, names, _save_weights, rehead_found
    save = partial(from_transformers.save, processor=processor, query=query, loaded_names=names)
    return preprocessing, names, save, from_transformers.rehead_function(processor=processor, query=query)


def _of_transformers_config(module: Any, query: Query, reference: str) -> Preprocessing:
    """The size from the model's configuration, which holds nothing else of preprocessing."""
    size = getattr(module.config, "image_size", None)
    if size is None:
        advice = "use load_model(module, size=EDGE), with mean= and std= unless ImageNet's"
        return preprocessing_of(module, query, reference=reference, advice=advice)
    edges = (size, size) if isinstance(size, int) else tuple(size)
    channels = getattr(module.config, "num_channels", 3)
    return Preprocessing.from_timm_config({"input_size": (channels, *edges), "crop_pct": 1.0, "crop_mode": "squash"})


def _is_of_transformers(module: nn.Module) -> bool:
    # by the package that defines the class, so that nothing is imported to find out
    bases = {base.__module__.partition(".")[0] + "." + base.__name__ for base in type(module).__mro__}
    return "transformers.PreTrainedModel" in bases


def _save_weights(classifier: Classifier, folder: Path) -> None:
    save_weights(classifier.module, folder / "model.safetensors")


def _joined(values: Values | None) -> str | None:
    if values is None:
        return None
    return ",".join(repr(float(value)) for value in ([values] if isinstance(values, int | float) else values))
