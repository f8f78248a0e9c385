"""What goes with a model of transformers: the image processor or the tokenizer beside its weights."""

from typing import Any

from ..libraries import quiet_transformers


def load_processor(
    name: str, revision: str | None = None, *, of_texts: bool, local_only: bool = False, trusted: bool = False
) -> Any:
    """The image processor or tokenizer of a folder or repository, or None where it has none that can be loaded.

    Args:
        name: folder or repository.
        revision: of the repository.
        of_texts: whether a tokenizer is looked for.
        local_only: whether the network is left alone.
        trusted: whether it may be one of the model's own code, which is run.
    """
    from transformers import AutoImageProcessor, AutoTokenizer  # noqa: PLC0415 (slow, and an extra)

    kind: Any = AutoTokenizer if of_texts else AutoImageProcessor
    try:
        return kind.from_pretrained(name, revision=revision, local_files_only=local_only, trust_remote_code=trusted)
    except Exception:  # a folder without one raises whatever its own loading comes across
        return None


def processor_beside(module: Any, *, of_texts: bool) -> Any:
    """What `load_processor` finds beside the weights that a module was loaded from; without network access."""
    name = getattr(module, "name_or_path", "")
    if not name:
        return None
    with quiet_transformers(type(module).__name__):
        return load_processor(name, of_texts=of_texts, local_only=True)
