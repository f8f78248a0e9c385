"""Predictions of the most probable classes alone are those of all classes, without the memory for these."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gainfinder.data import Images, load_images
from gainfinder.errors import NotFinite
from gainfinder.inference.predict import predict_samples, predict_top_samples
from gainfinder.models import Classifier, load_model
from gainfinder.predictions import Predictions, TopPredictions, read_columns, write_predictions

MODULE = import_module(predict_samples.__module__)
CPU = torch.device("cpu")
COUNT = 23


class Linear(nn.Module):
    """Answers for the colours of an image; every class is there twice, so that each is tied with another."""

    def __init__(self, classes: int = 30) -> None:
        super().__init__()
        weight = torch.randn(classes // 2, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", torch.cat([weight, weight]))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) @ self.get_buffer("weight").T


class NotFiniteAtTimes(Linear):
    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return torch.where(x.mean(dim=(1, 2, 3))[:, None] > 0, found, torch.nan)


class LargestTensor(TorchDispatchMode):
    """Watches how large the tensors are that operations make."""

    largest = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, Tensor):
                self.largest = max(self.largest, one.numel())
        return found


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Images of one colour each, two of which are broken."""
    draw = np.random.default_rng(0)
    for number in range(COUNT):
        path = tmp_path / "photos" / str(number % 3) / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), tuple(draw.integers(0, 256, 3).tolist())).save(path)
        if number in (4, 5):
            path.write_bytes(b"no image")
    return load_images(str(tmp_path / "photos"))


def model(module: nn.Module | None = None) -> Classifier:
    return load_model(module or Linear(), size=4)


ASKED: dict[str, Any] = {"device": CPU, "batch_size": 5, "max_broken": 0.5}


@pytest.mark.parametrize("top_k", [1, 3, 29, 30, 99])
def test_the_most_probable_are_those_of_all_logits_bit_for_bit(
    images: Images, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "LOGITS_AT_ONCE", 200)
    whole = predict_samples(model(), images, **ASKED)
    found = predict_top_samples(model(), images, top_k=top_k, **ASKED)
    expected = whole.logits.log_softmax(dim=1).topk(min(top_k, 30), dim=1)
    assert torch.equal(found.log_probs, expected.values) and torch.equal(found.classes, expected.indices)
    assert torch.equal(found.predicted, whole.logits.argmax(dim=1)) and bool((found.predicted < 15).all())
    assert found.ids == whole.ids and len(found) == COUNT - 2
    assert found.broken == whole.broken and len(found.broken) == 2
    assert found.target is not None and whole.target is not None and torch.equal(found.target, whole.target)
    assert found.accuracy == whole.accuracy == (whole.logits.argmax(dim=1) == whole.target).sum().item() / len(whole)
    same = ("model", "num_classes", "class_names", "dropped_mass")
    assert [getattr(found, name) for name in same] == [getattr(whole, name) for name in same]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_their_file_is_the_one_that_all_logits_give(images: Images, tmp_path: Path, suffix: str) -> None:
    one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    predict_samples(model(), images, **ASKED).write(one, top_k=4)
    write_predictions(predict_top_samples(model(), images, top_k=4, **ASKED), other)
    assert one.read_bytes() == other.read_bytes()
    assert read_columns(other).values.shape == (COUNT - 2, 4)


def test_few_logits_are_held_at_once(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LOGITS_AT_ONCE", 7000)

    def largest(predict: Callable[[], Predictions | TopPredictions]) -> int:
        with LargestTensor() as watch:
            predict()
        return watch.largest

    wide = model(Linear(1000))
    assert largest(lambda: predict_samples(wide, images, **ASKED)) == (COUNT - 2) * 1000
    assert largest(lambda: predict_top_samples(wide, images, top_k=3, **ASKED)) <= 10 * 1000  # two batches


def test_images_without_probabilities_are_counted_over_all_batches(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "LOGITS_AT_ONCE", 200)
    refused = []
    for predict in (predict_samples, lambda *given, **asked: predict_top_samples(*given, top_k=2, **asked)):
        with pytest.raises(NotFinite, match=r"NaN or infinite for [1-9]\d? of 21 images") as error:
            predict(model(NotFiniteAtTimes()), images, **ASKED)
        refused.append(str(error.value))
    assert refused[0] == refused[1]
