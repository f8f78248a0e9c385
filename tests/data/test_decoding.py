"""What Pillow reads wrongly without a word, and what takes minutes."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gainfinder.data import decode, load_images
from gainfinder.data.decoding import MOST_PIXELS
from gainfinder.errors import BrokenImage, DataError


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def turned(path: Path, orientation: int = 6) -> None:
    """A picture of 60 × 40 pixels, its upper half white, that EXIF turns."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_the_upper_eight(kind: str) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 77
    found = np.asarray(decode(encoded(Image.fromarray(deep), kind)))
    assert (found == np.arange(256).reshape(16, 16, 1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="pixels of 32 bits have no agreed range: save it with 8 or 16 bits"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.webp"])
def test_exif_orientation_is_told_and_a_choice(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    turned(tmp_path / name)
    (tmp_path / "2.png").write_bytes(encoded(Image.new("RGB", (60, 40)), "PNG").getvalue())
    stored = load_images(str(tmp_path))
    assert stored.read(0).size == (60, 40)
    assert len(caplog.messages) == 1
    assert "1 of 2 images are turned by their EXIF orientation" in caplog.messages[0]
    assert "?orient=exif" in caplog.messages[0]
    caplog.clear()
    upright = load_images(f"{tmp_path}?orient=exif")
    image = upright.read(0)
    assert image.size == (40, 60) and not caplog.messages
    assert image.getpixel((35, 30))[0] > 200  # the white half lies on the right
    assert image.getpixel((5, 30))[0] < 50
    assert upright.fingerprint != stored.fingerprint


def test_pillow_turns_tiff_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turned(tmp_path / "1.tif")
    for setting in ("", "?orient=exif"):
        assert load_images(f"{tmp_path}{setting}").read(0).size == (40, 60)
    assert not caplog.messages


def test_many_pixels_are_refused() -> None:
    wide = encoded(Image.new("1", (20_000, MOST_PIXELS // 20_000 + 1)), "PNG")
    with pytest.raises(ValueError, match=r"20,000 × 5,001 pixels are too many, at most 100,000,000 are decoded"):
        decode(wide)


def test_a_bomb_is_one_broken_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(Image.new("1", (30_000, 30_000)), "PNG").getvalue())
    with pytest.raises(BrokenImage, match=r"1\.png: .*pixels"):
        load_images(tmp_path).read(0)


def test_scans_without_end_are_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    good = encoded(Image.fromarray(noise), "JPEG", progressive=True).getvalue()
    assert decode(io.BytesIO(good)).size == (600, 600)
    start = good.rindex(b"\xff\xda")
    scans = good[:start] + good[start:-2] * 3000 + good[-2:]
    with pytest.raises(ValueError, match=r"a progressive JPEG of 30\d\d scans would take minutes"):
        decode(io.BytesIO(scans))


def test_drawings_under_the_name_of_a_picture_are_refused() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n"
    with pytest.raises(ValueError, match="a drawing"):
        decode(io.BytesIO(eps))


def test_sixteen_bits_and_frames_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    images = load_images(tmp_path)
    assert images.read(1).getpixel((0, 0))[0] < 50
    assert any("1 of 2 images have 16 bits a channel; the upper 8 are read" in text for text in caplog.messages)
    assert any("1 of 2 images have several frames or pages; the first is read" in text for text in caplog.messages)


def test_memory_that_runs_out_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.png").write_bytes(encoded(Image.new("RGB", (4, 4)), "PNG").getvalue())
    images = load_images(tmp_path)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DataError, match=r"1\.png: decoding it needs more memory than there is"):
        images.read(0)


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x"])
def test_a_fifo_in_place_of_a_source_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"is a FIFO, not a regular file; expected"):
        load_images(tmp_path / name)
    if name != "x":
        with pytest.raises(DataError, match=r"is a FIFO, not a regular file; expected"):
            load_images(tmp_path)
