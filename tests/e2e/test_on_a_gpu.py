"""What a GPU gives is what the CPU gives, up to its arithmetic. Skipped without one.

`GAINFINDER_TEST_DEVICE=cpu` tries the tests themselves on a machine that has none.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gainfinder
from gainfinder.config.choices import AUGMENTS, Augment
from gainfinder.data import load_images
from gainfinder.data.images import Images
from gainfinder.inference import TargetSource
from gainfinder.inference.predict import predict_samples
from gainfinder.models import load_model
from gainfinder.models.preprocessing import Preprocessing
from gainfinder.views.loader import ViewSource
from gainfinder.views.spec import ViewSpec
from killing import KillAtEpoch, Killed
from noise_files import write_jpegs
from transfers import SHORT, Run, document, weights

NAME = os.environ.get("GAINFINDER_TEST_DEVICE", "cuda")
DEVICE = torch.device(NAME)
pytestmark = pytest.mark.skipif(NAME == "cuda" and not torch.cuda.is_available(), reason="needs a GPU")

COUNT = 40
RUN: Run = {**SHORT, "device": NAME, "epochs": 2, "limit": 96, "lr": 3e-2, "method": "kl-dp-u", "precision": "fp32"}


@pytest.fixture
def photos(tmp_path: Path) -> Images:
    write_jpegs(tmp_path, COUNT)
    (tmp_path / "13.jpg").write_bytes(b"broken")
    return load_images(str(tmp_path))


def views_of(images: Images, augment: Augment, device: torch.device, **about: Any) -> dict[int, torch.Tensor]:
    """Views by position, collected only after all batches were given away."""
    crop = Preprocessing(input_size=(3, 16, 16), crop_pct=0.9, interpolation="bilinear")
    spec = ViewSpec(preprocessing=crop, sizes=((16, 16), (24, 20)), augment=augment, seed=4, mixup=0.5)
    source = ViewSource(images, spec, device=device, **{"workers": 0, **about})
    source.load()
    batches = list(source.batches(np.array_split(np.arange(COUNT), 6), epoch=3))
    return {
        int(position): torch.cat([part[row].flatten() for part in batch.views.renderings]).cpu()
        for batch in batches
        if batch.views is not None
        for row, position in enumerate(batch.positions_N)
    }


@pytest.mark.parametrize("augment", AUGMENTS)
def test_views_have_the_bits_of_the_cpu(photos: Images, augment: Augment) -> None:
    there = views_of(photos, augment, torch.device("cpu"))
    kept, read = views_of(photos, augment, DEVICE), views_of(photos, augment, DEVICE, workers=2, resident_bytes=0)
    assert there.keys() == kept.keys() == read.keys() == set(range(COUNT)) - {13}
    for position, view in there.items():
        assert torch.equal(kept[position], view) and torch.equal(read[position], view)


def test_a_batch_is_whole_however_long_the_one_before_is_learned_from(photos: Images) -> None:
    """Views are made on a stream of their own: memory must not be used again, nor read before it is written."""
    crop = Preprocessing(input_size=(3, 64, 64), crop_pct=0.9, interpolation="bilinear")
    spec = ViewSpec(preprocessing=crop, sizes=((64, 64),), augment="paper", seed=4)
    wanted = np.array_split(np.arange(COUNT), 8)
    calm = [batch.views for batch in ViewSource(photos, spec, workers=0, device=DEVICE).batches(wanted, epoch=0)]
    source = ViewSource(photos, spec, workers=0, device=DEVICE)
    source.load()
    busy, square = [], torch.randn(2048, 2048, device=DEVICE)
    for batch in source.batches(wanted, epoch=0):
        for _ in range(4):
            square = (square @ square).clamp(-1, 1)  # what is read below waits for this
        assert batch.views is not None
        busy.append(batch.views.renderings[0].float().sum())
        torch.empty(16 << 20, device=DEVICE).fill_(1)
    expected = [views.renderings[0].float().sum() for views in calm if views is not None]
    assert torch.equal(torch.stack(busy), torch.stack(expected))


def test_predictions_are_those_of_the_cpu(zoo: dict[str, str], val: Images) -> None:
    for reference in zoo.values():
        here, there = (
            predict_samples(load_model(reference), val, device=device) for device in (DEVICE, torch.device("cpu"))
        )
        assert here.logits.device.type == "cpu" and (here.logits - there.logits).abs().max() < 0.1
        assert (here.predicted == there.predicted).float().mean() > 0.98


@pytest.mark.parametrize("name", ["vit", "convnext", "resnet"])
def test_a_student_learns_what_it_learns_on_the_cpu(zoo: dict[str, str], val: Images, name: str) -> None:
    teacher = zoo["convnext" if name == "vit" else "vit"]
    start = load_model(zoo[name]).module.state_dict()
    here, there = (
        gainfinder.transfer(zoo[name], teacher, "digits#2/4", val=val, **{**RUN, "device": device})
        for device in (NAME, "cpu")
    )
    learned, expected = (
        torch.cat([(value - start[key]).float().flatten() for key, value in weights(found).items() if value.ndim])
        for found in (here, there)
    )
    assert torch.cosine_similarity(learned, expected, dim=0) > 0.99, "where convolutions round to ten bits"
    assert float(learned.norm()) == pytest.approx(float(expected.norm()), rel=0.02)
    assert here.metrics.teacher_share == pytest.approx(there.metrics.teacher_share, abs=0.05)


def test_half_precision_is_the_default_and_learns(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    settings = {**RUN, "precision": "auto", "epochs": 3, "limit": 256}
    done = gainfinder.transfer(zoo["vit"], zoo["convnext"], "digits#2/4", val=val, out=tmp_path / "run", **settings)
    assert document(tmp_path / "run", "config.json")["settings"]["precision"] == ("no" if NAME == "cpu" else "bf16")
    losses = [row.train_loss for row in done.epochs]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["vit", "convnext", "resnet"])
def test_what_is_asked_in_half_precision_answers_as_the_model(zoo: dict[str, str], photos: Images, name: str) -> None:
    """On a GPU a copy is asked, whose weights are cast and whose layers are fused; not of one that changes."""
    model = load_model(zoo[name])
    size = model.image_preprocessing.view_size
    spec = ViewSpec(preprocessing=model.image_preprocessing, sizes=(size,), augment="none", seed=0)
    (batch,) = ViewSource(photos, spec, workers=0, device=DEVICE).batches([np.arange(12)], epoch=0)
    assert batch.views is not None
    half: dict[str, Any] = {"device": DEVICE, "autocast": lambda: torch.autocast(NAME, dtype=torch.bfloat16)}
    asked = TargetSource([model], **half)(batch.views, batch.positions_N, number=0).logits_NMC
    changing = TargetSource([model], **half, themselves=[model])
    itself = changing(batch.views, batch.positions_N, number=0).logits_NMC
    assert (asked - itself).abs().max() < 0.05 * itself.abs().max()
    with torch.no_grad():
        next(reversed(list(model.module.parameters()))).add_(3.0)  # the classifier layer's biases
    renewed = changing(batch.views, batch.positions_N, number=0).logits_NMC
    assert torch.allclose(renewed, itself + 3.0, atol=0.1)


def test_replayed_answers_teach_what_asked_ones_do(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    models = (zoo["convnext"], zoo["resnet"], "digits#2/4")
    asked = gainfinder.transfer(*models, val=val, **RUN)
    replayed = gainfinder.transfer(*models, val=val, **RUN, bank=tmp_path, bank_check=20)
    assert replayed.metrics.teacher_share == pytest.approx(asked.metrics.teacher_share, abs=0.05)
    assert replayed.epochs[-1].train_loss == pytest.approx(asked.epochs[-1].train_loss, rel=0.02)


def test_a_run_that_was_killed_goes_on_there(zoo: dict[str, str], val: Images, tmp_path: Path) -> None:
    models = (zoo["vit"], zoo["resnet"], "digits#2/4")
    whole = gainfinder.transfer(*models, val=val, out=tmp_path / "whole", **RUN)
    with pytest.raises(Killed):
        gainfinder.transfer(*models, val=val, out=tmp_path / "run", callbacks=[KillAtEpoch(2)], **RUN)
    again = gainfinder.transfer(*models, val=val, out=tmp_path / "run", **RUN)
    assert again.metrics.resumed_epochs == 1
    assert again.epochs[-1].train_loss == pytest.approx(whole.epochs[-1].train_loss, rel=0.01)


@pytest.mark.skipif(NAME != "cuda", reason="a limit of memory is CUDA's")
def test_a_batch_that_does_not_fit_is_learned_from_in_parts(
    zoo: dict[str, str], val: Images, caplog: pytest.LogCaptureFixture
) -> None:
    big = load_model(torch.nn.Sequential(*_wide()), size=64, mean=0.5, std=0.5)
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    own = torch.cuda.memory_reserved()  # other processes have memory of their own
    torch.cuda.set_per_process_memory_fraction((own + 600 * 2**20) / total)
    try:
        settings = {**RUN, "method": "kl", "batch_size": 96, "epochs": 1, "labels": "none"}
        gainfinder.transfer(big, big, "digits#2/4", val=val, **settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "going on with" in caplog.text


def _wide() -> list[torch.nn.Module]:
    """Layers whose activations take 16 MiB an image."""
    wide = [layer for _ in range(4) for layer in (torch.nn.Conv2d(256, 256, 1), torch.nn.GELU())]
    return [
        torch.nn.Conv2d(3, 256, 1),
        *wide,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    ]
