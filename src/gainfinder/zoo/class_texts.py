"""What classes are called, and embeddings of their names, for areas of expertise: asked for before any model runs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, SettingsError
from ..files import file_problem, parse_json, read_user_text, user_path
from ..metrics import ClassTexts, mean_similarity
from ..models import imagenet_texts
from .embeddings import EmbeddingTable, read_embeddings
from .text_models import TextModel, check_installed, embed_names, parse_text_model

_log = logging.getLogger("gainfinder")


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """What was asked for, read as far as it can be before classes are known.

    Attributes:
        names: names in class order, or by class; None for those that data and models have.
        names_file: the file they are from, for messages.
        table: embeddings from a file; None without.
        model: model that embeds the names; None without.
    """

    names: tuple[str, ...] | Mapping[str, str] | None = None
    names_file: str = ""
    table: EmbeddingTable | None = None
    model: TextModel | None = None

    @classmethod
    def of(
        cls, *, class_names: str | Path | None, class_embeddings: str | Path | None, embed: str | None, labelled: bool
    ) -> "TextRequest":
        """Read the files, and make sure that the model can be asked for.

        Args:
            class_names: file of class names; see `read_class_names`.
            class_embeddings: file of embeddings; see `read_embeddings`.
            embed: reference of a text model; see `parse_text_model`.
            labelled: whether the images carry labels.

        Raises:
            SettingsError: both kinds of embeddings, or any of it without labels.
            BadReference: `embed` cannot be parsed.
            MissingExtra: its package is not installed.
            DataError: a file cannot be read.
        """
        asked = {"class_names": class_names, "class_embeddings": class_embeddings, "embed": embed}
        given = [name for name, value in asked.items() if value is not None]
        if given and not labelled:
            raise SettingsError(
                f"`{given[0]}` is for areas of expertise, which need labels to tell who is right, and there are none: "
                "leave it out"
            )
        if class_embeddings is not None and embed is not None:
            raise SettingsError("`class_embeddings` and `embed` both give embeddings of the classes: give one of them")
        model = None if embed is None else parse_text_model(embed)
        if model is not None:
            check_installed(model)
        return cls(
            names=None if class_names is None else read_class_names(Path(class_names)),
            names_file=str(class_names),
            table=None if class_embeddings is None else read_embeddings(Path(class_embeddings)),
            model=model,
        )

    def texts(self, own: Sequence[str] | None, present_C: Tensor, *, device: torch.device) -> ClassTexts:
        """Names and embeddings of the classes.

        Args:
            own: names that data and models have, in class order; None without.
            present_C: which classes have images, bool (C,).
            device: where a text model runs.

        Raises:
            DataError: names or embeddings do not fit the classes.
            ModelError: the text model cannot be loaded.
        """
        keys = tuple(map(str, range(len(present_C)))) if own is None else tuple(own)
        if self.names is None:
            names = imagenet_texts(own, len(present_C)) or keys
        else:
            names = _fitted(self.names, keys, where=self.names_file)
        if self.table is not None:
            embeddings_CD, source = self.table.in_class_order(keys, names), self.table.where
        elif self.model is not None:
            embeddings_CD, source = embed_names(self.model, names, device=device), str(self.model)
        else:
            return ClassTexts(names=names)
        _check_directions(embeddings_CD, present_C, source)
        return ClassTexts(names=names, embeddings_CD=embeddings_CD, source=source)


def read_class_names(path: Path) -> tuple[str, ...] | dict[str, str]:
    """The class names in a file.

    Args:
        path: `.json` with a list of names in class order, or an object {"class": "name"}, the class as data or models
            call it, or its index; any other file is text, UTF-8, a name a line in class order.

    Raises:
        DataError: it is missing, in another form, or a name is empty.
    """
    file = user_path(path, what="class names", error=DataError)
    if (problem := file_problem(file)) is not None:
        raise DataError(f"class names {str(path)!r} {problem}: expected a file of names, one a line, or .json")
    try:
        text = read_user_text(file)
        found: Any = parse_json(text) if file.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"class names {str(path)!r} cannot be read: {error}") from error
    values = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(
            f'class names {str(path)!r}: expected a JSON list of names, or one object {{"class": "name"}}, of text'
        )
    if empty := [number for number, value in enumerate(values, start=1) if not value.strip()]:
        raise DataError(f"class names {str(path)!r}: name {empty[0]} of {len(values)} is empty; expected one each")
    if isinstance(found, dict):
        return {str(key).strip(): value.strip() for key, value in found.items()}
    return tuple(value.strip() for value in values)


def _fitted(names: tuple[str, ...] | Mapping[str, str], keys: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Names in class order."""
    if isinstance(names, tuple):
        if len(names) != len(keys):
            raise DataError(f"class names {where!r}: {len(names)} names for {len(keys)} classes; expected one each")
        return names
    found = [names.get(key, names.get(str(index))) for index, key in enumerate(keys)]
    if missing := [key for key, name in zip(keys, found, strict=True) if name is None]:
        raise DataError(
            f"class names {where!r}: {len(missing)} of {len(keys)} classes have none, such as {missing[0]!r}; "
            "expected one each, by the class's name in data or model or its index"
        )
    return tuple(name for name in found if name is not None)


def _check_directions(embeddings_CD: Tensor, present_C: Tensor, source: str) -> None:
    common = mean_similarity(embeddings_CD[present_C])
    if common is not None and common <= 0:
        raise DataError(
            f"{source}: the embeddings of all classes have a mean cosine similarity of {common:.3g}, and similarity is "
            "given relative to it; expected one above 0, as of embeddings that are not centred"
        )
