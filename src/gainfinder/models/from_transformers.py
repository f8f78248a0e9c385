"""Classifiers of transformers, of images, cells, texts or words: from the hub or a folder of `save_pretrained`."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ModelError
from ..files import near_siblings, user_path
from ..libraries import hub_or_cache, hub_reason, quiet_transformers, tensors_only
from ..references import AUTO_MODELS, TRUST, TRUSTED, Query
from .assembly import assemble, names_in_module_order, query_of, with_names_beside, with_query_over, without
from .classifier import Classifier, InputForm, ReheadFunction
from .configs import check_files, read_config
from .heads import REPLACED, class_layers, is_built_by, resize_layers
from .image_processors import image_preprocessing
from .imagenet import as_wnids
from .modules import copy_module
from .preprocessing import Preprocessing
from .processors import load_processor
from .reference import ModelRef
from .tokenizers import tokenization_of

CLASSIFIED = {
    "ForSequenceClassification": "text",
    "ForTokenClassification": "word",
    "ForCausalLM": "token",
    "LMHeadModel": "token",
    "ForSemanticSegmentation": "cell",
}
"""What architectures give a class, by the end of their names; others an image."""
OF_TEXTS = ("text", "word", "token")
_log = logging.getLogger("gainfinder")


def load(ref: ModelRef) -> Classifier:
    """Load a model, and the preprocessing that its image processor describes, or its tokenizer.

    Raises:
        MissingExtra: transformers is not installed.
        ModelError: the model is missing or has no trained classifier, or its image processor does what timm's
            evaluation transform cannot do, or its tokenizer is missing or does not fit it.
    """
    reference = str(ref)
    folder = user_path(ref.name, what="model folder", error=ModelError)
    if not folder.is_dir() and (folder.is_absolute() or ref.name.startswith(".") or ref.name.count("/") > 1):
        raise ModelError(f"{reference}: the folder {ref.name!r} does not exist{near_siblings(folder)}")
    if folder.is_dir():
        _check_folder(folder, reference)
    name, _, revision = (str(folder), "", "") if folder.is_dir() else ref.name.partition("@")
    trusted, query = ref.setting(TRUST) == TRUSTED, without(ref.query, TRUST)
    preprocessing: InputForm
    with quiet_transformers(reference), tensors_only(), hub_or_cache(needed=not folder.is_dir()) as reachable:
        classifies = _classified(name, revision or None)
        module = _load_module(ref, name, revision or None, reachable=reachable, classifies=classifies)
        processor = load_processor(name, revision or None, of_texts=classifies in OF_TEXTS, trusted=trusted)
        if classifies in OF_TEXTS:
            preprocessing = tokenization_of(processor, module, classifies=classifies, reference=reference)
        else:
            in_cells = classifies == "cell"
            preprocessing = image_preprocessing(processor, module, query, reference, in_cells=in_cells)
    names = None if classifies == "token" else names_of(module)
    if getattr(module.config, "problem_type", None) == "multi_label_classification" and not dict(query).get("output"):
        _log.warning(
            "%s: it was trained to give %s several classes (problem_type in its config.json); its outputs are taken as "
            "logits of one class each%s",
            reference,
            "an image" if classifies == "image" else f"a {classifies}",
            "" if classifies != "image" else ": ?output=logits says that this is meant",
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
    """Write the model, and its image processor or tokenizer, as transformers does.

    Returns:
        `hf:FOLDER` with the settings the model was loaded with; all of its preprocessing where it has no processor.
    """
    module: Any = classifier.module
    names = names_in_module_order(classifier, loaded_names)
    with quiet_transformers(classifier.reference):
        if names is not None and names != names_of(module):
            query = with_names_beside(query, names, folder)
        module.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
        elif isinstance(classifier.preprocessing, Preprocessing):
            query = with_query_over(query, query_of(classifier.preprocessing))
    return str(ModelRef(source="hf", name=str(folder), query=query))


def rehead_function(*, processor: Any, query: Query) -> ReheadFunction:
    """The function for `Classifier.rehead`: a copy for other classes, with a configuration that names them.

    Args:
        processor: the model's image processor or tokenizer, or None.
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

        with quiet_transformers(classifier.reference):
            layers = class_layers(build, reference=classifier.reference)
        resize_layers(module, layers, len(names), reference=classifier.reference)
        module.num_labels = len(names)
        module.config.id2label = dict(enumerate(names))
        module.config.label2id = {name: index for index, name in enumerate(names)}
        own = partial(save, processor=processor, query=without(query, "classes"), loaded_names=names)
        return replace(classifier, module=module, num_classes=len(names), class_names=names, label_map=None, save=own)

    return rehead


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


def _classified(name: str, revision: str | None) -> str:
    """What a model gives a class, by the architecture that its configuration names."""
    from transformers import PretrainedConfig  # noqa: PLC0415 (slow, and an extra)

    try:
        about, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    except Exception:  # told where the model is loaded
        return "image"
    found = about.get("architectures")
    named = [classified_by(str(one)) for one in found] if isinstance(found, list) else []
    return next((one for one in named if one != "image"), "image")


def classified_by(architecture: str) -> str:
    """What an architecture of transformers gives a class, by its name.

    Example:
        >>> classified_by("BertForTokenClassification"), classified_by("ViTForImageClassification")
        ('word', 'image')
    """
    return next((what for end, what in CLASSIFIED.items() if architecture.endswith(end)), "image")


def _check_folder(folder: Path, reference: str) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{reference}: the folder has no config.json: expected a folder that save_pretrained wrote")
    read_config(path, reference=reference)
    check_files(folder, reference=reference)
    processor = folder / "preprocessor_config.json"
    if processor.exists():  # transformers takes one that it cannot read for none
        read_config(processor, reference=reference)


def _load_module(ref: ModelRef, name: str, revision: str | None, *, reachable: bool, classifies: str) -> nn.Module:
    reference, trusted = str(ref), ref.setting(TRUST) == TRUSTED
    import transformers  # noqa: PLC0415 (slow, and an extra)

    if trusted:
        _check_code(ref, name, revision)
    try:
        module: nn.Module
        kind: Any = getattr(transformers, AUTO_MODELS[classifies])
        module, info = kind.from_pretrained(
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
