"""Crops that are read from disk are those that would be decoded, whatever happened to them, and to the images."""

import errno
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import PIL
import psutil
import pytest
import torch
from PIL import Image

from forked import forked
from gainfinder.config.choices import Augment
from gainfinder.data import load_images
from gainfinder.data.images import Images
from gainfinder.errors import DataError
from gainfinder.inference.bank import Bank, EntryKey, entry_bytes
from gainfinder.inference.crops import crop_bytes
from gainfinder.models.preprocessing import Preprocessing
from gainfinder.views.loader import ViewBatch, ViewSource
from gainfinder.views.spec import ViewSpec
from noise_files import jpeg, write_jpegs

COUNT = 9
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    return write_jpegs(pictures, COUNT)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that are decoded."""
    read: list[int] = []
    original = Images.read

    def noted(self: Images, index: int) -> Image.Image:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(Images, "read", noted)
    return read


def spec(augment: Augment = "crop-flip", sizes: tuple[tuple[int, int], ...] = ((16, 16),), **crop: Any) -> ViewSpec:
    about = {"input_size": (3, 16, 16), "crop_pct": 0.9, "interpolation": "bilinear", **crop}
    return ViewSpec(preprocessing=Preprocessing(**about), sizes=sizes, augment=augment, seed=4)


def source(images: Images, bank: Bank | None, views: ViewSpec | None = None, **about: Any) -> ViewSource:
    keeper = None if bank is None else bank.crops
    return ViewSource(images, views or spec(), workers=0, device=CPU, keeper=keeper, **about)


def shown(source: ViewSource) -> list[ViewBatch]:
    source.load()
    order = np.random.default_rng(1).permutation(len(source.images))
    return list(source.batches(np.array_split(order, 3), epoch=2))


def assert_same(one: list[ViewBatch], other: list[ViewBatch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.broken == b.broken and torch.equal(a.positions_N, b.positions_N)
        assert (a.views is None) == (b.views is None)
        if a.views is not None and b.views is not None:
            for found, expected in zip(a.views.renderings, b.views.renderings, strict=True):
                assert torch.equal(found, expected)


def entries(folder: Path) -> list[Path]:
    return [path for path in (folder / "crops").glob("*") if path.is_dir()]


@pytest.mark.parametrize("augment", ["none", "crop-flip", "paper"])
def test_crops_on_disk_give_the_same_views_bit_for_bit(
    folder: Path, tmp_path: Path, decoded: list[int], augment: Augment
) -> None:
    (folder / "03.jpg").write_bytes(b"no image")
    (folder / "05.jpg").write_bytes(jpeg(5)[:-400])
    images, views = load_images(str(folder)), spec(augment, sizes=((16, 16), (24, 20)))
    expected = shown(source(images, None, views))
    assert_same(shown(source(images, Bank(tmp_path / "bank"), views)), expected)
    decoded.clear()
    told: list[int] = []
    again = source(load_images(str(folder)), Bank(tmp_path / "bank"), views)
    again.load(told.append)
    assert_same(shown(again), expected)
    assert decoded == [] and sum(told) == COUNT
    assert sum(len(batch.broken) for batch in expected) == 2


def test_crops_are_mapped_and_what_is_on_disk_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    images, bank = load_images(str(folder)), Bank(tmp_path)
    shown(source(images, bank))
    (file,) = tmp_path.glob("crops/*/16x16.npy")
    expected = torch.from_numpy(np.load(file))
    kept = source(images, bank)
    kept.load()
    assert kept._cached is not None and kept._cached.crops is not None
    (crops,) = kept._cached.crops.renderings
    if sys.platform == "linux":
        assert str(file) in {one.path for one in psutil.Process().memory_maps()}
    crops[0] = 0  # nobody does this; whoever did would change a copy
    assert torch.equal(torch.from_numpy(np.load(file)), expected)
    crops[0] = expected[0]
    shutil.rmtree(tmp_path / "crops")  # another run makes room: whoever reads it goes on
    assert torch.equal(crops, expected)


def test_other_images_of_the_same_content_share_them_and_broken_ones_are_told_where_they_are(
    folder: Path, tmp_path: Path, decoded: list[int]
) -> None:
    bank = Bank(tmp_path / "bank")
    shown(source(load_images(str(folder)), bank))
    moved = shutil.move(folder, tmp_path / "moved")
    decoded.clear()
    shown(source(load_images(str(moved)), bank))
    assert decoded == []
    (tmp_path / "moved" / "03.jpg").write_bytes(b"no image")
    shown(source(load_images(str(moved)), bank))
    shutil.copytree(moved, folder)
    found = shown(source(load_images(str(folder)), bank))
    assert [line.split(": ")[0] for batch in found for line in batch.broken] == [str(folder / "03.jpg")]


@pytest.mark.parametrize("what", ["one image", "its order", "crop", "size", "filter", "rounding", "turned", "pillow"])
def test_all_that_bits_depend_on_makes_another_entry(
    folder: Path, tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    bank, views = Bank(tmp_path / "bank"), spec()
    images = load_images(str(folder))
    shown(source(images, bank))
    decoded.clear()
    if what == "one image":  # of the same size and time
        path = folder / "04.jpg"
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=times)
    elif what == "pillow":
        monkeypatch.setattr(PIL, "__version__", "99.0")
    elif what == "its order":
        images = images.select(range(COUNT)[::-1])
    elif what == "turned":
        images = load_images(f"{folder}?orient=exif")
    else:
        changes: dict[str, Any] = {
            "crop": {"crop_pct": 0.8},
            "size": {"sizes": ((16, 18),)},
            "filter": {"interpolation": "bicubic"},
            "rounding": {"crop_rounding": "down"},
        }
        views = spec(**changes[what])
    assert_same(shown(source(images, bank, views)), shown(source(images, None, views)))
    assert decoded == [*range(COUNT)] * 2
    assert len(entries(tmp_path / "bank")) == 2


@pytest.mark.parametrize("how", ["seed and augmentation", "labels", "ids"])
def test_what_bits_do_not_depend_on_makes_none(folder: Path, tmp_path: Path, decoded: list[int], how: str) -> None:
    bank, views = Bank(tmp_path / "bank"), spec()
    images = load_images(str(folder))
    shown(source(images, bank))
    decoded.clear()
    if how == "labels":
        images = images.relabel(np.arange(COUNT), class_names=None, num_classes=COUNT)
    elif how == "ids":
        for i in range(COUNT):
            (folder / f"{i:02}.jpg").rename(folder / f"{i:02}-again.jpg")
        images = load_images(str(folder))
    else:
        views = ViewSpec(preprocessing=views.preprocessing, sizes=views.sizes, augment="paper", seed=9)
    assert_same(shown(source(images, bank, views)), shown(source(images, None, views)))
    assert decoded == [*range(COUNT)]  # without the bank


def test_images_in_memory_random_crops_and_too_many_are_not_kept(folder: Path, tmp_path: Path) -> None:
    bank, images = Bank(tmp_path / "bank"), load_images(str(folder))
    in_memory = load_images([Image.new("RGB", (20, 20))] * 3)
    for one in (
        source(in_memory, bank),
        source(images, bank, spec("rrc")),
        source(images, bank, resident_bytes=COUNT * 3 * 16 * 16 - 1),
    ):
        shown(one)
        assert crop_bytes(one) == 0
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("how", ["missing", "torn", "garbage", "altered"])
@pytest.mark.parametrize("name", ["meta.json", "16x16.npy", "rows.npy"])
def test_a_damaged_entry_is_made_again(folder: Path, tmp_path: Path, decoded: list[int], name: str, how: str) -> None:
    images, bank = load_images(str(folder)), Bank(tmp_path / "bank")
    expected = shown(source(images, bank))
    (path,) = tmp_path.glob(f"bank/crops/*/{name}")
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif how == "garbage":
        path.write_bytes(b"\x00garbage")
    elif how == "altered":
        content[-9] ^= 1
        path.write_bytes(content)
    decoded.clear()
    assert_same(shown(source(images, bank)), expected)
    assert len(decoded) == COUNT
    decoded.clear()
    assert_same(shown(source(images, Bank(tmp_path / "bank"))), expected)
    assert decoded == []


def test_decoding_that_fails_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images(str(folder))

    def failing(self: Images, index: int) -> NoReturn:
        raise DataError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(Images, "read", failing)
        with pytest.raises(DataError, match="no memory"):
            source(images, Bank(tmp_path / "bank")).load()
    assert [path.suffix for path in (tmp_path / "bank/crops").iterdir()] == [".lock"]
    assert_same(shown(source(images, Bank(tmp_path / "bank"))), shown(source(images, None)))
    assert len(entries(tmp_path / "bank")) == 1


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told_once_and_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    images, bank = load_images(str(folder)), Bank(tmp_path / "bank")

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(reason, os.strerror(reason))

    if reason == errno.ENOSPC:
        monkeypatch.setattr(np, "save", refuse)
    else:
        monkeypatch.setattr(Path, "mkdir", refuse)
    with caplog.at_level(logging.WARNING, logger="gainfinder"):
        for views in (spec(), spec(crop_pct=0.8)):
            assert_same(shown(source(images, bank, views)), shown(source(images, None, views)))
    assert len(caplog.messages) == 1
    assert "decoded images are not kept there" in caplog.messages[0]
    assert os.strerror(reason) in caplog.messages[0] and "\n" not in caplog.messages[0]
    assert not entries(tmp_path / "bank")


def put_logits(bank: Bank, view: str) -> EntryKey:
    key = EntryKey(model="m", images="i", view=view)
    bank.build(key, lambda: [(np.arange(50), torch.zeros(50, 1000))], images=50, classes=1000)
    return key


def test_crops_take_the_room_that_is_left_and_go_before_logits(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, one, other = load_images(str(folder)), spec(sizes=((64, 64),)), spec(sizes=((64, 64),), crop_pct=0.8)
    needed = crop_bytes(source(images, None, one))
    limit = entry_bytes(50, 1000) + needed
    bank = Bank(tmp_path, limit=limit)
    first = put_logits(bank, "first")
    os.utime(tmp_path / first.digest / "meta.json", (5, 5))
    without = bank.size()
    shown(source(images, bank, one))
    assert without < bank.size() <= without + needed
    (kept,) = entries(tmp_path)
    with caplog.at_level(logging.WARNING, logger="gainfinder"):
        shown(source(images, bank, other))
    assert entries(tmp_path) == [kept], "what a run needs itself stays"
    assert "no room is left" in caplog.messages[0]
    shown(source(images, Bank(tmp_path, limit=limit), other))
    (later,) = entries(tmp_path)
    assert later != kept and (tmp_path / first.digest).exists(), "another run's crops go, logits never"
    second = put_logits(bank, "second")
    assert entries(tmp_path) == [] and bank.find(first) is not None, "crops go first, though used later"
    assert_same(shown(source(images, bank, one)), shown(source(images, None, one)))
    assert entries(tmp_path) == [] and bank.find(first) is not None and bank.find(second) is not None


def load(folder: Path, pictures: Path) -> None:
    """Read all images slowly, in a process of its own."""
    original = Images.read

    def read(images: Images, index: int) -> Image.Image:
        with (folder / "read").open("a") as file:
            file.write(f"{index} ")
        time.sleep(0.05)
        return original(images, index)

    pytest.MonkeyPatch().setattr(Images, "read", read)
    preprocessing = Preprocessing(input_size=(3, 16, 16), crop_pct=0.9, interpolation="bilinear")
    spec = ViewSpec(preprocessing=preprocessing, sizes=((16, 16),), augment="none")
    keeper = Bank(folder / "bank").crops
    ViewSource(load_images(str(pictures)), spec, workers=0, device=CPU, keeper=keeper).load()


def test_two_processes_decode_once_and_a_killed_one_leaves_nothing_that_is_read(folder: Path, tmp_path: Path) -> None:
    killed = forked(load, tmp_path, folder)
    while not (tmp_path / "read").exists():
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert not list(tmp_path.glob("bank/crops/*/*.npy"))
    (tmp_path / "read").unlink()
    both = [forked(load, tmp_path, folder) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert (tmp_path / "read").read_text().split() == [str(i) for i in range(COUNT)]
    images = load_images(str(folder))
    assert_same(shown(source(images, Bank(tmp_path / "bank"))), shown(source(images, None)))


@pytest.mark.parametrize("sizes", [((16, 16),), ((16, 16), (24, 20))])
def test_the_size_is_known_before(folder: Path, tmp_path: Path, sizes: tuple[tuple[int, int], ...]) -> None:
    one = source(load_images(str(folder)), Bank(tmp_path), spec(sizes=sizes))
    shown(one)
    assert crop_bytes(one) - 16384 <= Bank(tmp_path).size() <= crop_bytes(one)
