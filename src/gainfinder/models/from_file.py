"""Models from a Python file of the user: `FACTORY()` returns the module, a weights file may be loaded into it."""

import hashlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import BadReference, ModelError
from ..files import file_problem, user_path
from ..libraries import first_line, printed_to_stderr
from ..references import suggest, whole_number
from .assembly import (
    assemble,
    config_of,
    initialise,
    names_in_file,
    names_in_module_order,
    names_of_config,
    note_normalisation,
    preprocessing_of,
    with_names_beside,
    with_query_over,
    without,
)
from .classifier import Classifier
from .configs import MOST
from .features import find_classifier_layer
from .from_module import rehead_found
from .heads import resize_layers
from .modules import without_wrappers
from .reference import ModelRef
from .weights import load_into, load_weights, save_weights

_ADVICE = (
    "give the module a pretrained_cfg in timm's form (input_size, mean, std, …), or add "
    "?size=EDGE&mean=R,G,B&std=R,G,B to the reference"
)


def load(ref: ModelRef) -> Classifier:
    """Import the file, call the factory, load the weights.

    A setting `num_classes` gives the classifier layer, found by a run on a blank image, so many outputs before the
    weights are loaded: those that `fit-head` left are of other classes than the factory's.

    Raises:
        BadReference: a setting cannot be used.
        ModelError: the file or the factory is missing or fails, the result is not a module, the weights do not fit, or
            the input size is unknown.
    """
    reference = str(ref)
    path = user_path(ref.name, what="Python file", error=ModelError)
    module = without_wrappers(_call_factory(path, str(ref.factory), reference), reference=reference)
    query = without(ref.query, "num_classes")
    preprocessing = preprocessing_of(module, query, reference=reference, advice=_ADVICE)
    note_normalisation(preprocessing, config_of(module), query, reference=reference)
    if ref.weights is not None:
        initialise(module, preprocessing, query, reference=reference)
    if (count := ref.setting("num_classes")) is not None:
        _resize(module, count, ref)
    if ref.weights is not None:
        load_into(module, load_weights(ref.weights), reference=reference)
    return assemble(
        module,
        reference=reference,
        preprocessing=preprocessing,
        class_names=names_of_config(config_of(module), reference=reference),
        query=query,
        save=partial(save, ref=ref, named=names_in_file(ref.query)),
        rehead=partial(rehead, ref=ref),
    )


def save(classifier: Classifier, folder: Path, *, ref: ModelRef, named: bool = False) -> str:
    """Write `model.safetensors`, and `classes.txt` where the class names go beside it (`named`).

    Returns:
        `file:PATH.py:FACTORY@FOLDER/model.safetensors` with the settings it was loaded with.
    """
    path = folder / "model.safetensors"
    save_weights(classifier.module, path)
    names = names_in_module_order(classifier, None)
    query = with_names_beside(ref.query, names, folder) if named and names is not None else ref.query
    return str(ModelRef(source="file", name=ref.name, factory=ref.factory, weights=str(path), query=query))


def rehead(classifier: Classifier, names: tuple[str, ...], *, ref: ModelRef) -> Classifier:
    """A copy for other classes, for `Classifier.rehead`; a setting of its reference says how many they are."""
    query = with_query_over(without(ref.query, "classes"), (("num_classes", str(len(names))),))
    own = partial(save, ref=replace(ref, query=query), named=True)
    return replace(rehead_found(classifier, names), save=own)


def _resize(module: nn.Module, count: str, ref: ModelRef) -> None:
    """Give the classifier layer of a factory's module so many outputs, in place."""
    outputs = whole_number(count, what=f"num_classes in {str(ref)!r}", least=1, most=MOST)
    if ref.weights is None:
        raise BadReference(
            f"num_classes in {str(ref)!r} goes with weights for so many classes: expected file:PATH.py:FACTORY@WEIGHTS"
        )
    query = without(ref.query, "num_classes", "classes")
    preprocessing = preprocessing_of(module, query, reference=str(ref), advice=_ADVICE)
    found = assemble(
        module,
        reference=str(ref),
        preprocessing=preprocessing,
        class_names=None,
        query=query,
        save=partial(save, ref=ref),
    )
    resize_layers(module, [find_classifier_layer(found)], outputs, reference=str(ref))


def _call_factory(path: Path, name: str, reference: str) -> nn.Module:
    if (problem := file_problem(path)) is not None:
        raise ModelError(f"{reference}: the file {str(path)!r} {problem}")
    with _importing_beside(path):
        python = _import(path, reference)
        factory = getattr(python, name, None)
        if not callable(factory):
            problem = "is not callable" if hasattr(python, name) else "does not exist"
            known = [key for key, value in vars(python).items() if callable(value) and not key.startswith("_")]
            raise ModelError(f"{reference}: {name!r} {problem} in {str(path)!r}{suggest(name, known)}")
        try:
            with printed_to_stderr():
                module = factory()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() too
            raise ModelError(f"{reference}: {name}() fails{_line(error, path)}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        what = "nothing" if module is None else f"a {type(module).__name__}"
        raise ModelError(f"{reference}: {name}() returned {what}: expected a torch.nn.Module")
    return module


def _import(path: Path, reference: str) -> ModuleType:
    """Run the file as a module of a name that no other file has, afresh at every call."""
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
    module = ModuleType(f"_gainfinder_{digest}_{path.stem}")
    module.__file__ = str(path.resolve())
    previous = sys.modules.get(module.__name__)
    # dataclasses and pickle look a class's module up by name
    sys.modules[module.__name__] = module
    try:
        # compiled here, not by an import: a cached bytecode file may be older than an edit of the same second
        with printed_to_stderr():
            exec(compile(path.read_bytes(), module.__file__, "exec"), module.__dict__)
    except BaseException as error:  # sys.exit() too
        _restore(module.__name__, previous)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ModelError(
            f"{reference}: importing {str(path)!r} fails{_line(error, path)}: {first_line(error)}"
        ) from error
    return module


@contextmanager
def _importing_beside(path: Path) -> Iterator[None]:
    """Let the file import its siblings, and forget them after: another folder may have others of the same names."""
    folder = str(path.resolve().parent)
    before = set(sys.modules)
    sys.path.insert(0, folder)
    # a sibling's bytecode, too, may be older than an edit of the same second; and the folder is the user's
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            file: str = getattr(sys.modules[name], "__file__", None) or ""
            is_sibling = Path(file).resolve().is_relative_to(folder) and "site-packages" not in file
            if file and is_sibling and not name.startswith("_gainfinder_"):
                del sys.modules[name]


def _restore(name: str, previous: ModuleType | None) -> None:
    if previous is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = previous


def _line(error: BaseException, path: Path) -> str:
    file = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" in line {error.lineno}"
    frames: Any = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" in line {frames[-1].lineno}" if frames else ""
