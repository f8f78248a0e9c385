"""Crops kept in memory, crops made as they are needed, and views made one by one are the same bits."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gainfinder.config.choices import AUGMENTS, Augment
from gainfinder.data import load_images
from gainfinder.data.images import Images
from gainfinder.inference.predict import evaluation_crops, predict_samples
from gainfinder.models import load_model
from gainfinder.models.preprocessing import Preprocessing
from gainfinder.views.loader import ViewBatch, ViewSource
from gainfinder.views.spec import Views, ViewSpec, epoch_order, make_view
from noise_files import write_jpegs

COUNT = 23
SIZES = ((16, 16), (24, 20))
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_jpegs(tmp_path, COUNT)


def spec(augment: Augment, count: int | None = None) -> ViewSpec:
    preprocessing = Preprocessing(input_size=(3, 16, 16), crop_pct=0.9, interpolation="bilinear")
    return ViewSpec(preprocessing=preprocessing, sizes=SIZES, augment=augment, seed=4, count=count)


def source(images: Images, views: ViewSpec, **about: Any) -> ViewSource:
    return ViewSource(images, views, device=CPU, **{"workers": 0, **about})


def collected(batches: Sequence[ViewBatch]) -> dict[int, tuple[torch.Tensor, ...]]:
    """Renderings by position."""
    return {
        int(position): tuple(rendering[row] for rendering in batch.views.renderings)
        for batch in batches
        if batch.views is not None
        for row, position in enumerate(batch.positions_N)
    }


def order(sizes: Sequence[int], seed: int = 0) -> list[NDArray[np.int64]]:
    return np.split(np.random.default_rng(seed).permutation(COUNT), np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("augment", AUGMENTS)
def test_views_do_not_depend_on_memory_workers_or_batches(folder: Path, augment: Augment) -> None:
    images, views = load_images(str(folder)), spec(augment)
    kept, read, elsewhere = source(images, views), source(images, views, resident_bytes=0), source(images, views)
    kept.load()
    assert kept.fits == (augment != "rrc") and not read.fits
    found = [
        collected(list(kept.batches(order([8, 8, 7]), epoch=3))),
        collected(list(read.batches(order([23], seed=1), epoch=3))),
        collected(list(elsewhere.batches(order([1, 20, 2], seed=2), epoch=3))),
        collected(list(source(images, views, workers=2, resident_bytes=0).batches(order([12, 11], seed=3), epoch=3))),
    ]
    for i in range(COUNT):
        for size, *same in zip(SIZES, *(one[i] for one in found), strict=True):
            expected = make_view(images.read(i), views, size=size, number=3, sample_id=images.ids[i])
            assert all(torch.equal(view, expected) for view in same)


def test_views_that_are_used_in_turn_come_again(folder: Path) -> None:
    views = source(load_images(str(folder)), spec("crop-flip", count=2))
    epochs = [collected(list(views.batches(order([23]), epoch=epoch))) for epoch in range(3)]
    assert all(torch.equal(epochs[0][i][0], epochs[2][i][0]) for i in range(COUNT))
    assert not all(torch.equal(epochs[0][i][0], epochs[1][i][0]) for i in range(COUNT))


@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_broken_images_are_named_in_the_batch_they_are_missing_from(folder: Path, resident_bytes: int) -> None:
    for i in (3, 4, 11):
        (folder / f"{i:02}.jpg").write_bytes(b"no image")
    views = source(load_images(str(folder)), spec("crop-flip"), resident_bytes=resident_bytes)
    views.load()
    whole, all_broken, rest = views.batches([np.arange(3), np.array([3, 4]), np.arange(5, COUNT)], epoch=0)
    assert whole.broken == () and whole.positions_N.tolist() == [0, 1, 2]
    assert all_broken.views is None and [line.split(":")[0][-6:] for line in all_broken.broken] == ["03.jpg", "04.jpg"]
    assert len(rest.broken) == 1 and "11.jpg" in rest.broken[0]
    assert rest.positions_N.tolist() == [i for i in range(5, COUNT) if i != 11]
    assert rest.views is not None and len(rest.views) == len(rest.positions_N)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_evaluation_crops_give_the_same_predictions_bit_for_bit(
    zoo: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (folder / "05.jpg").write_bytes(b"no image")
    model, images = load_model(zoo[name]), load_images(str(folder))
    asked: dict[str, Any] = {"device": CPU, "batch_size": 7, "max_broken": 0.5}
    expected = predict_samples(model, images, **asked)
    crops = evaluation_crops(images, model.preprocessing, workers=0)
    assert crops is not None
    crops.load()
    monkeypatch.setattr(Images, "read", None)  # not again
    for shard in ((0, 1), (1, 3)):
        found = predict_samples(model, images, crops=crops, shard=shard, **asked)
        mine = [expected.ids.index(sample_id) for sample_id in found.ids]
        assert torch.equal(found.logits, expected.logits[mine]) or shard != (0, 1)
        torch.testing.assert_close(found.logits, expected.logits[mine])
    assert predict_samples(model, images, crops=crops, **asked).broken == expected.broken


def test_crops_that_are_too_many_or_of_one_channel_are_not_kept(folder: Path) -> None:
    images = load_images(str(folder))
    grey = Preprocessing(input_size=(1, 16, 16), mean=(0.5,), std=(0.5,))
    assert evaluation_crops(images, grey, workers=0) is None
    coloured = Preprocessing(input_size=(3, 16, 16))
    assert evaluation_crops(images, coloured, workers=0, resident_bytes=999) is None


def test_crops_that_the_device_cannot_hold_stay_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images(str(folder))
    kept, crowded = source(images, spec("paper")), source(images, spec("paper"))
    kept.load()

    def full(views: Views, device: torch.device) -> Views:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patched:
        patched.setattr("gainfinder.views.loader._to_device", full)
        crowded.load()
    found = [collected(list(one.batches(order([12, 11]), epoch=1))) for one in (kept, crowded)]
    assert all(torch.equal(found[0][i][0], found[1][i][0]) for i in range(COUNT))


def test_loading_decodes_once_and_tells_of_every_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images(str(folder))
    read: list[int] = []
    original = Images.read

    def noted(self: Images, index: int) -> Image.Image:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(Images, "read", noted)
    views = source(images, spec("paper"))
    told: list[int] = []
    views.load(told.append)
    views.load(told.append)
    for epoch in range(2):
        list(views.batches(order([12, 11]), epoch=epoch))
    assert sum(told) == COUNT and sorted(read) == list(range(COUNT))


def mixed_spec(share: float = 1.0, augment: Augment = "crop-flip") -> ViewSpec:
    return replace(spec(augment), mixup=share)


def test_mixed_views_do_not_depend_on_memory_workers_or_batches(folder: Path) -> None:
    images, views = load_images(str(folder)), mixed_spec(0.7)
    kept, read = source(images, views), source(images, views, resident_bytes=0)
    kept.load()
    found = [
        collected(list(kept.batches(order([8, 8, 7]), epoch=3))),
        collected(list(read.batches(order([23], seed=1), epoch=3))),
        collected(list(source(images, views, workers=2, resident_bytes=0).batches(order([1, 22], seed=3), epoch=3))),
    ]
    for i in range(COUNT):
        for same in zip(*(one[i] for one in found), strict=True):
            assert all(torch.equal(view, same[0]) for view in same)


def test_a_mixed_view_is_its_image_with_less_than_half_of_the_next_in_order(folder: Path) -> None:
    images, views = load_images(str(folder)), mixed_spec()
    batches = list(source(images, views).batches(order([10, 13]), epoch=2))
    found, told = collected(batches), told_overlays(batches)
    by_order = epoch_order(images.ids, seed=views.seed, epoch=2)
    shares = []
    for i, other in zip(by_order, np.roll(by_order, -1), strict=True):
        for size, mixed in zip(SIZES, found[i], strict=True):
            one, two = (
                make_view(images.read(at), views, size=size, number=2, sample_id=images.ids[at]).double()
                for at in (i, other)
            )
            # the share that explains the mixture best, by least squares
            share = float(((mixed - two) * (one - two)).sum() / (one - two).square().sum())
            assert torch.allclose(mixed.double(), share * one + (1 - share) * two, atol=1.0)
        shares.append(share)
        assert told[i] == (other, pytest.approx(share, abs=0.02)), "labels are mixed by what is told"
    assert 0.49 < min(shares) < 0.7 and 0.8 < max(shares) <= 1


def told_overlays(batches: Iterable[ViewBatch]) -> dict[int, tuple[int, float]]:
    """Image laid over and own share, by image."""
    found = {}
    for batch in batches:
        assert batch.overlay is not None
        told = (batch.positions_N, batch.overlay.positions_N, batch.overlay.shares_N)
        found.update({i: (other, share) for i, other, share in zip(*(one.tolist() for one in told), strict=True)})
    return found


def test_so_many_views_are_mixed_and_the_others_as_without(folder: Path) -> None:
    images = load_images(str(folder))
    found = {
        share: collected(list(source(images, mixed_spec(share)).batches(order([23]), epoch=1)))
        for share in (0.0, 0.4, 1.0)
    }
    same = [torch.equal(found[0.4][i][0], found[0.0][i][0]) for i in range(COUNT)]
    rest = [torch.equal(found[0.4][i][0], found[1.0][i][0]) for i in range(COUNT)]
    assert [a != b for a, b in zip(same, rest, strict=True)] == [True] * COUNT
    assert 0.3 < sum(same) / COUNT < 0.9


def test_an_image_laid_over_that_is_broken_leaves_the_view_as_it_is(folder: Path) -> None:
    images, views = load_images(str(folder)), mixed_spec()
    by_order = epoch_order(images.ids, seed=views.seed, epoch=0)
    before, broken = int(by_order[3]), int(by_order[4])
    Path(images.where(broken)).write_bytes(b"no image")
    for resident in (0, 2**30):
        read = source(images, views, resident_bytes=resident)
        read.load()
        (batch,) = read.batches([np.array([before])], epoch=0)
        assert batch.views is not None and batch.positions_N.tolist() == [before]
        assert told_overlays([batch])[before][0] == before, "its own label alone is fitted"
        assert torch.equal(
            batch.views.renderings[0][0],
            make_view(images.read(before), views, size=SIZES[0], number=0, sample_id=images.ids[before]),
        )
        (batch,) = read.batches([np.array([broken])], epoch=0)
        assert batch.views is None and len(batch.broken) == 1


def test_unmixed_views_are_the_views_before_they_were_mixed(folder: Path) -> None:
    images = load_images(str(folder))
    wanted = order([23])
    plain = collected(list(source(images, mixed_spec(0.0)).batches(wanted, epoch=1)))
    found = collected(list(source(images, mixed_spec(1.0)).unmixed().batches(wanted, epoch=1)))
    assert all(torch.equal(plain[i][0], found[i][0]) for i in range(COUNT))
