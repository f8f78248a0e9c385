"""Views and orders are pure functions of (seed, epoch, sample id)."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from gainfinder.models.preprocessing import Preprocessing
from gainfinder.views import AUGMENTS, ViewSpec, default_augment, epoch_order, make_view, view_spec

P32 = Preprocessing(input_size=(3, 32, 32), crop_pct=0.9, interpolation="bilinear")


def photo(size: tuple[int, int] = (50, 40), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_view_depends_on_its_arguments_alone(augment: str) -> None:
    spec = ViewSpec(preprocessing=P32, augment=augment)
    image = photo()
    first = make_view(image, spec, seed=1, epoch=2, sample_id="a")
    torch.manual_seed(99)  # no global generator has a say
    make_view(image, spec, seed=5, epoch=0, sample_id="b")
    again = make_view(image, spec, seed=1, epoch=2, sample_id="a")
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, again)


@pytest.mark.parametrize("augment", ["paper", "rrc", "crop-flip"])
@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 3}, {"sample_id": "b"}])
def test_another_seed_epoch_or_sample_gives_another_view(augment: str, change: dict[str, object]) -> None:
    spec = ViewSpec(preprocessing=P32, augment=augment)
    arguments = {"seed": 1, "epoch": 2, "sample_id": "a"}
    views = make_view(photo(), spec, **arguments), make_view(photo(), spec, **{**arguments, **change})
    assert not torch.equal(*views)


def test_views_leave_global_generators_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for augment in AUGMENTS:
        make_view(photo(), ViewSpec(preprocessing=P32, augment=augment), seed=0, epoch=0, sample_id="x")
    assert torch.equal(before, torch.get_rng_state())


def test_none_is_timms_evaluation_crop() -> None:
    spec = ViewSpec(preprocessing=P32, augment="none")
    expected = create_transform(**P32.timm_config(), is_training=False)(photo())
    view = make_view(photo(), spec, seed=0, epoch=0, sample_id="x").float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (P32.mean, P32.std))
    assert torch.allclose((view - mean) / std, expected, atol=1e-6)


def test_mirroring_happens_half_the_time_and_crop_flip_shifts_by_up_to_an_eighth() -> None:
    # One white pixel in the middle of a black 32 x 32 image tells where the crop went.
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[16, 10] = 255
    spec = ViewSpec(preprocessing=Preprocessing(input_size=(3, 32, 32), crop_pct=1.0), augment="crop-flip")
    rows, columns = [], []
    for i in range(400):
        view = make_view(Image.fromarray(pixels), spec, seed=0, epoch=0, sample_id=str(i))
        row, column = (int(edge) for edge in view[0].nonzero()[0])
        rows.append(row)
        columns.append(column)
    assert set(rows) == set(range(12, 21))
    left = sum(column < 15 for column in columns)
    assert set(columns) == {*range(6, 15), *range(17, 26)}
    assert 150 < left < 250


def test_paper_greys_a_fifth() -> None:
    spec = ViewSpec(preprocessing=P32, augment="paper")
    views = [make_view(photo(), spec, seed=0, epoch=0, sample_id=str(i)) for i in range(400)]
    grey = sum(torch.equal(view[0], view[1]) and torch.equal(view[1], view[2]) for view in views)
    assert 50 < grey < 110


@pytest.mark.parametrize("size", [(400, 3), (3, 400), (1, 1), (32, 32)])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_odd_shapes_still_give_views(size: tuple[int, int], augment: str) -> None:
    view = make_view(photo(size), ViewSpec(preprocessing=P32, augment=augment), seed=0, epoch=0, sample_id="x")
    assert view.shape == (3, 32, 32)


def test_the_order_is_a_permutation_fixed_by_seed_and_epoch_not_by_listing() -> None:
    ids = [f"img{i}" for i in range(100)]
    order = epoch_order(ids, seed=0, epoch=0)
    assert sorted(order) == list(range(100))
    visited = [ids[i] for i in order]
    backwards = ids[::-1]
    assert visited == [backwards[i] for i in epoch_order(backwards, seed=0, epoch=0)]
    assert visited != [ids[i] for i in epoch_order(ids, seed=0, epoch=1)]
    assert visited != [ids[i] for i in epoch_order(ids, seed=1, epoch=0)]


def test_the_view_is_made_at_the_largest_size_with_the_students_crop() -> None:
    student = Preprocessing(input_size=(3, 32, 48), crop_pct=0.8, crop_mode="squash", interpolation="bilinear")
    teacher = Preprocessing(input_size=(3, 64, 24), crop_pct=1.0)
    spec = view_spec([student, teacher], "none")
    assert spec.size == (64, 48)
    assert (spec.preprocessing.crop_pct, spec.preprocessing.crop_mode) == (0.8, "squash")
    assert spec.preprocessing.interpolation == "bilinear"


def test_default_augmentation_rule() -> None:
    assert default_augment((8, 8), mirrorable=False) == "none"
    assert default_augment((95, 300), mirrorable=True) == "crop-flip"
    assert default_augment((96, 96), mirrorable=True) == "paper"
