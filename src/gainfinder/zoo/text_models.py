"""Embeddings of class names by a text model: of open_clip or sentence-transformers, both optional."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import BadReference, GainfinderError, MissingExtra, ModelError
from ..files import near_siblings
from ..libraries import hub_or_cache, hub_reason, quiet
from ..references import suggest

Library = Literal["open_clip", "sentence-transformers"]
PACKAGES: dict[Library, tuple[str, str]] = {
    "open_clip": ("open_clip", "open_clip_torch"),
    "sentence-transformers": ("sentence_transformers", "sentence-transformers"),
}
"""Module and package of each library; the extra has the library's name, with a hyphen."""
BATCH_SIZE = 256
"""Names that are embedded at once."""
_LOGGERS = ("root", "httpx", "huggingface_hub", "sentence_transformers", "transformers")
_FORMS = "open_clip:NAME/PRETRAINED, open_clip:local-dir:FOLDER, open_clip:hf-hub:REPO or sentence-transformers:NAME"


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """A reference of a text model; `str` prints it.

    Attributes:
        library: the library that loads it.
        name: the library's name of it, or a folder.
        pretrained: tag or file of its weights; open_clip only.
    """

    library: Library
    name: str
    pretrained: str | None = None

    def __str__(self) -> str:
        return f"{self.library}:{self.name}" + ("" if self.pretrained is None else f"/{self.pretrained}")


def parse_text_model(text: str) -> TextModel:
    """Parse the reference of a text model; nothing is loaded.

        open_clip:NAME/PRETRAINED        an architecture, and a tag or file of its weights; the paper's: ViT-B-32/openai
        open_clip:local-dir:FOLDER       a folder with open_clip_config.json and weights
        open_clip:hf-hub:REPO            the same on the Hugging Face hub
        sentence-transformers:NAME       a name on the hub, or a folder

    Raises:
        BadReference: another form.

    Example:
        >>> parse_text_model("open_clip:ViT-B-32/openai").pretrained
        'openai'
    """
    prefix, _, rest = text.partition(":")
    library = next((known for known in PACKAGES if known == prefix), None)
    if library is None:
        near = suggest(prefix, list(PACKAGES))
        raise BadReference(f"text model {text!r}: unknown library {prefix!r}{near}; expected {_FORMS}")
    name, slash, pretrained = rest, "", ""
    if library == "open_clip" and not rest.startswith(("local-dir:", "hf-hub:")):
        name, slash, pretrained = rest.partition("/")
        if not pretrained:
            raise BadReference(f"text model {text!r} names no weights; expected open_clip:NAME/PRETRAINED")
    if not name or name.endswith(":"):
        raise BadReference(f"text model {text!r} names no model; expected {_FORMS}")
    return TextModel(library=library, name=name, pretrained=pretrained if slash else None)


def check_installed(model: TextModel) -> None:
    """Refuse a text model whose library is not there, before anything else is done.

    Raises:
        MissingExtra: it is not installed.
    """
    module, package = PACKAGES[model.library]
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(package, model.library.replace("_", "-"), f"the text model {model}")


def embed_names(model: TextModel, names: Sequence[str], *, device: torch.device) -> Tensor:
    """An embedding of each name, as it stands, without a prompt around it.

    Args:
        model: the text model.
        names: C names.
        device: where it runs.

    Returns:
        float32 (C, D), on the CPU.

    Raises:
        ModelError: it cannot be loaded or run.
    """
    embed = _by_open_clip if model.library == "open_clip" else _by_sentence_transformers
    local = _path(model)
    if not local.exists() and (local.is_absolute() or model.name.startswith(("local-dir:", "."))):
        raise ModelError(f"{model}: {str(local)!r} does not exist{near_siblings(local)}")
    with quiet(*_LOGGERS), hub_or_cache(needed=not local.exists()) as reachable:
        try:
            found_CD = embed(model, names, device)
        except GainfinderError:
            raise
        except Exception as error:  # each library and file format has exceptions of its own
            # open_clip wraps what the hub's client raises
            raised = error if reachable else OSError(str(error))
            raise ModelError(f"{model}: cannot embed class names: {hub_reason(raised, reachable=reachable)}") from error
    if not bool(found_CD.isfinite().all() & found_CD.any(dim=1).all()):
        raise ModelError(f"{model}: gives NaN, infinity or zeros for a class name")
    return found_CD


def _path(model: TextModel) -> Path:
    """The file or folder that it may be in."""
    return Path(model.pretrained or model.name.removeprefix("local-dir:")).expanduser()


def _by_open_clip(model: TextModel, names: Sequence[str], device: torch.device) -> Tensor:
    import open_clip  # noqa: PLC0415 (slow, and an extra)

    if model.pretrained is not None:
        known, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(model.name)
        if model.name not in known:
            raise ModelError(f"{model}: open_clip has no architecture {model.name!r}{suggest(model.name, known)}")
        if model.pretrained not in tags and not _path(model).exists():
            raise ModelError(
                f"{model}: {model.pretrained!r} is neither a file nor one of open_clip's weights of {model.name}: "
                f"{', '.join(tags) or 'none'}"
            )
    encoder: Any = open_clip.create_model(
        model.name, pretrained=model.pretrained, device=device, require_pretrained=True
    ).eval()
    tokenize = open_clip.get_tokenizer(model.name)
    with torch.inference_mode():
        parts = [
            encoder.encode_text(tokenize(list(names[start : start + BATCH_SIZE])).to(device)).float().cpu()
            for start in range(0, len(names), BATCH_SIZE)
        ]
    return torch.cat(parts).clone()


def _by_sentence_transformers(model: TextModel, names: Sequence[str], device: torch.device) -> Tensor:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 (slow, and an extra)

    encoder: Any = SentenceTransformer(str(Path(model.name).expanduser()), device=str(device))
    found = encoder.encode(list(names), batch_size=BATCH_SIZE, convert_to_tensor=True, show_progress_bar=False)
    return torch.as_tensor(found).float().cpu().clone()
