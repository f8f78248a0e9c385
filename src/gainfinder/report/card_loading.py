"""How a student's folder is loaded again, by the library whose form it has, as Markdown."""

from pathlib import Path
from typing import Literal

from ..predictions import IMAGE
from ..references import AUTO_MODELS, split_query
from .markdown import block, code, plain
from .publishable import publishable_model
from .records import TransferRecord

Library = Literal["timm", "transformers", "torchvision", "onnx", "pytorch"]
PROCESSOR = "preprocessor_config.json"
SHOWN_CLASSES = 20
"""Classes that are named where a file beside the weights has all of them."""
MOST_CLASSES = 1000
"""Classes that are named where no file has them."""

_PREFIXES: dict[str, Library] = {
    "local-dir": "timm",
    "hf": "transformers",
    "torchvision": "torchvision",
    "onnx": "onnx",
}
_NAMED_BY: dict[Library, str] = {
    "timm": "`label_names` in `config.json`",
    "transformers": "`id2label` in `config.json`",
}


def student_library(reference: str | None) -> Library:
    """The library that loads a result's student without this package; `pytorch` where weights are all there is.

    >>> student_library("local-dir:better/student"), student_library("file:nets.py:small@w.safetensors")
    ('timm', 'pytorch')
    """
    return _PREFIXES.get((reference or "").partition(":")[0], "pytorch")


def loading(record: TransferRecord, repository: str | None) -> str:
    """How to load the student, what it takes, and the order of its classes.

    Args:
        record: the transfer.
        repository: the repository that it is in, or None for its folder on a disk.
    """
    library = student_library(record.metrics.student_reference)
    parts = [_lines(library, record, repository), _ours(library, record, repository), _preprocessing(record)]
    return "\n\n".join(part for part in (*parts, _classes(library, record)) if part)


def _lines(library: Library, record: TransferRecord, repository: str | None) -> str:
    folder = record.folder / "student"
    if library == "timm":
        name = "local-dir:FOLDER" if repository is None else f"hf-hub:{repository}"
        return block(
            "import timm\nfrom PIL import Image\n\n"
            f'model = timm.create_model("{name}", pretrained=True).eval()\n'
            "transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))\n"
            'logits = model(transform(Image.open("image.jpg").convert("RGB")).unsqueeze(0))',
            "python",
        )
    if library == "transformers":
        name = repository or "FOLDER"
        if record.noun != IMAGE:
            return _of_texts(record, name)
        return _transformers(folder, name, kind=AUTO_MODELS[record.classified])
    if library == "torchvision":
        name = (record.metrics.student_reference or "").removeprefix("torchvision:").partition("@")[0].split("/")[0]
        build = f"module = torchvision.models.get_model({name!r}, num_classes={record.after.num_classes})"
        return _weights(f"import torchvision\n{_READ}\n\n{build}", "the architecture")
    return _weights(f"{_READ}\n\nmodule = …  # the architecture, built by your own code", "the code")


_READ = "from safetensors.torch import load_file"


def _weights(build: str, what: str) -> str:
    load = 'module.load_state_dict(load_file("model.safetensors"))\nmodule.eval()'
    lines = block(f"{build}\n{load}", "python")
    return f"{lines}\n\nThe folder holds weights and not {what}, which has to be there."


def _transformers(folder: Path, name: str, *, kind: str) -> str:
    head = f"from transformers import {kind}"
    model = f'model = {kind}.from_pretrained("{name}").eval()'
    if not (folder / PROCESSOR).exists():
        return block(f"{head}\n\n{model}", "python") + "\n\nNo image processor goes with it: inputs are made as below."
    return block(
        f"from PIL import Image\n{head.replace('import ', 'import AutoImageProcessor, ')}\n\n"
        f'processor = AutoImageProcessor.from_pretrained("{name}")\n{model}\n'
        'logits = model(**processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")).logits',
        "python",
    )


TEXT_CLASSIFICATION = "text-classification"
_PIPELINES = {"text": TEXT_CLASSIFICATION, "word": "token-classification", "token": "text-generation"}
"""Transformers' pipeline for models of texts, by what gets a class."""


def _of_texts(record: TransferRecord, name: str) -> str:
    """The lines that load a model of texts with its tokenizer; texts are cut off where they were in training."""
    kind, task = AUTO_MODELS[record.classified], _PIPELINES[record.classified]
    longest = (record.config.student.preprocessing or {}).get("max_length")
    cut = "truncation=True" if not isinstance(longest, int) else f"truncation=True, max_length={longest}"
    by_task = f'pipeline("{task}", model="{name}")("a text"' + (f", {cut})" if task == TEXT_CLASSIFICATION else ")")
    return block(
        f"from transformers import {kind}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = {kind}.from_pretrained("{name}").eval()\n'
        f'logits = model(**tokenizer("a text", {cut}, return_tensors="pt")).logits\n\n'
        f"# or, {'going on with the text' if record.place == 'token' else 'with the names of the classes'}\n"
        "from transformers import pipeline\n\n"
        f"{by_task}",
        "python",
    )


def _ours(library: Library, record: TransferRecord, repository: str | None) -> str:
    """The reference that loads it here, with the settings that no other library knows."""
    reference = record.metrics.student_reference
    if reference is None:
        return ""
    base, query = split_query(publishable_model(reference))
    settings = "" if not query else "?" + "&".join(f"{key}={value}" for key, value in query)
    if repository is not None and library in ("timm", "transformers"):
        base = f"{'hf-hub' if library == 'timm' else 'hf'}:{repository}"
    elif library in ("timm", "transformers"):
        base = f"{base.partition(':')[0]}:FOLDER"
    text = f"In gainfinder it is {code(base + settings)}."
    if "crop_rounding" in dict(query):
        text += " Of a crop between two pixels the corner is further left and up than timm's own transform has it."
    return text


def _preprocessing(record: TransferRecord) -> str:
    values = record.config.student.preprocessing
    if values is None:
        return ""
    told = ", ".join(f"{code(name)} {plain(_short(name, value))}" for name, value in values.items())
    if record.noun != IMAGE:
        return f"Inputs: {told}. Longer texts are cut off at the end, of pairs the longer text first."
    return f"Inputs: {told}. Mean and standard deviation are of pixels scaled to 0 to 1."


def _short(name: str, value: object) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    return (" × " if name == "input_size" else ", ").join(map(str, value))


def _classes(library: Library, record: TransferRecord) -> str:
    count, names = record.after.num_classes, record.after.class_names
    if names is None:
        return f"Its {count:,} classes have no names: they are numbered from 0."
    place = _NAMED_BY.get(library) or ("`classes.txt`" if (record.folder / "student/classes.txt").exists() else None)
    most = MOST_CLASSES if place is None else SHOWN_CLASSES
    listed = ", ".join(f"{number}: {plain(name)}" for number, name in enumerate(names[:most]))
    if count <= most:
        return f"Its {count:,} classes, in the order of the logits, are {listed}."
    rest = f"{place} has them all" if place else "the others are those of the {record.noun}s, in their order"
    return f"Its {count:,} classes, in the order of the logits, are {listed}, …; {rest}."
