"""Typed configuration of a run: the format of `config.json`, with versions and machine.

The file is written from, and compared with, the plain document (`folder.differences`), so that a killed run of an
earlier version goes on; this is how it is read by whoever needs parts of it. Keys beyond these are kept in the file.
"""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from .metrics import Record


class ModelDescription(Record):
    """A student or teacher.

    Attributes:
        reference: the model reference.
        digest: hex digest of its weights, or of a prediction table's file; null in files of early versions.
        classes: number of classes; null likewise.
        preprocessing: input size, normalisation, interpolation and crop, by `models.Preprocessing`'s names, or a
            tokenization, by those of `models.Tokenization`; null of a table, and in files of early versions.
    """

    reference: str
    digest: str | None = None
    classes: int | None = None
    preprocessing: dict[str, Any] | None = None


class ImagesDescription(Record):
    """Images with a role in a transfer.

    Attributes:
        reference: the data reference.
        samples: number of images.
        labelled: whether they carry labels that may be read; null in files of early versions.
        digest: hex digest of their ids and labels; null likewise.
        pixels: hex digest of the pixels of a few of them; null likewise.
        held_out: whether they were set apart from the transfer images; null of the transfer images themselves.
        noun: what a sample is; written where it is no image.
    """

    reference: str
    samples: int
    labelled: bool | None = None
    digest: str | None = None
    pixels: str | None = None
    held_out: bool | None = None
    noun: Literal["image", "text"] = "image"


class ModelOrigin(Record):
    """Where a model came from, as far as files said so; see `models.Origin`.

    Attributes:
        repository: `ORG/NAME` on the Hugging Face hub; null where it came from elsewhere.
        license: identifier of its licence; null where no file says it.
        license_name: name of a licence whose identifier is `other`; null else.
        license_link: where that licence is; null likewise.
        said_by: `card`, `registry` or `configuration`; null without a licence.
    """

    repository: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    said_by: str | None = None


class Environment(Record):
    """Versions and machine; all null in files of early versions. Keys that others add are kept.

    Attributes:
        gainfinder: version of this package.
        python: Python's version.
        torch: PyTorch's version.
        torchvision: torchvision's version.
        timm: timm's version.
        accelerate: Accelerate's version.
        numpy: NumPy's version.
        pillow: Pillow's version.
        platform: operating system and processor architecture.
        device_name: name of the accelerator, or of the processor.
        processes: number of training processes.
        threads: number of torch's threads in each process.
        workers: number of processes that decode images.
        checkpoint_every: batches between checkpoints; null for one after an epoch, as often as takes a twentieth of the
            time.
        command: the command line that started the run; null from Python.
        track: names of the trackers.
        origins: where student and teachers came from, by reference; empty in files of earlier versions.
    """

    model_config = ConfigDict(extra="allow")

    gainfinder: str | None = None
    python: str | None = None
    torch: str | None = None
    torchvision: str | None = None
    timm: str | None = None
    accelerate: str | None = None
    numpy: str | None = None
    pillow: str | None = None
    platform: str | None = None
    device_name: str | None = None
    processes: int | None = None
    threads: int | None = None
    workers: int | None = None
    checkpoint_every: int | None = None
    command: str | None = None
    track: tuple[str, ...] = ()
    origins: dict[str, ModelOrigin] = Field(default_factory=dict)


class RunConfig(Record):
    """The configuration of a run.

    Attributes:
        student: the initial student.
        teachers: the teachers, in the order given.
        data: the transfer images.
        val: the images measured on.
        guard: the guard images; null without a guard.
        settings: all settings of the run as they were resolved, by their names.
        environment: versions and machine.
    """

    student: ModelDescription
    teachers: tuple[ModelDescription, ...]
    data: ImagesDescription
    val: ImagesDescription
    guard: ImagesDescription | None = None
    settings: dict[str, Any]
    environment: Environment = Environment()
