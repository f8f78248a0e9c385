"""What the measurements on a GPU share: their sizes, models and images of their own making, clocks.

Models have random weights and images are noise: what a step costs depends on neither.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from benchmarks.speed import kinds
from benchmarks.speed.kinds import Step
from gainfinder import load_model
from gainfinder.models import Classifier
from gainfinder.runs import PreparedTransfer, prepare_transfer
from gainfinder.views import ViewBatch

MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of timm.

    Attributes:
        name: timm's.
        arguments: those of its builder.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A folder of images.

    Attributes:
        name: of the folder.
        per_class: images of a class.
        distinct: images that differ; the others are copies under other names.
        size: width and height in pixels.
    """

    name: str
    per_class: int
    distinct: int
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured.

    Attributes:
        models: each is student and, with other weights, teacher; the first is the one that is looked into more closely.
        classes: of models and images.
        batch_size: images of a batch.
        limit: images learned from in training steps.
        steps: steps of a kind in a round, besides one that does not count.
        rounds: rounds at most; there are fewer where time is short.
        files: images as large as photographs, read from disk.
        small: images that are quick to decode, so that other things show.
        measured: images for `val`, which a transfer must be given.
        workers: numbers of decoding processes, where there are that many cores besides one.
        turns: batches that each decoding process makes while it is timed.
        tests: what pytest is given; nothing for all tests.
    """

    models: tuple[Model, ...]
    classes: int
    batch_size: int
    limit: int
    steps: int
    rounds: int
    files: Noise
    small: Noise
    measured: Noise
    workers: tuple[int, ...]
    turns: int
    tests: tuple[str, ...] = ()


FULL = Scale(
    # By default a ResNet's blocks begin as the identity, and nothing that they compute reaches the logits.
    models=(Model(name="resnet50", arguments={"zero_init_last": False}), Model(name="vit_base_patch16_224")),
    classes=1000,
    batch_size=128,
    limit=1024,
    steps=7,
    rounds=6,
    files=Noise(name="files", per_class=20, distinct=400, size=(500, 375)),
    small=Noise(name="small", per_class=2, distinct=400, size=(128, 96)),
    measured=Noise(name="measured", per_class=1, distinct=100, size=(128, 96)),
    workers=(2, 4, 8, 12, 15),
    turns=3,
)
SMALL = Scale(
    models=(Model(name="test_resnet", arguments={"zero_init_last": False}), Model(name="test_vit")),
    classes=10,
    batch_size=8,
    limit=32,
    steps=2,
    rounds=2,
    files=Noise(name="files", per_class=20, distinct=10, size=(500, 375)),
    small=Noise(name="small", per_class=6, distinct=10, size=(128, 96)),
    measured=Noise(name="measured", per_class=1, distinct=10, size=(128, 96)),
    workers=(1, 2),
    turns=2,
    tests=("tests/test_files.py", "tests/views"),
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a section measures with.

    Attributes:
        work: folder of models, images and whatever a section leaves behind.
        out: folder of results.
        scale: how much is measured.
        device: the device, `cuda` or `cpu`.
        loaded: the models that were loaded, on the CPU, by their references.
    """

    work: Path
    out: Path
    scale: Scale
    device: torch.device
    loaded: dict[str, Classifier] = field(default_factory=dict, repr=False)

    @cached_property
    def dtype(self) -> torch.dtype | None:
        """What autocast computes in, as `precision="auto"` has it; None for float32."""
        if self.device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16

    def autocast(self, *, cached: bool = True) -> torch.autocast:
        """Mixed precision as a transfer has it; nothing on a CPU."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None, cache_enabled=cached)

    def reference(self, model: Model, *, teacher: bool = False) -> str:
        """The reference of a model that is made when it is first asked for."""
        folder = self.work / "models" / f"{model.name}-{'teacher' if teacher else 'student'}"
        if not _is_made(folder):
            torch.manual_seed(int(teacher))
            found = load_model(timm.create_model(model.name, num_classes=self.scale.classes, **model.arguments))
            folder.mkdir(parents=True, exist_ok=True)
            found.save(found, folder)
            _note_made(folder)
        return f"local-dir:{folder}"

    def classifier(self, model: Model, *, teacher: bool = False) -> Classifier:
        """The model, on the CPU; whoever changes it takes a copy."""
        reference = self.reference(model, teacher=teacher)
        if reference not in self.loaded:
            self.loaded[reference] = load_model(reference)
        return self.loaded[reference]

    def images(self, noise: Noise) -> str:
        """The reference of a folder of images that is made when it is first asked for."""
        folder = self.work / noise.name
        if not _is_made(folder):
            counts = {"--classes": self.scale.classes, "--per-class": noise.per_class, "--distinct": noise.distinct}
            options = [str(part) for pair in counts.items() for part in pair]
            size = map(str, noise.size)
            # a process of its own, which forks before it has begun anything
            command = [sys.executable, "-m", "benchmarks.speed.noise", str(folder), *options, "--size", *size]
            subprocess.run(command, check=True)
            _note_made(folder)
        return str(folder)

    def prepared(self, model: Model, *, augment: str, on: Noise | None = None, **settings: Any) -> PreparedTransfer:
        """A transfer into a model from its like; by SGD and `kl-dp-u`, but for what settings say otherwise."""
        usual = {
            "batch_size": self.scale.batch_size,
            "limit": self.scale.limit if on is None else None,
            "augment": augment,
            "device": self.device.type,
        }
        return prepare_transfer(
            self.classifier(model),
            [self.classifier(model, teacher=True)],
            self.images(on or self.scale.small),
            val=self.images(self.scale.measured),
            settings=kinds.gentle(**{**usual, **settings}),
        )

    def fine_tuning(self, model: Model, *, augment: str, on: Noise | None = None) -> PreparedTransfer:
        """A transfer of which nothing but the labels is left: fine-tuning by the code that transfers run."""
        return self.prepared(model, augment=augment, on=on, method="kl", distill_weight=0.0)

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def step_ms(self, step: Step, batches: Iterator[ViewBatch], *, steps: int) -> float:
        """Milliseconds a step of several that are waited for together, as in training; one before does not count."""
        step(next(batches))
        return self.call_ms(lambda: step(next(batches)), calls=steps)

    def call_ms(self, call: Callable[[], object], *, calls: int) -> float:
        """Milliseconds a call of several that are waited for together."""
        self.wait()
        began_s = time.perf_counter()
        for _ in range(calls):
            call()
        self.wait()
        return 1000 * (time.perf_counter() - began_s) / calls

    def allocated_mb(self) -> float:
        """Memory that tensors on the GPU take; 0 on a CPU."""
        return torch.cuda.memory_allocated(self.device) / MB if self.device.type == "cuda" else 0.0

    def forget_peak(self) -> None:
        """Begin anew with the peak of memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_mb(self) -> float:
        """The most that tensors on the GPU took; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / MB if self.device.type == "cuda" else 0.0

    def free(self) -> None:
        """Give back the memory of what is no more used, and forget what was compiled."""
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def ready(self, of: PreparedTransfer, *, count: int) -> list[ViewBatch]:
        """Batches of views that are on the device."""
        found = list(kinds.batches(of, 0, steps=count))
        self.wait()
        return found

    def random_views(self, model: Classifier, *, batch_size: int) -> Tensor:
        """Views of noise for a model, uint8 (N, 3, H, W), on the device."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, 3, *model.image_preprocessing.view_size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(self.device)


def _is_made(folder: Path) -> bool:
    return folder.with_name(f"{folder.name}.made").exists()


def _note_made(folder: Path) -> None:
    folder.with_name(f"{folder.name}.made").touch()
