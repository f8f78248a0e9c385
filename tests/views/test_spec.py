"""Views are pure functions of (seed, number, sample id), orders of (seed, epoch, sample ids)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import functional as TF

from gainfinder.config.choices import AUGMENTS, Augment, default_augment
from gainfinder.models.preprocessing import Preprocessing
from gainfinder.views import spec as spec_module
from gainfinder.views.augment import augmented
from gainfinder.views.spec import (
    Crops,
    Views,
    ViewSpec,
    draws,
    epoch_order,
    make_view,
    view_spec,
)

S32 = (32, 32)
P32 = Preprocessing(input_size=(3, 32, 32), crop_pct=0.9, interpolation="bilinear")


def photo(size: tuple[int, int] = (50, 40), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_view_depends_on_its_arguments_alone(augment: Augment) -> None:
    spec = ViewSpec(preprocessing=P32, sizes=(S32,), augment=augment)
    image = photo()
    first = make_view(image, spec, size=S32, number=2, sample_id="a")
    torch.manual_seed(99)  # no global generator has a say
    make_view(image, spec, size=S32, number=0, sample_id="b")
    again = make_view(image, spec, size=S32, number=2, sample_id="a")
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, again)


@pytest.mark.parametrize("augment", ["paper", "rrc", "crop-flip"])
@pytest.mark.parametrize("change", [{"seed": 2}, {"number": 3}, {"sample_id": "b"}])
def test_another_seed_number_or_sample_gives_another_view(augment: Augment, change: dict[str, object]) -> None:
    arguments: dict[str, Any] = {"seed": 1, "number": 2, "sample_id": "a"}

    def view(seed: int, number: int, sample_id: str) -> torch.Tensor:
        spec = ViewSpec(preprocessing=P32, sizes=(S32,), augment=augment, seed=seed)
        return make_view(photo(), spec, size=S32, number=number, sample_id=sample_id)

    assert not torch.equal(view(**arguments), view(**{**arguments, **change}))


def test_views_are_fresh_each_epoch_or_used_in_turn() -> None:
    fresh = ViewSpec(preprocessing=P32, sizes=(S32,), augment="none")
    assert (fresh.seed, fresh.count) == (0, None)
    assert [fresh.number(epoch) for epoch in range(5)] == [0, 1, 2, 3, 4]
    assert [replace(fresh, count=2).number(epoch) for epoch in range(5)] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("augment", ["paper", "crop-flip"])
def test_a_view_has_the_same_bits_in_any_batch(augment: Augment) -> None:
    spec = ViewSpec(preprocessing=P32, sizes=(S32,), augment=augment)
    ids = [f"img{i}" for i in range(33)]
    crops = torch.stack([Crops(spec, ids, number=0)(i, photo(seed=i)).view(3, 32, 32) for i in range(33)])
    drawn = draws(spec, ids, number=0)
    whole = augmented(crops, drawn, augment)
    for some in (slice(0, 1), slice(5, 7), slice(3, 33), [8, 2, 31]):
        assert torch.equal(augmented(crops[some], drawn[some], augment), whole[some])
    assert torch.equal(whole[4], make_view(photo(seed=4), spec, size=S32, number=0, sample_id="img4"))


def test_colours_are_torchvisions_in_the_order_of_the_published_code() -> None:
    """Of each image alone, with its own factors; up to rounding, for the hue is converted by another formula."""
    spec = ViewSpec(preprocessing=P32, sizes=(S32,), augment="paper")
    ids = [str(i) for i in range(60)]
    crops = torch.stack([Crops(spec, ids, number=0)(i, photo(seed=i)).view(3, 32, 32) for i in range(60)])
    drawn = draws(spec, ids, number=0)
    for crop, view, numbers in zip(crops, augmented(crops, drawn, "paper"), drawn.tolist(), strict=True):
        mirror, distort, grey, brightness, contrast, saturation, hue = numbers
        expected = crop.flip(-1) if mirror < 0.5 else crop
        if distort < 0.8:
            expected = TF.adjust_brightness(expected, 0.2 + 1.6 * brightness)
            expected = TF.adjust_contrast(expected, 0.2 + 1.6 * contrast)
            expected = TF.adjust_saturation(expected, 0.2 + 1.6 * saturation)
            expected = TF.adjust_hue(expected, -0.2 + 0.4 * hue)
        if grey < 0.2:
            expected = TF.rgb_to_grayscale(expected, num_output_channels=3)
        difference = (view.int() - expected.int()).abs()
        assert difference.max() <= 2
        assert difference.float().mean() < 0.6  # torchvision rounds the hue down


def test_views_leave_global_generators_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for augment in AUGMENTS:
        make_view(
            photo(),
            ViewSpec(preprocessing=P32, sizes=(S32,), augment=augment),
            size=S32,
            number=0,
            sample_id="x",
        )
    assert torch.equal(before, torch.get_rng_state())


def test_none_is_timms_evaluation_crop() -> None:
    spec = ViewSpec(preprocessing=P32, sizes=(S32,), augment="none")
    expected = create_transform(**P32.timm_config(), is_training=False)(photo())
    view = make_view(photo(), spec, size=S32, number=0, sample_id="x").float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (P32.mean, P32.std))
    assert torch.allclose((view - mean) / std, expected, atol=1e-6)


def test_none_is_the_evaluation_crop_of_a_corner_that_is_rounded_down_too() -> None:
    crop = replace(P32, crop_pct=32 / 35, crop_rounding="down")
    for size in ((35, 35), (38, 35), (35, 39)):
        view = make_view(photo(size), view_spec([crop], "none"), size=S32, number=0, sample_id="x").float() / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (crop.mean, crop.std))
        assert torch.allclose((view - mean) / std, crop.evaluation_transform()(photo(size)), atol=1e-6)
        top, left = (edge // 2 for edge in (size[1] - 32, size[0] - 32))
        pixels = torch.tensor(np.array(photo(size))).permute(2, 0, 1) / 255
        assert torch.equal(view, pixels[:, top : top + 32, left : left + 32])


def test_mirroring_happens_half_the_time_and_crop_flip_shifts_by_up_to_an_eighth() -> None:
    # One white pixel in the middle of a black 32 x 32 image tells where the crop went.
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[16, 10] = 255
    spec = ViewSpec(
        preprocessing=Preprocessing(input_size=(3, 32, 32), crop_pct=1.0), sizes=(S32,), augment="crop-flip"
    )
    rows, columns = [], []
    for i in range(400):
        view = make_view(Image.fromarray(pixels), spec, size=S32, number=0, sample_id=str(i))
        row, column = (int(edge) for edge in view[0].nonzero()[0])
        rows.append(row)
        columns.append(column)
    assert set(rows) == set(range(12, 21))
    left = sum(column < 15 for column in columns)
    assert set(columns) == {*range(6, 15), *range(17, 26)}
    assert 150 < left < 250


UNFIT = (1 - 1e-9, 0.5, 0.0, 0.0)
"""Drawn for a square of the whole area, which does not fit into an oblong image."""


@pytest.mark.parametrize(
    ("size", "drawn", "box"),
    [
        # drawn: a, r, left, top, for 0.08 + 0.92 a of the area and a ratio of (3/4) ** (1 - 2 r); box: top, left, h, w
        ((100, 100), (0.0, 0.5, 0.0, 0.0), (0, 0, 28, 28)),  # the smallest square, √800
        ((100, 100), (0.0, 0.5, 1 - 1e-9, 1 - 1e-9), (72, 72, 28, 28)),  # ends at both edges
        ((100, 100), (0.0, 0.5, 0.5, 0.25), (18, 36, 28, 28)),  # of 73 places each way
        ((100, 100), (1 - 1e-9, 0.5, 0.9, 0.9), (0, 0, 100, 100)),  # the whole image
        ((100, 100), (0.5, 0.0, 0.0, 0.0), (0, 0, 85, 64)),  # upright, 3/4: √(5400 · 3/4), √(5400 / (3/4))
        ((100, 100), (0.5, 1 - 1e-9, 0.0, 0.0), (0, 0, 64, 85)),  # lying, 4/3
        ((100, 100), (0.25, 0.5, 0.0, 0.0), (0, 0, 56, 56)),  # √3100
        ((1000, 1000), (0.5, 0.5, 0.0, 0.0), (0, 0, 735, 735)),  # √540,000
        ((200, 100), (0.0, 0.5, 1 - 1e-9, 1 - 1e-9), (60, 160, 40, 40)),  # of the area of an oblong image, √1600
        ((200, 100), (*UNFIT, 0.0, 0.5, 0.0, 0.0), (0, 0, 40, 40)),  # what does not fit is drawn again
        ((100, 200), (*UNFIT, 0.0, 0.5, 0.0, 0.0), (0, 0, 40, 40)),
        ((200, 100), (*UNFIT * 9, 0.0, 0.5, 0.0, 0.0), (0, 0, 40, 40)),  # ten times at most
        ((200, 100), (*UNFIT * 10,), (0, 33, 100, 133)),  # then the largest crop of 4/3 in the middle
        ((100, 200), (*UNFIT * 10,), (33, 0, 133, 100)),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_rrc_crops_where_it_is_drawn(
    size: tuple[int, int],
    drawn: tuple[float, ...],
    box: tuple[int, int, int, int],
    mirrored: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = (*drawn, 0.49 if mirrored else 0.5, *[0.75] * 8)
    monkeypatch.setattr(spec_module, "uniforms", lambda *of: iter(stream))
    spec = ViewSpec(preprocessing=P32, sizes=((24, 32),), augment="rrc")
    view = make_view(photo(size), spec, size=(24, 32), number=0, sample_id="x")
    expected = TF.pil_to_tensor(TF.resized_crop(photo(size), *box, [24, 32], TF.InterpolationMode.BILINEAR))
    assert torch.equal(view, expected.flip(-1) if mirrored else expected)


def test_paper_greys_a_fifth() -> None:
    spec = ViewSpec(preprocessing=P32, sizes=(S32,), augment="paper")
    views = [make_view(photo(), spec, size=S32, number=0, sample_id=str(i)) for i in range(400)]
    grey = sum(torch.equal(view[0], view[1]) and torch.equal(view[1], view[2]) for view in views)
    assert 50 < grey < 110


@pytest.mark.parametrize("size", [(400, 3), (3, 400), (1, 1), (32, 32)])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_odd_shapes_still_give_views(size: tuple[int, int], augment: Augment) -> None:
    view = make_view(
        photo(size),
        ViewSpec(preprocessing=P32, sizes=(S32,), augment=augment),
        size=S32,
        number=0,
        sample_id="x",
    )
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


def test_a_view_is_rendered_at_each_size_once_with_the_students_crop() -> None:
    student = Preprocessing(input_size=(3, 32, 48), crop_pct=0.8, crop_mode="squash", interpolation="bilinear")
    teacher = Preprocessing(input_size=(3, 64, 24), crop_pct=1.0)
    spec = view_spec([student, teacher, student], "none")
    assert spec.sizes == ((32, 48), (64, 24))
    crop = spec.crop_at((64, 24))
    assert (crop.view_size, crop.crop_pct, crop.crop_mode) == ((64, 24), 0.8, "squash")
    assert crop.interpolation == "bilinear"


def test_packed_crops_come_apart_again() -> None:
    spec = ViewSpec(preprocessing=P32, sizes=((32, 32), (48, 40)), augment="paper", seed=3)
    rows = Crops(spec, ["a", "b"], number=1)
    crops = Views.unpack(torch.stack([rows(i, photo(seed=i)) for i in range(2)]), spec.sizes)
    views = crops.augmented(draws(spec, ["a", "b"], number=1), "paper")
    assert len(views) == 2
    for size in spec.sizes:
        for i, sample_id in enumerate("ab"):
            alone = make_view(photo(seed=i), spec, size=size, number=1, sample_id=sample_id)
            assert torch.equal(views.at(size)[i], alone)
    with pytest.raises(ValueError, match=r"expected one of the sizes .*, got \(8, 8\)"):
        views.at((8, 8))


def gradient() -> Image.Image:
    """A smooth image, so that a rendering tells which part of the image it shows."""
    y, x = np.mgrid[0:96, 0:96] / 95
    return Image.fromarray(np.stack([255 * x, 255 * y, 255 * (x + y) / 2], axis=2).astype(np.uint8))


@pytest.mark.parametrize("augment", AUGMENTS)
def test_renderings_at_two_sizes_show_the_same_part_of_the_image(augment: Augment) -> None:
    spec = ViewSpec(preprocessing=P32, sizes=((32, 32), (48, 48)), augment=augment)
    for sample_id in map(str, range(20)):
        at = [make_view(gradient(), spec, size=size, number=0, sample_id=sample_id).float() for size in spec.sizes]
        small = torch.nn.functional.interpolate(at[1][None], (32, 32), mode="bilinear", antialias=True)[0]
        inner = (slice(None), slice(6, -6), slice(6, -6))  # crop-flip pads with black, whose edge may round apart
        assert (small - at[0])[inner].abs().mean() < 1.6 * 255 / 32  # pixels of the smaller rendering


def test_a_small_image_is_not_blurred_for_the_student_by_a_larger_teacher() -> None:
    alone = view_spec([P32], "none")
    beside = view_spec([P32, Preprocessing(input_size=(3, 96, 96))], "none")
    image = photo((32, 32))
    at: dict[str, Any] = {"size": S32, "number": 0, "sample_id": "x"}
    assert torch.equal(make_view(image, alone, **at), make_view(image, beside, **at))


def test_default_augmentation_rule() -> None:
    assert default_augment((8, 8), mirrorable=False) == "none"
    assert default_augment((95, 300), mirrorable=True) == "crop-flip"
    assert default_augment((96, 96), mirrorable=True) == "paper"
