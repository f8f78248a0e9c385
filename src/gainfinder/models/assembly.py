"""Shared by all sources: class names, settings of the reference, and the checks that a module is a classifier."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import BadReference, ModelError
from ..files import file_problem, read_user_text, user_path
from ..libraries import first_line
from ..references import Query
from .classifier import Classifier, InputForm, ReheadFunction, SaveFunction, probe
from .modules import check_has_values, copy_module, has_lazy
from .outputs import OutputKind, OutputProbe
from .preprocessing import Preprocessing
from .weights import check_finite

_log = logging.getLogger("gainfinder")
_DIGITS = re.compile(r"[0-9]{1,9}")


def assemble(
    module: nn.Module,
    *,
    reference: str,
    preprocessing: InputForm,
    class_names: Sequence[str] | None,
    query: Query,
    save: SaveFunction,
    rehead: ReheadFunction | None = None,
    given_names: Sequence[str] | None = None,
    channels_last: bool = False,
    remedy: str = "?output={}",
) -> Classifier:
    """Make a classifier of a loaded module: in evaluation mode, in float32, its logits counted by one forward pass.

    Whether its outputs are logits is found out by that pass, too, and by a few more where it leaves that open; a
    setting `output` in `query` decides it. Classifiers of texts, words and cells give logits.

    Args:
        module: the loaded module; changed in place.
        reference: the model reference, for messages and for `Classifier.reference`.
        preprocessing: the model's own preprocessing, before the settings in `query`.
        class_names: the model's own class names; dropped if their number is not that of the logits.
        query: settings of the reference.
        save: the source's save function, for `Classifier.save`.
        rehead: the source's function for other classes, for `Classifier.rehead`.
        given_names: class names from the caller, which must fit the logits, as `classes=` in `query` must.
        channels_last: whether the source's modules are known to run with any memory format; if not, it is tried.
        remedy: how a user says what the outputs are, for notes, with `{}` in the kind's place.

    Raises:
        BadReference: a setting cannot be used, or the class names that were given do not fit the logits.
        ModelError: a weight is not there or not finite, or the module does not return logits.
    """
    module = _ready(module, reference=reference)
    preprocessing = preprocessing.with_overrides(query, reference=reference)
    row = probe(module, preprocessing, reference=reference)
    num_classes = int(row.shape[-1])
    check_has_values(module, reference=reference)  # after the probe, which gives lazy layers their weights
    check_finite(module, reference=reference)
    output: OutputKind = "logits"
    training_output: OutputKind = "logits"
    runs_channels_last = False
    if isinstance(preprocessing, Preprocessing):
        if preprocessing.grid is None:
            size = preprocessing.input_size
            outputs = OutputProbe(module=module, row=row, shape=size, reference=reference, remedy=remedy)
            output, training_output = outputs.kinds(dict(query).get("output"))
            outputs.note_unsteady()
        runs_channels_last = _convolves(module) and (channels_last or _runs_channels_last(module, preprocessing))
    given = given_names if given_names is not None else read_classes(query, reference=reference)
    if given is not None and len(given) != num_classes:
        raise BadReference(
            f"{len(given)} class names were given, but {reference!r} has {num_classes} logits; expected a name for "
            "each, in their order, in a file one a line and nothing else"
        )
    names = _fitting(class_names, num_classes, reference) if given is None else given
    return Classifier(
        reference=reference,
        module=module,
        preprocessing=preprocessing,
        num_classes=num_classes,
        class_names=None if names is None else tuple(names),
        save=save,
        rehead=rehead,
        channels_last=runs_channels_last,
        output=output,
        training_output=training_output,
    )


def _fitting(names: Sequence[str] | None, num_classes: int, reference: str) -> Sequence[str] | None:
    """A model's own names of its classes, where they are as many as its outputs."""
    if names is None or len(names) == num_classes:
        return names
    _log.warning(
        "%s: its configuration names %d classes, it has %d outputs, so the names are not used; ?classes= in its "
        "reference names its outputs",
        reference,
        len(names),
        num_classes,
    )
    return None


def initialise(module: nn.Module, preprocessing: Preprocessing, query: Query, *, reference: str) -> None:
    """Give lazy layers the shapes that a blank image gives them, so that weights can be loaded.

    Raises:
        BadReference: a setting cannot be used.
        ModelError: the module fails.
    """
    if has_lazy(module):
        probe(module, preprocessing.with_overrides(query, reference=reference), reference=reference)


def _ready(module: nn.Module, *, reference: str) -> nn.Module:
    if not has_lazy(module):
        check_has_values(module, reference=reference)
    try:
        return module.float().eval()
    except Exception as error:
        raise ModelError(
            f"{reference}: a {type(module).__name__} cannot be put into float32 and evaluation mode "
            f"({first_line(error)}): give the module that it was made from"
        ) from error


def _convolves(module: nn.Module) -> bool:
    """Whether it is built of convolutions, not only fed by one, as a transformer is."""
    return sum(isinstance(layer, nn.Conv2d) for layer in module.modules()) >= 2


def _runs_channels_last(module: nn.Module, preprocessing: Preprocessing) -> bool:
    """Whether a copy runs in the channels-last memory format: one that calls `view` on features may not."""
    device = next(module.parameters()).device
    blank = torch.zeros(2, *preprocessing.input_size, device=device)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            trial: Any = copy_module(module, reference="a copy")
            trial.to(memory_format=torch.channels_last)
            trial(blank)
    except Exception:
        return False
    return True


def read_classes(query: Query, *, reference: str) -> tuple[str, ...] | None:
    """Class names of a `classes=` setting: separated by commas, or `@FILE` with one name a line.

    Raises:
        BadReference: the file cannot be read, or a name is empty or given twice.
    """
    text = dict(query).get("classes")
    if text is None:
        return None
    if text.startswith("@"):
        path = user_path(text[1:], what=f"{reference}: classes file")
        if (problem := file_problem(path)) is not None:
            raise BadReference(f"classes file {text[1:]!r} in {reference!r} {problem}")
        try:
            names = [line.strip() for line in read_user_text(path).rstrip().splitlines()]
        except (OSError, ValueError) as error:
            raise BadReference(f"classes file {text[1:]!r} in {reference!r} cannot be read: {error}") from error
    else:
        names = [name.strip() for name in text.split(",")]
    return check_names(names, reference=reference)


def check_names(names: Sequence[str], *, reference: str) -> tuple[str, ...]:
    """Refuse class names that are empty or given twice: models and data match by name.

    Raises:
        BadReference: a class name is empty or given twice; the message names it.
    """
    if not names or any(not name for name in names):
        raise BadReference(f"a class name is empty in classes= of {reference!r}: expected one name a class")
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise BadReference(f"class name {twice!r} is given twice in classes= of {reference!r}: names must differ")
    return tuple(names)


def config_of(module: nn.Module) -> Mapping[str, Any] | None:
    """A module's `pretrained_cfg` (or `default_cfg`) in timm's form, or None."""
    for attribute in ("pretrained_cfg", "default_cfg"):
        config: Any = getattr(module, attribute, None)
        if hasattr(config, "to_dict"):
            config = config.to_dict()
        if isinstance(config, Mapping) and config:
            return config
    return None


def preprocessing_of(module: nn.Module, query: Query, *, reference: str, advice: str) -> Preprocessing:
    """A module's preprocessing from its configuration; where that gives no size, `query` has to.

    Args:
        module: a module whose library does not store its preprocessing elsewhere.
        query: settings of the reference; `size` replaces a missing configuration (applied by `assemble`).
        reference: the model reference, for messages.
        advice: end of the message if neither gives a size.

    Raises:
        ModelError: neither gives an input size, or the configuration cannot be read.
    """
    config = config_of(module)
    if config is not None and config.get("input_size"):
        try:
            return Preprocessing.from_timm_config(config)
        except ModelError as error:
            raise ModelError(f"{reference}: {error}") from error
    if dict(query).get("size") is None:
        raise ModelError(f"{reference}: the model does not say its input size: {advice}")
    return Preprocessing.from_timm_config({**(config or {}), "input_size": (input_channels(module), 224, 224)})


def note_normalisation(
    preprocessing: Preprocessing,
    config: Mapping[str, Any] | None,
    query: Query,
    *,
    reference: str,
    what: str = "model",
    remedy: str = "?{}",
) -> None:
    """Say that ImageNet's mean and standard deviation are assumed, where nobody gave any.

    Args:
        preprocessing: the model's preprocessing, before the settings in `query`.
        config: what the model says of its preprocessing.
        query: settings of the reference.
        reference: the model reference.
        what: what does not say it.
        remedy: how a user says it, with `{}` in the settings' place.
    """
    given = {*(key for key, value in (config or {}).items() if value is not None), *dict(query)}
    unknown = [key for key in ("mean", "std") if key not in given]
    if unknown:
        values = " and ".join(f"{key} {','.join(f'{v:g}' for v in getattr(preprocessing, key))}" for key in unknown)
        separator = "&" if remedy.startswith("?") else ", "
        _log.warning(
            "%s: the %s does not say how its input is normalised; ImageNet's %s are used: give %s if it was "
            "trained otherwise (mean 0 and std 1 for inputs from 0 to 1, mean 0 and std 0.00392157 for 0 to 255)",
            reference,
            what,
            values,
            remedy.format(separator.join(f"{key}=…" for key in unknown)),
        )


def input_channels(module: nn.Module) -> int:
    """1 if the first convolution takes one channel, else 3."""
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


def names_of_config(config: Mapping[str, Any] | None, *, reference: str) -> tuple[str, ...] | None:
    """Class names of a configuration's `label_names`: a list, or a dict from class index to name.

    Raises:
        ModelError: `label_names` is neither.
    """
    names = None if config is None else config.get("label_names")
    if not names:
        return None
    if isinstance(names, Mapping):
        by_index = {int(str(index)): str(name) for index, name in names.items() if _DIGITS.fullmatch(str(index))}
        complete = sorted(by_index) == list(range(len(names)))
        if not complete:
            _log.warning(
                "%s: the indices in label_names are not 0 to %d, so the names are not used; ?classes= in its reference "
                "names its outputs",
                reference,
                len(names) - 1,
            )
        return tuple(by_index[index] for index in sorted(by_index)) if complete else None
    if isinstance(names, Sequence) and not isinstance(names, str):
        return tuple(str(name) for name in names)
    raise ModelError(f"{reference}: label_names is a {type(names).__name__}: expected a list of names")


def names_in_module_order(classifier: Classifier, loaded: Sequence[str] | None) -> tuple[str, ...] | None:
    """Class names in the order of the module's own outputs, for a classifier whose logits may be reordered.

    Args:
        classifier: the classifier to save.
        loaded: the names it was loaded with; returned where the logits are not a permutation of the outputs.
    """
    if classifier.label_map is None:
        return classifier.class_names if classifier.class_names is not None else _tuple(loaded)
    order, names = classifier.label_map.order, classifier.class_names
    if names is None or order is None or (loaded is not None and len(loaded) != len(order)):
        return _tuple(loaded)
    return tuple(name for _, name in sorted(zip(order, names, strict=True)))


def with_query_over(query: Query, changes: Query) -> Query:
    """Settings replaced by others of the same keys; new ones come last."""
    changed = dict(changes)
    kept = tuple((key, changed.pop(key, value)) for key, value in query)
    return kept + tuple(changed.items())


def without(query: Query, *keys: str) -> Query:
    """Settings without those of these keys."""
    return tuple(pair for pair in query if pair[0] not in keys)


def with_names_beside(query: Query, names: Sequence[str], folder: Path) -> Query:
    """Settings with the class names, which go into a file beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "classes.txt"
    path.write_text("\n".join(names) + "\n", encoding="utf-8")
    return with_query_over(query, (("classes", f"@{path}"),))


def names_in_file(query: Query) -> bool:
    """Whether the settings name a file of class names."""
    return dict(query).get("classes", "").startswith("@")


def query_of(preprocessing: Preprocessing) -> Query:
    """The settings that give exactly this preprocessing, for a model without a configuration."""
    height, width = preprocessing.view_size
    return (
        ("size", f"{height}x{width}"),
        ("mean", ",".join(map(repr, preprocessing.mean))),
        ("std", ",".join(map(repr, preprocessing.std))),
        ("interpolation", preprocessing.interpolation),
        ("crop_pct", repr(preprocessing.crop_pct)),
        ("crop_mode", preprocessing.crop_mode),
        *rounding_of(preprocessing),
        *(() if preprocessing.grid is None else (("grid", str(preprocessing.grid)),)),
    )


def rounding_of(preprocessing: Preprocessing) -> Query:
    """The setting of how the crop's corner is rounded, which no library's own configuration has; none for timm's."""
    return () if preprocessing.crop_rounding == "even" else (("crop_rounding", preprocessing.crop_rounding),)


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
